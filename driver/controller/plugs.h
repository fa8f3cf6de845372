// The stem's half of plug.h: what it does to a container that runs, and to the plan by which it boots again.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "conf/base/undo.h"
#include "driver/controller/boot.h"
#include "driver/controller/child_links.h"
#include "driver/controller/plug.h"
#include "driver/controller/plug_mounts.h"

namespace virtuserns::controller {

class Plugs {
 public:
  // Both outlive this.
  Plugs(LaunchPlan& plan, Host& host) : plan_(plan), host_(host) {}

  // Init was made by plan_ as it is now.
  void booted(const Boot& boot);
  // Asks are for a container whose init has been exec'd, and which its pidfd says is not over.
  [[nodiscard]] Result<Plugged> plug(const PlugAsk& ask, std::vector<Fd> sources, const PidFd& init, pid_t pid);
  [[nodiscard]] Result<Unplugged> unplug(const UnplugAsk& ask, const PidFd& init, pid_t pid);
  [[nodiscard]] Places places() const;
  [[nodiscard]] Result<PasswordSet> set_password(const PasswordAsk& ask, const PidFd& init, pid_t pid) const;
  [[nodiscard]] int descriptor() const { return user_ns_.get(); }

 private:
  struct Kept {
    std::optional<MountIdentity> mount;
    std::optional<LiveLink> link;
    std::vector<DeviceRule> rules;
  };
  [[nodiscard]] Result<Inside> open_inside(const PidFd& init, pid_t pid) const;
  [[nodiscard]] Result<Inside> enter(const PidFd& init, pid_t pid) const;
  [[nodiscard]] Result<void> check(const PlugAsk& ask) const;
  [[nodiscard]] Result<Kept> attach(const ParentStep& step, const Inside& inside);
  [[nodiscard]] Result<void> configure(const PlugAsk& ask, const Inside& inside, const LiveLink& link) const;
  void take_back(const ParentStep& step, const Kept& kept, const Inside& inside);
  [[nodiscard]] Result<void> detach(const ParentStep& step, const Inside& inside);
  [[nodiscard]] Result<void> detach_mount(const ParentStep& step, const Inside& inside);
  [[nodiscard]] Result<void> change_rules(const std::vector<DeviceRule>& gone, const std::vector<DeviceRule>& added);
  [[nodiscard]] std::vector<DeviceRule> rules_of(const ParentStep& step) const;
  [[nodiscard]] const ParentStep* find(const std::string& place) const;

  LaunchPlan& plan_;
  Host& host_;
  NsFd user_ns_;
  ino_t net_ns_ = 0;
  std::map<std::string, HostEnd> host_ends_;  // by the name inside
  std::map<std::string, LiveLink> macvlans_;
  std::map<std::string, Kept> plugged_;
  std::map<std::string, dev_t> dead_nodes_;  // of the start, without their right; the kernel keeps them
};

}  // namespace virtuserns::controller
