#include "driver/kernel/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/mount.h"

namespace virtuserns::kernel {

namespace {

constexpr std::size_t kMaxGroupFile = 4 * 1024 * 1024;
// Of the groups that a container makes in the one it was given: enough for any init, and no way to fill the kernel.
constexpr const char* kMaxDepth = "64";
constexpr const char* kMaxDescendants = "8192";

Result<DirFd> open_group(const DirFd& parent, const std::string& name) {
  DirFd dir(::openat(parent.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!dir) return sys_fail("open group " + quote(name));
  return dir;
}

std::vector<std::string> groups_below(const DirFd& dir) {
  std::vector<std::string> names;
  // A handle of its own: reading moves the position that dup'ed descriptors share.
  const int fd = ::openat(dir.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* stream = fd < 0 ? nullptr : ::fdopendir(fd);
  if (!stream) return names;
  while (const dirent* entry = ::readdir(stream))
    if (const std::string_view name = entry->d_name; entry->d_type == DT_DIR && name != "." && name != "..")
      names.emplace_back(name);
  ::closedir(stream);
  return names;
}

// A container that was given its group chooses the names and the depth of those below, so neither the stack nor the
// number of open descriptors may depend on it: one descriptor goes down, and up again by "..", which no group can leave
// (cgroup2 renames nothing). `visit` is called from the top down, `leave` with the parent and the name from the bottom up.
template <class Visit, class Leave>
void walk_groups(const DirFd& top, const Visit& visit, const Leave& leave) {
  struct Level {
    std::string name;
    std::vector<std::string> left;
  };
  visit(top);
  std::vector<Level> path = {{"", groups_below(top)}};
  auto here = open_group(top, ".");
  while (here) {
    auto& level = path.back();
    if (!level.left.empty()) {
      std::string name = std::move(level.left.back());
      level.left.pop_back();
      auto below = open_group(*here, name);
      if (!below) continue;
      visit(*below);
      path.push_back({std::move(name), groups_below(*below)});
      here = std::move(below);
      continue;
    }
    if (path.size() == 1) return;
    here = open_group(*here, "..");
    if (here) leave(*here, level.name);
    path.pop_back();
  }
}

template <class Visit>
void for_each_group(const DirFd& top, const Visit& visit) {
  walk_groups(top, visit, [](const DirFd&, const std::string&) {});
}

void remove_below(const DirFd& top) {
  walk_groups(
      top, [](const DirFd&) {},
      [](const DirFd& parent, const std::string& name) { ::unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR); });
}

// v2 hands its controllers down level by level, cpuset of v1 its cpus.
bool needs_prepared_parents(const CgroupSpec& spec) {
  return (spec.is_v2 && !spec.controllers.empty()) ||
         std::find(spec.controllers.begin(), spec.controllers.end(), "cpuset") != spec.controllers.end();
}

Result<DirFd> open_hierarchy(const CgroupSpec& spec) {
  if (!spec.mount.empty() || !spec.is_v2) return open_directory(spec.mount);
  // Seen by nobody else, and gone with the last handle of a group. nsdelegate, as systemd has it: a mount without it would
  // take it from the hierarchy.
  MountFd mount =
      TRY(make_filesystem("cgroup2", {{"nsdelegate", ""}}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  return DirFd(mount.release());
}

std::int64_t now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace

Result<std::vector<pid_t>> parse_pids(const std::string& text) {
  std::vector<pid_t> pids;
  for (const auto line : split_blanks(text)) {
    const auto pid = parse_number<pid_t>(line);
    if (!pid || *pid < 0) return fail(VIR_ERR_INTERNAL_ERROR, "list of processes is malformed");
    if (*pid > 0) pids.push_back(*pid);  // 0: of a pid namespace that we do not see
  }
  return pids;
}

Result<Cgroup> Cgroup::make(const CgroupSpec& spec) {
  const auto context = "group " + quote(spec.mount + "/" + spec.path);
  auto names = split(spec.path, '/');
  DirFd parent = TRY(open_hierarchy(spec), context);
  if (!needs_prepared_parents(spec) && names.size() > 1) {
    // They are there for every domain but the first.
    const std::string above(spec.path, 0, static_cast<std::size_t>(names.back().data() - spec.path.data() - 1));
    if (DirFd dir(::openat(parent.get(), above.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); dir) {
      parent = std::move(dir);
      names.erase(names.begin(), names.end() - 1);
    }
  }
  for (const auto part : names) {
    const std::string name(part);
    const bool is_last = part.data() == names.back().data();
    if (spec.is_v2) TRY(v2::prepare_parent(spec, parent), context);
    const auto make = [&] { return ::mkdirat(parent.get(), name.c_str(), 0755) == 0; };
    bool is_new = make();
    if (!is_new && errno != EEXIST) return sys_fail("create " + context);
    if (!is_new && is_last) {
      // An empty one that somebody left is as good as none.
      is_new = ::unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR) == 0 && make();
      if (!is_new) return fail(VIR_ERR_OPERATION_INVALID, context + " exists and is in use");
    }
    auto dir = open_group(parent, name);
    auto ready = !dir ? dir.error() : spec.is_v2 ? Result<void>() : v1::prepare_child(spec, parent, *dir);
    if (!ready) {
      if (is_new) ::unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR);
      return std::move(ready).error().with_context(context);
    }
    if (is_last) return Cgroup(spec, std::move(parent), name, std::move(*dir));
    parent = std::move(*dir);
  }
  return fail(VIR_ERR_INTERNAL_ERROR, context + " has no name");
}

Result<Cgroup> Cgroup::open(const CgroupSpec& spec) {
  DirFd parent = TRY(open_hierarchy(spec));
  const auto names = split(spec.path, '/');
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string name(names[i]);
    DirFd dir = TRY(open_group(parent, name));
    if (i + 1 == names.size()) return Cgroup(spec, std::move(parent), name, std::move(dir));
    parent = std::move(dir);
  }
  return fail(VIR_ERR_INTERNAL_ERROR, "group without a name");
}

bool Cgroup::has_controller(const std::string& name) const {
  return std::find(spec_.controllers.begin(), spec_.controllers.end(), name) != spec_.controllers.end();
}

Result<void> Cgroup::write(const std::string& file, const std::string& value) const {
  return write_kernel_file_at(dir_, file, value);
}

Result<Fd> Cgroup::open_for_writing(const std::string& file) const {
  Fd opened(::openat(dir_.get(), file.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC));
  if (!opened) return sys_fail("open " + quote(file));
  return opened;
}

Result<std::string> Cgroup::read(const std::string& file) const {
  return read_kernel_file_at(dir_, file, kMaxGroupFile);
}

Result<void> Cgroup::delegate(uid_t uid, gid_t gid) {
  // Only a group that we made is ever given away: libvirt's driver and nspawn chowned the root of a hierarchy.
  if (!spec_.is_v2) return fail(VIR_ERR_OPERATION_UNSUPPORTED, "a v1 group is never delegated");
  for (const auto& [file, name] : {std::pair(&freeze_, "cgroup.freeze"), std::pair(&events_, "cgroup.events")}) {
    *file = Fd(::openat(dir_.get(), name, O_RDONLY | O_NOCTTY | O_CLOEXEC));
    if (!*file) return sys_fail("open " + quote(name));
  }
  // Readable whatever our umask is: those threads of the daemon that answer for sizes have no capability.
  if (::fchmod(dir_.get(), 0755) != 0) return sys_fail("delegate group");
  if (::fchown(dir_.get(), uid, gid) != 0) return sys_fail("delegate group");
  for (const char* file : {"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"})
    if (::fchownat(dir_.get(), file, uid, gid, AT_SYMLINK_NOFOLLOW) != 0)
      return sys_fail(std::string("delegate '") + file + "'");
  TRY(write("cgroup.max.depth", kMaxDepth), "delegate group");
  TRY(write("cgroup.max.descendants", kMaxDescendants), "delegate group");
  return {};
}

Result<Fd> Cgroup::open_tasks() const {
  Fd tasks(::openat(dir_.get(), spec_.is_v2 ? "cgroup.procs" : "tasks", O_WRONLY | O_CLOEXEC));
  if (!tasks) return sys_fail("open tasks of group " + quote(spec_.mount + "/" + spec_.path));
  return tasks;
}

Result<std::vector<pid_t>> Cgroup::processes() const { return parse_pids(TRY(read("cgroup.procs"))); }

void Cgroup::kill_all() const {
  for_each_group(dir_, [&](const DirFd& dir) { spec_.is_v2 ? v2::kill_processes(dir) : v1::kill_processes(dir); });
  if (can_freeze()) (void)set_frozen(false);
}

void Cgroup::kill_present() const {
  for (int round = 0; round < 16; ++round) {
    bool is_empty = true;
    for_each_group(dir_, [&](const DirFd& dir) {
      const auto text = read_kernel_file_at(dir, "cgroup.procs", kMaxGroupFile);
      const auto pids = text ? parse_pids(*text) : Result<std::vector<pid_t>>(std::vector<pid_t>());
      if (!pids || pids->empty()) return;
      is_empty = false;
      v1::kill_processes(dir);
    });
    if (is_empty) return;
    ::poll(nullptr, 0, round);
  }
}

void Cgroup::clear() const {
  kill_present();
  if (!spec_.is_v2) return;
  // A task leaves its group a moment after its parent was told of its death.
  for (int round = 0; round < 24; ++round) {
    remove_below(dir_);
    if (groups_below(dir_).empty()) break;
    ::poll(nullptr, 0, round);
  }
  const auto handed_on = read("cgroup.subtree_control");
  if (!handed_on) return;
  for (const auto controller : split_blanks(*handed_on))
    (void)write("cgroup.subtree_control", "-" + std::string(controller));
}

bool Cgroup::try_remove() {
  // Other controllers of the same hierarchy ("cpu,cpuacct") name the same directory: gone is gone.
  if (::unlinkat(parent_.get(), name_.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) return true;
  remove_below(dir_);
  return ::unlinkat(parent_.get(), name_.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT;
}

bool Cgroup::can_freeze() const { return spec_.is_v2 || has_controller("freezer"); }

Result<void> Cgroup::set_frozen(bool is_frozen) const {
  if (spec_.is_v2) return write("cgroup.freeze", is_frozen ? "1" : "0");
  return write("freezer.state", is_frozen ? "FROZEN" : "THAWED");
}

Result<FreezerState> Cgroup::freezer_state() const {
  if (!spec_.is_v2) return v1::parse_freezer_state(TRY(read("freezer.state")));
  const auto read_kept = [this](const Fd& file, const char* name) -> Result<std::string> {
    if (!file) return read(name);
    char text[4096];
    const auto size = ::pread(file.get(), text, sizeof text, 0);
    if (size < 0) return sys_fail(std::string("read '") + name + "'");
    return std::string(text, static_cast<std::size_t>(size));
  };
  const bool is_wanted = trim(TRY(read_kept(freeze_, "cgroup.freeze"))) == "1";
  return v2::parse_events(TRY(read_kept(events_, "cgroup.events")), is_wanted);
}

Result<void> remove_cgroups(std::vector<Cgroup>& groups, int timeout_ms) {
  const auto last = now_ms() + kMostRemovalMs;
  auto deadline = now_ms() + timeout_ms;
  auto fewest = std::numeric_limits<std::size_t>::max();
  int pause_ms = 0;
  for (;;) {
    while (!groups.empty() && groups.back().try_remove()) {
      groups.pop_back();
      fewest = std::numeric_limits<std::size_t>::max();
    }
    if (groups.empty()) return {};
    if (const auto left = groups.back().processes(); left && left->size() < fewest) {
      fewest = left->size();
      deadline = std::min(last, now_ms() + timeout_ms);
    }
    if (now_ms() >= deadline) {
      const auto& spec = groups.back().spec();
      return fail(VIR_ERR_OPERATION_FAILED, "group " + quote(spec.mount + "/" + spec.path) + " is still in use");
    }
    groups.back().kill_all();
    // A task leaves its group after its parent was told of its death, when it is switched out for the last time. v1
    // sends no event for that, so the wait grows from nothing to 20 ms.
    ::poll(nullptr, 0, pause_ms);
    pause_ms = std::min(pause_ms * 2 + 1, 20);
  }
}

}  // namespace virtuserns::kernel
