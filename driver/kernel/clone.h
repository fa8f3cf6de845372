// clone3(2): new processes, born where they belong.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <cstdint>
#include <string>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

struct CloneRequest {
  std::uint64_t flags = 0;        // CLONE_NEW*, CLONE_PARENT; the pidfd and the group are added here
  const DirFd* cgroup = nullptr;  // a v2 group to be born in (CLONE_INTO_CGROUP)
  int exit_signal = 0;            // to the parent
};
struct Cloned {
  pid_t pid = 0;  // 0: this is the child
  PidFd pidfd;    // the parent's
};
// A copy of this single-threaded process. Mostly without exit signal: waiting is done by pidfd (wait_process), and no SIGCHLD
// handler of anybody is disturbed. The child must leave by exec or _exit.
[[nodiscard]] Result<Cloned> clone_process(const CloneRequest& request);

// setns(2) on another process's namespaces, or on a kept one.
[[nodiscard]] Result<void> enter_namespaces(const PidFd& process, int flags);
[[nodiscard]] Result<void> enter_namespace(const NsFd& ns, int flag);
// `name` as in /proc/PID/ns. `proc` is a directory handle of a procfs.
[[nodiscard]] Result<NsFd> open_namespace(const DirFd& proc, pid_t pid, const char* name);
// NS_GET_OWNER_UID of a user namespace, as seen from ours.
[[nodiscard]] Result<uid_t> owner_of_user_namespace(const NsFd& user_ns);

// Whether ours is the one that the machine began with, by its map (`text` of uid_map), which no other can have.
[[nodiscard]] bool is_initial_map(const std::string& text);
[[nodiscard]] Result<bool> is_initial_user_namespace(const DirFd& proc);

}  // namespace virtuserns::kernel
