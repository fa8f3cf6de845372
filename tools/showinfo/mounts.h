// /proc/PID/mountinfo (proc(5)). Paths and options in it are foreign text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace virtuserns::showinfo {

struct Mount {
  std::uint64_t id = 0, parent = 0;
  std::string root, place;  // as escaped by the kernel: "\040" for a blank
  bool is_read_only = false, has_nodev = false, has_noexec = false, is_idmapped = false;
  std::string type;
  bool is_read_only_filesystem = false;
};

// Lines that are none are left out.
[[nodiscard]] std::vector<Mount> parse_mountinfo(std::string_view text);

// A mount of `type` that shows all of it: of its root, writable, with nothing laid over but the kernel's own empty places.
[[nodiscard]] bool has_whole_view(const std::vector<Mount>& mounts, std::string_view type);

// A line of devices.list (control groups v1) lets the access through; `access` in its letters.
[[nodiscard]] bool is_in_device_list(std::string_view list, char kind, std::uint32_t major, std::uint32_t minor,
                                     std::string_view access);

}  // namespace virtuserns::showinfo
