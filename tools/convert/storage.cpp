#include "tools/convert/storage.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/controller/storage.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/seccomp_filter.h"

namespace virtuserns::convert {
namespace {

// A folder that every machine has and that neither we nor what we run needs; hidden from this process only.
constexpr const char* kWorkplace = "/sys/kernel";
constexpr int kEndMs = 120'000;

// The programs that read images, and what they may call of the kernel.
const ImageHelpersStep& helpers() {
  static const ImageHelpersStep step{"", "/usr/bin/qemu-storage-daemon", kernel::compile_seccomp_filter({}).program};
  return step;
}

ImageSourceStep step_of(const std::vector<Image>& chain, Access access) {
  ImageSourceStep step;
  for (const auto& image : chain) step.chain.push_back({image.path, image.format});
  step.is_readonly = access == Access::kRead;
  return step;
}

// A raw disk needs nobody who reads it for us. The lock is qemu's own kind, and goes with the descriptor.
Result<Fd> open_raw(const Image& image) {
  Fd file(::open(image.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) return sys_fail("open");
  TRY(kernel::lock_image(file, kernel::Access::kReadOnly));
  return file;
}

Result<std::uint64_t> size_of(const Fd& file) {
  const auto end = ::lseek(file.get(), 0, SEEK_END);
  if (end < 0) return sys_fail("look for its end");
  return static_cast<std::uint64_t>(end);
}

Error say_in_use(Error error) {
  const bool is_in_use = error.code == VIR_ERR_RESOURCE_BUSY || error.text.find("Failed to get") != std::string::npos;
  if (!is_in_use) return error;
  return fail(VIR_ERR_OPERATION_INVALID, "it is in use by a running VM; shut it off (" + error.text + ")");
}

Result<void> sync_file(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return sys_fail("write " + quote(path) + " to its disk");
  return {};
}

}  // namespace

Result<std::string> make_workplace() {
  TRY(kernel::make_private_mount_namespace(), "a mount namespace");
  const auto mount = TRY(kernel::make_filesystem("tmpfs", {{"mode", "0700"}, {"size", "1m"}},
                                                 MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC),
                         "a place for mounts");
  const auto target = TRY(open_directory(kWorkplace));
  TRY(kernel::attach_mount(mount, target), "a place for mounts");
  return std::string(kWorkplace);
}

Result<OpenDisk> OpenDisk::open(const std::vector<Image>& chain, Access access, const std::string& workplace) {
  const auto& image = chain.front();
  const std::string what = "open disk " + quote(image.path);
  OpenDisk disk;
  if (image.format == "raw" && access == Access::kRead) {
    auto file = open_raw(image);
    if (!file) return say_in_use(std::move(file).error()).with_context(what);
    disk.file_ = std::move(*file);
  } else {
    const auto proc = TRY(open_directory("/proc"));
    std::vector<controller::StorageDaemon> running;
    auto file = controller::serve_disk(step_of(chain, access), helpers(), proc, workplace, running);
    if (!file) return say_in_use(std::move(file).error()).with_context(what);
    disk.file_ = std::move(*file);
    disk.daemon_ = Running(std::move(running.front().process));
    if (access == Access::kWrite) disk.image_ = image.path;
  }
  disk.size_ = TRY(size_of(disk.file_), what);
  return disk;
}

Result<void> OpenDisk::close() {
  file_.reset();
  TRY(daemon_.end(kEndMs), "close the disk");
  return image_.empty() ? Result<void>() : sync_file(image_);
}

Result<Image> make_overlay(const std::string& path, const Image& base) {
  if (::access(path.c_str(), F_OK) == 0) return fail(VIR_ERR_OPERATION_FAILED, quote(path) + " is there already");
  (void)TRY(
      need_program({"qemu-img", "create", "-q", "-f", "qcow2", "-F", base.format, "-b", base.path, "--", path}));
  TRY(sync_file(path));
  return read_image(path, "qcow2");
}

Result<void> check_image(const Image& image) {
  if (image.format != "qcow2") return {};
  // 3: clusters that nobody uses, which is no harm.
  const auto ended = TRY(run_program({"qemu-img", "check", "-q", "-f", "qcow2", "--", image.path}, 600'000));
  if (ended.status == 0 || ended.status == 3) return {};
  return fail(VIR_ERR_OPERATION_FAILED, "image " + quote(image.path) + " is damaged; see 'qemu-img check': " +
                                            printable(trim(ended.errors), 300));
}

Result<kernel::LoopDevice> attach_part(const Fd& file, std::uint64_t offset, std::uint64_t size, Access access) {
  return kernel::attach_loop({file, "virt-userns-convert",
                              access == Access::kWrite ? kernel::Access::kReadWrite : kernel::Access::kReadOnly,
                              offset, size});
}

}  // namespace virtuserns::convert
