// Cleaning up after a controller that died: its container died with it, but groups, socket and stage stay.
#pragma once

#include "conf/base/result.h"
#include "driver/controller/plan.h"

namespace virtuserns::controller {

// Idempotent. The caller knows that the plan's controller is dead. An error when something could not be removed.
[[nodiscard]] Result<void> reap(const LaunchPlan& plan);

}  // namespace virtuserns::controller
