// What all that descends from a controller takes, by /proc: for a domain in no control group, that of a user to whom none was
// delegated. Init and commands are the controller's children, and orphans come back to init.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace virtuserns::userns {

struct TreeUsage {
  std::uint64_t user_ns = 0, system_ns = 0;  // of the living, and of those that were waited for
  std::uint64_t memory_kib = 0;              // anonymous and shared memory; what several share counts for each
};
// Zero for what is not there any more. At most some ten thousand processes are looked at; of the controller and its stem what
// they have waited for alone.
[[nodiscard]] TreeUsage usage_of_tree(const std::string& proc, pid_t controller);

}  // namespace virtuserns::userns
