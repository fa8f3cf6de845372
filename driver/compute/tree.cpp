#include "driver/compute/tree.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "conf/password.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/shadow.h"

namespace virtuserns::compute {
namespace {

// As the driver of containers makes them: `work` root's, `upper` as the top directory of the base.
Result<void> make_part(const DirFd& own, const std::string& name, const struct stat& like) {
  struct stat found {};
  if (::fstatat(own.get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0) return {};
  const auto making = "." + name + ".new";
  (void)::unlinkat(own.get(), making.c_str(), AT_REMOVEDIR);
  if (::mkdirat(own.get(), making.c_str(), 0700) != 0) return sys_fail("make " + quote(name));
  Undo undo;
  undo.add([&] { (void)::unlinkat(own.get(), making.c_str(), AT_REMOVEDIR); });
  if (::fchownat(own.get(), making.c_str(), like.st_uid, like.st_gid, AT_SYMLINK_NOFOLLOW) != 0 ||
      ::fchmodat(own.get(), making.c_str(), like.st_mode & 07777, 0) != 0 ||
      ::renameat(own.get(), making.c_str(), own.get(), name.c_str()) != 0)
    return sys_fail("make " + quote(name));
  undo.commit();
  return {};
}

std::string by_descriptor(const Fd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); }

std::pair<std::string, std::string> parent_and_name(const std::string& path) {
  const auto slash = path.rfind('/');
  return {slash == std::string::npos ? "" : path.substr(0, slash), path.substr(slash + 1)};
}

DirFd share(const MountFd& tree) { return DirFd(::openat(tree.get(), ".", O_PATH | O_DIRECTORY | O_CLOEXEC)); }

// The directory `path` of the tree, made where it is missing.
Result<DirFd> open_folder(const DirFd& root, const std::string& path) {
  auto at = TRY(kernel::resolve_in_root(root, "/", kernel::Symlinks::kFollowInRoot, O_DIRECTORY));
  std::string so_far;
  for (const auto part : split(path, '/')) {
    if (part.empty() || part == ".") continue;
    so_far += "/" + std::string(part);
    auto next = kernel::resolve_in_root(root, so_far, kernel::Symlinks::kFollowInRoot, O_DIRECTORY);
    if (!next && next.error().sys_errno == ENOENT) {
      if (::mkdirat(at.get(), std::string(part).c_str(), 0755) != 0 && errno != EEXIST)
        return sys_fail("make " + quote(so_far) + " of the instance");
      next = kernel::resolve_in_root(root, so_far, kernel::Symlinks::kFollowInRoot, O_DIRECTORY);
    }
    if (!next) return std::move(next).error().with_context("open " + quote(so_far) + " of the instance");
    at = std::move(*next);
  }
  return at;
}

Result<void> write_all(const Fd& file, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const auto written = ::write(file.get(), content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return sys_fail("write " + quote(path) + " of the instance");
    content.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

// A new file in the place of what has the name, complete or not at all.
Result<void> replace_file(const DirFd& folder, const std::string& name, std::string_view content, mode_t mode,
                          gid_t group, const std::string& path) {
  if (name.empty() || name.size() > 200) return fail(VIR_ERR_INVALID_ARG, quote(path) + " names no file");
  const auto making = "." + name + ".new";
  (void)::unlinkat(folder.get(), making.c_str(), 0);
  Fd file(::openat(folder.get(), making.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return sys_fail("make " + quote(path) + " of the instance");
  Undo undo;
  undo.add([&] { (void)::unlinkat(folder.get(), making.c_str(), 0); });
  TRY(write_all(file, content, path));
  if (::fchown(file.get(), 0, group) != 0 || ::fchmod(file.get(), mode) != 0)
    return sys_fail("own " + quote(path) + " of the instance");
  if (::renameat(folder.get(), making.c_str(), folder.get(), name.c_str()) != 0)
    return sys_fail("replace " + quote(path) + " of the instance");
  undo.commit();
  return {};
}

}  // namespace

Result<MountFd> open_tree_of(const std::string& own, const std::string& base) {
  const auto folder = TRY(open_directory(own));
  const auto lower = TRY(open_directory(base));
  struct stat top {};
  if (::fstat(lower.get(), &top) != 0) return sys_fail("look at " + quote(base));
  struct stat work_like {};
  work_like.st_mode = 0700;
  // `work` first: an `upper` without it would be a restored copy of somebody's.
  TRY(make_part(folder, "work", work_like));
  TRY(make_part(folder, "upper", top));
  const DirFd upper(::openat(folder.get(), "upper", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  const DirFd work(::openat(folder.get(), "work", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!upper || !work) return sys_fail("open the layers in " + quote(own));
  return kernel::make_filesystem("overlay",
                                 {{"source", "overlay"},
                                  {"lowerdir", by_descriptor(lower)},
                                  {"upperdir", by_descriptor(upper)},
                                  {"workdir", by_descriptor(work)},
                                  {"redirect_dir", "nofollow"},
                                  {"metacopy", "off"},
                                  {"index", "off"},
                                  {"nfs_export", "off"}},
                                 MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
}

Result<void> write_files(const MountFd& tree, const std::vector<FileToWrite>& files) {
  const auto root = share(tree);
  if (!root) return sys_fail("open the files of the instance");
  for (const auto& file : files) {
    const auto [parent, name] = parent_and_name(file.path);
    const auto folder = TRY(open_folder(root, parent));
    TRY(replace_file(folder, name, file.content, file.mode, 0, file.path));
  }
  return {};
}

Result<void> set_password_in(const MountFd& tree, const std::string& user, const std::string& password) {
  const auto root = share(tree);
  if (!root) return sys_fail("open the files of the instance");
  auto set = kernel::set_password_below(root, user, TRY(hash_password(password)));
  if (set) return set;
  // An image without such a file or user, or one in which a link or a FIFO stands there.
  auto error = std::move(set).error();
  const bool is_missing = error.sys_errno == 0 || error.sys_errno == ENOENT || error.sys_errno == ENOTDIR ||
                          error.sys_errno == ELOOP || error.sys_errno == ENXIO;
  if (is_missing) error.code = VIR_ERR_OPERATION_UNSUPPORTED;
  return error;
}

Result<void> make_config_drive(const std::string& folder, const std::vector<FileToWrite>& files) {
  TRY(make_directories(folder, 0755));
  for (const auto& file : files) {
    const auto path = folder + "/" + file.path;
    TRY(make_directories(parent_and_name(path).first, 0755));
    TRY(write_atomic_volatile(path, file.content, 0444));
  }
  return {};
}

}  // namespace virtuserns::compute
