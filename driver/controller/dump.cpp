#include "driver/controller/dump.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "conf/base/text.h"
#include "driver/controller/bundle.h"

namespace virtuserns::controller {
namespace {

constexpr std::size_t kMostOfAFile = 256 * 1024, kMostOfTheConsole = 256 * 1024;
constexpr std::size_t kMostProcesses = 1024, kMostThreads = 64, kMostDescriptors = 256;
constexpr int kMostGroups = 4096, kMostDepth = 32;

constexpr const char* kGroupFiles[] = {
    "cgroup.events", "cgroup.stat", "cgroup.freeze", "cpu.stat", "cpu.max", "cpu.weight", "cpu.pressure",
    "cpuset.cpus.effective", "memory.current", "memory.peak", "memory.max", "memory.high", "memory.swap.current",
    "memory.swap.max", "memory.stat", "memory.events", "memory.pressure", "io.stat", "io.max", "io.pressure",
    "pids.current", "pids.max", "pids.events",
    // version 1
    "freezer.state", "cpuacct.usage", "cpuacct.stat", "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us",
    "cpuset.cpus", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes", "memory.failcnt",
    "memory.oom_control", "memory.memsw.usage_in_bytes", "memory.memsw.limit_in_bytes",
    "blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"};
constexpr const char* kProcessFiles[] = {"status", "stat", "cmdline", "wchan", "maps", "limits", "cgroup"};
constexpr const char* kTaskFiles[] = {"comm", "stat", "wchan", "stack"};

Fd open_below(const Fd& dir, const std::string& name, int flags) {
  return Fd(::openat(dir.get(), name.c_str(), flags | O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
}

Fd open_folder(const std::string& path) { return Fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }

// What there is of it, up to `most`; what went wrong is said in its place.
std::string read_some(const Fd& file, std::size_t most) {
  if (!file) return std::string("(cannot be opened: ") + std::strerror(errno) + ")\n";
  std::string text(most, '\0');
  std::size_t size = 0;
  while (size < most) {
    const auto got = ::read(file.get(), text.data() + size, most - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && size == 0) return std::string("(cannot be read: ") + std::strerror(errno) + ")\n";
    if (got <= 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return text;
}

std::vector<std::string> names_in(const Fd& dir, std::size_t most) {
  std::vector<std::string> names;
  const int copy = ::fcntl(dir.get(), F_DUPFD_CLOEXEC, 0);
  DIR* entries = copy < 0 ? nullptr : ::fdopendir(copy);
  if (!entries) {
    if (copy >= 0) ::close(copy);
    return names;
  }
  ::rewinddir(entries);
  while (const dirent* entry = ::readdir(entries)) {
    if (entry->d_name[0] == '.') continue;
    if (names.size() == most) break;
    names.emplace_back(entry->d_name);
  }
  ::closedir(entries);
  return names;
}

class Dump {
 public:
  Dump(const DumpAsk& ask, const Fd& output) : ask_(ask), bundle_(output, kMaxBundleBytes, ask.at) {}

  Result<void> run() {
    TRY(add("domain.xml", ask_.definition));
    if (!ask_.console_log.empty()) TRY(add_console());
    for (const auto& group : ask_.groups) TRY(add_group(group));
    const Fd proc = open_folder("/proc");
    if (!proc) return sys_fail("open /proc");
    const auto init = std::to_string(ask_.init_pid);
    if (const Fd folder = open_below(proc, init, O_DIRECTORY); is_of_the_domain(folder))
      TRY(add("mounts", read_some(open_below(folder, "mountinfo", 0), kMostOfAFile)));
    for (const auto pid : pids_) {
      if (processes_ == kMostProcesses || bundle_.is_full()) break;
      const Fd folder = open_below(proc, std::to_string(pid), O_DIRECTORY);
      if (is_of_the_domain(folder)) TRY(add_process(folder, "processes/" + std::to_string(pid) + "/"));
    }
    return bundle_.finish("MANIFEST", manifest());
  }

 private:
  Result<void> add(const std::string& name, std::string_view content) {
    (void)TRY(bundle_.add(name, content));
    return {};
  }

  Result<void> add_console() {
    const Fd log(::open(ask_.console_log.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat found {};
    if (!log || ::fstat(log.get(), &found) != 0 || !S_ISREG(found.st_mode)) return {};
    const auto most = static_cast<off_t>(kMostOfTheConsole);
    if (found.st_size > most) (void)::lseek(log.get(), found.st_size - most, SEEK_SET);
    return add("console.log", read_some(log, kMostOfTheConsole));
  }

  Result<void> add_group(const DumpedGroup& group) {
    const Fd folder = open_folder(group.mount + "/" + group.path);
    if (!folder) return {};
    for (const auto* name : kGroupFiles)
      if (const Fd file = open_below(folder, name, 0))
        TRY(add("cgroup/" + group.name + "/" + name, read_some(file, kMostOfAFile)));
    collect_pids(folder, kMostDepth);
    return {};
  }

  void collect_pids(const Fd& folder, int depth) {
    if (++groups_ > kMostGroups || depth == 0) return;
    const auto text = read_some(open_below(folder, "cgroup.procs", 0), 4 * kMostOfAFile);
    for (const auto line : split(text, '\n'))
      if (const auto pid = parse_number<pid_t>(line); pid && *pid > 0) pids_.insert(*pid);
    for (const auto& name : names_in(folder, kMostGroups))
      if (const Fd below = open_below(folder, name, O_DIRECTORY)) collect_pids(below, depth - 1);
  }

  // What was listed may have ended, and its number be another's since; what is open stays what it is.
  [[nodiscard]] bool is_of_the_domain(const Fd& folder) const {
    if (!folder) return false;
    const auto text = read_some(open_below(folder, "cgroup", 0), kMostOfAFile);
    for (const auto line : split(text, '\n')) {
      const auto at = line.find(":/");
      if (at == std::string_view::npos) continue;
      const auto path = line.substr(at + 2);
      for (const auto& group : ask_.groups)
        if (path == group.path || path.starts_with(group.path + "/")) return true;
    }
    return false;
  }

  Result<void> add_process(const Fd& folder, const std::string& prefix) {
    ++processes_;
    for (const auto* name : kProcessFiles)
      TRY(add(prefix + name, read_some(open_below(folder, name, 0), kMostOfAFile)));
    TRY(add(prefix + "descriptors", descriptors_of(folder)));
    const Fd tasks = open_below(folder, "task", O_DIRECTORY);
    if (!tasks) return {};
    for (const auto& task : names_in(tasks, kMostThreads)) {
      const Fd thread = open_below(tasks, task, O_DIRECTORY);
      if (!thread) continue;
      for (const auto* name : kTaskFiles)
        TRY(add(prefix + "task/" + task + "/" + name, read_some(open_below(thread, name, 0), kMostOfAFile)));
    }
    return {};
  }

  static std::string descriptors_of(const Fd& folder) {
    const Fd list = open_below(folder, "fd", O_DIRECTORY);
    if (!list) return read_some(list, 0);
    std::string text;
    for (const auto& number : names_in(list, kMostDescriptors)) {
      char target[1024];
      const auto size = ::readlinkat(list.get(), number.c_str(), target, sizeof target);
      if (size > 0) text += number + " " + printable({target, static_cast<std::size_t>(size)}) + "\n";
    }
    return text;
  }

  [[nodiscard]] std::string manifest() const {
    utsname names{};
    (void)::uname(&names);
    const bool is_whole = !bundle_.is_full() && processes_ < kMostProcesses && groups_ <= kMostGroups;
    return "format 1\ndomain " + ask_.name + "\nuuid " + ask_.uuid + "\nat " + std::to_string(ask_.at) + "\nkernel " +
           names.release + "\ninit " + std::to_string(ask_.init_pid) + "\nprocesses " + std::to_string(processes_) +
           " of " + std::to_string(pids_.size()) + "\ncomplete " + (is_whole ? "yes" : "no") + "\n";
  }

  const DumpAsk& ask_;
  Bundle bundle_;
  std::set<pid_t> pids_;
  std::size_t processes_ = 0;
  int groups_ = 0;
};

}  // namespace

Result<void> dump(const DumpAsk& ask, const Fd& output) { return Dump(ask, output).run(); }

}  // namespace virtuserns::controller
