// The container's tree of mounts, built in the controller's own mount namespace while the child waits at the gate.
#pragma once

#include <sys/stat.h>

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
  // What has to wait until every target exists: read-only of the root itself.
  [[nodiscard]] Result<void> finish();

  [[nodiscard]] std::vector<kernel::Pty> take_consoles() { return std::move(consoles_); }
  [[nodiscard]] Fd take_devpts() { return std::move(devpts_); }
  // Removes the tree of an earlier boot or of a failed one from the controller's namespace.
  static void clear();

 private:
  [[nodiscard]] Result<const Source*> find_source(std::uint32_t id) const;
  [[nodiscard]] Result<MountFd> clone_source(const Source& source, OwnerShift shift) const;
  [[nodiscard]] Result<void> refuse_reserved(const Fd& place) const;
  [[nodiscard]] Result<void> attach_at(const MountFd& mount, const std::string& target, bool is_system);
  [[nodiscard]] Result<void> attach_in_dev(const MountFd& mount, const std::string& name, kernel::TargetKind kind);
  [[nodiscard]] Result<void> attach_own_node(const struct stat& host_node, const std::string& target);
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
};

}  // namespace virtuserns::controller
