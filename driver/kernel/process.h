// What /proc says about a process. The parsers are pure and bounded; a process writes its own name into these files.
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

// Gives back the memory that this thread needed once and does not now: of its heap; of its stack below the caller.
void shrink_heap();
void shrink_stack();

struct ProcessStatus {
  std::vector<pid_t> ns_pids;                          // NSpid: from the procfs's pid namespace inwards
  std::uint64_t caught = 0, blocked = 0, ignored = 0;  // SigCgt, SigBlk, SigIgn: bit signal-1
};
[[nodiscard]] std::optional<ProcessStatus> parse_process_status(std::string_view text);
// Field 22 of /proc/PID/stat. The name in field 2 may hold blanks and brackets.
[[nodiscard]] std::optional<std::uint64_t> parse_start_time(std::string_view text);

// Fields 4 and 5 of the same.
struct Family {
  pid_t parent = 0, group = 0;
};
[[nodiscard]] std::optional<Family> parse_family(std::string_view text);

[[nodiscard]] Result<ProcessStatus> read_process_status(const DirFd& proc, pid_t pid);
[[nodiscard]] Result<std::uint64_t> read_start_time(const DirFd& proc, pid_t pid);
[[nodiscard]] Result<Family> read_family(const DirFd& proc, pid_t pid);

}  // namespace virtuserns::kernel
