// One daemon at a time: for the sockets of a directory, and in a session for the domains of a user.
#pragma once

#include <string>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "conf/paths.h"

namespace virtuserns {

// The lock lives as long as the descriptor, whatever kills the process.
[[nodiscard]] Result<Fd> take_pid_file(const std::string& path);

// Of a session, before anything is looked at: the user's domains, whose state outlives a logout. At a logout the runtime
// directory goes with the sockets in it, while the daemon may live on (logind.conf(5), KillUserProcesses). Nobody can reach it any
// more, so it is told to leave, and its domains, which run on, are ours. Fails while one runs that can be reached.
// `directory`: of our sockets, whose pid file is ours already.
[[nodiscard]] Result<Fd> take_domains(const Paths& paths, const std::string& directory);

}  // namespace virtuserns
