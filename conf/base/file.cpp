#include "conf/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "conf/base/text.h"

namespace virtuserns {

namespace {

Result<std::string> read_all(const Fd& fd, const std::string& name, std::size_t max_bytes) {
  std::string content;
  char buffer[16384];
  for (;;) {
    const auto got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return sys_fail("read " + quote(name));
    if (got == 0) return content;
    if (content.size() + static_cast<std::size_t>(got) > max_bytes)
      return fail(VIR_ERR_OPERATION_FAILED,
                  "read " + quote(name) + ": larger than " + std::to_string(max_bytes) + " bytes");
    content.append(buffer, static_cast<std::size_t>(got));
  }
}

Result<std::string> read_regular_at(int dir, const std::string& name, std::size_t max_bytes) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const Fd fd(::openat(dir, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW));
  if (!fd) return sys_fail("open " + quote(name));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return sys_fail("stat " + quote(name));
  if (!S_ISREG(st.st_mode)) return fail(VIR_ERR_OPERATION_FAILED, "open " + quote(name) + ": not a regular file");
  return read_all(fd, name, max_bytes);
}

Result<std::string> read_kernel_at(int dir, const std::string& name, std::size_t max_bytes) {
  const Fd fd(::openat(dir, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd) return sys_fail("open " + quote(name));
  return read_all(fd, name, max_bytes);
}

Result<void> write_kernel_at(int dir, const std::string& name, std::string_view content) {
  const Fd fd(::openat(dir, name.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd) return sys_fail("open " + quote(name));
  const auto written = ::write(fd.get(), content.data(), content.size());
  if (written < 0) return sys_fail("write " + quote(trim(content)) + " to " + quote(name));
  if (static_cast<std::size_t>(written) != content.size())
    return fail(VIR_ERR_SYSTEM_ERROR, "write to " + quote(name) + ": cut short");
  return {};
}

std::string parent_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

enum class Durability { kDurable, kVolatile };

Result<void> replace_file(const std::string& path, std::string_view content, mode_t mode, Durability durability) {
  static std::atomic<unsigned> counter{0};
  const std::string temp = path + ".new." + std::to_string(::getpid()) + "." + std::to_string(counter++);
  Fd fd(::open(temp.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd) return sys_fail("create " + quote(temp));
  const auto give_up = [&](const char* what) {
    const int err = errno;
    ::unlink(temp.c_str());
    return sys_fail(std::string(what) + " " + quote(path), err);
  };
  for (auto rest = content; !rest.empty();) {
    const auto written = ::write(fd.get(), rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return give_up("write");
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  if (durability == Durability::kDurable && ::fsync(fd.get()) != 0) return give_up("fsync");
  fd.reset();
  if (::rename(temp.c_str(), path.c_str()) != 0) return give_up("rename to");
  if (durability == Durability::kDurable) return sync_directory(parent_of(path));
  return {};
}

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t max_bytes) {
  return read_regular_at(AT_FDCWD, path, max_bytes);
}

Result<std::string> read_file_at(const DirFd& dir, const std::string& name, std::size_t max_bytes) {
  return read_regular_at(dir.get(), name, max_bytes);
}

Result<std::string> read_kernel_file(const std::string& path, std::size_t max_bytes) {
  return read_kernel_at(AT_FDCWD, path, max_bytes);
}

Result<std::string> read_kernel_file_at(const DirFd& dir, const std::string& name, std::size_t max_bytes) {
  return read_kernel_at(dir.get(), name, max_bytes);
}

Result<void> write_atomic(const std::string& path, std::string_view content, mode_t mode) {
  return replace_file(path, content, mode, Durability::kDurable);
}

Result<void> write_atomic_volatile(const std::string& path, std::string_view content, mode_t mode) {
  return replace_file(path, content, mode, Durability::kVolatile);
}

Result<void> remove_durable(const std::string& path) {
  if (::unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return {};
    return sys_fail("remove " + quote(path));
  }
  return sync_directory(parent_of(path));
}

Result<void> sync_directory(const std::string& path) {
  const DirFd dir = TRY(open_directory(path));
  if (::fsync(dir.get()) != 0) return sys_fail("fsync directory " + quote(path));
  return {};
}

Result<void> write_kernel_file(const std::string& path, std::string_view content) {
  return write_kernel_at(AT_FDCWD, path, content);
}

Result<void> write_kernel_file_at(const DirFd& dir, const std::string& name, std::string_view content) {
  return write_kernel_at(dir.get(), name, content);
}

Result<void> make_directories(const std::string& path, mode_t mode) {
  for (std::size_t at = 1; at != std::string::npos;) {
    at = path.find('/', at);
    const std::string part = path.substr(0, at);
    if (::mkdir(part.c_str(), mode) == 0)
      TRY(sync_directory(parent_of(part)));  // what is durable in it must not be lost with its name
    else if (errno != EEXIST)
      return sys_fail("create directory " + quote(part));
    if (at != std::string::npos) ++at;
  }
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return sys_fail("stat " + quote(path));
  if (!S_ISDIR(st.st_mode)) return sys_fail("create directory " + quote(path), ENOTDIR);
  return {};
}

Result<std::vector<std::string>> list_directory(const std::string& path) {
  DIR* dir = ::opendir(path.c_str());
  if (!dir) return sys_fail("open directory " + quote(path));
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(dir)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  const int err = errno;
  ::closedir(dir);
  if (err != 0) return sys_fail("read directory " + quote(path), err);
  std::sort(names.begin(), names.end());
  return names;
}

Result<DirFd> open_directory(const std::string& path) {
  DirFd dir(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return sys_fail("open directory " + quote(path));
  return dir;
}

Result<Fd> lock_file(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return sys_fail("open lock " + quote(path));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd.get(), F_OFD_SETLK, &lock) != 0) {
    if (errno == EAGAIN || errno == EACCES)
      return fail(VIR_ERR_RESOURCE_BUSY, "lock " + quote(path) + ": held by another process");
    return sys_fail("lock " + quote(path));
  }
  return fd;
}

}  // namespace virtuserns
