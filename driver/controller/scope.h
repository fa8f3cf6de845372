// A domain's place among systemd's units. systemd makes the scope and moves the controller in; what is below is ours,
// because the scope is delegated: `container` with the limits, and on v2 `supervisor` for the controller itself.
#pragma once

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/controller/plan.h"

namespace virtuserns::controller {

[[nodiscard]] bool needs_scope(const LaunchPlan& plan);
// Waits on the channel for the daemon's Placed. The daemon's end is an error: nobody else would ask systemd.
[[nodiscard]] Result<void> await_scope(int channel);
// Moves this process and its children to `supervisor`, which goes when systemd removes the scope.
[[nodiscard]] Result<void> enter_supervisor(const CgroupStep& step, const DirFd& proc);

}  // namespace virtuserns::controller
