// E: namespaces of its own, and what reaches through them. F: terminals.
#include <dirent.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <set>

#include "tools/drill/probes/probe.h"

namespace drill {

namespace {

// A namespace belongs to the user namespace that made it: one of the host's belongs to another, or none that we see.
Verdict own_namespace(const char* kind) {
  if (is_host_namespace()) return failed("no user namespace: everything is the host's");
  const int fd = ::open((std::string("/proc/self/ns/") + kind).c_str(), O_RDONLY | O_CLOEXEC);
  const int user = ::open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
  if (fd < 0 || user < 0) return failed(std::string("open: ") + error_text(errno));
  const int owner = ::ioctl(fd, NS_GET_USERNS);
  if (owner < 0) return failed("belongs to somebody outside: " + error_text(errno));
  struct stat ours {
  }, its{};
  if (::fstat(user, &ours) != 0 || ::fstat(owner, &its) != 0) return failed("fstat: " + error_text(errno));
  if (ours.st_ino != its.st_ino) return failed("belongs to another user namespace");
  return held("the container's own");
}

// Sockets with a name and no file are reached by everybody in the network namespace (CVE-2020-15257).
Verdict abstract_sockets() {
  std::set<std::string> ours;
  for (const pid_t pid : processes())
    for (const auto& fd : names_in("/proc/" + std::to_string(pid) + "/fd")) {
      const auto target = link_text("/proc/" + std::to_string(pid) + "/fd/" + fd);
      if (target.starts_with("socket:[")) ours.insert(target.substr(8, target.size() - 9));
    }
  int seen = 0;
  for (const auto& line : lines_of(read_text("/proc/net/unix", 1 << 20))) {
    const auto words = words_of(line);
    if (words.size() < 8 || words[7][0] != '@') continue;
    ++seen;
    if (!ours.count(words[6])) return failed(words[7] + " is nobody's here");
  }
  return held(std::to_string(seen) + " abstract sockets, all of this container");
}

Verdict links() {
  // Physical devices have a /sys/class/net/NAME/device; here only what was given away may be seen.
  for (const auto& name : names_in("/sys/class/net")) {
    struct stat st {};
    if (::stat(("/sys/class/net/" + name + "/device").c_str(), &st) == 0) return failed("the host's " + name);
  }
  std::string all;
  for (const auto& line : lines_of(read_text("/proc/net/dev")))
    if (const auto at = line.find(':'); at != std::string::npos)
      all += (all.empty() ? "" : " ") + words_of(line.substr(0, at))[0];
  if (all.empty()) return failed("not even lo");
  for (const auto& name : words_of(all)) {
    struct stat st {};
    // What the kernel lists and /sys does not is of another namespace than /sys.
    if (::stat(("/sys/class/net/" + name).c_str(), &st) != 0) return failed(name + " is not in /sys");
  }
  return held(all);
}

Verdict system_v_objects() {
  for (const char* kind : {"shm", "sem", "msg"})
    for (const auto& line : lines_of(read_text(std::string("/proc/sysvipc/") + kind))) {
      const auto words = words_of(line);
      if (words.size() < 8 || words[0] == "key") continue;
      // Columns of owner and creator are ids: an object of the host has none that is mapped.
      const std::size_t at = std::string(kind) == "shm" ? 7 : std::string(kind) == "sem" ? 4 : 7;
      if (is_host_namespace() || !is_mapped_uid(static_cast<uid_t>(std::strtoul(words[at].c_str(), nullptr, 10))))
        return failed(std::string("a ") + kind + " of the host");
    }
  return held("none of the host's");
}

// ---- F ----

Verdict own_terminals() {
  struct stat pts {};
  if (::stat("/dev/pts", &pts) != 0) return failed("/dev/pts: " + error_text(errno));
  int seen = 0;
  for (int fd = 0; fd < 3; ++fd) {
    struct stat st {};
    if (!::isatty(fd) || ::fstat(fd, &st) != 0) continue;
    ++seen;
    if (st.st_dev != pts.st_dev) return failed(std::to_string(fd) + " is a terminal of another devpts");
  }
  return held(std::to_string(seen) + " streams are terminals of the container's own");
}

Verdict foreign_terminals() {
  int seen = 0;
  for (const auto& name : names_in("/dev/pts")) {
    struct stat st {};
    if (name == "ptmx") continue;  // of whoever mounted it; it makes terminals of those who open it
    if (::lstat(("/dev/pts/" + name).c_str(), &st) != 0) continue;
    ++seen;
    if (is_host_namespace() || !is_mapped_uid(st.st_uid)) return failed("/dev/pts/" + name + " belongs to the host");
  }
  if (seen == 0) return not_applicable("there are none");
  return held(std::to_string(seen) + " terminals, all the container's");
}

Verdict own_console() {
  struct stat st {
  }, pts{};
  if (::stat("/dev/console", &st) != 0) return not_applicable("no console");
  if (::stat("/dev/pts", &pts) != 0 || st.st_dev != pts.st_dev) return failed("is none of the container's terminals");
  if (!is_mapped_uid(st.st_uid)) return failed("belongs to the host");
  return held("a terminal of the container's own");
}

// Terminals of the machine: character devices 4 (screens, and serial lines from 64 on) and 7 (what screens show).
Verdict terminals_of_the_host(bool are_serial) {
  constexpr unsigned kFirstSerial = 64;
  int seen = 0;
  for (const auto& name : names_in("/dev")) {
    struct stat st {};
    if (::lstat(("/dev/" + name).c_str(), &st) != 0 || !S_ISCHR(st.st_mode)) continue;
    const bool is_serial = major(st.st_rdev) == 4 && minor(st.st_rdev) >= kFirstSerial;
    if ((major(st.st_rdev) != 4 && major(st.st_rdev) != 7) || is_serial != are_serial) continue;
    ++seen;
    const int fd = ::open(("/dev/" + name).c_str(), O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0) return failed("/dev/" + name + " can be opened");
  }
  return held(std::to_string(seen) + " are seen, none can be opened");
}

}  // namespace

void add_network_probes(std::vector<Probe>& probes) {
  for (const char* kind : {"pid", "net", "ipc", "uts", "cgroup", "mnt"})
    probes.push_back({'E', std::string("own_") + kind + "_namespace", [kind] { return own_namespace(kind); }});
  probes.insert(probes.end(), {{'E', "abstract_sockets", abstract_sockets},
                               {'E', "links", links},
                               {'E', "system_v_objects", system_v_objects},
                               {'F', "own_terminals", own_terminals},
                               {'F', "foreign_terminals", foreign_terminals},
                               {'F', "own_console", own_console},
                               {'F', "virtual_terminals", [] { return terminals_of_the_host(false); }},
                               {'F', "serial_lines", [] { return terminals_of_the_host(true); },
                                "what hangs on a serial line that the domain was given"}});
}

}  // namespace drill
