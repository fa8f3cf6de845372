#include "driver/kernel/caps.h"

#include <linux/capability.h>
#include <linux/keyctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace virtuserns::kernel {

namespace {

// Of the calling thread.
struct Sets {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct halves[2]{};

  [[nodiscard]] bool read() { return ::syscall(SYS_capget, &header, halves) == 0; }
  [[nodiscard]] bool write() { return ::syscall(SYS_capset, &header, halves) == 0; }
  [[nodiscard]] std::uint64_t effective() const {
    return std::uint64_t{halves[1].effective} << 32 | halves[0].effective;
  }
  // As far as they are permitted.
  void make_effective(std::uint64_t wanted) {
    for (int half = 0; half < 2; ++half)
      halves[half].effective = halves[half].permitted & static_cast<std::uint32_t>(wanted >> (32 * half));
  }
};

Result<void> set_capabilities(std::uint64_t permitted, std::uint64_t effective) {
  Sets sets;
  if (!sets.read()) return sys_fail("read capabilities");
  for (int half = 0; half < 2; ++half) {
    sets.halves[half].permitted &= static_cast<std::uint32_t>(permitted >> (32 * half));
    sets.halves[half].inheritable = 0;
  }
  sets.make_effective(effective);
  if (!sets.write()) return sys_fail("limit capabilities");
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return sys_fail("clear ambient capabilities");
  return {};
}

}  // namespace

Result<void> limit_bounding_set(std::uint64_t keep) {
  for (unsigned long capability = 0; capability < 64; ++capability) {
    if ((keep >> capability & 1) != 0) continue;
    const int is_set = ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
    if (is_set < 0) break;  // EINVAL: the kernel knows no more of them
    if (is_set == 1 && ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0)
      return sys_fail("drop capability " + std::to_string(capability) + " from the bounding set");
  }
  return {};
}

Result<void> limit_capabilities(std::uint64_t keep) { return set_capabilities(keep, keep); }

Result<void> limit_privileges(std::uint64_t keep) {
  TRY(limit_bounding_set(keep));
  return limit_capabilities(keep);
}

Result<void> hand_on_capabilities(std::uint64_t keep) {
  TRY(limit_capabilities(keep));
  Sets sets;
  if (!sets.read()) return sys_fail("read capabilities");
  for (auto& half : sets.halves) half.inheritable = half.permitted;
  if (!sets.write()) return sys_fail("make capabilities inheritable");
  for (unsigned long capability = 0; capability < 64; ++capability)
    if ((keep >> capability & 1) != 0 && ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) != 0)
      return sys_fail("hand on capability " + std::to_string(capability));
  return {};
}

Result<void> hold_capabilities(std::uint64_t keep) { return set_capabilities(keep, 0); }

Result<void> leave_session_keyring() {
  if (::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr) < 0 && errno != ENOSYS && errno != EPERM)
    return sys_fail("make a session keyring");
  return {};
}

Raised::Raised(std::uint64_t capabilities) {
  Sets sets;
  if (!sets.read()) return;
  before_ = sets.effective();
  sets.make_effective(before_ | capabilities);
  (void)sets.write();
}

Raised::~Raised() {
  Sets sets;
  if (!sets.read()) return;
  sets.make_effective(before_);
  (void)sets.write();
}

}  // namespace virtuserns::kernel
