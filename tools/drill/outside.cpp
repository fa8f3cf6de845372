#include "tools/drill/outside.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>

#include "conf/base/fd.h"
#include "conf/base/file.h"
#include "conf/base/text.h"

namespace virtuserns::drill {

namespace {

constexpr int kLimitMs = 30'000;
constexpr std::size_t kMaxProcFile = 4 * 1024 * 1024;
constexpr const char* kNamespaces[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};

std::string proc(pid_t pid, const std::string& name) { return "/proc/" + std::to_string(pid) + "/" + name; }

std::string text_of(pid_t pid, const std::string& name) {
  std::string text;
  const Fd fd(::open(proc(pid, name).c_str(), O_RDONLY | O_CLOEXEC));
  char buffer[4096];
  ssize_t got = 0;
  while (fd && text.size() < kMaxProcFile && (got = ::read(fd.get(), buffer, sizeof buffer)) > 0)
    text.append(buffer, static_cast<std::size_t>(got));
  return text;
}

std::string link_of(pid_t pid, const std::string& name) {
  char text[4096];
  const auto size = ::readlink(proc(pid, name).c_str(), text, sizeof text);
  return size > 0 ? std::string(text, static_cast<std::size_t>(size)) : std::string();
}

// The words of one line of /proc/PID/status.
std::vector<std::string> status_of(pid_t pid, const std::string& name) {
  std::vector<std::string> words;
  const std::string text = text_of(pid, "status");
  for (const auto line : split(text, '\n'))
    if (line.starts_with(name + ":"))
      for (const auto word : split_blanks(line.substr(name.size() + 1))) words.emplace_back(word);
  return words;
}

std::uint64_t mask_of(pid_t pid, const std::string& name) {
  const auto words = status_of(pid, name);
  return words.empty() ? ~std::uint64_t{0} : parse_number<std::uint64_t>(words[0], 16).value_or(~std::uint64_t{0});
}

struct Extent {
  std::uint64_t inside, outside, count;
};
std::vector<Extent> map_of(pid_t pid, const std::string& name) {
  std::vector<Extent> found;
  const std::string text = text_of(pid, name);
  for (const auto line : split(text, '\n')) {
    const auto words = split_blanks(line);
    if (words.size() != 3) continue;
    found.push_back({parse_number<std::uint64_t>(words[0]).value_or(0),
                     parse_number<std::uint64_t>(words[1]).value_or(0),
                     parse_number<std::uint64_t>(words[2]).value_or(0)});
  }
  return found;
}
bool has_host_id(const std::vector<Extent>& map, std::uint64_t id) {
  return std::any_of(map.begin(), map.end(),
                     [id](const auto& extent) { return id >= extent.outside && id - extent.outside < extent.count; });
}

// ---- the checks: what is wrong, or nothing ----
using Wrong = std::optional<std::string>;

Wrong host_root_is_mapped(const Subject& subject, const char* name) {
  const auto map = map_of(subject.process, name);
  if (map.empty()) return "there is no map";
  if (has_host_id(map, 0)) return "maps id 0 of the host";
  return {};
}

// One of the ids in this line of its status is not out of its map, or its map is as good as none.
Wrong foreign_id(const Subject& subject, const char* field, const char* map_name) {
  const auto map = map_of(subject.process, map_name);
  for (const auto& word : status_of(subject.process, field))
    if (const auto id = parse_number<std::uint64_t>(word); !id || !has_host_id(map, *id) || has_host_id(map, 0))
      return std::string(field) + " " + word + " is none of the container's";
  return {};
}

Wrong foreign_ids(const Subject& subject) {
  auto wrong = foreign_id(subject, "Uid", "uid_map");
  return wrong ? wrong : foreign_id(subject, "Gid", "gid_map");
}

Wrong foreign_groups(const Subject& subject) { return foreign_id(subject, "Groups", "gid_map"); }

Wrong foreign_owner(const Subject& subject) {
  const Fd ns(::open(proc(subject.process, "ns/user").c_str(), O_RDONLY | O_CLOEXEC));
  uid_t owner = 0;
  if (!ns || ::ioctl(ns.get(), NS_GET_OWNER_UID, &owner) != 0) return std::string("it cannot be asked for its owner");
  if (owner == 0 || !has_host_id(map_of(subject.process, "uid_map"), owner))
    return "belongs to user " + std::to_string(owner) +
           " of the host: what the kernel counts for that user is shared";
  return {};
}

Wrong shared_namespaces(const Subject& subject, pid_t other, const char* whose) {
  for (const char* kind : kNamespaces) {
    const std::string name = std::string("ns/") + kind;
    const auto its = link_of(subject.process, name);
    if (its.empty() || its == link_of(other, name)) return std::string(kind) + " is " + whose;
  }
  return {};
}

// By the mounts that its files were opened through, and not by their names: looking up a name may never return.
Wrong foreign_descriptors(const Subject& subject) {
  std::vector<std::string> mounts;
  const std::string info = text_of(subject.process, "mountinfo");
  for (const auto line : split(info, '\n'))
    if (const auto words = split_blanks(line); !words.empty()) mounts.emplace_back(words[0]);
  const auto names = list_directory(proc(subject.process, "fd"));
  if (!names) return names.error().text;
  for (const auto& name : *names) {
    const std::string target = link_of(subject.process, "fd/" + name);
    if (!target.starts_with("/") || target.starts_with("/memfd:")) continue;  // pipes, sockets, memory
    struct statx st {};
    const std::string path = proc(subject.process, "fd/" + name);
    // A terminal has no mount inside by which it was opened; the probes judge it.
    if (::statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC, STATX_TYPE, &st) == 0 && S_ISCHR(st.stx_mode)) continue;
    const std::string facts = text_of(subject.process, "fdinfo/" + name);
    for (const auto line : split(facts, '\n')) {
      const auto words = split_blanks(line);
      if (words.size() == 2 && words[0] == "mnt_id:" &&
          std::find(mounts.begin(), mounts.end(), words[1]) == mounts.end())
        return "descriptor " + name + " was opened outside: " + target;
    }
  }
  return {};
}

Wrong no_filter(const Subject& subject) {
  const auto mode = status_of(subject.process, "Seccomp");
  if (mode != std::vector<std::string>{"2"}) return std::string("every system call reaches the kernel");
  return {};
}

Wrong inheritable(const Subject& subject) {
  for (const char* name : {"CapInh", "CapAmb"})
    if (mask_of(subject.process, name) != 0) return std::string(name) + " is not empty";
  return {};
}

Wrong capabilities(const Subject& subject) {
  constexpr std::pair<const char*, int> kDangerous[] = {{"sys_module", CAP_SYS_MODULE},
                                                        {"sys_rawio", CAP_SYS_RAWIO},
                                                        {"sys_time", CAP_SYS_TIME},
                                                        {"mknod", CAP_MKNOD},
                                                        {"audit_control", CAP_AUDIT_CONTROL},
                                                        {"mac_override", CAP_MAC_OVERRIDE},
                                                        {"mac_admin", CAP_MAC_ADMIN},
                                                        {"syslog", CAP_SYSLOG},
                                                        {"audit_read", CAP_AUDIT_READ},
                                                        {"perfmon", CAP_PERFMON},
                                                        {"bpf", CAP_BPF}};
  const auto bounds = mask_of(subject.process, "CapBnd");
  for (const auto& [name, number] : kDangerous)
    if (bounds >> number & 1) return std::string(name) + " is in the bounding set";
  return {};
}

Wrong root(const Subject& subject) {
  struct statx its {
  }, ours{};
  if (::statx(AT_FDCWD, proc(subject.process, "root").c_str(), AT_STATX_DONT_SYNC, STATX_INO, &its) != 0 ||
      ::statx(AT_FDCWD, "/", AT_STATX_DONT_SYNC, STATX_INO, &ours) != 0)
    return std::string("it cannot be seen");
  if (its.stx_ino == ours.stx_ino && its.stx_dev_major == ours.stx_dev_major &&
      its.stx_dev_minor == ours.stx_dev_minor)
    return std::string("is the host's");
  return {};
}

Wrong environment(const Subject& subject) {
  const std::string block = text_of(subject.process, "environ");
  for (const auto variable : split(block, '\0'))
    for (const char* prefix : {"VIRTUSERNS", "SSH", "DBUS", "SUDO", "NOTIFY_SOCKET", "LISTEN_"})
      if (variable.starts_with(prefix)) return "has " + printable(variable.substr(0, variable.find('=')));
  return {};
}

// ---- control groups ----

struct Group {
  std::string controllers, path;  // "memory"; empty: version 2
};
std::vector<Group> groups_of(pid_t pid) {
  std::vector<Group> found;
  const std::string text = text_of(pid, "cgroup");
  for (const auto line : split(text, '\n')) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    found.push_back({std::string(line.substr(first + 1, second - first - 1)), std::string(line.substr(second + 1))});
  }
  return found;
}
bool has_controller(const Group& group, const std::string& name) {
  const auto all = split(group.controllers, ',');
  return std::find(all.begin(), all.end(), name) != all.end();
}

