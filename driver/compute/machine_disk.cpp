#include "driver/compute/machine_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/fd.h"
#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/compute/kinds.h"
#include "driver/kernel/program.h"

namespace virtuserns::compute {
namespace {

constexpr int kProgramMs = 600'000;
constexpr std::size_t kSizeAt = 24;  // of qcow2's header: eight bytes, big-endian (docs/interop/qcow2.txt of qemu)

Result<void> remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return sys_fail("remove " + quote(path));
  return {};
}

std::string in_mib(std::uint64_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

}  // namespace

bool MachineDisk::exists() const { return ::access(image_.c_str(), F_OK) == 0; }

Result<void> MachineDisk::create(const std::string& image, std::uint64_t bytes, std::optional<gid_t> readers) const {
  struct stat found {};
  if (::lstat(image.c_str(), &found) != 0) return sys_fail("look at " + quote(image));
  if (static_cast<std::uint64_t>(found.st_size) > bytes)
    return fail(kImageTooLarge, "the image is a disk of " + in_mib(static_cast<std::uint64_t>(found.st_size)) +
                                    ", and the flavor's has " + in_mib(bytes) +
                                    ": choose a flavor with a larger disk");
  const auto temporary = image_ + ".new";
  TRY(remove_file(base()));
  TRY(remove_file(temporary));
  if (::link(image.c_str(), base().c_str()) != 0) return sys_fail("link the image to " + quote(base()));
  // Nobody may write it, whoever runs machines: others start from it.
  if (readers && (::chown(base().c_str(), 0, *readers) != 0 || ::chmod(base().c_str(), 0440) != 0))
    return sys_fail("let the hypervisor's user read " + quote(base()));
  // The name is relative to the disk; -u: nothing is opened for it.
  (void)TRY(kernel::need_program(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", base_, "-F", "raw", temporary, std::to_string(bytes)},
      kProgramMs));
  if (::chmod(temporary.c_str(), 0600) != 0) return sys_fail("set the mode of " + quote(temporary));
  if (::rename(temporary.c_str(), image_.c_str()) != 0) return sys_fail("rename " + quote(temporary));
  return sync_directory(folder_);
}

Result<std::uint64_t> MachineDisk::size_bytes() const {
  const Fd file(::open(image_.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  unsigned char bytes[8];
  if (!file) return sys_fail("open " + quote(image_));
  if (::pread(file.get(), bytes, sizeof bytes, kSizeAt) != static_cast<ssize_t>(sizeof bytes))
    return fail(VIR_ERR_OPERATION_FAILED, quote(image_) + " is no qcow2");
  std::uint64_t size = 0;
  for (const auto byte : bytes) size = size << 8 | byte;
  return size;
}

Result<void> MachineDisk::grow(std::uint64_t bytes) const {
  const auto now = TRY(size_bytes());
  if (bytes == now) return {};
  if (bytes < now)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the disk of the instance has " + in_mib(now) +
                                                   " and would have to become smaller, " + in_mib(bytes) +
                                                   ": choose a flavor with a disk that is not smaller");
  (void)TRY(
      kernel::need_program({"qemu-img", "resize", "-q", "-f", "qcow2", image_, std::to_string(bytes)}, kProgramMs));
  return {};
}

Result<void> MachineDisk::remove() const {
  for (const auto& path : {image_, image_ + ".new", base()}) TRY(remove_file(path));
  return {};
}

Result<void> MachineDisk::copy_to(const std::string& path) const {
  (void)TRY(kernel::need_program({"cp", "--sparse=always", "--reflink=auto", "--no-dereference", "--", image_, path},
                                 kProgramMs));
  return {};
}

}  // namespace virtuserns::compute
