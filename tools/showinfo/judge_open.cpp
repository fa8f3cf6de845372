#include <linux/capability.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "conf/base/text.h"
#include "tools/showinfo/judge.h"

namespace virtuserns::showinfo {

namespace {

// may_follow_link(): in a folder where everybody writes, only links of one's own or of the folder's owner are followed.
bool is_protected(const Subject& subject, const FileFacts& link, const FileFacts& folder) {
  constexpr mode_t kShared = S_ISVTX | S_IWOTH;
  return link.uid != subject.who.uid.filesystem && (folder.mode & kShared) == kShared && link.uid != folder.uid;
}

bool is_last_link(const OpenFacts& facts, std::size_t place) {
  return std::find(facts.last_links.begin(), facts.last_links.end(), place) != facts.last_links.end();
}

std::optional<Verdict> refuse_way(const Subject& subject, const OpenFacts& facts) {
  for (std::size_t i = 0; i < facts.way.size(); ++i) {
    const auto& step = facts.way[i];
    if (S_ISDIR(step.mode)) {
      const auto access = check_access(subject, step, kExecute);
      if (!access.is_allowed)
        return may_not("search", EACCES, "it may not pass through " + quote(step.path) + ": " + access.why);
    } else if (facts.has_protected_links && i > 0 && is_last_link(facts, i) &&
               is_protected(subject, step, facts.way[i - 1])) {
      return may_not("protected-link", EACCES,
                     "link " + quote(step.path) + " of uid " + std::to_string(step.uid) +
                         " lies in a folder where everybody writes, and fs.protected_symlinks lets only its owner "
                         "follow it");
    }
  }
  return std::nullopt;
}

std::optional<Verdict> refuse_kind(const FileFacts& file, unsigned wanted) {
  const std::string name = quote(file.path);
  const bool is_device = S_ISCHR(file.mode) || S_ISBLK(file.mode);
  if (S_ISDIR(file.mode) && (wanted & kWrite)) return may_not("directory", EISDIR, name + " is a directory");
  if ((wanted & kExecute) && !S_ISREG(file.mode))
    return may_not("kind", EACCES, name + " is no regular file, and nothing else is executed");
  if (is_device && file.has_nodev)
    return may_not("nodev", EACCES, name + " is a device on a mount with nodev, where no device is opened");
  if ((wanted & kExecute) && file.has_noexec) return may_not("noexec", EACCES, name + " lies on a mount with noexec");
  return std::nullopt;
}

// Devices whose drivers ask for a capability over the host.
std::optional<Verdict> refuse_driver(const Subject& subject, const OpenFacts& facts, unsigned wanted) {
  constexpr std::uint32_t kMemoryMajor = 1, kMem = 1, kPort = 4, kLog = 11;
  const auto& file = *facts.target;
  if (!S_ISCHR(file.mode) || file.major != kMemoryMajor) return std::nullopt;
  const bool is_memory = file.minor == kMem || file.minor == kPort;
  const bool is_log = file.minor == kLog && (wanted & kRead) != 0 && facts.is_log_restricted;
  if (!is_memory && !is_log) return std::nullopt;
  const int capability = is_memory ? CAP_SYS_RAWIO : CAP_SYSLOG;
  if (subject.user_ns == facts.first_ns && has_capability(subject, {}, facts.first_ns, capability).is_held)
    return std::nullopt;
  return may_not("driver", EPERM,
                 "the driver of " + quote(file.path) + " asks for capability " + capability_name(capability) +
                     " in the first user namespace" + (is_log ? ", since kernel.dmesg_restrict is set" : ""));
}

// Files, directories and links are protected by a read-only file system; devices, pipes and sockets are not.
bool is_content(const FileFacts& file) { return S_ISREG(file.mode) || S_ISDIR(file.mode); }

Verdict judge_target(const Subject& subject, const OpenFacts& facts, unsigned wanted) {
  const auto& file = *facts.target;
  const std::string name = quote(file.path);
  if (auto refused = refuse_kind(file, wanted)) return *refused;
  if ((wanted & kWrite) && is_content(file) && file.is_read_only_filesystem)
    return may_not("read-only", EROFS, name + " lies on a file system that is read-only");
  if ((wanted & kWrite) && file.is_immutable) return may_not("immutable", EPERM, name + " is marked immutable");
  if ((wanted & kWrite) && (file.uid == kNoId || file.gid == kNoId))
    return may_not("unmapped", EACCES,
                   name + " has an owner that its idmapped mount does not map: nobody changes such a file there");
  const auto access = check_access(subject, file, wanted);
  if (!access.is_allowed)
    return may_not(access.rule, EACCES, "it may not " + show_wanted(wanted) + " " + name + ": " + access.why);
  const bool is_device = S_ISCHR(file.mode) || S_ISBLK(file.mode);
  if (is_device && facts.is_device_allowed == false)
    return may_not(
        "device-filter", EPERM,
        "its control group does not allow device " + std::to_string(file.major) + ":" + std::to_string(file.minor));
  if ((wanted & kWrite) && file.is_append_only)
    return may_not("append-only", EPERM, name + " is marked append-only and is opened only to append");
  if ((wanted & kWrite) && is_content(file) && file.is_read_only_mount)
    return may_not("read-only", EROFS, name + " is reached through a mount that is read-only");
  if (S_ISSOCK(file.mode)) return may_not("kind", ENXIO, name + " is a socket, which is connected to and not opened");
  if (auto refused = refuse_driver(subject, facts, wanted)) return *refused;
  if (is_device && facts.has_unread_device_filter)
    return cannot_say("device-filter",
                      "everything else lets it, and a filter of its control group, which cannot be read, decides");
  return may(access.rule, "it may " + show_wanted(wanted) + " " + name + ": " + access.why);
}

bool has_rules_of_its_own(const std::string& type) {
  for (const char* known : {"proc", "sysfs", "cgroup", "cgroup2", "fuse", "nfs", "nfs4", "cifs", "smb3", "9p", "ceph",
                            "debugfs", "tracefs", "securityfs", "bpf", "overlay"})
    if (type == known || type.starts_with(std::string(known) + ".")) return true;
  return false;
}

}  // namespace

Verdict judge_open(const Subject& subject, const OpenFacts& facts, unsigned wanted) {
  const auto decide = [&]() -> Verdict {
    if (subject.who.seccomp_mode == 1)
      return may_not("seccomp", EPERM, "it is in seccomp's strict mode and can open nothing: it would be killed");
    if (auto refused = refuse_way(subject, facts)) return *refused;
    if (facts.target) return judge_target(subject, facts, wanted);
    if (facts.lookup_errno != 0)
      return may_not("lookup", facts.lookup_errno,
                     quote(facts.lookup_path) + ": " + ::strerrordesc_np(facts.lookup_errno));
    return cannot_say("lookup", facts.lookup_path);
  };
  auto verdict = decide();
  verdict.facts = describe_subject(subject);
  if (facts.target) {
    verdict.facts.push_back(describe_file(*facts.target));
    if (S_ISCHR(facts.target->mode) || S_ISBLK(facts.target->mode))
      verdict.facts.emplace_back("the driver of a device may have rules of its own");
    if (has_rules_of_its_own(facts.target->filesystem))
      verdict.facts.push_back("file system " + quote(facts.target->filesystem) +
                              " has rules of its own beside modes, which are not looked at");
  }
  for (const auto& step : facts.way) verdict.facts.push_back("on the way " + describe_file(step));
  return verdict;
}

}  // namespace virtuserns::showinfo
