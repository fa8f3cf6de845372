#include "tools/convert/guest_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <set>

#include "conf/base/text.h"
#include "tools/convert/fstab.h"
#include "tools/convert/guest_paths.h"
#include "tools/convert/originals.h"

namespace virtuserns::convert {

namespace {

constexpr std::size_t kMaxLinkBytes = 4096;

GuestType type_of(mode_t mode) {
  if (S_ISREG(mode)) return GuestType::kFile;
  if (S_ISDIR(mode)) return GuestType::kDirectory;
  return S_ISLNK(mode) ? GuestType::kLink : GuestType::kOther;
}

Result<std::string> read_all(const Fd& file, const std::string& path, std::size_t max_bytes) {
  const auto too_large = [&] {
    return fail(VIR_ERR_OPERATION_FAILED,
                "guest file " + quote(path) + " is larger than " + std::to_string(max_bytes) + " bytes");
  };
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return sys_fail("look at guest file " + quote(path));
  if (static_cast<std::uint64_t>(status.st_size) > max_bytes) return too_large();
  std::string text;
  char buffer[65536];
  for (;;) {
    const auto count = ::read(file.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return sys_fail("read guest file " + quote(path));
    if (count == 0) return text;
    text.append(buffer, static_cast<std::size_t>(count));
    if (text.size() > max_bytes) return too_large();
  }
}

}  // namespace

Result<std::pair<std::string, std::string>> split_path(const std::string& path) {
  std::string parent, last;
  for (const auto part : split(path, '/')) {
    if (part.empty()) continue;
    if (part == "." || part == ".." || part.find('\0') != std::string_view::npos)
      return fail(VIR_ERR_INVALID_ARG, "path " + quote(path) + " is not one that can be edited");
    if (!last.empty()) parent += (parent.empty() ? "" : "/") + last;
    last = part;
  }
  if (last.empty()) return fail(VIR_ERR_INVALID_ARG, "path " + quote(path) + " has no last component");
  return std::pair(std::move(parent), std::move(last));
}

Result<Fd> open_in_root(const DirFd& root, const std::string& path, int flags) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags) | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const auto relative = path.find_first_not_of('/');
  const auto name = relative == std::string::npos ? std::string(".") : path.substr(relative);
  // EAGAIN: something was renamed meanwhile, and the kernel cannot say whether the walk stayed in the root.
  for (int attempt = 0;; ++attempt) {
    const auto fd = ::syscall(SYS_openat2, root.get(), name.c_str(), &how, sizeof how);
    if (fd >= 0) return Fd(static_cast<int>(fd));
    if (errno != EINTR && (errno != EAGAIN || attempt >= 16)) return sys_fail("open guest path " + quote(path));
  }
}

Result<DirFd> open_directory_in_root(const DirFd& root, const std::string& path) {
  auto fd = TRY(open_in_root(root, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK));
  return DirFd(fd.release());
}

GuestType GuestFiles::type(const std::string& path) const {
  const auto tidied = tidy_target(path);
  if (const auto staged = staged_.find(tidied); staged != staged_.end()) {
    if (staged->second.kind == Edit::Kind::kRemove) return GuestType::kMissing;
    return staged->second.kind == Edit::Kind::kReplace ? GuestType::kFile : GuestType::kLink;
  }
  const auto handle = open_in_root(root_, tidied, O_PATH | O_NOFOLLOW);
  struct stat status {};
  if (!handle || ::fstat(handle->get(), &status) != 0) return GuestType::kMissing;
  return type_of(status.st_mode);
}

// What it is must be known before it is opened: opening a device or a FIFO already does something.
Result<Fd> GuestFiles::open_regular(const std::string& path) const {
  const auto handle = TRY(open_in_root(root_, path, O_PATH));
  struct stat status {};
  if (::fstat(handle.get(), &status) != 0) return sys_fail("look at guest file " + quote(path));
  if (!S_ISREG(status.st_mode))
    return fail(VIR_ERR_OPERATION_FAILED, "guest file " + quote(path) + " is no regular file");
  // The same inode again, and not the same name, which may lead elsewhere by now. Times of access are the guest's; only
  // an owner may leave them alone.
  const auto name = "/proc/self/fd/" + std::to_string(handle.get());
  constexpr int kFlags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  Fd file(::open(name.c_str(), kFlags | O_NOATIME));
  if (!file && errno == EPERM) file = Fd(::open(name.c_str(), kFlags));
  if (!file) return sys_fail("open guest file " + quote(path));
  return file;
}

Result<std::string> GuestFiles::read(const std::string& path, std::size_t max_bytes) const {
  const auto tidied = tidy_target(path);
  if (const auto staged = staged_.find(tidied); staged != staged_.end()) {
    if (staged->second.kind == Edit::Kind::kReplace) return staged->second.text;
    return Error{VIR_ERR_OPERATION_FAILED, ENOENT, "guest file " + quote(path) + " is removed"};
  }
  const auto refuse = [&](Error error) {
    if (error.sys_errno != ENOENT) refused_.insert_or_assign(tidied, error.text);
    return error;
  };
  if (bytes_read_ > kMaxGuestTotalBytes)
    return refuse(fail(VIR_ERR_OPERATION_FAILED, "more than " + std::to_string(kMaxGuestTotalBytes) +
                                                     " bytes of the guest's files have been read"));
  const auto file = open_regular(tidied);
  auto text = file ? read_all(*file, path, max_bytes) : Result<std::string>(file.error());
  if (!text) return refuse(std::move(text).error());
  bytes_read_ += text->size();
  return text;
}

