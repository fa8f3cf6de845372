#include "driver/kernel/seccomp.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace virtuserns::kernel {

namespace {

int install(std::vector<sock_filter>& code, unsigned flags) {
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  return static_cast<int>(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}

}  // namespace

Result<Fd> install_seccomp_filter(std::span<const std::uint8_t> program, Refusals refusals) {
  std::vector<sock_filter> code(program.size() / sizeof(sock_filter));
  std::memcpy(code.data(), program.data(), code.size() * sizeof(sock_filter));
  if (refusals == Refusals::kNotified) {
    auto notifying = code;
    for (auto& instruction : notifying)
      if (instruction.code == (BPF_RET | BPF_K) && instruction.k == (SECCOMP_RET_ERRNO | EPERM))
        instruction.k = SECCOMP_RET_USER_NOTIF;
    if (Fd listener(install(notifying, SECCOMP_FILTER_FLAG_NEW_LISTENER)); listener) return listener;
    // EBUSY: we are inside a container whose own filter has a listener. EINVAL: before Linux 5.0; or a bad program, which
    // the next call says.
    if (errno != EBUSY && errno != EINVAL) return sys_fail("install seccomp filter");
  }
  if (install(code, 0) != 0) return sys_fail("install seccomp filter");
  return Fd();
}

Result<std::optional<RefusedCall>> receive_refused(const Fd& listener) {
  // The kernel wants its whole structure zeroed, which may be larger than the one we know.
  union {
    seccomp_notif notification;
    char space[1024];
  } buffer;
  std::memset(&buffer, 0, sizeof buffer);
  if (::ioctl(listener.get(), SECCOMP_IOCTL_NOTIF_RECV, &buffer) != 0) {
    if (errno == ENOENT || errno == EINTR) return std::optional<RefusedCall>();
    return sys_fail("receive a refused system call");
  }
  const auto& data = buffer.notification.data;
  RefusedCall call{buffer.notification.id,
                   static_cast<pid_t>(buffer.notification.pid),
                   data.arch,
                   static_cast<std::uint32_t>(data.nr),
                   {}};
  for (std::size_t i = 0; i < call.arguments.size(); ++i) call.arguments[i] = data.args[i];
  return std::optional<RefusedCall>(call);
}

bool still_waits(const Fd& listener, const RefusedCall& call) {
  auto id = call.id;
  return ::ioctl(listener.get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

void answer_refused(const Fd& listener, const RefusedCall& call, int error) {
  union {
    seccomp_notif_resp response;
    char space[1024];
  } buffer;
  std::memset(&buffer, 0, sizeof buffer);
  buffer.response.id = call.id;
  buffer.response.error = -error;
  (void)::ioctl(listener.get(), SECCOMP_IOCTL_NOTIF_SEND, &buffer);  // ENOENT: the caller has ended
}

}  // namespace virtuserns::kernel
