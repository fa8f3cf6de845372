// D: files by which a container would reach the kernel of everybody, control groups, devices.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "tools/drill/probes/probe.h"

namespace drill {

namespace {

// Opened and closed again: nothing is written, also when nothing stands in the way.
std::optional<int> try_open(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return errno;
  ::close(fd);
  return std::nullopt;
}

Verdict write_to(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return not_applicable("this kernel has no " + path);
  if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)) return held("masked");
  const auto err = try_open(path, O_WRONLY);
  return err ? held(error_text(*err)) : failed(path + " can be written");
}

struct Sink {
  const char* name;
  const char* path;
};
constexpr Sink kSinks[] = {{"write_core_pattern", "/proc/sys/kernel/core_pattern"},
                           {"write_modprobe", "/proc/sys/kernel/modprobe"},
                           {"write_sysrq", "/proc/sys/kernel/sysrq"},
                           {"write_hostname", "/proc/sys/kernel/hostname"},
                           {"write_panic", "/proc/sys/kernel/panic"},
                           {"write_randomize", "/proc/sys/kernel/randomize_va_space"},
                           {"write_kptr_restrict", "/proc/sys/kernel/kptr_restrict"},
                           {"write_dmesg_restrict", "/proc/sys/kernel/dmesg_restrict"},
                           {"write_pid_max", "/proc/sys/kernel/pid_max"},
                           {"write_usermodehelper", "/proc/sys/kernel/usermodehelper/bset"},
                           {"write_unprivileged_bpf", "/proc/sys/kernel/unprivileged_bpf_disabled"},
                           {"write_perf_paranoid", "/proc/sys/kernel/perf_event_paranoid"},
                           {"write_drop_caches", "/proc/sys/vm/drop_caches"},
                           {"write_overcommit", "/proc/sys/vm/overcommit_memory"},
                           {"write_panic_on_oom", "/proc/sys/vm/panic_on_oom"},
                           {"write_file_max", "/proc/sys/fs/file-max"},
                           {"write_protected_links", "/proc/sys/fs/protected_symlinks"},
                           {"write_suid_dumpable", "/proc/sys/fs/suid_dumpable"},
                           {"write_inotify_limit", "/proc/sys/fs/inotify/max_user_instances"},
                           {"write_binfmt", "/proc/sys/fs/binfmt_misc/register"},
                           {"write_bpf_jit", "/proc/sys/net/core/bpf_jit_enable"},
                           {"write_sysrq_trigger", "/proc/sysrq-trigger"},
                           {"write_irq_affinity", "/proc/irq/default_smp_affinity"},
                           {"write_mtrr", "/proc/mtrr"},
                           {"write_uevent_helper", "/sys/kernel/uevent_helper"},
                           {"write_huge_pages", "/sys/kernel/mm/transparent_hugepage/enabled"},
                           {"write_profiling", "/sys/kernel/profiling"},
                           {"write_rcu_expedited", "/sys/kernel/rcu_expedited"},
                           {"write_cpu_online", "/sys/devices/system/cpu/cpu1/online"},
                           {"write_memory_uevent", "/sys/devices/virtual/mem/null/uevent"},
                           {"write_power_state", "/sys/power/state"}};

Verdict write_module_parameters() {
  int seen = 0;
  for (const auto& module : names_in("/sys/module"))
    for (const auto& name : names_in("/sys/module/" + module + "/parameters")) {
      const std::string path = "/sys/module/" + module + "/parameters/" + name;
      ++seen;
      if (!try_open(path, O_WRONLY)) return failed(path + " can be written");
    }
  if (seen == 0) return not_applicable("no module has parameters");
  return held(std::to_string(seen) + " parameters");
}

Verdict kernel_addresses() {
  for (const auto& line : lines_of(read_text("/proc/kallsyms", 4096)))
    if (const auto words = words_of(line); !words.empty() && words[0].find_first_not_of('0') != std::string::npos)
      return failed("kallsyms: " + words[0]);
  return held("none are shown");
}

