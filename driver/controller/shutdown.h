// Asking init to go down in the way that its kind understands.
#pragma once

#include "driver/controller/protocol.h"
#include "driver/kernel/process.h"

namespace virtuserns::controller {

// `pid` is the number of `process`, and its own until its parent has reaped it. What is done, is done to `process`.
struct InitProcess {
  const DirFd& proc;
  const PidFd& process;
  pid_t pid;
};

enum class InitKind { kSystemd, kBusybox, kSysvinit, kOther };
// By what the process is now; what it says of itself (cmdline) is only used to tell busybox's applets apart.
[[nodiscard]] InitKind tell_init_kind(std::string_view exe, std::string_view cmdline);
// Caught, or blocked and so fetched by sigwait or signalfd. Everything else the kernel drops for the init of a pid
// namespace without a word (pid_namespaces(7)).
[[nodiscard]] bool is_handled(const kernel::ProcessStatus& status, int signal);

enum class Asked { kForWhatWasWanted, kToEnd };  // kToEnd: asked to end where a reboot was wanted
// Never success when nothing was done: an init that handles none of the signals in question is an error that says so.
[[nodiscard]] Result<Asked> ask_to_shut_down(const InitProcess& init, const ShutdownRequest& request);

}  // namespace virtuserns::controller
