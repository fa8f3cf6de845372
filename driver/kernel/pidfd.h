// Processes by pidfd: never by a number that may have been given to another.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <optional>
#include <utility>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

[[nodiscard]] Result<PidFd> open_process(pid_t pid);
[[nodiscard]] Result<void> send_signal(const PidFd& process, int signal);
// To the process group that it leads, also when it has ended itself. `number` is its pid: before Linux 6.9 there is no other
// way to name the group, and the caller has to know that nobody reaps the leader meanwhile.
[[nodiscard]] Result<void> send_signal_to_group(const PidFd& leader, pid_t number, int signal);
// Nobody can be waiting for it any more: its number is free.
[[nodiscard]] bool is_reaped(const PidFd& process);
// Waits at most `timeout_ms` (-1: for ever) until the process has ended. True when it has.
[[nodiscard]] bool has_ended(const PidFd& process, int timeout_ms = 0);
// Reaps a child of ours that has ended or ends within `timeout_ms`: its wait status as of waitpid(2).
// nullopt: it lives.
[[nodiscard]] Result<std::optional<int>> wait_process(const PidFd& process, int timeout_ms = -1);
// Every child of ours that has ended, whoever made it.
void reap_all();

// A child of ours with one thing to do: killed, if it still lives, and reaped when this goes.
class Errand {
 public:
  Errand() = default;
  explicit Errand(PidFd process) : process_(std::move(process)) {}
  Errand(Errand&&) = default;
  Errand& operator=(Errand&& other) noexcept {
    Errand moved(std::move(other));
    std::swap(process_, moved.process_);
    return *this;
  }
  ~Errand();
  // It has done its thing and ends by itself.
  void await();

 private:
  PidFd process_;
};

}  // namespace virtuserns::kernel
