#include "tools/convert/walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <set>

#include "conf/base/text.h"

namespace virtuserns::convert {

namespace {

constexpr std::size_t kMaxXattrBytes = 65536;  // XATTR_LIST_MAX, XATTR_SIZE_MAX
constexpr std::uint64_t kBlock = 4096;

template <class T>
T little(std::string_view bytes) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>(value | static_cast<T>(static_cast<T>(static_cast<unsigned char>(bytes[i])) << (8 * i)));
  return value;
}

class Walker {
 public:
  Walker(std::uint32_t id_count, const WalkLimits& limits) : id_count_(id_count), limits_(limits) {}

  Result<Walk> run(const DirFd& root) {
    DirFd top(::openat(root.get(), ".", O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC));
    if (!top) return sys_fail("open the guest's root");
    look_at(top, ".", "/");
    enter(std::move(top), "", 0);
    return std::move(walk_);
  }

 private:
  void count(WalkCount& what, const std::string& path) const {
    if (what.count++ < limits_.max_examples) what.examples.push_back(path);
  }

  void note_ids(std::uint32_t uid, std::uint32_t gid, bool& is_above) {
    walk_.highest_uid = std::max(walk_.highest_uid, uid);
    walk_.highest_gid = std::max(walk_.highest_gid, gid);
    is_above |= uid >= id_count_ || gid >= id_count_;
  }

  // posix_acl_xattr(5)'s form: version 2, then tag, permissions and id of 8 bytes each.
  void note_acl(std::string_view acl, bool& is_above) {
    if (acl.size() < 4 || little<std::uint32_t>(acl) != 2) return;
    for (acl.remove_prefix(4); acl.size() >= 8; acl.remove_prefix(8)) {
      const auto tag = little<std::uint16_t>(acl);
      const auto id = little<std::uint32_t>(acl.substr(4));
      if (tag == 0x02) note_ids(id, 0, is_above);
      if (tag == 0x08) note_ids(0, id, is_above);
    }
  }

  void note_xattrs(const std::string& name, const std::string& path, bool& is_above) {
    const auto length = ::llistxattr(name.c_str(), names_.data(), names_.size());
    if (length <= 0) return;
    for (const auto attribute : split(std::string_view(names_.data(), static_cast<std::size_t>(length)), '\0')) {
      if (attribute == "security.capability") count(walk_.capabilities, path);
      if (!attribute.starts_with("system.posix_acl_")) continue;
      count(walk_.acls, path);
      const auto size = ::lgetxattr(name.c_str(), std::string(attribute).c_str(), value_.data(), value_.size());
      if (size > 0) note_acl({value_.data(), static_cast<std::size_t>(size)}, is_above);
    }
  }

  void note_mode(const struct statx& status, const std::string& path) {
    switch (status.stx_mode & S_IFMT) {
      case S_IFCHR:
        // 0:0 is an overlay's whiteout and no device.
        if (status.stx_rdev_major == 0 && status.stx_rdev_minor == 0) break;
        [[fallthrough]];
      case S_IFBLK:
        count(walk_.devices, path);
        break;
      case S_IFSOCK:
        count(walk_.sockets, path);
        break;
      case S_IFIFO:
        count(walk_.fifos, path);
        break;
      case S_IFDIR:
        // Some file systems keep one where it costs nothing; where it is copied to it takes a block.
        walk_.bytes += std::max<std::uint64_t>(status.stx_blocks * 512, kBlock);
        break;
      case S_IFREG:
        if ((status.stx_mode & (S_ISUID | S_ISGID)) != 0) count(walk_.setuid, path);
        if (status.stx_nlink < 2 ||
            seen_.insert({makedev(status.stx_dev_major, status.stx_dev_minor), status.stx_ino}).second)
          walk_.bytes += status.stx_blocks * 512;
        break;
      default:
        break;
    }
    if ((status.stx_attributes & STATX_ATTR_IMMUTABLE) != 0) count(walk_.immutable, path);
    if ((status.stx_attributes & STATX_ATTR_APPEND) != 0) count(walk_.append_only, path);
  }

