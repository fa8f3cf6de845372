#include "driver/kernel/mount.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "conf/base/text.h"

namespace virtuserns::kernel {

namespace {

constexpr unsigned kCreateExclusively = 8;  // FSCONFIG_CMD_CREATE_EXCL, which the C library's header does not know

// What the file system said, fsopen(2) "Message Retrieval": a message with each read, which starts with "e ", "w " or "i ".
std::string filesystem_log(const Fd& context) {
  std::string log;
  char text[512];
  for (int i = 0; i < 8; ++i) {
    const auto size = ::read(context.get(), text, sizeof text);
    if (size < 0) break;
    if (size > 2)
      log += (log.empty() ? "" : "; ") +
             printable(trim(std::string_view(text, static_cast<std::size_t>(size)).substr(2)));
  }
  return log.empty() ? log : " (" + log + ")";
}

int create(const Fd& context, Instance instance) {
  if (instance == Instance::kOwn) {
    const int made = ::fsconfig(context.get(), kCreateExclusively, nullptr, nullptr, 0);
    if (made == 0 || errno != EOPNOTSUPP) return made;
  }
  return ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0);
}

int recursion(Depth depth) { return depth == Depth::kWithMountsBelow ? AT_RECURSIVE : 0; }

}  // namespace

Result<void> make_private_mount_namespace() {
  if (::unshare(CLONE_NEWNS) != 0) return sys_fail("make a mount namespace");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return sys_fail("make mounts private");
  return {};
}

Result<MountFd> clone_mount(const Fd& dir, const std::string& path, Depth depth) {
  const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (path.empty() ? AT_EMPTY_PATH : 0u) |
                         static_cast<unsigned>(recursion(depth));
  MountFd mount(::open_tree(dir.get(), path.c_str(), flags));
  if (!mount) return sys_fail("clone mount " + quote(path));
  return mount;
}

Result<MountFd> clone_mount(const std::string& path, Depth depth) {
  MountFd mount(::open_tree(AT_FDCWD, path.c_str(),
                            OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | static_cast<unsigned>(recursion(depth))));
  if (!mount) return sys_fail("clone mount " + quote(path));
  return mount;
}

Result<MountFd> make_filesystem(const std::string& type, const MountOptions& options, std::uint64_t attributes,
                                Instance instance) {
  const Fd context(::fsopen(type.c_str(), FSOPEN_CLOEXEC));
  if (!context) return sys_fail("open file system type " + quote(type));
  const auto refuse = [&](const std::string& what) {
    const int err = errno;
    const std::string log = filesystem_log(context);
    return sys_fail("make " + type + ": " + what + log, err);
  };
  for (const auto& [key, value] : options) {
    const bool is_flag = value.empty();
    if (::fsconfig(context.get(), is_flag ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, key.c_str(),
                   is_flag ? nullptr : value.c_str(), 0) != 0)
      return refuse("option " + quote(key));
  }
  if (create(context, instance) != 0) return refuse("create");
  MountFd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, static_cast<unsigned>(attributes)));
  if (!mount) return refuse("mount");
  return mount;
}

