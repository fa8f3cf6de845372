// Processes by pidfd: never by a number that may have been given to another.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <optional>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

[[nodiscard]] Result<PidFd> open_process(pid_t pid);
[[nodiscard]] Result<void> send_signal(const PidFd& process, int signal);
// Waits at most `timeout_ms` (-1: for ever) until the process has ended. True when it has.
[[nodiscard]] bool has_ended(const PidFd& process, int timeout_ms = 0);
// Reaps a child of ours that has ended or ends within `timeout_ms`: its wait status as of waitpid(2).
// nullopt: it lives.
[[nodiscard]] Result<std::optional<int>> wait_process(const PidFd& process, int timeout_ms = -1);

}  // namespace virtuserns::kernel
