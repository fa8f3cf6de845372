// A: what of the host a process has: descriptors, directories, programs, environment, keys. C: whose it is.
#include <fcntl.h>
#include <csignal>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "tools/drill/probes/probe.h"

namespace drill {

extern std::vector<int> descriptors_at_start;

namespace {

Verdict descriptors() {
  for (const int fd : descriptors_at_start)
    if (fd > 2) return failed(std::to_string(fd) + " is " + link_text("/proc/self/fd/" + std::to_string(fd)));
  return held(std::to_string(descriptors_at_start.size()) + " open");
}

Verdict streams() {
  for (int fd = 0; fd < 3; ++fd) {
    struct stat st {};
    if (::fstat(fd, &st) != 0) continue;
    if (S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode))
      return failed(std::to_string(fd) + " is " + link_text("/proc/self/fd/" + std::to_string(fd)));
  }
  return held("no directory, no disk");
}

Verdict descriptors_of_init() {
  const auto names = names_in("/proc/1/fd");
  if (names.empty()) return not_applicable("init's are not shown");
  for (const auto& name : names) {
    const std::string where = "/proc/1/fd/" + name;
    const std::string target = link_text(where);
    struct stat there {
    }, here{};
    if (target.empty() || target[0] != '/' || ::stat(where.c_str(), &there) != 0) continue;  // pipes, sockets, memory
    if (target.ends_with(" (deleted)")) continue;
    // Named by a path that leads elsewhere from here: it was opened outside.
    if (::stat(target.c_str(), &here) != 0 || here.st_dev != there.st_dev || here.st_ino != there.st_ino)
      return failed(name + " is " + target + ", which is not in this root");
  }
  return held(std::to_string(names.size()) + " of init lead nowhere else");
}

Verdict working_directory() {
  char path[4096];
  if (::syscall(SYS_getcwd, path, sizeof path) < 0) return failed("getcwd: " + error_text(errno));
  if (path[0] != '/') return failed(path);
  return held(path);
}

Verdict directories_of_processes() {
  struct stat root {};
  if (::stat("/", &root) != 0) return failed("stat /: " + error_text(errno));
  int seen = 0;
  for (const pid_t pid : processes()) {
    const std::string where = "/proc/" + std::to_string(pid);
    struct stat other {};
    if (::stat((where + "/root").c_str(), &other) != 0) continue;
    ++seen;
    const std::string path = link_text(where + "/root");
    // A process may have changed its root below ours; then its path says where.
    struct stat here {};
    if (::stat(path.c_str(), &here) != 0 || here.st_dev != other.st_dev || here.st_ino != other.st_ino)
      return failed(where + "/root is another tree: " + path);
    struct stat directory {};
    const std::string cwd = link_text(where + "/cwd");
    if (::stat((where + "/cwd").c_str(), &directory) == 0 && !cwd.ends_with(" (deleted)") &&
        (::stat(cwd.c_str(), &here) != 0 || here.st_dev != directory.st_dev || here.st_ino != directory.st_ino))
      return failed(where + "/cwd is outside: " + cwd);
  }
  return held(std::to_string(seen) + " processes have this root");
}

Verdict programs_of_processes() {
  int seen = 0;
  for (const pid_t pid : processes()) {
    const std::string where = "/proc/" + std::to_string(pid) + "/exe";
    const std::string path = link_text(where);
    struct stat there {
    }, here{};
    if (path.empty() || ::stat(where.c_str(), &there) != 0 || path.ends_with(" (deleted)")) continue;
    ++seen;
    if (::stat(path.c_str(), &here) != 0 || here.st_dev != there.st_dev || here.st_ino != there.st_ino) {
      const int fd = ::open(where.c_str(), O_WRONLY | O_CLOEXEC);
      return failed("process " + std::to_string(pid) + " runs " + path + " of another tree" +
                    (fd >= 0 ? ", and it can be opened for writing" : ""));
    }
  }
  return held(std::to_string(seen) + " programs are of this root");
}

// What the services of a host have around them. Not what an operator may well give an init.
std::string foreign_variable(const std::string& block) {
  constexpr const char* kPrefixes[] = {"SSH_",
                                       "SUDO_",
                                       "LD_",
                                       "DBUS_",
                                       "XDG_",
                                       "NOTIFY_SOCKET",
                                       "LISTEN_",
                                       "VIRTUSERNS_",
                                       "GPG_",
                                       "KRB5",
                                       "AWS_",
                                       "LIBVIRT_DEBUG",
                                       "LIBVIRT_LOG",
                                       "INVOCATION_ID",
                                       "JOURNAL_STREAM",
                                       "CREDENTIALS_DIRECTORY"};
  for (std::size_t at = 0; at < block.size();) {
    const std::string variable = block.c_str() + at;
    for (const char* prefix : kPrefixes)
      if (variable.starts_with(prefix)) return variable.substr(0, variable.find('='));
    at += variable.size() + 1;
  }
  return {};
}

Verdict environment() {
  const auto name = foreign_variable(read_text("/proc/self/environ"));
  return name.empty() ? held("nothing of the host's services") : failed("has " + name);
}
Verdict environment_of_init() {
  const auto block = read_text("/proc/1/environ");
  if (block.empty()) return not_applicable("init's is not shown");
  const auto name = foreign_variable(block);
  return name.empty() ? held("nothing of the host's services") : failed("init has " + name);
}

Verdict session_keyring() {
  char text[256] = {};
  const long size = ::syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, text, sizeof text - 1);
  if (size < 0) return held("keyctl: " + error_text(errno));
  // "keyring;UID;GID;PERM;NAME", the ids as this user namespace counts.
  const char* owner = std::strchr(text, ';');
  const unsigned long uid = owner ? std::strtoul(owner + 1, nullptr, 10) : ~0ul;
  if (is_host_namespace() || !is_mapped_uid(static_cast<uid_t>(uid))) return failed(text);
  return held(text);
}

