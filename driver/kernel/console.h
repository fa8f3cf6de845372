// Pseudo-terminals of a container's own devpts instance, and of the host's (pty(7)).
#pragma once

#include <cstdint>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

struct Pty {
  Fd master;                 // non-blocking
  std::uint32_t number = 0;  // /dev/pts/<number>
};
// A new pty of the devpts mounted at `devpts`. Its slave belongs to the caller's fsuid.
[[nodiscard]] Result<Pty> open_pty(const Fd& devpts);
// A descriptor of the slave by its master: never by a path that the container could have changed.
[[nodiscard]] Result<Fd> open_slave(const Fd& master);
// One of the host's: passes bytes on as they are, is the caller's alone, and is hung up until somebody opens the slave.
[[nodiscard]] Result<Pty> open_host_pty();
// Whether somebody has the slave open.
[[nodiscard]] bool is_slave_open(const Fd& master);

}  // namespace virtuserns::kernel