bool is_limiting(const Group& group) {
  return has_controller(group, "memory") || has_controller(group, "pids") || has_controller(group, "devices");
}

Wrong shared_groups(const Subject& subject) {
  const auto ours = groups_of(::getpid()), its = groups_of(subject.process);
  // Beside hierarchies of version 1, which have the controllers, version 2 limits nothing.
  const bool has_v1 = std::any_of(its.begin(), its.end(), is_limiting);
  if (its.empty()) return std::string("they cannot be seen");
  for (const auto& group : its) {
    if (!is_limiting(group) && (has_v1 || !group.controllers.empty())) continue;
    const bool is_ours = std::any_of(ours.begin(), ours.end(), [&](const auto& own) {
      return own.controllers == group.controllers && own.path == group.path;
    });
    if (group.path == "/" || is_ours || (!subject.uuid.empty() && group.path.find(subject.uuid) == std::string::npos))
      return "is in " + group.path + " of " + (group.controllers.empty() ? "version 2" : group.controllers);
  }
  return {};
}

// Where a hierarchy is mounted for us, or empty.
std::string mount_of(const Group& group) {
  const std::string info = text_of(::getpid(), "mountinfo");
  for (const auto line : split(info, '\n')) {
    const auto words = split_blanks(line);
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 6 || words.end() - dash < 4 || words[3] != "/") continue;
    const auto options = split(dash[3], ',');
    if (group.controllers.empty()
            ? dash[1] == "cgroup2"
            : dash[1] == "cgroup" &&
                  std::find(options.begin(), options.end(), split(group.controllers, ',')[0]) != options.end())
      return std::string(words[4]);
  }
  return {};
}

