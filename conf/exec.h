// A command that somebody wants to run in a running domain, and what is said about it while it runs.
//
// It comes from a client of the daemon and reaches the domain's controller unchanged; both check it. The names and
// paths in it are the container's.
#pragma once

#include <cstdint>
#include <string>

#include "conf/base/result.h"
#include "conf/base/xdr.h"

namespace virtuserns {

inline constexpr std::size_t kMaxExecItems = 1024;           // arguments; variables
inline constexpr std::size_t kMaxExecText = 128 * 1024 - 1;  // of one: MAX_ARG_STRLEN of execve(2)
inline constexpr std::size_t kMaxExecBytes = 192 * 1024;     // of all: a packet to the controller holds it

using ExecTexts = xdr::List<xdr::Text<kMaxExecText>, kMaxExecItems>;

struct ExecDef {
  ExecTexts arguments;                  // [0] is the program: a path, or a name that is looked for in PATH
  ExecTexts environment;                // NAME=VALUE, over what every command gets
  xdr::Text<256> user, group;           // a name of the container's own files, or "+N"; empty: container root
  xdr::Text<4096> directory;            // absolute; empty: "/"
  bool has_terminal = false;            // a pty of the container's, else three pipes
  std::uint32_t rows = 0, columns = 0;  // of the terminal; 0: not known
};

// Everything about `def` that can be refused without looking into the container.
[[nodiscard]] Result<void> validate_exec(const ExecDef& def);

// A command may bring its program along, as a descriptor: nothing is written into the container for it. arguments[0] is
// only its name then. It has to be memory that nobody can change any more (memfd_create(2), fully sealed, writable by
// nobody): the container may look into what it runs, and must find nothing of the host there, nor change it for others.
[[nodiscard]] Result<void> validate_program(int fd);

// The exit status of a command that could not be run (as of env(1) and shells), by errno of execve(2).
inline constexpr std::int32_t kExecFailed = 125, kExecCannotRun = 126, kExecNotFound = 127;
[[nodiscard]] constexpr std::int32_t exec_status_of(int sys_errno) {
  return sys_errno == ENOENT || sys_errno == ENOTDIR ? kExecNotFound : kExecCannotRun;
}

// ---- on the socket between whoever asked and the controller: SOCK_SEQPACKET, one message a packet ----
// Closing it hangs the command up: SIGHUP, and SIGKILL when that did not end it.
inline constexpr std::size_t kMaxExecMessage = 64;
struct ExecSignal {  // to the controller: for the command and those of its children that stayed in its process group
  std::int32_t signal = 0;
};
struct ExecEnded {  // from the controller: the last message
  std::int32_t wait_status = 0;
};

}  // namespace virtuserns
