// The container's tree of mounts, built in the controller's own mount namespace while the child waits at the gate.
#pragma once

#include <sys/stat.h>

#include <map>
#include <string>
#include <vector>

#include "driver/controller/host.h"
#include "driver/kernel/console.h"
#include "driver/kernel/mount.h"

namespace virtuserns::controller {

// Mounts of the child's own namespaces, still detached.
struct NamespaceMounts {
  MountFd proc, sys, mqueue, cgroup;
};

// Where in the tree of the process that asks: "/dev/null". `host_proc`: of the machine.
[[nodiscard]] Result<std::string> path_of(const DirFd& host_proc, const Fd& place);
// Judged by where the place is, not by how it was asked for: a link in the image may lead to /proc. `top`: of the container's tree.
[[nodiscard]] Result<void> refuse_reserved(std::string_view path, std::string_view top);

// What a mount is told by in a list of mounts, wherever it has been moved.
struct MountIdentity {
  std::string device, root;  // as kernel::MountLine
  std::uint64_t id = 0;      // 0: not known, it was made by init
};
// Of what is mounted at a place of the stage.
[[nodiscard]] Result<MountIdentity> identity_at(const DirFd& host_proc, const std::string& place);
using LooseMounts = std::map<std::string, MountIdentity>;  // by target
// For init: where the mount of the plan's nth loose step waits.
[[nodiscard]] std::string loose_path(std::size_t number);

class Tree {
 public:
  Tree(const LaunchPlan& plan, const Host& host, const NsFd& user_ns) : plan_(plan), host_(host), user_ns_(user_ns) {}

  [[nodiscard]] Result<void> apply(const RootStep& step);
  [[nodiscard]] Result<void> apply(const BindStep& step);
  [[nodiscard]] Result<void> apply(const InnerBindStep& step);
  [[nodiscard]] Result<void> apply(const TmpfsStep& step);
  [[nodiscard]] Result<void> apply(const DevStep& step);
  [[nodiscard]] Result<void> apply(const DeviceNodeStep& step);
  [[nodiscard]] Result<void> apply(const ProcStep& step, const NamespaceMounts& mounts);
  [[nodiscard]] Result<void> apply(const SysStep& step, const NamespaceMounts& mounts);
  [[nodiscard]] Result<void> apply(const CgroupMountStep& step, const NamespaceMounts& mounts);
  [[nodiscard]] Result<void> apply(const MqueueStep& step, const NamespaceMounts& mounts);
  // The same before it is anywhere, detached. `folder`: where a node can be made, which stays until the mount is attached.
  [[nodiscard]] Result<MountFd> make(const BindStep& step) const;
  [[nodiscard]] Result<MountFd> make(const TmpfsStep& step) const;
  [[nodiscard]] Result<MountFd> make(const DeviceNodeStep& step, const DirFd& folder) const;
  // What has to wait until every target exists: read-only of the root itself.
  [[nodiscard]] Result<void> finish();

  [[nodiscard]] std::vector<kernel::Pty> take_consoles() { return std::move(consoles_); }
  [[nodiscard]] Fd take_devpts() { return std::move(devpts_); }
  [[nodiscard]] LooseMounts take_loose() { return std::move(loose_); }
  // Removes the tree of an earlier boot or of a failed one from the controller's namespace.
  static void clear();

  [[nodiscard]] Result<const Source*> find_source(std::uint32_t id) const;

 private:
  [[nodiscard]] Result<MountFd> clone_source(const Source& source, OwnerShift shift) const;
  [[nodiscard]] Result<void> set_aside(const MountFd& mount, const std::string& target);
  [[nodiscard]] Result<void> attach_at(const MountFd& mount, const std::string& target, bool is_system);
  [[nodiscard]] Result<void> attach_in_dev(const MountFd& mount, const std::string& name, kernel::TargetKind kind);
  [[nodiscard]] Result<MountFd> make_own_node(const struct stat& host_node, const DirFd& folder) const;
  [[nodiscard]] Result<void> attach_console(const MountFd& pts, const std::string& name, std::uint32_t number);
  [[nodiscard]] Result<void> attach_bare(const MountFd& mount, const char* name);
  [[nodiscard]] Result<void> mask(const MountFd& top, const std::string& top_path,
                                  const std::vector<std::string>& paths);

  const LaunchPlan& plan_;
  const Host& host_;
  const NsFd& user_ns_;
  DirFd root_, dev_;
  bool is_root_readonly_ = false;
  std::vector<kernel::Pty> consoles_;
  Fd devpts_;
  LooseMounts loose_;
};

}  // namespace virtuserns::controller
