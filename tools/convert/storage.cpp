#include "tools/convert/storage.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/controller/jail.h"
#include "driver/controller/storage.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/seccomp_filter.h"

namespace virtuserns::convert {
namespace {

// A folder that every machine has and that neither we nor what we run needs; hidden from this process only.
constexpr const char* kWorkplace = "/sys/kernel";
constexpr const char* kQemuImg = "/usr/bin/qemu-img";
constexpr int kEndMs = 120'000, kCheckMs = 600'000;
constexpr std::size_t kCopyBytes = 1024 * 1024;

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

Result<Image> create(const std::string& path, const std::vector<std::string>& rest) {
  if (::access(path.c_str(), F_OK) == 0) return fail(VIR_ERR_OPERATION_FAILED, quote(path) + " is there already");
  std::vector<std::string> argv{"qemu-img", "create", "-q", "-f", "qcow2"};
  argv.insert(argv.end(), rest.begin(), rest.end());
  (void)TRY(kernel::need_program(argv));
  TRY(sync_file(path));
  return read_image(path, "qcow2");
}

Result<void> write_at(const Fd& file, std::string_view bytes, off_t at) {
  while (!bytes.empty()) {
    const auto put = ::pwrite(file.get(), bytes.data(), bytes.size(), at);
    if (put < 0) return sys_fail("write");
    bytes.remove_prefix(static_cast<std::size_t>(put));
    at += put;
  }
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
    disk.daemon_ = kernel::Running(std::move(running.front().process));
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

Result<Image> make_overlay(const std::string& path, const Image& base, std::optional<std::uint64_t> size) {
  std::vector<std::string> words{"-F", base.format, "-b", base.path};
  if (size) words.emplace_back("-u");
  words.insert(words.end(), {"--", path});
  if (size) words.push_back(std::to_string(*size));
  return create(path, words);
}

Result<Image> make_disk(const std::string& path, std::uint64_t size) {
  return create(path, {"--", path, std::to_string(size)});
}

Result<void> check_image(const Image& image, const std::string& workplace) {
  if (image.format != "qcow2") return {};
  const auto found = TRY(controller::find_image(image.path));
  std::vector<MountFd> mounts;
  mounts.push_back(TRY(kernel::clone_mount(found.file, "", kernel::Depth::kTopOnly)));
  TRY(kernel::set_mount_attributes(mounts.front(),
                                   MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY, 0,
                                   kernel::Depth::kTopOnly));
  const std::string what = "check image " + quote(image.path);
  // Without what its header says that it lies on: that is checked by itself.
  auto jailed =
      TRY(controller::start_in_jail(
              {kQemuImg,
               {"check", "-q", "--",
                R"(json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"/images/0"}})"},
               {},
               std::move(mounts),
               controller::OpensFiles::kYes,
               helpers().filter,
               workplace}),
          what);
  const auto said = TRY(controller::await_jailed(std::move(jailed), kCheckMs), what);
  // 3: clusters that nobody uses, which is no harm.
  if (WIFEXITED(said.status) && (WEXITSTATUS(said.status) == 0 || WEXITSTATUS(said.status) == 3)) return {};
  return fail(VIR_ERR_OPERATION_FAILED, "image " + quote(image.path) + " is damaged; see 'qemu-img check': " +
                                            printable(trim(said.errors), 300));
}

Result<void> copy_part(const OpenDisk& from, std::uint64_t offset, std::uint64_t size, const OpenDisk& to) {
  std::string buffer(kCopyBytes, '\0');
  const auto end = static_cast<off_t>(offset + size);
  for (auto at = static_cast<off_t>(offset); at < end;) {
    const off_t data = ::lseek(from.file().get(), at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) return {};
    at = std::max(at, data);
    if (at >= end) return {};
    const auto wanted = std::min(buffer.size(), static_cast<std::size_t>(end - at));
    const auto got = ::pread(from.file().get(), buffer.data(), wanted, at);
    if (got <= 0) return got < 0 ? sys_fail("read") : fail(VIR_ERR_OPERATION_FAILED, "it ends before its size");
    const std::string_view part(buffer.data(), static_cast<std::size_t>(got));
    if (part.find_first_not_of('\0') != std::string_view::npos)
      TRY(write_at(to.file(), part, at - static_cast<off_t>(offset)));
    at += got;
  }
  return {};
}

Result<kernel::LoopDevice> attach_part(const Fd& file, std::uint64_t offset, std::uint64_t size, Access access) {
  return kernel::attach_loop({file, "virt-userns-convert",
                              access == Access::kWrite ? kernel::Access::kReadWrite : kernel::Access::kReadOnly,
                              offset, size});
}

}  // namespace virtuserns::convert
