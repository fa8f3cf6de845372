// Whom showinfo explain is about, as data, and the one question that every rule comes down to in the end: has it this
// capability over that user namespace?
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "conf/idmap.h"
#include "driver/kernel/credentials.h"
#include "tools/showinfo/host.h"

namespace virtuserns::showinfo {

// What capabilities are looked for with: who lies in whom, and who made it.
using Lineage = std::map<NamespaceId, UserNamespace>;

struct Subject {
  pid_t pid = 0;
  kernel::Credentials who;
  NamespaceId user_ns = 0;
  IdMaps maps;        // inside, and ids as the caller sees them
  std::string label;  // of the security module, when it confines the process
};

struct Holding {
  bool is_held = false;
  std::string why;
};

// cap_capable() of the kernel: effective in its own namespace counts there and below; whoever made a namespace, by
// effective uid, from the namespace around it, has every capability in it.
[[nodiscard]] Holding has_capability(const Subject& subject, const Lineage& lineage, NamespaceId target,
                                     int capability);
// Over a file: effective in the subject's own namespace, and both owners of the file are mapped there.
[[nodiscard]] Holding has_capability_over(const Subject& subject, std::uint32_t uid, std::uint32_t gid,
                                          int capability);

[[nodiscard]] bool is_in_group(const Subject& subject, std::uint32_t gid);
[[nodiscard]] std::string capability_name(int capability);

// "process 4711 'nginx': uid 2000033, ..." and what may refuse things beyond the rules that explain knows.
[[nodiscard]] std::vector<std::string> describe_subject(const Subject& subject);

}  // namespace virtuserns::showinfo
