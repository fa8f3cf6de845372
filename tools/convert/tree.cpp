#include "tools/convert/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/text.h"
#include "tools/convert/inode_flags.h"

namespace virtuserns::convert {
namespace {

constexpr std::size_t kAtOnce = 4096, kMaxDepth = 100;

// Names in `dir`, some at a time: a directory is emptied in rounds, so that its size does not matter.
Result<std::vector<std::string>> some_names(const DirFd& dir) {
  const int fd = ::openat(dir.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* listing = fd < 0 ? nullptr : ::fdopendir(fd);
  if (!listing) return sys_fail("list");
  std::vector<std::string> names;
  while (const dirent* entry = names.size() < kAtOnce ? ::readdir(listing) : nullptr)
    if (const std::string name = entry->d_name; name != "." && name != "..") names.push_back(name);
  ::closedir(listing);
  return names;
}

class Remover {
 public:
  Remover(const DirFd& parent, const std::string& name, dev_t device)
      : parent_(parent), name_(name), device_(device) {}

  Result<void> remove() { return remove_entry(parent_, name_, 0); }

 private:
  Result<void> remove_entry(const DirFd& dir, const std::string& name, std::size_t depth) {
    if (::unlinkat(dir.get(), name.c_str(), 0) == 0 || errno == ENOENT) return {};
    if (errno != EISDIR && errno != EPERM) return sys_fail("remove " + quote(name));
    if (take_flags(dir, name) != 0 && ::unlinkat(dir.get(), name.c_str(), 0) == 0) return {};
    if (depth > kMaxDepth) return move_up(dir, name);
    const DirFd below(::openat(dir.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!below) return sys_fail("remove " + quote(name));
    struct stat st {};
    if (::fstat(below.get(), &st) != 0) return sys_fail("look at " + quote(name));
    if (st.st_dev != device_)
      return fail(VIR_ERR_OPERATION_INVALID, quote(name) + " is mounted and not removed; unmount it");
    for (auto names = TRY(some_names(below)); !names.empty(); names = TRY(some_names(below)))
      for (const auto& entry : names) TRY(remove_entry(below, entry, depth + 1));
    if (::unlinkat(dir.get(), name.c_str(), AT_REMOVEDIR) != 0) return sys_fail("remove " + quote(name));
    return {};
  }

  // What is too deep becomes an entry of the top: a container can nest directories without an end.
  Result<void> move_up(const DirFd& dir, const std::string& name) {
    for (;;) {
      const std::string place = name_ + "/.removed" + std::to_string(++moved_);
      if (::renameat2(dir.get(), name.c_str(), parent_.get(), place.c_str(), RENAME_NOREPLACE) == 0) return {};
      if (errno != EEXIST) return sys_fail("move " + quote(name));
    }
  }

  const DirFd& parent_;
  const std::string& name_;
  dev_t device_;
  std::uint64_t moved_ = 0;
};

}  // namespace

Result<void> remove_tree(const DirFd& parent, const std::string& name) {
  struct stat st {};
  if (::fstat(parent.get(), &st) != 0) return sys_fail("look at a folder");
  return Remover(parent, name, st.st_dev).remove();
}

}  // namespace virtuserns::convert
