// Mounts that come into a container that runs, and leave it; and what else is done in there.
//
// What is done inside is done as container root by a short-lived process, in the container's own namespaces: a hostile tree leads it to
// nothing that the container has not got already, and a file system that never answers holds nobody but that process. It has nothing
// open of the host but its /proc.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "driver/controller/tree.h"

namespace virtuserns::controller {

// The namespaces of a container that runs.
struct Inside {
  NsFd user;        // the one it was made with: init may have gone on to one of its own, with other ids
  NsFd mount, net;  // init's
  std::uint32_t host_uid = 0, host_gid = 0;  // of container root
  std::string profile;                       // of AppArmor, to be the container's in that too; empty: to stay the stem's
};

enum class PlaceKind { kFolder, kNode };  // kNode: in /dev, no link on the way, an empty file below it
[[nodiscard]] PlaceKind kind_of(const ParentStep& step);
[[nodiscard]] bool is_loose(const ParentStep& step);
// In the container's mount namespace, by container root, who is in no other. `mount`: detached.
[[nodiscard]] Result<void> attach_here(const MountFd& mount, const std::string& target, PlaceKind kind);

struct PluggedMount {
  MountIdentity identity;
  std::string target;  // where it was put; the container may have moved it
  PlaceKind kind = PlaceKind::kFolder;
};

// At `target`, which is made when it is missing; owners, errors and what is refused as at a start (Tree). The flags of `mount`
// (MOUNT_ATTR_RDONLY, MOUNT_ATTR_NODEV) are locked for the container, as everything is that a less privileged mount namespace gets
// from one above (mount_namespaces(7)); the mount itself is not: container root may unmount it. VIR_ERR_OPERATION_TIMEOUT: if it
// is made all the same, tend_errands() takes it back.
[[nodiscard]] Result<MountIdentity> attach_inside(const Host& host, const Inside& inside, const MountFd& mount,
                                                  const std::string& target, PlaceKind kind);
// VIR_ERR_RESOURCE_BUSY: in use, or something else lies on it. What the container has unmounted itself is no error; what it has mounted
// elsewhere of it stays there.
[[nodiscard]] Result<void> detach_inside(const Host& host, const Inside& inside, const PluggedMount& mount);

// What else is done inside, by a process of the same kind, which is in the container's root. VIR_ERR_OPERATION_TIMEOUT: it may be done yet.
[[nodiscard]] Result<void> do_inside(const Host& host, const Inside& inside,
                                     const std::function<Result<void>()>& deed);

// Those that did not come back in time: called now and then, as long as it says that there are any.
[[nodiscard]] bool tend_errands(const Host& host);

}  // namespace virtuserns::controller
