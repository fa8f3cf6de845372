// The daemon's life: directories and lock, drivers, sockets, the loop, the end.
#pragma once

#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/paths.h"

namespace virtuserns {

struct DaemonOptions {
  Paths paths;
  std::vector<std::string> drivers = {"userns"};  // the first serves connections that name no other
  std::string listen_dir;                         // empty: paths.run
  std::string pid_file;                           // empty: <listen_dir>/virtusernsd.pid
  unsigned timeout_s = 0;                         // 0: never leaves for idleness
  bool is_verbose = false;
};

// Runs until a signal or idleness ends it. Call it single-threaded. `ready` is called once it serves.
//
// The socket files stay behind on purpose. A client whose socket file is missing turns to libvirtd's socket and
// reports that one in its error; one that finds ours refusing says so by name. The next daemon replaces them.
[[nodiscard]] Result<void> run_daemon(const DaemonOptions& options, void (*ready)());

}  // namespace virtuserns
