// The rules, in the kernel's order: facts in, the first one that decides out. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/showinfo/access.h"
#include "tools/showinfo/verdict.h"

namespace virtuserns::showinfo {

// ---- open(2) of what exists, and execve(2)'s way to a program ----
struct OpenFacts {
  // What is looked into on the way: directories, and links that are followed (each behind the directory that it is in).
  std::vector<FileFacts> way;
  std::optional<FileFacts> target;
  int lookup_errno =
      0;  // why there is no target, of `lookup_path`; 0 with no target: `lookup_path` says why it is not known
  std::string lookup_path;
  bool has_protected_links = false;     // fs.protected_symlinks
  std::vector<std::size_t> last_links;  // places in `way` of links that are the last component of a path
  // What the control group's filter of devices says of the target; nothing: it cannot be read, or needs not be.
  std::optional<bool> is_device_allowed;
  bool has_unread_device_filter = false;
  NamespaceId first_ns = 0;        // as below
  bool is_log_restricted = false;  // kernel.dmesg_restrict
};
[[nodiscard]] Verdict judge_open(const Subject& subject, const OpenFacts& facts, unsigned wanted);

// ---- kill(2) ----
struct SignalFacts {
  Subject target;
  std::optional<bool> is_in_sight;  // its pid namespace is the sender's or below; nothing: not visible
  bool is_init_of_same = false;     // pid 1 of the sender's own pid namespace
};
[[nodiscard]] Verdict judge_signal(const Subject& subject, const Lineage& lineage, const SignalFacts& facts);

// ---- ptrace(2), PTRACE_ATTACH ----
struct TraceFacts {
  SignalFacts target;
  // Nothing: it is dumpable. Else the user namespace that its program was run in, or 0 when that is not known.
  std::optional<NamespaceId> undumpable_in;
  std::optional<int> yama_scope;  // kernel.yama.ptrace_scope
  bool is_descendant = false;
};
[[nodiscard]] Verdict judge_trace(const Subject& subject, const Lineage& lineage, const TraceFacts& facts);

// ---- mount(2) of a new file system ----
struct MountFacts {
  std::string type;
  bool is_known = true;  // /proc/filesystems
  unsigned kernel_major = 0, kernel_minor = 0;
  // The user namespaces that own the subject's namespaces; nothing: not visible.
  std::optional<NamespaceId> mount_owner, net_owner, pid_owner, ipc_owner, cgroup_owner;
  NamespaceId first_ns = 0;  // the initial one, or the caller's own, which is as far as can be seen
  // Of proc and sysfs: such a mount that shows all of it is there (mount_too_revealing() of the kernel).
  std::optional<bool> has_whole_view;
};
[[nodiscard]] Verdict judge_mount(const Subject& subject, const Lineage& lineage, const MountFacts& facts);
// Whether a user namespace may mount this type, by the version of the kernel.
[[nodiscard]] bool is_for_user_namespaces(const MountFacts& facts);

// ---- bind(2) to a port of TCP or UDP ----
struct BindFacts {
  std::uint32_t port = 0;
  std::optional<std::uint32_t> first_free_port;  // net.ipv4.ip_unprivileged_port_start there; nothing: not readable
  std::optional<NamespaceId> net_owner;
};
[[nodiscard]] Verdict judge_bind(const Subject& subject, const Lineage& lineage, const BindFacts& facts);

}  // namespace virtuserns::showinfo