  // True for a directory.
  bool look_at(const DirFd& parent, const std::string& name, const std::string& path) {
    struct statx status {};
    if (::statx(parent.get(), name.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &status) != 0) {
      walk_.is_complete = false;
      return false;
    }
    ++walk_.entries;
    bool is_above = false;
    note_ids(status.stx_uid, status.stx_gid, is_above);
    note_mode(status, path);
    const bool is_directory = S_ISDIR(status.stx_mode);
    if (is_directory || S_ISREG(status.stx_mode))
      note_xattrs("/proc/self/fd/" + std::to_string(parent.get()) + "/" + name, path, is_above);
    if (is_above) count(walk_.above_map, path);
    return is_directory;
  }

  void enter(DirFd directory, const std::string& path, std::size_t depth) {
    // The stream closes what it reads; the handle is for everything else.
    DirFd handle(::fcntl(directory.get(), F_DUPFD_CLOEXEC, 3));
    std::unique_ptr<DIR, int (*)(DIR*)> stream(handle ? ::fdopendir(directory.get()) : nullptr, ::closedir);
    if (!stream) return void(walk_.is_complete = false);
    (void)directory.release();
    std::vector<std::string> below;
    while (const dirent* entry = ::readdir(stream.get())) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      if (walk_.entries >= limits_.max_entries) {
        walk_.is_complete = false;
        break;
      }
      if (look_at(handle, name, path + "/" + name)) below.push_back(name);
    }
    stream.reset();
    for (const auto& name : below) {
      if (depth + 1 >= limits_.max_depth || walk_.entries >= limits_.max_entries) {
        walk_.is_complete = false;
        break;
      }
      DirFd child(::openat(handle.get(), name.c_str(),
                           O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOATIME));
      if (!child && errno == EPERM)
        child =
            DirFd(::openat(handle.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
      if (child)
        enter(std::move(child), path + "/" + name, depth + 1);
      else
        walk_.is_complete = false;
    }
  }

  std::uint32_t id_count_;
  const WalkLimits& limits_;
  Walk walk_;
  std::set<std::pair<dev_t, std::uint64_t>> seen_;
  std::vector<char> names_ = std::vector<char>(kMaxXattrBytes), value_ = std::vector<char>(kMaxXattrBytes);
};

std::string describe(const WalkCount& what, const char* noun) {
  std::string text = std::to_string(what.count) + " " + noun + (what.count == 1 ? "" : "s") + ": ";
  for (const auto& path : what.examples) text += (path == what.examples.front() ? "" : ", ") + printable(path);
  return what.count > what.examples.size() ? text + ", ..." : text;
}

}  // namespace

Result<Walk> walk(const DirFd& root, std::uint32_t id_count, const WalkLimits& limits) {
  return Walker(id_count, limits).run(root);
}

std::vector<Finding> findings_of(const Walk& walk, std::uint32_t id_count) {
  std::vector<Finding> findings;
  const auto add = [&](const WalkCount& what, const char* noun, Severity severity, const char* text,
                       const std::string& remedy) {
    if (what.count > 0) findings.push_back({severity, "tree", describe(what, noun) + "; " + text, remedy});
  };
  const auto highest = std::max(walk.highest_uid, walk.highest_gid);
  const bool is_sane = highest < 0x7fffffff;
  add(walk.above_map, "entry of ids that are not mapped", Severity::kLoss,
      ("the container has " + std::to_string(id_count) + " ids, these belong to nobody in it").c_str(),
      is_sane ? "map more, by --id-count " + std::to_string(std::uint64_t{highest} + 1)
              : "give them to other owners first");
  add(walk.immutable, "immutable file", Severity::kLoss, "nobody in a container can change that, and a copy drops it",
      "take the flag off in the machine: chattr -i");
  add(walk.append_only, "append-only file", Severity::kLoss,
      "nobody in a container can change that, and a copy drops it", "take the flag off in the machine: chattr -a");
  add(walk.devices, "device node", Severity::kChange, "they open nothing in a container", "");
  add(walk.capabilities, "file with capabilities", Severity::kNote, "they hold inside the container only", "");
  add(walk.setuid, "set-id file", Severity::kNote, "they hold inside the container only", "");
  if (!walk.is_complete)
    findings.push_back({Severity::kLoss, "tree",
                        "was not looked at as a whole: " + std::to_string(walk.entries) +
                            " entries were, then a limit was reached or a directory could not be read",
                        "look for ids, flags and device nodes yourself"});
  return findings;
}

}  // namespace virtuserns::convert