Result<std::string> GuestFiles::read_head(const std::string& path, std::size_t bytes) const {
  const auto file = TRY(open_regular(tidy_target(path)));
  std::string text(bytes, '\0');
  const auto count = ::pread(file.get(), text.data(), bytes, 0);
  if (count < 0) return sys_fail("read guest file " + quote(path));
  text.resize(static_cast<std::size_t>(count));
  return text;
}

std::string GuestFiles::final_name(const std::string& path) const {
  const auto handle = open_in_root(root_, tidy_target(path), O_PATH);
  if (!handle) return {};
  char buffer[kMaxLinkBytes];
  const auto count = ::readlink(("/proc/self/fd/" + std::to_string(handle->get())).c_str(), buffer, sizeof buffer);
  if (count <= 0) return {};
  const std::string_view whole(buffer, static_cast<std::size_t>(count));
  return std::string(whole.substr(whole.rfind('/') + 1));
}

std::uint64_t GuestFiles::link_count(const std::string& path) const {
  const auto handle = open_in_root(root_, tidy_target(path), O_PATH | O_NOFOLLOW);
  struct stat status {};
  if (!handle || ::fstat(handle->get(), &status) != 0 || !S_ISREG(status.st_mode)) return 0;
  return status.st_nlink;
}

std::string GuestFiles::read_or_empty(const std::string& path) const {
  auto text = read(path);
  return text ? std::move(*text) : std::string();
}

Result<std::string> GuestFiles::read_link(const std::string& path) const {
  const auto tidied = tidy_target(path);
  if (const auto staged = staged_.find(tidied); staged != staged_.end()) {
    if (staged->second.kind == Edit::Kind::kSymlink) return staged->second.text;
    return fail(VIR_ERR_OPERATION_FAILED, "guest file " + quote(path) + " is no link");
  }
  const auto handle = TRY(open_in_root(root_, tidied, O_PATH | O_NOFOLLOW));
  char buffer[kMaxLinkBytes];
  const auto count = ::readlinkat(handle.get(), "", buffer, sizeof buffer);
  if (count < 0) return sys_fail("read link " + quote(path));
  return std::string(buffer, static_cast<std::size_t>(count));
}

std::vector<std::string> GuestFiles::list(const std::string& path) const {
  const auto tidied = tidy_target(path);
  std::set<std::string> names;
  if (auto directory = open_directory_in_root(root_, tidied)) {
    const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(directory->get()), ::closedir);
    if (stream) (void)directory->release();
    while (const dirent* entry = stream ? ::readdir(stream.get()) : nullptr) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      if (names.size() >= kMaxGuestEntries) {
        refused_.insert_or_assign(tidied, "guest directory " + quote(path) + " has more than " +
                                              std::to_string(kMaxGuestEntries) + " entries");
        return {};
      }
      names.insert(name);
    }
  } else if (const auto code = directory.error().sys_errno; code != ENOENT && code != ENOTDIR) {
    refused_.insert_or_assign(tidied, directory.error().text);
  }
  const std::string prefix = tidied == "/" ? tidied : tidied + "/";
  for (const auto& [name, edit] : staged_) {
    if (!name.starts_with(prefix)) continue;
    const auto rest = name.substr(prefix.size());
    const auto slash = rest.find('/');
    if (slash != std::string::npos && edit.kind != Edit::Kind::kRemove) names.insert(rest.substr(0, slash));
    if (slash != std::string::npos) continue;
    if (edit.kind == Edit::Kind::kRemove)
      names.erase(rest);
    else
      names.insert(rest);
  }
  return {names.begin(), names.end()};
}

Result<void> GuestFiles::stage(const std::string& path, Edit edit) {
  (void)TRY(split_path(path));
  const auto tidied = tidy_target(path);
  const auto there = type(tidied);
  if (there == GuestType::kDirectory || there == GuestType::kOther)
    return fail(VIR_ERR_OPERATION_FAILED,
                "guest path " + quote(path) + " is neither a file nor a link: it is not replaced");
  staged_.insert_or_assign(tidied, std::move(edit));
  return {};
}

Result<void> GuestFiles::replace(const std::string& path, std::string text) {
  return stage(path, {Edit::Kind::kReplace, std::move(text)});
}

Result<void> GuestFiles::remove(const std::string& path) {
  if (!exists(path)) return {};
  return stage(path, {Edit::Kind::kRemove, {}});
}

Result<void> GuestFiles::symlink(const std::string& path, std::string target) {
  return stage(path, {Edit::Kind::kSymlink, std::move(target)});
}

std::vector<std::string> GuestFiles::staged() const {
  std::vector<std::string> paths;
  for (const auto& [path, edit] : staged_) paths.push_back(path);
  return paths;
}

Result<void> GuestFiles::commit(const std::string& originals_dir) {
  std::vector<PlacedEdit> edits;
  for (const auto& [path, edit] : staged_) {
    const auto kind = edit.kind == Edit::Kind::kReplace  ? PlacedEdit::Kind::kFile
                      : edit.kind == Edit::Kind::kRemove ? PlacedEdit::Kind::kNothing
                                                         : PlacedEdit::Kind::kLink;
    edits.push_back({path, kind, edit.text});
  }
  TRY(apply_edits(root_, edits, originals_dir), "edit the guest's files");
  staged_.clear();
  return {};
}

}  // namespace virtuserns::convert
