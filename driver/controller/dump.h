// A running domain as it looks from outside, as a tar, for whoever has to find out why it hangs: `virtuserns-controller --dump`.
//
//   MANIFEST                    of what, when, and what was left out; the last file
//   domain.xml                  the live definition
//   console.log                 its end
//   mounts                      /proc/PID/mountinfo of init
//   cgroup/CONTROLLERS/FILE     statistics of the domain's groups
//   processes/PID/FILE          status, stat, cmdline, wchan, maps, limits, cgroup, descriptors (what they are open on)
//   processes/PID/task/TID/FILE comm, stat, wchan, stack
//
// No memory, no environment, and nothing of the kernel's log. Nothing is stopped for it. A process of its own, because reading some of it
// waits for what the domain may hold (proc(5), maps of a process that waits for its own FUSE): whoever runs it has a time limit.
#pragma once

#include <cstdint>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/controller/plug.h"

namespace virtuserns::controller {

inline constexpr std::uint64_t kMaxBundleBytes = 16 * 1024 * 1024;

[[nodiscard]] Result<void> dump(const DumpAsk& ask, const Fd& output);

}  // namespace virtuserns::controller
