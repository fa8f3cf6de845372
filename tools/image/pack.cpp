#include "tools/image/pack.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/privileges.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/program.h"
#include "tools/convert/image_mount.h"
#include "tools/convert/storage.h"
#include "tools/convert/tree.h"
#include "tools/convert/walk.h"
#include "tools/image/confined.h"
#include "tools/image/detect.h"
#include "tools/image/layers.h"
#include "tools/image/root_tar.h"
#include "tools/image/tally.h"

namespace virtuserns::image {
namespace {

constexpr std::uint64_t kOfCreator = capability_bit(CAP_DAC_READ_SEARCH);
constexpr std::uint64_t kMaxEntries = 50'000'000;
constexpr std::uint64_t kBlock = 4096, kInode = 512, kSlack = 64u << 20;
constexpr int kMakeMs = 600'000;

// A file without a name until it is complete: nothing of it is left, whoever dies.
class Output {
 public:
  static Result<Output> open(const std::string& path) {
    Output output;
    if (path == "-") {
      output.file_ = Fd(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
      if (!output.file_) return sys_fail("write to the standard output");
      return output;
    }
    struct stat st {};
    if (::lstat(path.c_str(), &st) == 0) return fail(VIR_ERR_OPERATION_INVALID, quote(path) + " is there already");
    output.path_ = path;
    const auto slash = path.rfind('/');
    const auto folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
    output.file_ = Fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (!output.file_) return sys_fail("make a file in " + quote(folder));
    output.folder_ = folder;
    return output;
  }
  [[nodiscard]] const Fd& file() const { return file_; }
  Result<void> publish() {
    if (path_.empty()) return {};
    if (::fsync(file_.get()) != 0) return sys_fail("write " + quote(path_) + " to its disk");
    const auto self = "/proc/self/fd/" + std::to_string(file_.get());
    if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path_.c_str(), AT_SYMLINK_FOLLOW) != 0)
      return sys_fail("name " + quote(path_));
    return sync_directory(folder_);
  }

 private:
  Fd file_;
  std::string path_, folder_;
};

DirFd root_of(const MountFd& mount) { return DirFd(::openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }

// What the numbers of a container cannot say is not packed as somebody else's.
Result<convert::Walk> look_at(const DirFd& root) {
  convert::WalkLimits bounds;
  bounds.max_entries = kMaxEntries;
  auto seen = TRY(convert::walk(root, kIdCount, bounds), "look at the tree");
  if (seen.above_map.count > 0)
    return fail(VIR_ERR_OPERATION_FAILED, quote(seen.above_map.examples.front()) + " and " +
                                              std::to_string(seen.above_map.count - 1) +
                                              " others belong to ids that a container has not");
  return seen;
}

Result<Report> pack_archive(const std::vector<std::string>& layers, const Output& output,
                            const std::string& workplace) {
  const auto ids = TRY(make_child_ids());
  auto tree = TRY(mount_layers(layers, &ids, workplace));
  const auto answer = TRY(run_confined({ids, std::move(tree), workplace, kOfCreator, {output.file().get()}},
                                       [&] { return create_archive(output.file()); }));
  return Tally::decode(answer);
}

Result<Report> pack_disk(const DirFd& from, const convert::Walk& seen, const Output& output,
                         const std::string& workplace) {
  const auto needed = seen.bytes + seen.entries * (kInode + kBlock);
  const auto size = (needed + needed / 8 + kSlack) / kBlock * kBlock;
  if (::ftruncate(output.file().get(), static_cast<off_t>(size)) != 0) return sys_fail("size the image");
  Report report;
  {
    const auto device = TRY(convert::attach_part(output.file(), 0, size, convert::Access::kWrite));
    (void)TRY(kernel::need_program(
        {"mkfs.ext4", "-q", "-F", "-m", "0", "-b", std::to_string(kBlock), "-I", std::to_string(kInode), "-N",
         std::to_string(seen.entries + 1024), "-E", "root_owner=0:0", "--", device.path},
        kMakeMs));
    const auto place = workplace + "/image";
    auto mounted = TRY(convert::ImageMount::mount(device, convert::Access::kWrite, place), "mount the new image");
    {
      const auto to = TRY(open_directory(place));
      TRY(convert::remove_tree(to, "lost+found"));
      const auto copied = TRY(convert::copy_tree(from, to, size, [](const auto&) {}));
      report.entries = copied.entries;
      report.bytes = copied.bytes;
      report.findings = copied.findings;
    }
    TRY(mounted.unmount());
  }
  return report;
}

}  // namespace

Result<Report> pack(const std::string& tree, const std::string& output, const PackOptions& options) {
  const auto workplace = TRY(convert::make_workplace());
  // In the mount namespace in which it gets its name.
  auto file = TRY(Output::open(output));
  std::vector<std::string> layers{tree};
  layers.insert(layers.end(), options.lowers.begin(), options.lowers.end());
  const auto mount = TRY(mount_layers(layers, nullptr, workplace));
  const auto root = root_of(mount);
  if (!root) return sys_fail("open the tree");
  options.say("looking at " + quote(tree));
  const auto seen = TRY(look_at(root));
  options.say("packing");
  auto report = TRY(options.is_raw ? pack_disk(root, seen, file, workplace) : pack_archive(layers, file, workplace),
                    "pack " + quote(tree));
  report.format = options.is_raw ? "raw" : kRootTar;
  TRY(file.publish());
  return report;
}

}  // namespace virtuserns::image
