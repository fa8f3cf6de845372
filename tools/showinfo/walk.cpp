#include "tools/showinfo/walk.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <deque>

#include "conf/base/text.h"

namespace virtuserns::showinfo {

namespace {

constexpr std::size_t kMaxPath = 4096;
// A head of 4 bytes and entries of 8, nearly the 64 KiB that an attribute may have. Linux 6.1 takes the size of the buffer
// for that of the list, and shifts no ids of an idmapped mount where it is not one that a list can have.
constexpr std::size_t kMaxAcl = 4 + 8 * 8191;
constexpr std::uint32_t kOverflowId = 65534;  // kernel.overflowuid, where nobody changed it
constexpr int kMaxLinks = 40;                 // MAXSYMLINKS of the kernel

std::optional<Acl> read_acl(const Fd& file) {
  std::vector<char> bytes(kMaxAcl);
  // By the link of procfs, since an O_PATH descriptor has no attributes of its own.
  const std::string place = "/proc/self/fd/" + std::to_string(file.get());
  const auto size = ::getxattr(place.c_str(), "system.posix_acl_access", bytes.data(), bytes.size());
  return size > 0 ? parse_acl(std::string_view(bytes.data(), static_cast<std::size_t>(size))) : std::nullopt;
}

class Walker {
 public:
  Walker(const DirFd& root, const std::vector<Mount>& mounts) : mounts_(mounts) {
    stack_.emplace_back("", Fd(::fcntl(root.get(), F_DUPFD_CLOEXEC, 3)));
  }

  Result<OpenFacts> walk(const std::string& path) {
    push_front(path);
    FileFacts current = TRY(look(stack_.back().second, "/"));
    while (!todo_.empty()) {
      const std::string name = std::move(todo_.front());
      todo_.pop_front();
      if (name.empty()) continue;
      if (!S_ISDIR(current.mode)) return stop(ENOTDIR, current.path);
      facts_.way.push_back(current);  // "." and ".." are looked up in it as well
      if (name == "..") {
        if (stack_.size() > 1) stack_.pop_back();
      } else if (name != ".") {
        const std::string shown = place() + "/" + name;
        Fd next(::openat(stack_.back().second.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
        const int err = errno;
        if (!next && (err == ENOENT || err == ENAMETOOLONG || err == ENOTDIR)) return stop(err, shown);
        if (!next) return sys_fail("look at " + quote(shown), err);
        auto found = TRY(look(next, shown));
        if (S_ISLNK(found.mode)) {
          if (++links_ > kMaxLinks) return stop(ELOOP, shown);
          if (!TRY(follow(next, found)))
            return stop(0, "link " + quote(shown) + " means another thing to each process");
        } else {
          stack_.emplace_back(shown, std::move(next));
        }
      }
      current = TRY(look(stack_.back().second, stack_.size() == 1 ? "/" : place()));
    }
    if (path.ends_with('/') && !S_ISDIR(current.mode)) return stop(ENOTDIR, current.path);
    facts_.target = std::move(current);
    return std::move(facts_);
  }

 private:
  [[nodiscard]] const std::string& place() const { return stack_.back().first; }

  OpenFacts stop(int err, const std::string& path) {
    facts_.lookup_errno = err;
    facts_.lookup_path = path;
    return std::move(facts_);
  }

  void push_front(std::string_view path) {
    std::deque<std::string> parts;
    for (const auto part : split(path, '/')) parts.emplace_back(part);
    todo_.insert(todo_.begin(), parts.begin(), parts.end());
  }

  // False: it has no text that is the same for everybody.
  Result<bool> follow(const Fd& link, const FileFacts& found) {
    struct statfs filesystem {};
    if (::fstatfs(link.get(), &filesystem) != 0) return sys_fail("look at " + quote(found.path));
    if (filesystem.f_type == PROC_SUPER_MAGIC) return false;
    std::array<char, kMaxPath> text;
    const auto size = ::readlinkat(link.get(), "", text.data(), text.size());
    if (size < 0) return sys_fail("read link " + quote(found.path));
    facts_.way.push_back(found);
    if (todo_.empty()) facts_.last_links.push_back(facts_.way.size() - 1);
    const std::string_view target(text.data(), static_cast<std::size_t>(size));
    if (target.starts_with('/')) stack_.erase(stack_.begin() + 1, stack_.end());
    push_front(target);
    return true;
  }

  Result<FileFacts> look(const Fd& file, const std::string& shown) {
    struct statx stx {};
    if (::statx(file.get(), "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_MNT_ID, &stx) != 0)
      return sys_fail("look at " + quote(shown));
    FileFacts facts;
    facts.path = shown;
    facts.uid = stx.stx_uid;
    facts.gid = stx.stx_gid;
    facts.mode = stx.stx_mode;
    facts.major = stx.stx_rdev_major;
    facts.minor = stx.stx_rdev_minor;
    facts.is_immutable = (stx.stx_attributes & STATX_ATTR_IMMUTABLE) != 0;
    facts.is_append_only = (stx.stx_attributes & STATX_ATTR_APPEND) != 0;
    if (!S_ISLNK(facts.mode)) facts.acl = read_acl(file);
    for (const auto& mount : mounts_) {
      if (mount.id != stx.stx_mnt_id) continue;
      // What such a mount does not map is shown as the overflow id; of an overlay the layers can be such mounts.
      const bool is_idmapped = mount.is_idmapped || mount.type == "overlay";
      if (is_idmapped && facts.uid == kOverflowId) facts.uid = kNoId;
      if (is_idmapped && facts.gid == kOverflowId) facts.gid = kNoId;
      facts.has_nodev = mount.has_nodev;
      facts.has_noexec = mount.has_noexec;
      facts.is_read_only_mount = mount.is_read_only;
      facts.is_read_only_filesystem = mount.is_read_only_filesystem;
      facts.filesystem = mount.type;
    }
    return facts;
  }

  const std::vector<Mount>& mounts_;
  std::deque<std::string> todo_;
  std::vector<std::pair<std::string, Fd>> stack_;  // the root, and the directories down to where we are
  OpenFacts facts_;
  int links_ = 0;
};

}  // namespace

Result<OpenFacts> walk_path(const DirFd& root, const std::vector<Mount>& mounts, const std::string& path) {
  if (!path.starts_with('/'))
    return fail(VIR_ERR_INVALID_ARG, "path " + quote(path) + " is not absolute; give it as the process sees it");
  if (path.size() >= kMaxPath || path.find('\0') != std::string::npos)
    return fail(VIR_ERR_INVALID_ARG, "path " + quote(path) + " is longer than the kernel takes");
  return Walker(root, mounts).walk(path);
}

}  // namespace virtuserns::showinfo