Verdict foreign_keys() {
  for (const auto& line : lines_of(read_text("/proc/keys"))) {
    const auto words = words_of(line);
    if (words.size() > 5 && (is_host_namespace() || !is_mapped_uid(static_cast<uid_t>(std::atoll(words[5].c_str())))))
      return failed(line);
  }
  return held("/proc/keys shows none");
}

// ---- C ----

Verdict map_of(const char* path) {
  const auto lines = lines_of(read_text(path));
  if (lines.empty()) return failed(std::string(path) + " is empty");
  for (const auto& line : lines) {
    const auto words = words_of(line);
    if (words.size() == 3 && std::strtoull(words[1].c_str(), nullptr, 10) == 0)
      return failed("maps host id 0: " + line);
  }
  return held(lines[0]);
}
Verdict uid_map() { return map_of("/proc/self/uid_map"); }
Verdict gid_map() { return map_of("/proc/self/gid_map"); }

Verdict own_ids() {
  uid_t real = 0, effective = 0, saved = 0;
  ::getresuid(&real, &effective, &saved);
  for (const uid_t id : {real, effective, saved})
    if (is_host_namespace() || !is_mapped_uid(id))
      return failed("user id " + std::to_string(id) + " is none of the container's");
  gid_t group = 0, effective_group = 0, saved_group = 0;
  ::getresgid(&group, &effective_group, &saved_group);
  for (const gid_t id : {group, effective_group, saved_group})
    if (!is_mapped_gid(id)) return failed("group id " + std::to_string(id) + " is none of the container's");
  return held("user " + std::to_string(real) + ", group " + std::to_string(group));
}

Verdict groups() {
  gid_t list[4096];
  const int count = ::getgroups(4096, list);
  if (count < 0) return failed("getgroups: " + error_text(errno));
  for (int i = 0; i < count; ++i)
    if (is_host_namespace() || !is_mapped_gid(list[i]))
      return failed("group " + std::to_string(list[i]) + " is none of the container's");
  return held(std::to_string(count) + " more groups");
}

