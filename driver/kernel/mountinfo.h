// /proc/PID/mountinfo (proc_pid_mountinfo(5)). Paths in it are foreign text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

struct MountLine {
  std::uint64_t id = 0, parent = 0;  // numbers that are given to others when it is gone; parent: what it lies on
  std::string device;                // "8:1", of the file system
  std::string root, place;           // what of the file system it shows; where
};
// Lines that are none are left out.
[[nodiscard]] std::vector<MountLine> parse_mountinfo(std::string_view text);
// Those that the caller sees, oldest first. `proc`: a procfs that knows the caller.
[[nodiscard]] Result<std::vector<MountLine>> list_own_mounts(const DirFd& proc);

}  // namespace virtuserns::kernel