// Of the group or of one above it.
bool is_limited(const Group& group, const std::vector<std::string>& files) {
  const std::string mount = mount_of(group);
  if (mount.empty()) return false;
  for (std::string path = group.path; !path.empty() && path != "/"; path.resize(path.rfind('/')))
    for (const auto& file : files) {
      const auto text = read_kernel_file(mount + path + "/" + file);
      constexpr std::uint64_t kNoLimit = 1ull << 60;  // version 1 writes the largest number of pages for "none"
      if (text && parse_number<std::uint64_t>(trim(*text)).value_or(kNoLimit) < kNoLimit) return true;
    }
  return false;
}

Wrong unlimited(const Subject& subject, const std::string& controller, const std::vector<std::string>& files) {
  for (const auto& group : groups_of(subject.process))
    if ((group.controllers.empty() || has_controller(group, controller)) && is_limited(group, files)) return {};
  return "no group limits its " + controller;
}

// A command on its way in is for a moment a process of the controller that is on its way into the groups.
Wrong of_supervisors(const Subject& subject, const std::function<Wrong(pid_t)>& check) {
  for (const pid_t pid : subject.supervisors) {
    auto wrong = check(pid);
    if (!wrong) continue;
    ::usleep(500'000);
    if (pid == subject.supervisors[0] || !status_of(pid, "Pid").empty()) return wrong;
  }
  return {};
}

Wrong supervisor_is_inside(const Subject& subject) {
  return of_supervisors(subject, [&](pid_t pid) -> Wrong {
    for (const auto& group : groups_of(pid))
      if (group.path.find(subject.uuid) != std::string::npos)
        return "process " + std::to_string(pid) + " of the controller is in " + group.path;
    return {};
  });
}

Wrong supervisor_shares_namespaces(const Subject& subject) {
  return of_supervisors(subject, [&](pid_t pid) { return shared_namespaces(subject, pid, "the controller's"); });
}

struct Check {
  char group;
  const char* name;
  std::function<Wrong(const Subject&)> run;
  bool is_of_supervisor = false;
};

std::vector<Check> checks() {
  const std::vector<std::string> process_files = {"pids.max"}, memory_files = {"memory.max", "memory.limit_in_bytes"};
  return {{'C', "outside_uid_map", [](const auto& of) { return host_root_is_mapped(of, "uid_map"); }},
          {'C', "outside_gid_map", [](const auto& of) { return host_root_is_mapped(of, "gid_map"); }},
          {'C', "outside_ids", foreign_ids},
          {'C', "outside_groups", foreign_groups},
          {'C', "outside_owner_of_namespace", foreign_owner},
          {'C', "outside_inheritable", inheritable},
          {'C', "outside_capabilities", capabilities},
          {'A', "outside_descriptors", foreign_descriptors},
          {'A', "outside_root", root},
          {'D', "outside_filter", no_filter},
          {'D', "outside_control_groups", shared_groups},
          {'D', "outside_process_limit", [=](const auto& of) { return unlimited(of, "pids", process_files); }},
          {'D', "outside_memory_limit", [=](const auto& of) { return unlimited(of, "memory", memory_files); }},
          {'E', "outside_namespaces", [](const auto& of) { return shared_namespaces(of, ::getpid(), "the host's"); }},
          {'D', "supervisor_groups", supervisor_is_inside, true},
          {'E', "supervisor_namespaces", supervisor_shares_namespaces, true},
          {'A', "outside_environment", environment}};  // last: memory of a process may never be there
}

[[noreturn]] void run_child(const Subject& subject, int out) {
  for (const auto& check : checks()) {
    if (check.is_of_supervisor && subject.supervisors.empty()) continue;
    const auto wrong = check.run(subject);
    const auto text = write_finding({check.group, check.name, true, wrong ? Outcome::kFailed : Outcome::kHeld,
                                     wrong.value_or("as it should be")});
    if (::write(out, text.data(), text.size()) < 0) break;
  }
  ::_exit(0);
}

}  // namespace

