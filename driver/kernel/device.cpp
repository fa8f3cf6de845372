#include "driver/kernel/device.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

#include <cstring>

#include "conf/base/text.h"

namespace virtuserns::kernel {

Result<LoopDevice> attach_loop(const std::string& file, LoopAccess access) {
  const int mode = access == LoopAccess::kReadOnly ? O_RDONLY : O_RDWR;
  const Fd backing(::open(file.c_str(), mode | O_CLOEXEC));
  if (!backing) return sys_fail("open " + quote(file));
  const Fd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control) return sys_fail("open '/dev/loop-control'");
  for (int attempt = 0; attempt < 64; ++attempt) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return sys_fail("find a free loop device");
    LoopDevice loop;
    loop.path = "/dev/loop" + std::to_string(number);
    loop.device = Fd(::open(loop.path.c_str(), mode | O_CLOEXEC));
    if (!loop.device) return sys_fail("open " + quote(loop.path));
    loop_config config{};
    config.fd = static_cast<__u32>(backing.get());
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (access == LoopAccess::kReadOnly) config.info.lo_flags |= LO_FLAGS_READ_ONLY;
    std::strncpy(reinterpret_cast<char*>(config.info.lo_file_name), file.c_str(), LO_NAME_SIZE - 1);
    if (::ioctl(loop.device.get(), LOOP_CONFIGURE, &config) == 0) return loop;
    if (errno != EBUSY) return sys_fail("attach " + quote(file) + " to " + quote(loop.path));
    // Somebody took it between the two calls: the next one.
  }
  return fail(VIR_ERR_RESOURCE_BUSY, "find a free loop device: always taken by others");
}

}  // namespace virtuserns::kernel
