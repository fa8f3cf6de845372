#include "driver/kernel/caps.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace virtuserns::kernel {

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

Result<void> limit_capabilities(std::uint64_t keep) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2]{};
  if (::syscall(SYS_capget, &header, sets) != 0) return sys_fail("read capabilities");
  for (int half = 0; half < 2; ++half) {
    const auto kept = static_cast<std::uint32_t>(keep >> (32 * half));
    sets[half].permitted &= kept;
    sets[half].effective = sets[half].permitted;
    sets[half].inheritable = 0;
  }
  if (::syscall(SYS_capset, &header, sets) != 0) return sys_fail("limit capabilities");
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return sys_fail("clear ambient capabilities");
  return {};
}

}  // namespace virtuserns::kernel
