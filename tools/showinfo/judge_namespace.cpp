// What depends on who owns a mount or network namespace.
#include <linux/capability.h>

#include <cerrno>

#include "conf/base/text.h"
#include "tools/showinfo/judge.h"

namespace virtuserns::showinfo {

namespace {

// FS_USERNS_MOUNT in the kernel's sources, and since when. bpf has it since 6.9 and asks for the host's CAP_SYS_ADMIN
// all the same.
struct UserMount {
  const char* type;
  unsigned major, minor;
};
constexpr UserMount kUserMounts[] = {{"proc", 3, 8},       {"sysfs", 3, 8},  {"tmpfs", 3, 9},  {"ramfs", 3, 9},
                                     {"devpts", 3, 9},     {"mqueue", 3, 9}, {"cgroup", 4, 6}, {"cgroup2", 4, 6},
                                     {"cpuset", 4, 6},     {"fuse", 4, 18},  {"binder", 5, 0}, {"overlay", 5, 11},
                                     {"binfmt_misc", 6, 7}};

Verdict unseen(const char* what) {
  return cannot_say("visibility",
                    std::string("who owns its ") + what + " is not visible to this user: run this as root");
}

// In whose eyes the new file system is made: of most, the mounter's; some belong to another of his namespaces.
std::optional<NamespaceId> owner_for(const Subject& subject, const MountFacts& facts) {
  if (facts.type == "sysfs") return facts.net_owner;
  if (facts.type == "proc") return facts.pid_owner;
  if (facts.type == "mqueue") return facts.ipc_owner;
  if (facts.type == "cgroup" || facts.type == "cgroup2" || facts.type == "cpuset") return facts.cgroup_owner;
  return subject.user_ns;
}

Verdict by_mount_rules(const Subject& subject, const Lineage& lineage, const MountFacts& facts) {
  const std::string type = quote(facts.type);
  if (subject.who.seccomp_mode == 1)
    return may_not("seccomp", EPERM, "it is in seccomp's strict mode and can mount nothing: it would be killed");
  if (!facts.mount_owner) return unseen("mount namespace");
  const auto own = has_capability(subject, lineage, *facts.mount_owner, CAP_SYS_ADMIN);
  if (!own.is_held)
    return may_not("mount-namespace", EPERM,
                   "it has no power over its mount namespace, which user namespace " +
                       std::to_string(*facts.mount_owner) + " owns: " + own.why);
  if (!facts.is_known) return may_not("unknown", ENODEV, "this kernel has no file system " + type + " loaded");
  if (!is_for_user_namespaces(facts)) {
    const auto first = has_capability(subject, lineage, facts.first_ns, CAP_SYS_ADMIN);
    if (first.is_held) return may("capability", "it is an administrator of the host: " + first.why);
    return may_not(
        "filesystem", EPERM,
        "file system " + type + " is mounted only by an administrator of the host, never in a user namespace");
  }
  const auto owner = owner_for(subject, facts);
  if (!owner) return unseen("other namespaces");
  const auto holding = has_capability(subject, lineage, *owner, CAP_SYS_ADMIN);
  if (!holding.is_held)
    return may_not("owner", EPERM,
                   "a new " + type + " would belong to user namespace " + std::to_string(*owner) +
                       ", which owns what it shows: " + holding.why);
  const bool is_view = facts.type == "proc" || facts.type == "sysfs";
  if (is_view && *facts.mount_owner != facts.first_ns) {
    if (!facts.has_whole_view) return unseen("mounts");
    if (!*facts.has_whole_view)
      return may_not("revealing", EPERM,
                     "no mount of " + type +
                         " that shows all of it is in its mount namespace, and a new one would "
                         "reveal what is hidden there");
  }
  return may("capability", "user namespaces may mount " + type + ": " + holding.why);
}

}  // namespace

bool is_for_user_namespaces(const MountFacts& facts) {
  for (const auto& known : kUserMounts)
    if (facts.type == known.type)
      return facts.kernel_major > known.major ||
             (facts.kernel_major == known.major && facts.kernel_minor >= known.minor);
  return false;
}

Verdict judge_mount(const Subject& subject, const Lineage& lineage, const MountFacts& facts) {
  auto verdict = by_mount_rules(subject, lineage, facts);
  verdict.facts = describe_subject(subject);
  if (facts.mount_owner)
    verdict.facts.push_back("its mount namespace belongs to user namespace " + std::to_string(*facts.mount_owner));
  verdict.facts.emplace_back("the place and the options of the mount are not looked at");
  return verdict;
}

Verdict judge_bind(const Subject& subject, const Lineage& lineage, const BindFacts& facts) {
  const auto decide = [&]() -> Verdict {
    const std::string port = "port " + std::to_string(facts.port);
    if (subject.who.seccomp_mode == 1)
      return may_not("seccomp", EPERM, "it is in seccomp's strict mode and has no sockets: it would be killed");
    if (facts.port == 0) return may("port", "the kernel chooses a free port for port 0");
    if (!facts.first_free_port) return unseen("network namespace");
    if (facts.port >= *facts.first_free_port)
      return may("port", port + " needs no privilege: net.ipv4.ip_unprivileged_port_start is " +
                             std::to_string(*facts.first_free_port));
    if (!facts.net_owner) return unseen("network namespace");
    const auto holding = has_capability(subject, lineage, *facts.net_owner, CAP_NET_BIND_SERVICE);
    if (holding.is_held) return may("capability", port + " is a privileged one: " + holding.why);
    return may_not("port", EACCES,
                   port + " is below net.ipv4.ip_unprivileged_port_start (" + std::to_string(*facts.first_free_port) +
                       ") of its network namespace, which user namespace " + std::to_string(*facts.net_owner) +
                       " owns: " + holding.why);
  };
  auto verdict = decide();
  verdict.facts = describe_subject(subject);
  if (facts.net_owner)
    verdict.facts.push_back("its network namespace belongs to user namespace " + std::to_string(*facts.net_owner));
  verdict.facts.emplace_back("addresses that others use already are not looked at");
  return verdict;
}

}  // namespace virtuserns::showinfo
