// The machine, as a scheduler counts it.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "driver/compute/compute.h"
#include "driver/compute/json.h"

namespace virtuserns::compute {

// Answers of the methods host.* (docs/compute-api.md). Thread-safe.
class Host {
 public:
  Host(Compute& compute) : compute_(compute) {}

  [[nodiscard]] Result<Json> describe();
  [[nodiscard]] Result<Json> resources();
  [[nodiscard]] Result<Json> inventory();
  [[nodiscard]] Result<Json> uptime();
  [[nodiscard]] Result<Json> cpu_stats();
  [[nodiscard]] Result<std::string> hypervisor_type();

 private:
  Compute& compute_;
};

// Of the line "flags" of /proc/cpuinfo: names of Placement's standard traits (os_traits.hw.cpu.x86). Sorted.
[[nodiscard]] std::vector<std::string> cpu_traits(std::string_view cpuinfo);

}  // namespace virtuserns::compute