Result<void> attach_mount(const MountFd& mount, const Fd& target) {
  if (::move_mount(mount.get(), "", target.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
    return sys_fail("attach mount");
  return {};
}

Result<void> attach_mount(const MountFd& mount, const Fd& dir, const std::string& path) {
  if (::move_mount(mount.get(), "", dir.get(), path.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return sys_fail("attach mount to " + quote(path));
  return {};
}

Result<void> set_mount_attributes(const MountFd& mount, std::uint64_t set, std::uint64_t clear, Depth depth) {
  mount_attr attributes{};
  attributes.attr_set = set;
  attributes.attr_clr = clear;
  if (::mount_setattr(mount.get(), "", static_cast<unsigned>(AT_EMPTY_PATH | recursion(depth)), &attributes,
                      sizeof attributes) != 0)
    return sys_fail("set mount attributes");
  return {};
}

Result<void> set_mount_idmap(const MountFd& mount, const NsFd& user_ns, Depth depth) {
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_IDMAP;
  attributes.userns_fd = static_cast<std::uint64_t>(user_ns.get());
  if (::mount_setattr(mount.get(), "", static_cast<unsigned>(AT_EMPTY_PATH | recursion(depth)), &attributes,
                      sizeof attributes) != 0)
    return sys_fail("shift owners by an idmapped mount");
  return {};
}

bool is_readonly_mount(const Fd& place) {
  struct statvfs facts {};
  return ::fstatvfs(place.get(), &facts) == 0 && (facts.f_flag & ST_RDONLY) != 0;
}

Result<DirFd> resolve_in_root(const DirFd& root, std::string_view path, Symlinks symlinks, int flags) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(O_PATH | O_CLOEXEC | flags);
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (symlinks == Symlinks::kRefuse ? RESOLVE_NO_SYMLINKS : 0u);
  const std::string name(path.empty() ? "/" : path);
  for (int attempt = 0;; ++attempt) {
    DirFd place(static_cast<int>(::syscall(SYS_openat2, root.get(), name.c_str(), &how, sizeof how)));
    if (place) return place;
    // EAGAIN: somewhere on the host a rename raced with a ".."; the kernel asks to try again (openat2(2)).
    if (errno == EAGAIN && attempt < 64) continue;
    if (errno == ELOOP && symlinks == Symlinks::kRefuse)
      return sys_fail("open " + quote(path) + " of the container: a symbolic link is in the way");
    return sys_fail("open " + quote(path) + " of the container");
  }
}

namespace {

Result<DirFd> make_missing(const DirFd& root, std::string_view path, TargetKind kind, Symlinks symlinks) {
  const auto slash = path.rfind('/');
  const std::string name(slash == std::string_view::npos ? path : path.substr(slash + 1));
  const std::string_view parent_path = slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
  const DirFd parent = TRY(resolve_in_root(root, parent_path, symlinks, O_DIRECTORY));
  if (kind == TargetKind::kDirectory) {
    if (::mkdirat(parent.get(), name.c_str(), 0755) != 0 && errno != EEXIST)
      return sys_fail("create " + quote(path) + " in the container");
  } else {
    // O_EXCL: never opens what somebody put there meanwhile, were it a FIFO, a device or a link.
    const Fd file(::openat(parent.get(), name.c_str(), O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_WRONLY, 0644));
    if (!file && errno != EEXIST) return sys_fail("create " + quote(path) + " in the container");
  }
  return TRY(resolve_in_root(root, path, symlinks));
}

}  // namespace

Result<DirFd> make_target(const DirFd& root, std::string_view path, TargetKind kind, Symlinks symlinks) {
  while (!path.empty() && path.back() == '/') path.remove_suffix(1);
  if (kind == TargetKind::kDirectory && !path.empty())  // it mostly is there
    if (auto place = resolve_in_root(root, path, symlinks, O_DIRECTORY)) return place;
  // Prefix by prefix, because any of them may be missing; each is resolved anew from the root.
  for (std::size_t at = 0; at != std::string_view::npos;) {
    at = path.find('/', at + 1);
    const auto prefix = path.substr(0, at);
    const bool is_last = at == std::string_view::npos;
    const TargetKind wanted = is_last ? kind : TargetKind::kDirectory;
    auto place = resolve_in_root(root, prefix, symlinks);
    if (!place && place.error().sys_errno == ENOENT) place = make_missing(root, prefix, wanted, symlinks);
    if (!place) return std::move(place).error();
    struct stat st {};
    if (::fstat(place->get(), &st) != 0) return sys_fail("stat " + quote(prefix) + " of the container");
    if (wanted == TargetKind::kDirectory && !S_ISDIR(st.st_mode))
      return sys_fail("open " + quote(prefix) + " of the container", ENOTDIR);
    if (wanted == TargetKind::kFile && S_ISDIR(st.st_mode))
      return sys_fail("open " + quote(prefix) + " of the container", EISDIR);
    if (is_last) return std::move(place).value();
  }
  return fail(VIR_ERR_INTERNAL_ERROR, "make target: empty path");
}

// setfsuid also takes CAP_DAC_OVERRIDE, CAP_FOWNER and the like from the effective set (capabilities(7)).
OnDiskIdentity::OnDiskIdentity(uid_t uid, gid_t gid)
    : gid_before_(::setfsgid(gid)), uid_before_(::setfsuid(uid)), mask_before_(::umask(022)) {}

OnDiskIdentity::~OnDiskIdentity() {
  ::umask(mask_before_);
  ::setfsuid(static_cast<uid_t>(uid_before_));
  ::setfsgid(static_cast<gid_t>(gid_before_));
}

Result<void> change_root(const std::string& path) {
  if (::chdir(path.c_str()) != 0) return sys_fail("enter " + quote(path));
  // Both arguments the same: the old root comes to lie on top of the new one and is detached from there, so that no
  // directory for it is needed (pivot_root(2), "pivot_root(".", ".")").
  if (::syscall(SYS_pivot_root, ".", ".") != 0) return sys_fail("pivot to " + quote(path));
  if (::umount2(".", MNT_DETACH) != 0) return sys_fail("detach the old root");
  if (::chdir("/") != 0) return sys_fail("enter '/'");
  return {};
}

}  // namespace virtuserns::kernel
