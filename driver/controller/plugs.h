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
  // `init`: held by its pidfd. Either all of it is done or nothing.
  [[nodiscard]] Result<Plugged> plug(const PlugAsk& ask, std::vector<Fd> sources, pid_t init);
  [[nodiscard]] Result<Unplugged> unplug(const UnplugAsk& ask, pid_t init);
  [[nodiscard]] Places places() const;

 private:
  struct Job;
  [[nodiscard]] Result<void> check(const PlugAsk& ask) const;
  [[nodiscard]] Result<void> attach(const ParentStep& step, Job& job);
  [[nodiscard]] Result<void> attach_mount(const MountFd& mount, const ParentStep& step, Job& job);
  [[nodiscard]] Result<void> detach(const ParentStep& step, Job& job);
  [[nodiscard]] Result<void> detach_mount(const std::string& place, PlaceKind kind, const Inside& inside);
  [[nodiscard]] Result<void> change_rules(const std::vector<DeviceRule>& gone, const std::vector<DeviceRule>& added);
  [[nodiscard]] const ParentStep* find(const std::string& place) const;

  LaunchPlan& plan_;
  Host& host_;
  std::map<std::string, std::string> host_links_;  // by the name inside
  struct Kept {
    std::optional<MountIdentity> mount;  // else it is none
    std::vector<DeviceRule> rules;
  };
  std::map<std::string, Kept> plugged_;
};

}  // namespace virtuserns::controller
