#include "tools/convert/inode_flags.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

namespace virtuserns::convert {
namespace {

constexpr int kHeld = FS_IMMUTABLE_FL | FS_APPEND_FL;

// Nothing else has flags, and opening what is no file may do something.
Fd open_entry(const DirFd& dir, const std::string& name) {
  struct stat st {};
  if (::fstatat(dir.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return {};
  if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) return {};
  return Fd(::openat(dir.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
}

}  // namespace

int take_flags(const DirFd& dir, const std::string& name) {
  const Fd file = open_entry(dir, name);
  int flags = 0;
  if (!file || ::ioctl(file.get(), FS_IOC_GETFLAGS, &flags) != 0 || (flags & kHeld) == 0) return 0;
  const int free = flags & ~kHeld;
  return ::ioctl(file.get(), FS_IOC_SETFLAGS, &free) == 0 ? flags & kHeld : 0;
}

void put_flags(const DirFd& dir, const std::string& name, int flags) {
  if (flags == 0) return;
  const Fd file = open_entry(dir, name);
  int others = 0;
  if (!file || ::ioctl(file.get(), FS_IOC_GETFLAGS, &others) != 0) return;
  others |= flags;
  (void)::ioctl(file.get(), FS_IOC_SETFLAGS, &others);
}

}  // namespace virtuserns::convert