Verdict oom_score() {
  // Of this process, which ends at once: nobody may put himself out of the reach of the host's OOM killer.
  const int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return held(error_text(errno));
  return ::write(fd, "-1000", 5) == 5 ? failed("-1000 was accepted") : held(error_text(errno));
}

// ---- control groups ----

constexpr const char* kGroupFiles[] = {
    "release_agent",         "notify_on_release", "cgroup.procs",  "tasks",       "devices.allow", "devices.deny",
    "memory.limit_in_bytes", "pids.max",          "freezer.state", "cpuset.cpus", "cpu.shares",    "blkio.weight"};

std::string writable_in(const std::string& directory, int depth) {
  for (const char* file : kGroupFiles) {
    const std::string path = directory + "/" + file;
    if (!try_open(path, O_WRONLY)) return path;
  }
  if (depth > 0)
    for (const auto& name : names_in(directory)) {
      struct stat st {};
      const std::string path = directory + "/" + name;
      if (::lstat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode))
        if (const auto found = writable_in(path, depth - 1); !found.empty()) return found;
    }
  return {};
}

// Only what is there already: mounted by host root (in a container that is none), a new one would change the machine.
std::vector<std::string> hierarchies() {
  std::vector<std::string> found;
  for (const auto& line : lines_of(read_text("/proc/self/cgroup"))) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos || second == first + 1) continue;
    const auto names = line.substr(first + 1, second - first - 1);
    found.push_back((names.starts_with("name=") ? "none," : "") + names);
  }
  return found;
}

Verdict cgroup_v1_mounted() {
  if (hierarchies().empty()) return not_applicable("this kernel has no hierarchy of version 1");
  int seen = 0;
  for (const auto& mount : mounts()) {
    if (mount.type != "cgroup") continue;
    ++seen;
    if (const auto path = writable_in(mount.place, 2); !path.empty()) return failed(path + " can be written");
  }
  return held(std::to_string(seen) + " hierarchies are mounted");
}

