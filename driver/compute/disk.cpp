#include "driver/compute/disk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "conf/base/fd.h"
#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/kernel/device.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/program.h"

namespace virtuserns::compute {
namespace {

constexpr int kProgramMs = 600'000;
constexpr int kMostLooks = 60;  // until what uses it has ended
constexpr auto kPause = std::chrono::milliseconds(50);

Result<struct stat> look_at(const std::string& path) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) return sys_fail("look at " + quote(path));
  return found;
}

bool is_missing(const Error& error) { return error.sys_errno == ENOENT; }

// Of one that is there nothing is asked but that: whoever would make it waits for a file system that is frozen, and may be who is to thaw it.
Result<void> make_directory(const std::string& path, mode_t mode) {
  if (look_at(path)) return {};
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return sys_fail("make " + quote(path));
  return {};
}

Result<Fd> open_image(const std::string& path, int flags) {
  Fd image(::open(path.c_str(), flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!image) return sys_fail("open " + quote(path));
  return image;
}

// For us alone, for as long as it is open: one that was unmounted here may be in use still, by a loop device that somebody's mount
// namespace keeps, and two of them would destroy it.
Result<Fd> take_image(const std::string& path) {
  auto image = TRY(open_image(path, 0));
  auto taken = kernel::lock_image(image, kernel::Access::kReadWrite);
  for (int i = 0; i < kMostLooks && !taken && taken.error().code == VIR_ERR_RESOURCE_BUSY; ++i) {
    std::this_thread::sleep_for(kPause);
    taken = kernel::lock_image(image, kernel::Access::kReadWrite);
  }
  TRY(std::move(taken), "use " + quote(path));
  return image;
}

Result<void> set_size(const Fd& image, const std::string& path, std::uint64_t bytes) {
  if (::ftruncate(image.get(), static_cast<off_t>(bytes)) != 0) return sys_fail("give " + quote(path) + " its size");
  return {};
}

}  // namespace

bool Disk::exists() const { return static_cast<bool>(look_at(image())); }

Result<void> Disk::create(std::uint64_t bytes) const {
  const auto image_path = image();
  const auto temporary = image_path + ".new";
  (void)::unlink(temporary.c_str());
  TRY(format_disk(temporary, bytes));
  if (::rename(temporary.c_str(), image_path.c_str()) != 0) {
    const auto error = sys_fail("rename " + quote(temporary));
    (void)::unlink(temporary.c_str());
    return error;
  }
  return sync_directory(folder_);
}

Result<bool> Disk::is_mounted() const {
  const auto above = TRY(look_at(folder_));
  const auto found = look_at(place());
  if (!found && is_missing(found.error())) return false;
  return TRY(look_at(place())).st_dev != above.st_dev;
}

Result<void> Disk::mount() const {
  TRY(make_directory(place(), 0700));
  if (!TRY(is_mounted())) {
    const auto file = TRY(take_image(image()));
    const auto loop = TRY(kernel::attach_loop({file, image(), kernel::Access::kReadWrite, 0, 0}));
    // What a container wrote is behind an overlay, and its device nodes open nothing anywhere.
    if (::mount(loop.path.c_str(), place().c_str(), "ext4", MS_NODEV | MS_NOATIME, "errors=remount-ro") != 0)
      return sys_fail("mount " + quote(image()));
  }
  TRY(make_directory(root(), 0700));
  return make_directory(rescue(), 0700);
}

Result<std::string> Disk::device() const {
  if (!TRY(is_mounted())) return std::string();
  const auto device = TRY(look_at(place())).st_dev;
  const auto link = "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  char target[256];
  const auto size = ::readlink(link.c_str(), target, sizeof target);
  if (size <= 0) return sys_fail("look at " + quote(link));
  const std::string_view where(target, static_cast<std::size_t>(size));
  return "/dev/" + std::string(where.substr(where.rfind('/') + 1));
}

