#include "driver/kernel/console.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

namespace virtuserns::kernel {

Result<Pty> open_pty(const Fd& devpts) {
  Pty pty;
  pty.master = Fd(::openat(devpts.get(), "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  if (!pty.master) return sys_fail(errno == ENOSPC ? "open pty: kernel.pty.max are taken" : "open pty");
  int unlock = 0;
  unsigned number = 0;
  if (::ioctl(pty.master.get(), TIOCSPTLCK, &unlock) != 0) return sys_fail("unlock pty");
  if (::ioctl(pty.master.get(), TIOCGPTN, &number) != 0) return sys_fail("number of pty");
  pty.number = number;
  return pty;
}

Result<Fd> open_slave(const Fd& master) {
  Fd slave(::ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  if (!slave) return sys_fail("open pty slave");
  return slave;
}

}  // namespace virtuserns::kernel
