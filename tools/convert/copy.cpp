#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <climits>
#include <map>
#include <memory>

#include "conf/base/text.h"
#include "tools/convert/inode_flags.h"
#include "tools/convert/tree.h"

namespace virtuserns::convert {
namespace {

constexpr std::size_t kMaxXattrs = 64 * 1024, kMaxDepth = 900, kBuffer = 256 * 1024, kExamples = 5;
constexpr time_t kNever = std::numeric_limits<time_t>::max();
constexpr std::uint64_t kProgressEvery = 1024, kMaxEntries = 50'000'000;

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using Listing = std::unique_ptr<DIR, CloseDir>;

Result<Listing> list(const DirFd& dir) {
  // A descriptor of its own: readdir moves a place in it.
  const int fd = ::openat(dir.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return sys_fail("list");
  Listing listing(::fdopendir(fd));
  if (!listing) {
    ::close(fd);
    return sys_fail("list");
  }
  return listing;
}

// A path whose last component is not followed; the folder cannot change its identity.
std::string place_of(const DirFd& dir, const std::string& name) {
  return "/proc/self/fd/" + std::to_string(dir.get()) + "/" + name;
}

enum class Onto { kNothing, kOlder };  // what is in the place of the copy

// What security modules and overlays have written: it means something to the machine that it was written on.
bool is_label(std::string_view attribute) {
  return attribute.starts_with("trusted.") ||
         (attribute.starts_with("security.") && attribute != "security.capability");
}

bool is_node(const struct stat& st) { return S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode); }

// With the same content, as far as can be seen without reading it.
bool is_same_file(const struct stat& a, const struct stat& b) {
  return S_ISREG(a.st_mode) && S_ISREG(b.st_mode) && a.st_nlink == 1 && b.st_nlink == 1 && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

bool is_before(const timespec& a, const timespec& b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

class Copier {
 public:
  Copier(const DirFd& to, Onto onto, std::uint64_t max_bytes, const std::function<void(const CopyCount&)>& progress,
         std::optional<timespec> doubtful_since, time_t own_since)
      : root_(to),
        onto_(onto),
        max_bytes_(max_bytes),
        progress_(progress),
        doubtful_since_(doubtful_since),
        own_since_(own_since),
        buffer_(kBuffer, '\0') {}

  Result<Copied> copy(const DirFd& from, const DirFd& to) {
    struct stat st {};
    if (::fstat(from.get(), &st) != 0) return sys_fail("look at the root");
    TRY(copy_below(from, to, "", 0));
    TRY(give_attributes(from, ".", to, ".", st), "the root");
    report();
    return std::move(copied_);
  }

 private:
  struct Left {
    std::uint64_t count = 0;
    std::string examples;
    void add(const std::string& path) {
      if (++count <= kExamples) examples += (examples.empty() ? "" : ", ") + path;
    }
  };

  // A damaged file system can show one directory below many, and one block in many files.
  static Error too_much() {
    return fail(VIR_ERR_OPERATION_FAILED,
                "there is more than such a disk can hold, or than there is room for; see 'fsck' and 'df'");
  }

  Result<void> charge(std::uint64_t bytes) {
    copied_.bytes += bytes;
    return copied_.bytes > max_bytes_ ? Result<void>(too_much()) : Result<void>();
  }

  Result<void> copy_below(const DirFd& from, const DirFd& to, const std::string& path, std::size_t depth) {
    if (depth > kMaxDepth) return fail(VIR_ERR_OPERATION_FAILED, quote(path) + " is too deep");
    if (onto_ == Onto::kOlder) TRY(remove_surplus(from, to), quote(path));
    const auto listing = TRY(list(from), quote(path.empty() ? "/" : path));
    for (errno = 0; const dirent* entry = ::readdir(listing.get()); errno = 0) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      if (path.size() + name.size() + 2 > PATH_MAX)
        return fail(VIR_ERR_OPERATION_FAILED, "a path is longer than 4095 bytes: " + quote(path));
      TRY(copy_entry(from, to, name, path + "/" + name, depth));
    }
    return errno == 0 ? Result<void>() : Result<void>(sys_fail("list " + quote(path)));
  }

  Result<void> copy_entry(const DirFd& from, const DirFd& to, const std::string& name, const std::string& path,
                          std::size_t depth) {
    struct stat st {};
    if (::fstatat(from.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return sys_fail("look at " + quote(path));
    if (st.st_ctim.tv_sec < own_since_ && is_before(copied_.newest_change, st.st_ctim))
      copied_.newest_change = st.st_ctim;
    if (is_node(st)) {
      devices_.add(path);
      return onto_ == Onto::kOlder ? remove_former(to, name) : Result<void>();
    }
    if (++copied_.entries % kProgressEvery == 0) progress_(copied_);
    if (copied_.entries > kMaxEntries) return too_much();
    if (onto_ == Onto::kOlder) {
      const int flags = take_flags(to, name);
      if (TRY(make_room(to, name, st), quote(path))) {
        if (S_ISDIR(st.st_mode))
          TRY(copy_directory(from, to, name, path, depth));
        else
          TRY(give_attributes(from, name, to, name, st), quote(path));
        put_flags(to, name, flags);
        return {};
      }
      if (flags != 0) flags_.add(path);
    }
    if (S_ISDIR(st.st_mode)) return copy_directory(from, to, name, path, depth);
    if (st.st_nlink > 1) {
      const auto [first, is_new] = links_.emplace(std::pair(st.st_dev, st.st_ino), path);
      if (!is_new && TRY(link(first->second, to, name, path))) return {};
    }
    TRY(make(from, to, name, path, st), quote(path));
    TRY(give_attributes(from, name, to, name, st), quote(path));
    return {};
  }

  // What the container has not. Device nodes stay: it never had them.
  Result<void> remove_surplus(const DirFd& from, const DirFd& to) {
    const auto listing = TRY(list(to));
    std::vector<std::string> surplus;
    while (const dirent* entry = ::readdir(listing.get())) {
      const std::string name = entry->d_name;
      struct stat st {};
      if (name == "." || name == ".." || ::fstatat(from.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) continue;
      if (::fstatat(to.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 && !is_node(st)) surplus.push_back(name);
    }
    for (const auto& name : surplus) TRY(remove_tree(to, name));
    return {};
  }

  // What was in the place of a device node before.
  Result<void> remove_former(const DirFd& to, const std::string& name) {
    struct stat there {};
    if (::fstatat(to.get(), name.c_str(), &there, AT_SYMLINK_NOFOLLOW) != 0 || is_node(there)) return {};
    return remove_tree(to, name);
  }

  // True: what is there stays, and gets its attributes. Otherwise there is nothing now.
  Result<bool> make_room(const DirFd& to, const std::string& name, const struct stat& st) {
    struct stat there {};
    if (::fstatat(to.get(), name.c_str(), &there, AT_SYMLINK_NOFOLLOW) != 0) return false;
    const bool is_doubtful = doubtful_since_ && !is_before(st.st_ctim, *doubtful_since_);
    if ((is_same_file(st, there) && !is_doubtful) || (S_ISDIR(st.st_mode) && S_ISDIR(there.st_mode))) return true;
    TRY(remove_tree(to, name));
    return false;
  }

  Result<void> copy_directory(const DirFd& from, const DirFd& to, const std::string& name, const std::string& path,
                              std::size_t depth) {
    const DirFd source(::openat(from.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!source) return sys_fail("open " + quote(path));
    note_flags(source, path);
    if (::mkdirat(to.get(), name.c_str(), 0700) != 0 && (onto_ == Onto::kNothing || errno != EEXIST))
      return sys_fail("make " + quote(path));
    const DirFd target(::openat(to.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!target) return sys_fail("open " + quote(path));
    TRY(copy_below(source, target, path, depth + 1));
    // Of what was opened: on a mount point that is the root of what is mounted there.
    struct stat st {};
    if (::fstat(source.get(), &st) != 0) return sys_fail("look at " + quote(path));
    TRY(give_attributes(source, ".", target, ".", st), quote(path));
    return {};
  }

  Result<void> make(const DirFd& from, const DirFd& to, const std::string& name, const std::string& path,
                    const struct stat& st) {
    if (S_ISREG(st.st_mode)) return copy_file(from, to, name, path, st);
    if (S_ISLNK(st.st_mode)) {
      std::string target(PATH_MAX, '\0');
      const auto length = ::readlinkat(from.get(), name.c_str(), target.data(), target.size());
      if (length < 0) return sys_fail("read link");
      target.resize(static_cast<std::size_t>(length));
      return ::symlinkat(target.c_str(), to.get(), name.c_str()) == 0 ? Result<void>()
                                                                      : Result<void>(sys_fail("link"));
    }
    if (!S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode)) return fail(VIR_ERR_OPERATION_FAILED, "of no known type");
    if (::mknodat(to.get(), name.c_str(), (st.st_mode & S_IFMT) | 0600, 0) != 0) return sys_fail("make");
    return {};
  }

  Result<void> copy_file(const DirFd& from, const DirFd& to, const std::string& name, const std::string& path,
                         const struct stat& st) {
    const Fd source(::openat(from.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
    if (!source) return sys_fail("open");
    note_flags(source, path);
    const Fd target(::openat(to.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!target) return sys_fail("make");
    for (off_t at = 0; at < st.st_size;) {
      off_t data = ::lseek(source.get(), at, SEEK_DATA);
      if (data < 0 && errno == ENXIO) break;
      if (data < 0) data = at;
      off_t hole = ::lseek(source.get(), data, SEEK_HOLE);
      if (hole <= data || hole > st.st_size) hole = st.st_size;
      TRY(copy_range(source, target, data, hole));
      at = hole;
    }
    if (::ftruncate(target.get(), st.st_size) != 0) return sys_fail("size");
    return {};
  }

  Result<void> copy_range(const Fd& source, const Fd& target, off_t at, off_t end) {
    while (at < end) {
      const auto wanted = std::min<std::uint64_t>(buffer_.size(), static_cast<std::uint64_t>(end - at));
      const auto got = ::pread(source.get(), buffer_.data(), wanted, at);
      if (got < 0) return sys_fail("read");
      if (got == 0) return fail(VIR_ERR_OPERATION_FAILED, "it ends before its size");
      for (ssize_t done = 0; done < got;) {
        const auto put =
            ::pwrite(target.get(), buffer_.data() + done, static_cast<std::size_t>(got - done), at + done);
        if (put < 0) return sys_fail("write");
        done += put;
      }
      at += got;
      TRY(charge(static_cast<std::uint64_t>(got)));
    }
    return {};
  }

  // False: this name needs a file of its own, as the first one is on another volume of the machine, or has as many names as
  // this file system can give to one.
  Result<bool> link(const std::string& first, const DirFd& to, const std::string& name, const std::string& path) {
    // The path is one that we made, below the root and of directories only.
    if (::linkat(root_.get(), first.c_str() + 1, to.get(), name.c_str(), 0) == 0) return true;
    if (errno != EXDEV && errno != EMLINK) return sys_fail("link " + quote(path));
    apart_.add(path);
    return false;
  }

  // Owner first, which clears setuid bits and capabilities; times last.
  Result<void> give_attributes(const DirFd& from, const std::string& name, const DirFd& to,
                               const std::string& new_name, const struct stat& st) {
    if (::fchownat(to.get(), new_name.c_str(), st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) != 0)
      return sys_fail("owner");
    if (!S_ISLNK(st.st_mode) && ::fchmodat(to.get(), new_name.c_str(), st.st_mode & 07777, 0) != 0)
      return sys_fail("mode");
    TRY(copy_xattrs(place_of(from, name), place_of(to, new_name)));
    const timespec times[2] = {st.st_atim, st.st_mtim};
    if (::utimensat(to.get(), new_name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) return sys_fail("times");
    return {};
  }

  // Those that a copy would set, so that none of them is left that the container has taken away.
  Result<void> clear_xattrs(const std::string& path) {
    const auto bytes = ::llistxattr(path.c_str(), names_.data(), names_.size());
    for (const char* name = names_.data(); name < names_.data() + bytes; name += std::strlen(name) + 1)
      if (!is_label(name) && ::lremovexattr(path.c_str(), name) != 0 && errno != ENODATA)
        return sys_fail("remove attribute " + quote(name));
    return {};
  }

  Result<void> copy_xattrs(const std::string& from, const std::string& to) {
    if (onto_ == Onto::kOlder) TRY(clear_xattrs(to));
    const auto bytes = ::llistxattr(from.c_str(), names_.data(), names_.size());
    if (bytes < 0) return errno == EOPNOTSUPP ? Result<void>() : Result<void>(sys_fail("list attributes"));
    for (const char* name = names_.data(); name < names_.data() + bytes; name += std::strlen(name) + 1) {
      const std::string_view view(name);
      if (view.starts_with("trusted.SGI_ACL_")) continue;  // how xfs shows an access control list a second time
      if (is_label(view)) {
        ++labels_[std::string(view)];
        continue;
      }
      const auto length = ::lgetxattr(from.c_str(), name, buffer_.data(), kMaxXattrs);
      if (length < 0) return sys_fail("read attribute " + quote(view));
      if (::lsetxattr(to.c_str(), name, buffer_.data(), static_cast<std::size_t>(length), 0) != 0)
        return sys_fail("set attribute " + quote(view));
      TRY(charge(static_cast<std::uint64_t>(length)));
    }
    return {};
  }

  void note_flags(const Fd& file, const std::string& path) {
    int flags = 0;
    if (::ioctl(file.get(), FS_IOC_GETFLAGS, &flags) == 0 && flags & (FS_IMMUTABLE_FL | FS_APPEND_FL))
      flags_.add(path);
  }

  void report() {
    if (devices_.count)
      copied_.findings.push_back({Severity::kChange, std::to_string(devices_.count) + " device nodes",
                                  "are not copied: " + devices_.examples, ""});
    if (flags_.count)
      copied_.findings.push_back({Severity::kChange, std::to_string(flags_.count) + " immutable or append-only files",
                                  "are copied without these flags, which a container cannot have: " + flags_.examples,
                                  ""});
    if (apart_.count)
      copied_.findings.push_back(
          {Severity::kChange, std::to_string(apart_.count) + " hard links",
           "are files of their own now, as the other name cannot be of the same file: " + apart_.examples, ""});
    for (const auto& [name, count] : labels_)
      copied_.findings.push_back({Severity::kChange, "attribute '" + name + "'",
                                  "is not copied, of " + std::to_string(count) + " files", ""});
  }

  const DirFd& root_;
  Onto onto_;
  std::uint64_t max_bytes_;
  const std::function<void(const CopyCount&)>& progress_;
  std::optional<timespec> doubtful_since_;
  time_t own_since_;
  std::string buffer_, names_ = std::string(kMaxXattrs, '\0');
  std::map<std::pair<dev_t, ino_t>, std::string> links_;
  Left devices_, flags_, apart_;
  std::map<std::string, std::uint64_t> labels_;
  Copied copied_;
};

// Two descriptors for each level.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 8192);
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

Result<Copied> copy_tree(const DirFd& from, const DirFd& to, std::uint64_t max_bytes,
                         const std::function<void(const CopyCount&)>& progress, time_t own_since) {
  raise_descriptor_limit();
  return Copier(to, Onto::kNothing, max_bytes, progress, std::nullopt, own_since).copy(from, to);
}

Result<Copied> update_tree(const DirFd& from, const DirFd& to, std::uint64_t max_bytes,
                           const std::function<void(const CopyCount&)>& progress,
                           const std::optional<timespec>& doubtful_since) {
  raise_descriptor_limit();
  return Copier(to, Onto::kOlder, max_bytes, progress, doubtful_since, kNever).copy(from, to);
}

}  // namespace virtuserns::convert