Result<Subject> find_subject(pid_t controller, const std::string& uuid) {
  Subject subject{0, {controller}, uuid};
  for (const auto& name : TRY(list_directory("/proc"))) {
    const auto pid = parse_number<pid_t>(name);
    if (!pid || status_of(*pid, "PPid") != std::vector{std::to_string(controller)}) continue;
    const auto numbers = status_of(*pid, "NSpid");
    if (numbers.size() == 1)
      subject.supervisors.push_back(*pid);
    else if (numbers.size() > 1 && numbers.back() == "1" &&
             link_of(*pid, "ns/user") != link_of(controller, "ns/user"))
      subject.process = *pid;
  }
  if (subject.process == 0)
    return fail(VIR_ERR_OPERATION_INVALID, "process " + std::to_string(controller) + " has no container");
  return subject;
}

Result<Findings> look_from_outside(const Subject& subject) {
  int pair[2];
  if (::pipe2(pair, O_CLOEXEC) != 0) return sys_fail("make pipe");
  Fd reading(pair[0]), writing(pair[1]);
  const pid_t child = ::fork();
  if (child < 0) return sys_fail("fork");
  if (child == 0) run_child(subject, writing.get());
  writing.reset();
  std::string text;
  pollfd entry{reading.get(), POLLIN, 0};
  char buffer[4096];
  ssize_t got = 0;
  bool is_late = false;
  while (!(is_late = ::poll(&entry, 1, kLimitMs) <= 0) && (got = ::read(reading.get(), buffer, sizeof buffer)) > 0)
    text.append(buffer, static_cast<std::size_t>(got));
  ::kill(child, SIGKILL);
  if (!is_late) ::waitpid(child, nullptr, 0);  // one that is held by the container ends with it, not before
  Findings findings;
  for (const auto line : split(text, '\n'))
    if (Finding finding; read_finding(std::string(line), finding)) {
      finding.is_outside = true;
      findings.push_back(std::move(finding));
    }
  if (is_late)
    findings.push_back(
        {'A', "outside_environment", true, Outcome::kFailed, "the container holds up whoever reads it"});
  return findings;
}

}  // namespace virtuserns::drill