Verdict owner_of_namespace() {
  if (is_host_namespace()) return failed("this is the host's user namespace");
  const int fd = ::open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
  uid_t owner = ~0u;
  if (fd < 0 || ::ioctl(fd, NS_GET_OWNER_UID, &owner) != 0) return failed("NS_GET_OWNER_UID: " + error_text(errno));
  if (!is_mapped_uid(owner)) return failed("belongs to a user of the host: its counters are shared");
  return held("belongs to user " + std::to_string(owner) + " of the container");
}

Verdict foreign_processes() {
  int seen = 0;
  for (const pid_t pid : processes()) {
    for (const auto& line : lines_of(read_text("/proc/" + std::to_string(pid) + "/status"))) {
      if (!line.starts_with("Uid:") && !line.starts_with("Gid:")) continue;
      const auto words = words_of(line);
      for (std::size_t i = 1; i < words.size(); ++i) {
        const auto id = static_cast<uid_t>(std::strtoul(words[i].c_str(), nullptr, 10));
        if (is_host_namespace() || !(line[0] == 'U' ? is_mapped_uid(id) : is_mapped_gid(id)))
          return failed("process " + std::to_string(pid) + " is the host's, " +
                        (::kill(pid, 0) == 0 ? "and can be signalled" : "and is seen"));
      }
    }
    ++seen;
  }
  return held(std::to_string(seen) + " processes, all the container's");
}

std::string status_field(const char* name) {
  for (const auto& line : lines_of(read_text("/proc/self/status")))
    if (line.starts_with(name)) return words_of(line).back();
  return {};
}

Verdict inheritable_capabilities() {
  for (const char* name : {"CapInh:", "CapAmb:"})
    if (const auto value = status_field(name); std::strtoull(value.c_str(), nullptr, 16) != 0)
      return failed(std::string(name) + " " + value);
  return held("none");
}

struct Capability {
  const char* name;
  int number;
};
// What a container's root has no use for, or what reaches the whole machine.
constexpr Capability kDangerous[] = {{"sys_module", CAP_SYS_MODULE},
                                     {"sys_rawio", CAP_SYS_RAWIO},
                                     {"sys_time", CAP_SYS_TIME},
                                     {"syslog", CAP_SYSLOG},
                                     {"mac_admin", CAP_MAC_ADMIN},
                                     {"mac_override", CAP_MAC_OVERRIDE},
                                     {"audit_control", CAP_AUDIT_CONTROL},
                                     {"audit_read", CAP_AUDIT_READ},
                                     {"mknod", CAP_MKNOD},
                                     {"bpf", CAP_BPF},
                                     {"perfmon", CAP_PERFMON},
                                     {"wake_alarm", CAP_WAKE_ALARM},
                                     {"block_suspend", CAP_BLOCK_SUSPEND}};

Verdict capability(int number) {
  const auto bounds = std::strtoull(status_field("CapBnd:").c_str(), nullptr, 16);
  if (bounds >> number & 1) return failed("is in the bounding set");
  return held("is not in the bounding set");
}

}  // namespace

void add_process_probes(std::vector<Probe>& probes) {
  probes.insert(probes.end(), {{'A', "descriptors", descriptors},
                               {'A', "streams", streams},
                               {'A', "descriptors_of_init", descriptors_of_init},
                               {'A', "working_directory", working_directory},
                               {'A', "directories_of_processes", directories_of_processes},
                               {'A', "programs_of_processes", programs_of_processes},
                               {'A', "environment", environment},
                               {'A', "environment_of_init", environment_of_init},
                               {'A', "session_keyring", session_keyring},
                               {'A', "foreign_keys", foreign_keys},
                               {'C', "uid_map", uid_map},
                               {'C', "gid_map", gid_map},
                               {'C', "own_ids", own_ids},
                               {'C', "groups", groups},
                               {'C', "owner_of_namespace", owner_of_namespace},
                               {'C', "foreign_processes", foreign_processes},
                               {'C', "inheritable_capabilities", inheritable_capabilities}});
  for (const auto& one : kDangerous)
    probes.push_back(
        {'C', std::string("capability_") + one.name, [number = one.number] { return capability(number); }});
}

}  // namespace drill
