// Mounts by descriptor (open_tree, fsmount, move_mount, mount_setattr) and paths that cannot leave a root (openat2).
//
// Nothing here takes a path inside a container's tree except through resolve_in_root or make_target, so a hostile tree
// can at most point at another place of itself.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

enum class Depth { kTopOnly, kWithMountsBelow };
enum class Symlinks { kFollowInRoot, kRefuse };
enum class TargetKind { kDirectory, kFile };

// unshare(CLONE_NEWNS) and everything private: nothing we mount is seen by the host, nothing of it comes to us.
[[nodiscard]] Result<void> make_private_mount_namespace();

// A detached copy of what is at `path` (below `dir`; empty: `dir` itself).
[[nodiscard]] Result<MountFd> clone_mount(const Fd& dir, const std::string& path, Depth depth);
[[nodiscard]] Result<MountFd> clone_mount(const std::string& path, Depth depth);

using MountOptions = std::vector<std::pair<std::string, std::string>>;  // an empty value: a flag
// kMayShare: what is mounted elsewhere already comes here as well, with the options that it has there. kOwn: EBUSY then, as far
// as the kernel can tell (6.6).
enum class Instance { kMayShare, kOwn };
// A new detached file system. `attributes`: MOUNT_ATTR_*. The kernel's own words are in the error.
[[nodiscard]] Result<MountFd> make_filesystem(const std::string& type, const MountOptions& options,
                                              std::uint64_t attributes, Instance instance = Instance::kMayShare);

// move_mount(2) on top of an opened place.
[[nodiscard]] Result<void> attach_mount(const MountFd& mount, const Fd& target);
// On what `path` below `dir` is. Only for places that no container can have changed yet: links on the way are followed.
[[nodiscard]] Result<void> attach_mount(const MountFd& mount, const Fd& dir, const std::string& path);
// Sets and clears MOUNT_ATTR_*; for all of the tree or none of it.
[[nodiscard]] Result<void> set_mount_attributes(const MountFd& mount, std::uint64_t set, std::uint64_t clear,
                                                Depth depth);
// Ids on disk are shifted by the maps of `user_ns`. Only for a detached mount.
[[nodiscard]] Result<void> set_mount_idmap(const MountFd& mount, const NsFd& user_ns, Depth depth);
// True when nothing can be written through the mount itself.
[[nodiscard]] bool is_readonly_mount(const Fd& place);

// openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS): O_PATH handle of a container path. errno of it in the error.
[[nodiscard]] Result<DirFd> resolve_in_root(const DirFd& root, std::string_view path, Symlinks symlinks,
                                            int flags = 0);
// As resolve_in_root, making what is missing with the caller's fsuid (OnDiskIdentity), then checks the kind.
[[nodiscard]] Result<DirFd> make_target(const DirFd& root, std::string_view path, TargetKind kind, Symlinks symlinks);

// While it lives, files are made and permissions checked as these host ids, with no capability over files: what is
// made in a container's tree belongs to container root, and an idmapped mount accepts no other. The umask is 022.
class OnDiskIdentity {
 public:
  OnDiskIdentity(uid_t uid, gid_t gid);
  ~OnDiskIdentity();
  OnDiskIdentity(const OnDiskIdentity&) = delete;
  OnDiskIdentity& operator=(const OnDiskIdentity&) = delete;

 private:
  int gid_before_, uid_before_;
  mode_t mask_before_;
};

// pivot_root(2) into the mount at `path`; the old root is detached.
[[nodiscard]] Result<void> change_root(const std::string& path);

}  // namespace virtuserns::kernel
