#include "driver/kernel/shadow.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/kernel/mount.h"

namespace virtuserns::kernel {

namespace {

constexpr const char* kShadow = "shadow";
constexpr const char* kNew = "shadow.userns-new";
constexpr const char* kLock = ".pwd.lock";
constexpr int kLockPauseMs = 50;

Result<Fd> take_lock(const DirFd& etc, int patience_ms) {
  Fd lock(::openat(etc.get(), kLock, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600));
  if (!lock) return sys_fail("open /etc/.pwd.lock of the container");
  struct stat st {};
  if (::fstat(lock.get(), &st) != 0 || !S_ISREG(st.st_mode))
    return fail(VIR_ERR_OPERATION_FAILED, "/etc/.pwd.lock of the container is no regular file");
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  for (int waited_ms = 0; ::fcntl(lock.get(), F_SETLK, &whole) != 0; waited_ms += kLockPauseMs) {
    if (errno != EACCES && errno != EAGAIN && errno != EINTR) return sys_fail("lock /etc/.pwd.lock of the container");
    if (waited_ms >= patience_ms)
      return fail(
          VIR_ERR_RESOURCE_BUSY,
          "a program of the container keeps its passwords locked (/etc/.pwd.lock): try again when it is done");
    ::usleep(kLockPauseMs * 1000);
  }
  return lock;
}

bool is_same(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

struct Shadow {
  std::string text;
  struct stat facts {};
};

Result<Shadow> read_shadow(const DirFd& etc) {
  Shadow shadow;
  struct stat after {};
  if (::fstatat(etc.get(), kShadow, &shadow.facts, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno != ENOENT) return sys_fail("look at /etc/shadow of the container");
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the container has no /etc/shadow, where a password could be");
  }
  shadow.text = TRY(read_file_at(etc, kShadow, kMaxShadowBytes), "/etc/shadow of the container");
  if (::fstatat(etc.get(), kShadow, &after, AT_SYMLINK_NOFOLLOW) != 0 || !is_same(shadow.facts, after))
    return fail(VIR_ERR_OPERATION_FAILED, "/etc/shadow of the container changed while it was read: try again");
  return shadow;
}

Result<void> write_all(const Fd& file, std::string_view text) {
  while (!text.empty()) {
    const auto written = ::write(file.get(), text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return sys_fail("write /etc/shadow of the container");
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

Result<void> replace_shadow(const DirFd& etc, const struct stat& old, std::string_view text) {
  ::unlinkat(etc.get(), kNew, 0);  // of one that was killed
  const Fd file(::openat(etc.get(), kNew, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return sys_fail("make a new /etc/shadow of the container");
  Undo undo;
  undo.add([&] { ::unlinkat(etc.get(), kNew, 0); });
  TRY(write_all(file, text));
  if (::fchown(file.get(), old.st_uid, old.st_gid) != 0 || ::fchmod(file.get(), old.st_mode & 07777) != 0)
    return sys_fail("give /etc/shadow of the container its owner");
  if (::fsync(file.get()) != 0 || ::renameat(etc.get(), kNew, etc.get(), kShadow) != 0)
    return sys_fail("replace /etc/shadow of the container");
  undo.commit();
  const Fd folder(::openat(etc.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder) ::fsync(folder.get());
  return {};
}

}  // namespace

Result<std::string> replace_hash(std::string_view text, std::string_view user, std::string_view hash,
                                 std::uint32_t day) {
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = std::min(text.find('\n', begin), text.size());
    const auto fields = split(text.substr(begin, end - begin), ':');
    if (fields.size() < 2 || fields[0] != user) {
      begin = end + 1;
      continue;
    }
    std::string line(fields[0]);
    line += ":" + std::string(hash);
    for (std::size_t i = 2; i < fields.size(); ++i)
      line += ":" + (i == 2 ? std::to_string(day) : std::string(fields[i]));
    return std::string(text.substr(0, begin)) + line + std::string(text.substr(end));
  }
  return fail(VIR_ERR_INVALID_ARG, "the container has no user " + quote(user) + " in its /etc/shadow");
}

Result<void> set_password_below(const DirFd& root, const std::string& user, const std::string& hash,
                                int patience_ms) {
  const auto etc = resolve_in_root(root, "/etc", Symlinks::kFollowInRoot, O_DIRECTORY);
  if (!etc && etc.error().sys_errno == ENOENT)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the container has no /etc/shadow, where a password could be");
  if (!etc) return etc.error();
  // Nothing is made in a container that has no passwords.
  if (::faccessat(etc->get(), kShadow, F_OK, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the container has no /etc/shadow, where a password could be");
  const Fd lock = TRY(take_lock(*etc, patience_ms));
  const Shadow shadow = TRY(read_shadow(*etc));
  constexpr time_t kDaySeconds = 24 * 60 * 60;
  const auto day = static_cast<std::uint32_t>(::time(nullptr) / kDaySeconds);
  return replace_shadow(*etc, shadow.facts, TRY(replace_hash(shadow.text, user, hash, day)));
}

}  // namespace virtuserns::kernel
