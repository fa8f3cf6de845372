#include "driver/compute/blocks.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/program.h"

namespace virtuserns::compute {
namespace {

constexpr std::size_t kPart = 1024 * 1024;
constexpr int kMostLooks = 60;
constexpr auto kPause = std::chrono::milliseconds(50);
constexpr int kCheckMs = 600'000;

Result<Fd> open_device(const std::string& path, int flags) {
  Fd device(::open(path.c_str(), flags | O_NONBLOCK | O_CLOEXEC));
  if (!device) return sys_fail("open " + quote(path));
  return device;
}

// Of a device, or of the file that stands for one.
Result<std::uint64_t> size_of(const Fd& device, const std::string& path) {
  const auto size = ::lseek(device.get(), 0, SEEK_END);
  if (size < 0) return sys_fail("look at the size of " + quote(path));
  return static_cast<std::uint64_t>(size);
}

bool is_empty(const std::vector<char>& part, std::size_t size) {
  return std::all_of(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(size), [](char c) { return c == 0; });
}

Result<std::size_t> read_part(const Fd& source, std::vector<char>& part, std::size_t wanted, std::uint64_t at) {
  while (true) {
    const auto got = ::pread(source.get(), part.data(), wanted, static_cast<off_t>(at));
    if (got > 0) return static_cast<std::size_t>(got);
    if (got == 0) return fail(VIR_ERR_OPERATION_FAILED, "the volume ended before its size");
    if (errno != EINTR) return sys_fail("read the volume");
  }
}

Result<void> write_part(const Fd& target, const std::vector<char>& part, std::size_t size, std::uint64_t at) {
  constexpr int kHole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  if (is_empty(part, size) && ::fallocate(target.get(), kHole, static_cast<off_t>(at), static_cast<off_t>(size)) == 0)
    return {};
  std::size_t done = 0;
  while (done < size) {
    const auto put = ::pwrite(target.get(), part.data() + done, size - done, static_cast<off_t>(at + done));
    if (put < 0 && errno != EINTR) return sys_fail("write the volume");
    if (put > 0) done += static_cast<std::size_t>(put);
  }
  return {};
}

// The device that is mounted: the driver of containers has a loop device of its own over that of a volume.
Result<std::string> mounted_device(const std::string& device) {
  struct stat wanted {};
  if (::stat(device.c_str(), &wanted) != 0) return sys_fail("look at " + quote(device));
  // The kernel says 0 for what is no device, of such a file as of those that loop devices are over: it would be somebody else's.
  if (!S_ISBLK(wanted.st_mode))
    return fail(VIR_ERR_OPERATION_UNSUPPORTED,
                quote(device) + " is no block device: nothing can be held up that is written to it");
  for (const auto& name : TRY(list_directory("/sys/block"))) {
    if (!name.starts_with("loop")) continue;
    const Fd loop(::open(("/dev/" + name).c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    loop_info64 facts{};
    if (loop && ::ioctl(loop.get(), LOOP_GET_STATUS64, &facts) == 0 && facts.lo_rdevice == wanted.st_rdev &&
        facts.lo_offset == 0)
      return "/dev/" + name;
  }
  return device;
}

// A mount that is nowhere, of what is mounted elsewhere: the same file system, whoever has it.
Result<void> on_filesystem(const std::string& device, unsigned long request, int is_done, const std::string& what) {
  const auto source = TRY(mounted_device(device));
  const auto mount = TRY(kernel::make_filesystem("ext4", {{"source", source}},
                                                 MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
  const Fd top(::openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!top || (::ioctl(top.get(), request, 0) != 0 && errno != is_done))
    return sys_fail(what + " the file system of " + quote(device));
  return {};
}

}  // namespace

Result<void> freeze_filesystem(const std::string& device) { return on_filesystem(device, FIFREEZE, EBUSY, "freeze"); }

Result<void> thaw_filesystem(const std::string& device) { return on_filesystem(device, FITHAW, EINVAL, "thaw"); }

Result<void> notice_size(const std::string& device) {
  const auto open = TRY(open_device(device, O_RDONLY));
  if (::ioctl(open.get(), LOOP_SET_CAPACITY, 0) != 0 && errno != ENOTTY && errno != EINVAL)
    return sys_fail("tell " + quote(device) + " its size");
  return {};
}

Result<void> copy_blocks(const std::string& source, const std::string& target) {
  const auto from = TRY(open_device(source, O_RDONLY)), to = TRY(open_device(target, O_RDWR));
  const auto size = TRY(size_of(from, source)), room = TRY(size_of(to, target));
  if (room < size)
    return fail(VIR_ERR_INVALID_ARG, "the new volume has " + std::to_string(room) + " bytes, and the old one " +
                                         std::to_string(size) + ": take one that is not smaller");
  std::vector<char> part(kPart);
  for (std::uint64_t at = 0; at < size;) {
    const auto got = TRY(read_part(from, part, std::min<std::uint64_t>(kPart, size - at), at));
    TRY(write_part(to, part, got, at));
    at += got;
  }
  if (::fsync(to.get()) != 0) return sys_fail("write the volume");
  return {};
}

Result<void> check_filesystem(const std::string& device) {
  // Not while a mount of it, of the run before, still ends.
  for (int i = 0; i < kMostLooks; ++i) {
    if (const auto alone = open_device(device, O_RDONLY | O_EXCL); alone || alone.error().sys_errno != EBUSY) break;
    std::this_thread::sleep_for(kPause);
  }
  const auto checked = TRY(kernel::run_program({"e2fsck", "-f", "-p", "--", device}, kCheckMs));
  if (checked.status <= 1) return {};
  return fail(VIR_ERR_OPERATION_FAILED, "check the file system of " + quote(device) + ": " +
                                            printable(trim(checked.out + checked.errors), 400) +
                                            "; it has to be an ext4 that is sound");
}

}  // namespace virtuserns::compute
