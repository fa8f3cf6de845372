// What every program of a container is given and denied just before its exec: init, and commands that come later. One
// place, so that no command is ever less confined than init.
#pragma once

#include <optional>
#include <string>

#include "driver/controller/plan.h"
#include "driver/controller/users.h"
#include "driver/kernel/seccomp.h"

namespace virtuserns::controller {

// exec keeps ignored signals ignored and blocked ones blocked (execve(2)); the controller has some of both.
void reset_signals();
// A new session and a new session keyring.
[[nodiscard]] Result<void> make_session();
[[nodiscard]] Result<void> set_limit(const RlimitStep& step);
[[nodiscard]] Result<void> set_personality(const PersonalityStep& step);

// Of a process that is still in the host's mount namespace or in none of the container's, for itself and what it clones.
[[nodiscard]] Result<void> apply_apparmor(const LaunchPlan& plan, const DirFd& host_proc);

// The ids of a user and a group, from the files of the container: call it in its mount namespace. `user_word` and
// `group_word` are what an error calls them.
struct WantedIdentity {
  const char *user_word, *group_word;
  const std::string &user, &group;
};
[[nodiscard]] Result<Identity> read_identity(const WantedIdentity& wanted);

// These only take effect together and in one order: each of them takes away what another needs. First
// give_up_privileges, then whatever the filter might refuse, then install_filter, then exec.
class Confinement {
 public:
  void set(const CapabilitiesStep& step) { capabilities_ = &step; }
  void set(const SeccompStep& step) { seccomp_ = &step; }
  void set(Identity identity) { identity_ = std::move(identity); }
  [[nodiscard]] Result<void> give_up_privileges();
  // kNotified: the listener of the filter, if the plan wants refusals told and the kernel can; else empty.
  [[nodiscard]] Result<Fd> install_filter(kernel::Refusals refusals) const;

 private:
  const CapabilitiesStep* capabilities_ = nullptr;
  const SeccompStep* seccomp_ = nullptr;
  std::optional<Identity> identity_;
  std::uint64_t final_capabilities_ = 0;
};

}  // namespace virtuserns::controller
