// One boot of the container: from nothing to an exec'd init, or to nothing again and a reason.
#pragma once

#include <optional>
#include <vector>

#include "driver/controller/host.h"
#include "driver/controller/protocol.h"
#include "driver/kernel/console.h"

namespace virtuserns::controller {

struct Boot {
  PidFd init;
  BootRecord record;  // `boots` is the caller's
  std::vector<kernel::Pty> consoles;
  Fd refusals;  // the listener of init's filter; empty: there is none
  Fd devpts;    // the container's own instance, for terminals of commands
};

// What the starter and the child say to the controller.
struct Born {
  std::int32_t pid = 0;
};
struct AboutToExec {};  // with the listener of the filter, where there is one
// Of a command that joins a running container (enter.h): with its pidfd, then our ends of its pipes or terminal.
struct Entered {
  std::int32_t pid = 0;
};
struct NotRun {
  std::int32_t status = 0;  // 126, 127
  std::string text;
};
using ChildMessage = std::variant<Born, AboutToExec, WireError, Entered, NotRun>;
// What they are told: go on.
struct GateOpen {};

// Called by the single-threaded controller after Host::prepare. On failure init is dead and reaped, its links and
// mounts are gone; the groups stay (Host::release, or the next boot).
[[nodiscard]] Result<Boot> boot(const LaunchPlan& plan, const Host& host, const std::vector<Fd>& passed_files);

// from_parent's steps, for boot() alone.
struct Child {
  pid_t pid = 0;
  const PidFd& pidfd;
};
[[nodiscard]] Result<void> apply_from_parent(const LaunchPlan& plan, const Host& host, const Child& child,
                                             Boot& result);

// The child between clone and exec. Never returns; reports on `channel`; never logs, never locks.
[[noreturn]] void run_init(const LaunchPlan& plan, int channel, const std::vector<Fd>& passed_files);

[[nodiscard]] WireError to_wire(const Error& error);
[[nodiscard]] Error from_wire(WireError error);
// Bound: an error crosses a packet and may quote foreign text.
inline constexpr std::size_t kMaxErrorText = 4096;

}  // namespace virtuserns::controller
