// Permission to connect, asked of polkit.
#pragma once

#include "conf/base/result.h"
#include "driver/rpc/session.h"

namespace virtuserns::rpc {

inline constexpr const char* kPolkitManage = "org.libvirt.unix.manage";
inline constexpr const char* kPolkitMonitor = "org.libvirt.unix.monitor";

// Reads who is at the other end of a connected socket. What the kernel says at accept holds for the whole connection:
// a pid that is reused later is told apart by its start time, and by the pidfd where the kernel gives one (a
// descriptor for each client: only those take it that have to authenticate).
[[nodiscard]] Result<Peer> read_peer(const SocketFd& socket, AuthMethod method);
// As getgrnam(3). VIR_ERR_CONFIG_UNSUPPORTED: there is none of the name.
[[nodiscard]] Result<gid_t> group_id(const std::string& name);
// Field 22 of /proc/<pid>/stat. 0 when the process is gone.
[[nodiscard]] std::uint64_t read_start_time(pid_t pid);

// Blocks until polkit (and perhaps the user, through an agent) has answered. Errors: AUTH_UNAVAILABLE when somebody
// would have to be asked and there is no agent, AUTH_CANCELLED, AUTH_FAILED.
[[nodiscard]] Result<void> check_polkit(const Peer& peer, const char* action);

}  // namespace virtuserns::rpc
