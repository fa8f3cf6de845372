#include "driver/kernel/fuse.h"

#include <fcntl.h>
#include <sys/mount.h>

#include "driver/kernel/mount.h"

namespace virtuserns::kernel {

Result<FuseFile> make_fuse_file() {
  FuseFile file;
  file.connection = Fd(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!file.connection) return sys_fail("open '/dev/fuse' (module fuse)");
  file.mount = TRY(make_filesystem("fuse",
                                   {{"source", "virtuserns-image"},
                                    {"fd", std::to_string(file.connection.get())},
                                    {"rootmode", "100000"},
                                    {"user_id", "0"},
                                    {"group_id", "0"},
                                    {"allow_other", ""}},
                                   MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  return file;
}

}  // namespace virtuserns::kernel
