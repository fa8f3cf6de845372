#include "tools/convert/place.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "conf/base/text.h"
#include "tools/convert/guest_paths.h"
#include "tools/convert/inode_flags.h"

namespace virtuserns::convert {

namespace {

constexpr std::size_t kMaxXattrBytes = 65536;  // XATTR_SIZE_MAX, XATTR_LIST_MAX

// Links have attributes of their own (security.selinux), and no descriptor takes fgetxattr for them.
std::string beside(const DirFd& parent, const std::string& name) {
  return "/proc/self/fd/" + std::to_string(parent.get()) + "/" + name;
}

Result<std::map<std::string, std::string>> read_xattrs(const std::string& path) {
  std::map<std::string, std::string> xattrs;
  std::vector<char> names(kMaxXattrBytes), value(kMaxXattrBytes);
  const auto length = ::llistxattr(path.c_str(), names.data(), names.size());
  if (length < 0) {
    if (errno == ENOTSUP || errno == ENOENT) return xattrs;
    return sys_fail("list extended attributes");
  }
  const std::string_view all(names.data(), static_cast<std::size_t>(length));
  for (const auto name : split(all, '\0')) {
    if (name.empty()) continue;
    const std::string key(name);
    const auto size = ::lgetxattr(path.c_str(), key.c_str(), value.data(), value.size());
    if (size < 0) return sys_fail("read extended attribute " + quote(key));
    xattrs[key] = std::string(value.data(), static_cast<std::size_t>(size));
  }
  return xattrs;
}

Result<void> write_xattrs(const std::string& path, const std::map<std::string, std::string>& xattrs) {
  for (const auto& [name, value] : xattrs)
    if (::lsetxattr(path.c_str(), name.c_str(), value.data(), value.size(), 0) != 0)
      return sys_fail("set extended attribute " + quote(name));
  return {};
}

Result<std::string> read_content(const DirFd& parent, const std::string& name, const struct stat& expected) {
  const Fd file(::openat(parent.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file) return sys_fail("open");
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return sys_fail("look at it");
  if (status.st_ino != expected.st_ino || status.st_dev != expected.st_dev || !S_ISREG(status.st_mode))
    return fail(VIR_ERR_OPERATION_FAILED, "it changed while it was read");
  std::string text;
  char buffer[65536];
  for (;;) {
    const auto count = ::read(file.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return sys_fail("read");
    if (count == 0) return text;
    text.append(buffer, static_cast<std::size_t>(count));
    if (text.size() > kMaxOriginalBytes)
      return fail(VIR_ERR_OPERATION_UNSUPPORTED,
                  "it is larger than " + std::to_string(kMaxOriginalBytes) + " bytes: no original is kept of that");
  }
}

Result<void> write_content(const Fd& file, std::string_view content) {
  while (!content.empty()) {
    const auto count = ::write(file.get(), content.data(), content.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return sys_fail("write");
    content.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

Result<void> make_temp(const DirFd& parent, const PlaceState& state, std::string_view content) {
  if (state.kind == PlaceKind::kLink) {
    if (::symlinkat(state.target.c_str(), parent.get(), kTempName) != 0) return sys_fail("make link");
  } else {
    const Fd file(
        ::openat(parent.get(), kTempName, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
    if (!file) return sys_fail("make file");
    TRY(write_content(file, content));
  }
  // In this order: a change of owner takes set-uid bits and capabilities away.
  if (::fchownat(parent.get(), kTempName, state.uid, state.gid, AT_SYMLINK_NOFOLLOW) != 0)
    return sys_fail("set owner");
  if (state.kind == PlaceKind::kFile && ::fchmodat(parent.get(), kTempName, state.mode & 07777, 0) != 0)
    return sys_fail("set mode");
  return write_xattrs(beside(parent, kTempName), state.xattrs);
}

}  // namespace

Result<Place> read_place(const DirFd& parent, const std::string& name) {
  Place place;
  const Fd handle(::openat(parent.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!handle) {
    if (errno == ENOENT) return place;
    return sys_fail("look at it");
  }
  struct stat status {};
  if (::fstat(handle.get(), &status) != 0) return sys_fail("look at it");
  auto& state = place.state;
  state.uid = status.st_uid, state.gid = status.st_gid, state.mode = status.st_mode & 07777;
  state.accessed = status.st_atim, state.modified = status.st_mtim;
  if (S_ISREG(status.st_mode)) {
    state.kind = PlaceKind::kFile;
    place.content = TRY(read_content(parent, name, status));
    state.xattrs = TRY(read_xattrs(beside(parent, name)));
    return place;
  }
  if (S_ISLNK(status.st_mode)) {
    state.kind = PlaceKind::kLink;
    char buffer[4096];
    const auto count = ::readlinkat(handle.get(), "", buffer, sizeof buffer);
    if (count < 0) return sys_fail("read link");
    state.target.assign(buffer, static_cast<std::size_t>(count));
    state.xattrs = TRY(read_xattrs(beside(parent, name)));
    return place;
  }
  return fail(VIR_ERR_OPERATION_UNSUPPORTED,
              S_ISDIR(status.st_mode) ? "it is a directory" : "it is neither a file nor a link");
}

Result<void> put_place(const DirFd& parent, const std::string& name, const PlaceState& state,
                       std::string_view content, Keep keep) {
  if (::unlinkat(parent.get(), kTempName, 0) != 0 && errno != ENOENT)
    return sys_fail("remove " + quote(kTempName) + " of an earlier run");
  // Many guests hold /etc/resolv.conf fast by chattr.
  (void)take_flags(parent, name);
  if (state.kind == PlaceKind::kNothing) {
    if (::unlinkat(parent.get(), name.c_str(), 0) != 0 && errno != ENOENT) return sys_fail("remove");
    return {};
  }
  auto made = make_temp(parent, state, content);
  const timespec times[] = {state.accessed, state.modified};
  if (made && keep == Keep::kAll && ::utimensat(parent.get(), kTempName, times, AT_SYMLINK_NOFOLLOW) != 0)
    made = sys_fail("set times");
  if (made && ::renameat(parent.get(), kTempName, parent.get(), name.c_str()) != 0) made = sys_fail("rename");
  if (!made) (void)::unlinkat(parent.get(), kTempName, 0);
  return made;
}

}  // namespace virtuserns::convert
