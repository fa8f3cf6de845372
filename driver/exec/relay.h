// Between the caller's descriptors and a running command: bytes both ways, signals and the window's size in, the exit
// status out. The command has pipes or a terminal of its own, never one of ours.
#pragma once

#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::exec {

// Of the caller's terminal; zeros when there is none.
struct WindowSize {
  unsigned short rows = 0, columns = 0;
};
[[nodiscard]] WindowSize read_window_size();

// The wait status of the command. `fds` as of Started.
[[nodiscard]] Result<int> relay(std::vector<Fd> fds, bool has_terminal);

}  // namespace virtuserns::exec
