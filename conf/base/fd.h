// Owners of file descriptors. Move-only, closed on destruction; typed so that a pidfd cannot be passed where a
// directory is meant. A function that only uses a descriptor takes `const XFd&`; one that keeps it takes `XFd`.
#pragma once

#include <unistd.h>

#include <utility>

namespace virtuserns {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    Fd moved(std::move(other));
    std::swap(fd_, moved.fd_);
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  [[nodiscard]] int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  void reset() {
    // EINTR of close leaves the descriptor closed on Linux (close(2)): never retried.
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

struct PidFd : Fd {
  using Fd::Fd;
};  // pidfd_open(2): refers to one process for ever, never to a reused pid
struct NsFd : Fd {
  using Fd::Fd;
};  // setns(2)
struct MountFd : Fd {
  using Fd::Fd;
};  // open_tree(2), fsmount(2)
struct DirFd : Fd {
  using Fd::Fd;
};  // O_DIRECTORY or O_PATH
struct SocketFd : Fd {
  using Fd::Fd;
};

}  // namespace virtuserns
