// An overlay: directories that are only read, and over them what one domain writes.
//
// It is made once in the controller's life and kept as a source; every boot clones that mount. Layers are idmapped before they
// become part of it, because the kernel idmaps no overlay, by a user namespace that has the domain's maps and nobody in it.
// Whatever the kernel does to layers on behalf of the container it does as the domain's root with the few capabilities
// that are named in overlay.cpp, so that a file of an id that the domain does not have stays out of reach.
#pragma once

#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/controller/plan.h"

namespace virtuserns::controller {

struct OverlayContext {
  const LaunchPlan& plan;
  const DirFd& proc;
  const DirFd& stage;  // mounted at plan.stage_path
};

struct Overlay {
  MountFd mount;
  // Of what is written, and of lower directories that other domains write to when they are not below one: held for as long as
  // the domain lives, by the kernel, whoever dies.
  std::vector<Fd> locks;
};

// Before the caller has a root of its own. Each path is followed once. After a failure nothing is left of it.
[[nodiscard]] Result<Overlay> open_overlay(const OverlaySourceStep& step, const OverlayContext& context);

}  // namespace virtuserns::controller
