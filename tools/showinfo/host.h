// What the caller may see of the processes and user namespaces of this host. Reads only, and enters no namespace.
//
// Ids are those of the caller's own user namespace throughout.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/idmap.h"
#include "driver/kernel/credentials.h"

namespace virtuserns::showinfo {

using NamespaceId = std::uint64_t;

struct Process {
  pid_t pid = 0;
  kernel::Credentials who;
  std::optional<NamespaceId> user_ns;  // nothing: the kernel does not say it to the caller
};

// A thread of the kernel: it belongs to nobody.
[[nodiscard]] bool is_of_the_kernel(const Process& process);

struct UserNamespace {
  std::optional<NamespaceId> parent;  // nothing: the caller's own, or above it
  std::optional<std::uint32_t> owner;
  std::optional<IdMaps> maps;  // of a process in it; nothing when there is none
  std::size_t process_count = 0;
  pid_t first_process = 0;  // the oldest number in it
};

// A domain of ours that runs: known by the mark that the daemon gives to its controller.
struct Domain {
  std::string name, uuid;
  pid_t controller = 0;
  std::uint32_t owner = 0;        // who started it
  NamespaceId controller_ns = 0;  // of an ordinary user's: one of its own around the domain's (docs/decisions/0015)
  pid_t init = 0;                 // 0: none yet
  std::optional<NamespaceId> user_ns;
};

struct Host {
  NamespaceId own = 0;
  std::vector<Process> processes;  // by pid
  std::map<NamespaceId, UserNamespace> namespaces;
  std::vector<Domain> domains;
  std::size_t hidden_count = 0;  // processes whose namespace is not shown to the caller

  [[nodiscard]] const Process* find(pid_t pid) const;
  [[nodiscard]] const Domain* domain_of(NamespaceId id) const;
  // From `id` outwards to the caller's own namespace, which is the last; empty when it is not below that.
  [[nodiscard]] std::vector<NamespaceId> chain(NamespaceId id) const;
};

// `own_maps` of the caller's own namespace say what is mapped, in its ids: the kernel shows those of the parent there.
[[nodiscard]] IdMaps seen_from_inside(const IdMaps& own_maps);

// "/run/libvirt/userns/UUID" of the mark, to the uuid.
[[nodiscard]] std::optional<std::string> parse_mark(const std::string& environment);

[[nodiscard]] Result<Host> read_host(const std::string& proc = "/proc");

// By pid; a domain by name or uuid, which stands for its init. VIR_ERR_NO_DOMAIN when there is none.
[[nodiscard]] Result<const Process*> find_subject(const Host& host, const std::string& what);

}  // namespace virtuserns::showinfo