Verdict cgroup_v1_mount(const char* wanted) {
  if (const auto problem = leave_mounts_alone(); !problem.empty()) return held(problem);
  const auto all = hierarchies();
  if (all.empty()) return not_applicable("this kernel has no hierarchy of version 1");
  int mounted = 0;
  for (const auto& controller : all) {
    const auto place = scratch_directory();
    if (place.empty()) return not_applicable("no place to mount on");
    if (::mount("cgroup", place.c_str(), "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, controller.c_str()) != 0)
      continue;
    ++mounted;
    if (*wanted != '\0') {
      if (!try_open(place + "/" + wanted, O_WRONLY)) return failed(controller + ": " + wanted + " can be written");
    } else if (const auto path = writable_in(place, 1); !path.empty()) {
      return failed(controller + ": " + path + " can be written");
    }
    ::umount2(place.c_str(), MNT_DETACH);
  }
  return held(std::to_string(mounted) + " hierarchies could be mounted, nothing in them be written");
}

Verdict cgroup_v2_limits() {
  // The container's own groups are its own; what limits it is not.
  if (const auto problem = leave_mounts_alone(); !problem.empty()) return held(problem);
  const auto place = scratch_directory();
  if (place.empty()) return not_applicable("no place to mount on");
  if (::mount("cgroup2", place.c_str(), "cgroup2", 0, nullptr) != 0) return held("cgroup2: " + error_text(errno));
  for (const char* file : {"memory.max", "memory.high", "pids.max", "cpu.max", "cpu.weight", "io.max", "cpuset.cpus",
                           "cgroup.freeze", "cgroup.max.depth", "cgroup.max.descendants", "cgroup.kill"}) {
    const std::string path = place + "/" + file;
    if (!try_open(path, O_WRONLY)) return failed(std::string(file) + " can be written");
  }
  // Only the first group of all has no type.
  struct stat st {};
  if (::stat((place + "/cgroup.type").c_str(), &st) != 0) return failed("the root of all groups is seen");
  return held("limits cannot be written");
}

Verdict cgroup_names() {
  for (const auto& line : lines_of(read_text("/proc/self/cgroup"))) {
    const auto at = line.find(':', line.find(':') + 1);
    if (at != std::string::npos && line.substr(at + 1).starts_with("/.."))
      return failed("is outside of its groups: " + line);
  }
  struct stat st {};
  // Of v2 only the first group of all has no type, and of v1 only that one has an agent.
  for (const auto& mount : mounts())
    if ((mount.type == "cgroup2" && ::stat((mount.place + "/cgroup.type").c_str(), &st) != 0) ||
        (mount.type == "cgroup" && ::stat((mount.place + "/release_agent").c_str(), &st) == 0))
      return failed("the host's groups are seen at " + mount.place);
  return held("groups start at the container's own");
}

// ---- devices ----

struct Node {
  const char* name;
  mode_t kind;
  unsigned major, minor;
};
constexpr Node kNodes[] = {
    {"mem", S_IFCHR, 1, 1},      {"port", S_IFCHR, 1, 4},   {"kmsg", S_IFCHR, 1, 11},
    {"hwrng", S_IFCHR, 10, 183}, {"kvm", S_IFCHR, 10, 232}, {"loop-control", S_IFCHR, 10, 237},
    {"rtc", S_IFCHR, 252, 0},    {"cpu", S_IFCHR, 202, 0},  {"btrfs-control", S_IFCHR, 10, 234}};

Verdict make_node(mode_t kind, unsigned major, unsigned minor) {
  if (const auto problem = leave_mounts_alone(); !problem.empty()) return held(problem);
  const auto place = scratch_directory();
  if (place.empty()) return not_applicable("no place to make it");
  const std::string path = place + "/node";
  if (::mknod(path.c_str(), kind | 0600, makedev(major, minor)) != 0) return held(error_text(errno));
  const auto err = try_open(path, O_RDONLY);
  return failed(err ? "made, but not opened: " + error_text(*err) : "made and opened");
}

Verdict nodes_in_dev() {
  for (const auto& node : kNodes) {
    const std::string path = std::string("/dev/") + node.name;
    if (!try_open(path, O_RDONLY)) return failed(path + " can be opened");
  }
  for (const auto& name : names_in("/dev")) {
    struct stat st {};
    const std::string path = "/dev/" + name;
    if (::lstat(path.c_str(), &st) == 0 && S_ISBLK(st.st_mode) && !try_open(path, O_RDONLY))
      return failed("the disk " + path + " can be opened");
  }
  return held("no memory, no log, no disk");
}

// What an image may bring: nodes that whoever prepares the test puts there.
Verdict nodes_in_image() {
  int seen = 0;
  for (const auto& name : names_in("/drill-nodes")) {
    ++seen;
    if (!try_open("/drill-nodes/" + name, O_RDONLY)) return failed("the image's " + name + " can be opened");
  }
  if (seen == 0) return not_applicable("the image has no nodes in /drill-nodes");
  return held(std::to_string(seen) + " nodes open nothing");
}

}  // namespace

void add_kernel_probes(std::vector<Probe>& probes) {
  for (const auto& sink : kSinks) probes.push_back({'D', sink.name, [path = sink.path] { return write_to(path); }});
  probes.insert(probes.end(), {{'D', "write_module_parameters", write_module_parameters},
                               {'D', "kernel_addresses", kernel_addresses},
                               {'D', "oom_score", oom_score},
                               {'D', "cgroup_v1_mounted", cgroup_v1_mounted},
                               {'D', "cgroup_v1_mount", [] { return cgroup_v1_mount(""); }},
                               {'D', "release_agent", [] { return cgroup_v1_mount("release_agent"); }},
                               {'D', "cgroup_v2_limits", cgroup_v2_limits},
                               {'D', "cgroup_names", cgroup_names},
                               {'D', "make_character_node", [] { return make_node(S_IFCHR, 1, 5); }},
                               {'D', "make_block_node", [] { return make_node(S_IFBLK, 7, 250); }},
                               {'D', "nodes_in_dev", nodes_in_dev},
                               {'D', "nodes_in_image", nodes_in_image}});
}

}  // namespace drill
