#include "driver/kernel/device.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include <cstring>
#include <initializer_list>
#include <optional>

#include "conf/base/text.h"

namespace virtuserns::kernel {

namespace {

// qemu's convention (its block/file-posix.c): who does a thing to an image holds a lock for reading on byte 100 + its
// number; who wants nobody else to do it holds one on 200 + the number.
constexpr off_t kDone = 100, kUnshared = 200;
constexpr off_t kWrite = 1, kResize = 3;

struct flock range(short type, off_t start, off_t length) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}

Result<void> take(const Fd& image, short type, off_t start, off_t length) {
  auto lock = range(type, start, length);
  if (::fcntl(image.get(), F_OFD_SETLK, &lock) == 0) return {};
  if (errno == EAGAIN || errno == EACCES)
    return Error{VIR_ERR_RESOURCE_BUSY, errno, "it is in use by another domain or by a virtual machine"};
  return sys_fail("lock");
}

// Whether somebody else holds any lock there.
Result<void> expect_free(const Fd& image, off_t start) {
  auto lock = range(F_WRLCK, start, 1);
  if (::fcntl(image.get(), F_OFD_GETLK, &lock) != 0) return sys_fail("look for locks");
  if (lock.l_type == F_UNLCK) return {};
  return Error{VIR_ERR_RESOURCE_BUSY, EAGAIN, "it is written by another domain or by a virtual machine"};
}

// Past the page cache, so that nothing is kept twice. Not on FUSE: direct writes reach the other side several at a time, and
// the export of qemu before 10.1 garbles two that it has at once (it keeps both in one buffer). Others the kernel makes one
// by one, under the lock of the file. Nor on btrfs, whose checksum is of what was there when the write began, while a file
// system goes on changing what is being written.
bool may_be_direct(const Fd& backing) {
  struct statfs facts {};
  return ::fstatfs(backing.get(), &facts) == 0 && facts.f_type != FUSE_SUPER_MAGIC &&
         facts.f_type != BTRFS_SUPER_MAGIC;
}

}  // namespace

Result<void> lock_image(const Fd& image, Access access) {
  if (access == Access::kReadWrite) return take(image, F_WRLCK, 0, 0);  // of all there is, and of what it may become
  TRY(take(image, F_RDLCK, 0, kDone));
  for (const off_t what : {kWrite, kResize}) {
    TRY(take(image, F_RDLCK, kUnshared + what, 1));
    TRY(expect_free(image, kDone + what));
  }
  return {};
}

Result<LoopDevice> attach_loop(const LoopRequest& request) {
  const bool is_readonly = request.access == Access::kReadOnly;
  const Fd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control) return sys_fail("open '/dev/loop-control'");
  for (int attempt = 0; attempt < 64; ++attempt) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return sys_fail("find a free loop device");
    LoopDevice loop;
    loop.path = "/dev/loop" + std::to_string(number);
    loop.device = Fd(::open(loop.path.c_str(), (is_readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    if (!loop.device) return sys_fail("open " + quote(loop.path));
    loop_config config{};
    config.fd = static_cast<__u32>(request.backing.get());
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (may_be_direct(request.backing)) config.info.lo_flags |= LO_FLAGS_DIRECT_IO;
    if (is_readonly) config.info.lo_flags |= LO_FLAGS_READ_ONLY;
    config.info.lo_offset = request.offset_bytes;
    config.info.lo_sizelimit = request.size_bytes;
    std::strncpy(reinterpret_cast<char*>(config.info.lo_file_name), request.name.c_str(), LO_NAME_SIZE - 1);
    if (::ioctl(loop.device.get(), LOOP_CONFIGURE, &config) == 0) return loop;
    if (errno != EBUSY) return sys_fail("attach to " + quote(loop.path));
    // Somebody took it between the two calls: the next one.
  }
  return fail(VIR_ERR_RESOURCE_BUSY, "find a free loop device: always taken by others");
}

}  // namespace virtuserns::kernel
