// One boot of the container: from nothing to an exec'd init, or to nothing again and a reason.
//
// In two halves. begin_boot needs all privileges and meets nothing that the container could have made: its init does not
// run yet. The other half hears what init says for itself, and needs none (stem.h says who does which).
#pragma once

#include <sched.h>

#include <map>
#include <optional>
#include <vector>

#include "driver/controller/child_links.h"
#include "driver/controller/host.h"
#include "driver/controller/protocol.h"
#include "driver/controller/tree.h"
#include "driver/kernel/console.h"

namespace virtuserns::controller {

struct Boot {
  PidFd init;
  BootRecord record;  // `boots` is the caller's
  std::vector<kernel::Pty> consoles;
  Fd refusals;  // the listener of init's filter; empty: there is none
  Fd devpts;    // the container's own instance, for terminals of commands
  // What later boots and devices are told by: it is seen while init waits, and no process of the container can put another in its place.
  LooseMounts loose;
  std::vector<HostEnd> host_ends;  // as record.host_links
  std::map<std::string, LiveLink> macvlans;
  NsFd user_ns;
  ino_t net_ns = 0;
};

// What the starter and the child say to the controller.
struct Born {  // with its pidfd
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
// Of an errand inside (plug_mounts.h).
struct Mounted {
  std::uint64_t id = 0;
};
using ChildMessage = std::variant<Born, AboutToExec, WireError, Entered, NotRun, Mounted>;
// What init is told, in this order:
enum class GoOn : std::uint32_t {
  kGateIsOpen = 1,  // all that its parent does for it is done
  kExec,            // whoever will supervise it is ready for what it may do
};

// Init is made, goes on by itself, and waits before its exec.
struct Waiting {
  Boot boot;
  SocketFd gate;
  Fd ready;       // a byte comes when init has made its namespaces
  PidFd starter;  // ends by itself; to be reaped by its parent
};
// Whose children init and its starter are: the caller's, or (CLONE_PARENT) those of the caller's parent.
enum class Parent : std::uint64_t { kCaller = 0, kItsParent = CLONE_PARENT };

// Called after Host::prepare. On failure init is dead, its links and mounts are gone; the groups stay (Host::release, or
// the next boot). It is also reaped, if it was the caller's child.
[[nodiscard]] Result<Waiting> begin_boot(const LaunchPlan& plan, const Host& host,
                                         const std::vector<Fd>& passed_files, Parent parent);
// What begin_boot made and nobody wants any more.
void abandon(Waiting& waiting);
// Lets init exec and waits for it. On failure it is for the caller to end it. Called by init's parent.
[[nodiscard]] Result<Boot> open_gate(const Host& host, Waiting waiting);

// from_parent's steps, for begin_boot() alone.
struct Child {
  pid_t pid = 0;
  const PidFd& pidfd;
  const Fd& ready;
};
[[nodiscard]] Result<void> apply_from_parent(const LaunchPlan& plan, const Host& host, const Child& child,
                                             Boot& result);

// Init's ends of Waiting's gate and ready.
struct InitEnds {
  SocketFd channel;
  Fd ready;
};
// The child between clone and exec. Never returns; reports on the channel; never logs, never locks.
[[noreturn]] void run_init(const LaunchPlan& plan, InitEnds& ends, const std::vector<Fd>& passed_files);

[[nodiscard]] WireError to_wire(const Error& error);
[[nodiscard]] Error from_wire(WireError error);
// Bound: an error crosses a packet and may quote foreign text.
inline constexpr std::size_t kMaxErrorText = 4096;

}  // namespace virtuserns::controller
