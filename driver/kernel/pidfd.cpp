#include "driver/kernel/pidfd.h"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>

namespace virtuserns::kernel {

Result<PidFd> open_process(pid_t pid) {
  PidFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process) return sys_fail("open process " + std::to_string(pid));
  return process;
}

Result<void> send_signal(const PidFd& process, int signal) {
  if (::syscall(SYS_pidfd_send_signal, process.get(), signal, nullptr, 0) != 0)
    return sys_fail("send signal " + std::to_string(signal));
  return {};
}

Result<void> send_signal_to_group(const PidFd& leader, pid_t number, int signal) {
  constexpr unsigned kProcessGroup = 1u << 2;  // PIDFD_SIGNAL_PROCESS_GROUP
  if (::syscall(SYS_pidfd_send_signal, leader.get(), signal, nullptr, kProcessGroup) == 0) return {};
  if (errno != EINVAL) return sys_fail("signal process group");
  if (::kill(-number, signal) != 0) return sys_fail("signal process group");
  return {};
}

bool is_reaped(const PidFd& process) {
  return ::syscall(SYS_pidfd_send_signal, process.get(), 0, nullptr, 0) != 0 && errno == ESRCH;
}

bool has_ended(const PidFd& process, int timeout_ms) {
  pollfd entry{process.get(), POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&entry, 1, timeout_ms)) < 0 && errno == EINTR) {
  }
  return ready > 0;
}

Result<std::optional<int>> wait_process(const PidFd& process, int timeout_ms) {
  if (!has_ended(process, timeout_ms)) return std::optional<int>();
  siginfo_t info{};
  // __WALL: children made without an exit signal are waited for only when asked (wait(2)).
  while (::waitid(P_PIDFD, static_cast<id_t>(process.get()), &info, WEXITED | __WALL) != 0)
    if (errno != EINTR) return sys_fail("wait for process");
  const int status = info.si_status;
  switch (info.si_code) {
    case CLD_EXITED:
      return std::optional<int>((status & 0xff) << 8);
    case CLD_DUMPED:
      return std::optional<int>(status | 0x80);
    default:
      return std::optional<int>(status);
  }
}

void reap_all() {
  siginfo_t info{};
  do info.si_pid = 0;
  while (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | __WALL) == 0 && info.si_pid != 0);
}

Errand::~Errand() {
  if (!process_) return;
  (void)send_signal(process_, SIGKILL);
  (void)wait_process(process_);
}

void Errand::await() {
  if (process_) (void)wait_process(process_);
  process_.reset();
}

}  // namespace virtuserns::kernel
