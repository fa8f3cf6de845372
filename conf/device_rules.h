// Which device nodes a domain may open: one table for cgroup v1's devices.allow and v2's BPF program.
// Documentation/admin-guide/cgroup-v1/devices.rst, cgroup-v2.rst "Device controller".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace virtuserns {

enum class DeviceKind { kCharacter, kBlock };

// A right to use one device, or all of a major number. What no rule names is refused.
struct DeviceRule {
  static constexpr std::uint32_t kRead = 1, kWrite = 2, kMakeNode = 4;
  DeviceKind kind = DeviceKind::kCharacter;
  std::uint32_t major = 0;
  std::optional<std::uint32_t> minor;  // nothing: every minor
  std::uint32_t access = kRead | kWrite | kMakeNode;
  friend bool operator==(const DeviceRule&, const DeviceRule&) = default;
};

// What every domain may use: null, zero, full, random, urandom, tty, console, ptmx and the pseudo terminals.
[[nodiscard]] const std::vector<DeviceRule>& standard_device_rules();

// "c 1:3 rwm", as devices.allow takes it.
[[nodiscard]] std::string format_device_rule(const DeviceRule& rule);

}  // namespace virtuserns
