#include "driver/kernel/user_directory.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/text.h"
#include "driver/kernel/mount.h"

namespace virtuserns::kernel {

namespace {

bool is_kernels_own(const DirFd& directory) {
  static constexpr std::uint64_t kOwn[] = {PROC_SUPER_MAGIC,   SYSFS_MAGIC,   CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC,
                                           DEVPTS_SUPER_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC,      SECURITYFS_MAGIC,
                                           BPF_FS_MAGIC,       NSFS_MAGIC,    PSTOREFS_MAGIC,     BINFMTFS_MAGIC};
  struct statfs facts {};
  if (::fstatfs(directory.get(), &facts) != 0) return true;
  return std::find(std::begin(kOwn), std::end(kOwn), static_cast<std::uint64_t>(facts.f_type)) != std::end(kOwn);
}

}  // namespace

Result<DirFd> open_directory_as(const std::string& path, uid_t uid, gid_t gid) {
  if (::setgroups(0, nullptr) != 0) return sys_fail("leave all groups");
  open_how how{};
  how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_NO_MAGICLINKS;
  DirFd directory;
  int err = 0;
  {
    const OnDiskIdentity user(uid, gid);
    directory = DirFd(static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how)));
    err = errno;
  }
  if (!directory) return sys_fail("open as user " + std::to_string(uid), err);
  if (is_kernels_own(directory))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                "it is in a file system of the kernel's own, which is no source of a domain's");
  return directory;
}

}  // namespace virtuserns::kernel
