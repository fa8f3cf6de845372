// Who a process is, of /proc/PID/status: ids, groups, capabilities. Ids are those of whoever reads (user_namespaces(7)): one that
// is not mapped there reads as the overflow id.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

struct IdSet {
  std::uint32_t real = 0, effective = 0, saved = 0, filesystem = 0;
  bool operator==(const IdSet&) const = default;
};

struct Credentials {
  std::string name;  // the process chose it: may hold any byte
  char state = '?';
  pid_t parent = 0, thread_group = 0;
  IdSet uid, gid;
  std::vector<std::uint32_t> groups;
  std::uint64_t permitted = 0, effective = 0;
  bool has_no_new_privileges = false;
  int seccomp_mode = 0;        // 0 none, 1 strict, 2 filter
  bool has_memory = false;     // threads of the kernel and zombies have none
  std::vector<pid_t> ns_pids;  // from the procfs's pid namespace inwards
};

// nullopt: not the text of a status file.
[[nodiscard]] std::optional<Credentials> parse_credentials(std::string_view text);
[[nodiscard]] Result<Credentials> read_credentials(const DirFd& proc, pid_t pid);

}  // namespace virtuserns::kernel
