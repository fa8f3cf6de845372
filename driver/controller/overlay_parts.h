// The directories of an overlay: opened, looked at, locked, and, where they are the domain's own, made. Internal to overlay.
#pragma once

#include <sys/types.h>

#include <memory>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "conf/base/undo.h"
#include "driver/controller/plan.h"

namespace virtuserns::controller {

[[nodiscard]] Result<const IdMaps*> find_maps(const LaunchPlan& plan);

// A detached mount of a directory that is only read. If it is what another domain writes to, it is locked against
// that; it may not be inside of such a one.
[[nodiscard]] Result<MountFd> open_lower(const OverlayLayer& layer, std::vector<Fd>& locks);

// Who `upper` belongs to on disk when it is made, and its mode: those of the top directory below it, because it is what the
// container sees of both.
struct NewUpper {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0755;
};
[[nodiscard]] Result<NewUpper> like(const MountFd& lower, OwnerShift of_lower, OwnerShift of_own,
                                    const LaunchPlan& plan);

struct OwnParts {
  std::shared_ptr<const DirFd> place;  // the domain's directory, as the host has it
  MountFd mount;                       // of it, detached
  DirFd upper, work;                   // in that
  Fd lock;
};
// Makes what is missing, and keeps others than its owner out of the directory before `upper` is there; `undo` takes that back.
// Where owners are shifted the directory has to be host root's.
[[nodiscard]] Result<OwnParts> open_own(const OverlaySourceStep& step, const NewUpper& model, const LaunchPlan& plan,
                                        Undo& undo);

}  // namespace virtuserns::controller
