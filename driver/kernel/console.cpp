#include "driver/kernel/console.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
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

Result<Pty> open_host_pty() {
  const Fd devpts(::open("/dev/pts", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!devpts) return sys_fail("open '/dev/pts'");
  Pty pty = TRY(open_pty(devpts));
  const Fd slave = TRY(open_slave(pty.master));
  termios modes{};
  if (::tcgetattr(slave.get(), &modes) != 0) return sys_fail("modes of pty");
  // Or it would echo what the container writes, which would come back as input.
  ::cfmakeraw(&modes);
  if (::tcsetattr(slave.get(), TCSANOW, &modes) != 0) return sys_fail("set modes of pty");
  // devpts lets the group of terminals write.
  if (::fchmod(slave.get(), 0600) != 0) return sys_fail("set mode of pty");
  return pty;
}

bool is_slave_open(const Fd& master) {
  pollfd state{master.get(), 0, 0};
  return ::poll(&state, 1, 0) >= 0 && (state.revents & POLLHUP) == 0;
}

}  // namespace virtuserns::kernel