Result<void> Disk::unmount() const {
  if (!TRY(is_mounted())) return {};
  if (::umount2(place().c_str(), UMOUNT_NOFOLLOW) == 0) return {};
  if (errno != EBUSY) return sys_fail("unmount " + quote(place()));
  // A snapshot that is being read, or somebody who looks around.
  if (::umount2(place().c_str(), UMOUNT_NOFOLLOW | MNT_DETACH) != 0) return sys_fail("unmount " + quote(place()));
  return {};
}

Result<void> Disk::freeze() const {
  if (!TRY(is_mounted())) return {};
  const auto folder = TRY(open_directory(place()));
  const Fd open(::openat(folder.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!open || (::ioctl(open.get(), FIFREEZE, 0) != 0 && errno != EBUSY)) return sys_fail("freeze " + quote(place()));
  return {};
}

Result<void> Disk::thaw() const {
  const auto mounted = is_mounted();
  if (!mounted && is_missing(mounted.error())) return {};
  if (!TRY(is_mounted())) return {};
  const auto folder = TRY(open_directory(place()));
  const Fd open(::openat(folder.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!open || (::ioctl(open.get(), FITHAW, 0) != 0 && errno != EINVAL)) return sys_fail("thaw " + quote(place()));
  return {};
}

Result<std::uint64_t> Disk::size_bytes() const { return static_cast<std::uint64_t>(TRY(look_at(image())).st_size); }

Result<void> Disk::grow(std::uint64_t bytes) const {
  const auto now = TRY(size_bytes());
  // Of the same size as well: the file may have grown, and the file system not yet.
  if (bytes < now)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the disk of the instance has " + std::to_string(now >> 20) +
                                                   " MiB and would have to become smaller, " +
                                                   std::to_string(bytes >> 20) +
                                                   " MiB: choose a flavor with a disk that is not smaller");
  // A loop device keeps the size that it was made with.
  const bool was_mounted = TRY(is_mounted());
  if (was_mounted) TRY(unmount());
  auto file = TRY(take_image(image()));
  TRY(set_size(file, image(), bytes));
  const auto checked = TRY(kernel::run_program({"e2fsck", "-f", "-p", "--", image()}, kProgramMs));
  if (checked.status > 1)
    return fail(VIR_ERR_OPERATION_FAILED, "check " + quote(image()) + ": " + printable(trim(checked.out), 400));
  (void)TRY(kernel::need_program({"resize2fs", image()}, kProgramMs));
  file.reset();
  return was_mounted ? mount() : Result<void>();
}

Result<void> Disk::remove() const {
  const auto mounted = is_mounted();
  if (!mounted && is_missing(mounted.error())) return {};
  TRY(unmount());
  for (const auto& path : {image(), image() + ".new"})
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return sys_fail("remove " + quote(path));
  if (::rmdir(place().c_str()) != 0 && errno != ENOENT) return sys_fail("remove " + quote(place()));
  return {};
}

Result<void> Disk::copy_to(const std::string& path) const {
  const auto file = TRY(take_image(image()));
  (void)TRY(kernel::need_program({"cp", "--sparse=always", "--reflink=auto", "--no-dereference", "--", image(), path},
                                 kProgramMs));
  return {};
}

Result<void> format_disk(const std::string& path, std::uint64_t bytes) {
  const auto file = TRY(open_image(path, O_CREAT | O_EXCL));
  Undo undo;
  undo.add([&] { (void)::unlink(path.c_str()); });
  TRY(set_size(file, path, bytes));
  // Inode tables are left to be zeroed by nobody: the file has holes there.
  (void)TRY(kernel::need_program({"mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-J", "size=16", "-E",
                                  "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0", "--", path},
                                 kProgramMs));
  if (::fdatasync(file.get()) != 0) return sys_fail("write " + quote(path));
  undo.commit();
  return {};
}

Result<void> remove_tree(const std::string& path) {
  const auto found = look_at(path);
  if (!found) return is_missing(found.error()) ? Result<void>() : Result<void>(found.error());
  (void)TRY(kernel::need_program({"rm", "-rf", "--one-file-system", "--", path}, kProgramMs));
  return {};
}

}  // namespace virtuserns::compute
