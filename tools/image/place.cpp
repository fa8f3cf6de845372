#include "tools/image/place.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "tools/convert/tree.h"

namespace virtuserns::image {
namespace {

constexpr std::string_view kUnpack = ".unpack", kRemove = ".remove";
constexpr std::size_t kMaxName = 200;
constexpr int kTries = 20;
constexpr useconds_t kPauseUs = 100'000;

struct Named {
  DirFd parent;
  std::string path, name;  // of the parent; of the entry
};

Result<DirFd> open_parent(const std::string& path) {
  auto parent = TRY(open_directory(path));
  struct stat st {};
  if (::fstat(parent.get(), &st) != 0) return sys_fail("look at " + quote(path));
  if (st.st_uid != 0 || (st.st_mode & 077) != 0)
    return fail(VIR_ERR_OPERATION_DENIED,
                quote(path) +
                    " is open to others than root, and a set-user-id program of a tree in it would be host "
                    "root's: chown root: and chmod 0700 it");
  return parent;
}

Result<Named> find(const std::string& directory) {
  auto path = directory;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const auto slash = path.rfind('/');
  const auto name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (name.empty() || name.front() == '.' || name.size() > kMaxName)
    return fail(VIR_ERR_INVALID_ARG, quote(directory) + " is no name for a directory that is to be made");
  const auto above = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  char real[PATH_MAX];
  if (!::realpath(above.c_str(), real)) return sys_fail("find " + quote(above));
  return Named{TRY(open_parent(real)), real, name};
}

bool is_in_use(const Error& error) { return error.code == VIR_ERR_RESOURCE_BUSY; }

// flock(2), which a child of ours has as well for as long as it keeps the descriptor.
Result<Fd> take_lock(const DirFd& folder) {
  Fd lock(::openat(folder.get(), "lock", O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) return sys_fail("make a lock");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno == EWOULDBLOCK) return fail(VIR_ERR_RESOURCE_BUSY, "another command works on it");
  return sys_fail("take a lock");
}

Result<DirFd> open_below(const DirFd& parent, const std::string& name) {
  DirFd folder(::openat(parent.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) return sys_fail("open " + quote(name));
  return folder;
}

Result<void> remove_remains(const DirFd& parent, const std::string& name) {
  // Held while it goes, so that nobody begins in it.
  Fd lock;
  if (name.ends_with(kUnpack)) {
    const auto folder = open_below(parent, name);
    if (!folder) return folder.error().sys_errno == ENOENT ? Result<void>() : Result<void>(folder.error());
    lock = TRY(take_lock(*folder));
  }
  return convert::remove_tree(parent, name);
}

Result<void> clean_below(const DirFd& parent, const std::string& path) {
  for (const auto& name : TRY(list_directory(path))) {
    if (name.front() != '.' || (!name.ends_with(kUnpack) && !name.ends_with(kRemove))) continue;
    auto removed = remove_remains(parent, name);
    if (!removed && !is_in_use(removed.error()))
      return std::move(removed).error().with_context("remove what a killed command has left in " + quote(path));
  }
  return {};
}

// Of a command that was killed a moment ago the children die a moment later: so long its remains are locked.
Result<void> make_folder(const Named& named, const std::string& entry) {
  for (int tries = kTries;; --tries) {
    TRY(clean_below(named.parent, named.path));
    struct stat st {};
    if (::fstatat(named.parent.get(), named.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0)
      return fail(VIR_ERR_OPERATION_INVALID, "it is there already");
    if (::mkdirat(named.parent.get(), entry.c_str(), 0700) == 0) return {};
    if (errno != EEXIST) return sys_fail("make " + quote(entry));
    if (tries == 0) return fail(VIR_ERR_RESOURCE_BUSY, "it is being made by another command");
    ::usleep(kPauseUs);
  }
}

}  // namespace

Result<Place> Place::make(const std::string& directory) {
  auto named = TRY(find(directory));
  const std::string entry = "." + named.name + std::string(kUnpack);
  TRY(make_folder(named, entry), quote(directory));
  const auto folder = TRY(open_below(named.parent, entry));
  Place place;
  // Before this one is ours, so that a cleaner that came between does its work and we do nothing.
  place.lock_ = TRY(take_lock(folder));
  place.folder_ = named.path + "/" + entry;
  place.parent_ = std::move(named.parent);
  place.name_ = named.name;
  for (const char* below : {"root", "work"})
    if (::mkdirat(folder.get(), below, 0700) != 0) return sys_fail("make a folder in " + quote(place.folder_));
  place.root_ = TRY(open_below(folder, "root"));
  return place;
}

Place::~Place() {
  if (folder_.empty()) return;
  (void)convert::remove_tree(parent_, "." + name_ + std::string(kUnpack));
}

std::string Place::path() const { return folder_.substr(0, folder_.rfind('/') + 1) + name_; }

Result<void> Place::publish() {
  if (::syncfs(root_.get()) != 0) return sys_fail("write the tree to its disk");
  const auto from = "." + name_ + std::string(kUnpack) + "/root";
  if (::renameat2(parent_.get(), from.c_str(), parent_.get(), name_.c_str(), RENAME_NOREPLACE) != 0)
    return sys_fail("name the tree " + quote(name_));
  if (::fsync(parent_.get()) != 0) return sys_fail("write the name of the tree to its disk");
  return {};
}

Result<void> clean(const std::string& parent) { return clean_below(TRY(open_parent(parent)), parent); }

Result<void> remove(const std::string& directory) {
  const auto named = TRY(find(directory));
  const auto doomed = "." + named.name + std::string(kRemove);
  TRY(convert::remove_tree(named.parent, doomed));
  struct stat st {};
  if (::fstatat(named.parent.get(), named.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT) return {};
  if (!S_ISDIR(st.st_mode)) return fail(VIR_ERR_OPERATION_INVALID, quote(directory) + " is no directory");
  if (::renameat2(named.parent.get(), named.name.c_str(), named.parent.get(), doomed.c_str(), RENAME_NOREPLACE) != 0)
    return sys_fail("remove " + quote(directory));
  if (::fsync(named.parent.get()) != 0) return sys_fail("remove " + quote(directory));
  return convert::remove_tree(named.parent, doomed);
}

}  // namespace virtuserns::image
