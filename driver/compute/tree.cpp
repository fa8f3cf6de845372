#include "driver/compute/tree.h"

#include <crypt.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <memory>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/kernel/mount.h"

namespace virtuserns::compute {
namespace {

constexpr std::size_t kMaxShadow = 4 * 1024 * 1024;
constexpr mode_t kShadowMode = 0640;

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

// What an image has under a name may be anything; a FIFO would never answer.
Result<void> check_regular(const Fd& file, const std::string& path) {
  struct stat found {};
  if (::fstat(file.get(), &found) != 0) return sys_fail("look at " + quote(path));
  if (S_ISREG(found.st_mode)) return {};
  return fail(VIR_ERR_OPERATION_UNSUPPORTED, quote(path) + " of the instance is no regular file");
}

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

Result<std::string> make_salt() {
  static constexpr std::string_view kLetters = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  unsigned char random[16];
  if (::getrandom(random, sizeof random, 0) != sizeof random) return sys_fail("get random bytes");
  std::string salt = "$6$";
  for (const auto byte : random) salt += kLetters[byte & 63];
  return salt;
}

// The shadow file with that hash for `user`; empty: it has no such user.
std::string with_hash(std::string_view shadow, std::string_view user, const std::string& hash) {
  std::string changed;
  bool is_found = false;
  for (const auto line : split(shadow, '\n')) {
    const auto fields = split(line, ':');
    if (fields.size() < 2 || fields[0] != user) {
      changed.append(line) += '\n';
      continue;
    }
    is_found = true;
    changed.append(user) += ":" + hash + ":" + std::to_string(std::time(nullptr) / 86400);
    for (std::size_t i = 3; i < fields.size(); ++i) (changed += ':').append(fields[i]);
    changed += '\n';
  }
  if (!is_found) return "";
  // What split() made of the last newline.
  while (changed.ends_with("\n\n")) changed.pop_back();
  return changed;
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

Result<std::string> hash_password(const std::string& password) {
  const auto salt = TRY(make_salt());
  const auto data = std::make_unique<crypt_data>();
  const char* hash = ::crypt_r(password.c_str(), salt.c_str(), data.get());
  if (!hash || hash[0] == '*') return fail(VIR_ERR_INVALID_ARG, "the password cannot be hashed");
  return std::string(hash);
}

Result<void> set_password_in(const MountFd& tree, const std::string& user, const std::string& password) {
  const auto root = share(tree);
  if (!root) return sys_fail("open the files of the instance");
  // Where it really is, so that a link stays one.
  const auto place = kernel::resolve_in_root(root, "/etc/shadow", kernel::Symlinks::kFollowInRoot);
  const auto nothing = [&](const std::string& why) {
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "no password can be set: " + why);
  };
  if (!place) return nothing("the instance has no /etc/shadow");
  TRY(check_regular(*place, "/etc/shadow"));
  struct stat before {};
  if (::fstat(place->get(), &before) != 0) return sys_fail("look at '/etc/shadow' of the instance");
  // By its descriptor, which is a link that read_file() would not follow.
  const auto shadow = TRY(read_kernel_file(by_descriptor(*place), kMaxShadow));
  const auto changed = with_hash(shadow, user, TRY(hash_password(password)));
  if (changed.empty()) return nothing("the instance has no user " + quote(user) + " in /etc/shadow");
  const auto folder = TRY(open_folder(root, "/etc"));
  return replace_file(folder, "shadow", changed, before.st_mode & kShadowMode, before.st_gid, "/etc/shadow");
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
