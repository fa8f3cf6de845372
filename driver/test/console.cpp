#include "driver/test/console.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <array>

namespace virtuserns::test_driver {
namespace {

bool send_all(const SocketFd& fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t sent = ::send(fd.get(), data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    data += sent;
    size -= static_cast<std::size_t>(sent);
  }
  return true;
}

}  // namespace

Result<EchoConsole::Opened> EchoConsole::open(const std::string& domain_name) {
  std::array<int, 2> fds{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) < 0) return sys_fail("open console");
  SocketFd ours(fds[0]);
  SocketFd client(fds[1]);
  // Only the client's end: ours blocks in a thread of its own.
  if (::fcntl(client.get(), F_SETFL, O_NONBLOCK) < 0) return sys_fail("open console");
  std::unique_ptr<EchoConsole> console(new EchoConsole(std::move(ours), "Connected to " + domain_name + "\n"));
  return Opened{std::move(console), std::move(client)};
}

EchoConsole::EchoConsole(SocketFd fd, std::string greeting)
    : fd_(std::move(fd)), thread_([this, text = std::move(greeting)] { run(text); }) {}

EchoConsole::~EchoConsole() {
  (void)::shutdown(fd_.get(), SHUT_RDWR);  // wakes the thread
  thread_.join();
}

void EchoConsole::run(std::string greeting) {
  bool is_connected = send_all(fd_, greeting.data(), greeting.size());
  std::array<char, 4096> buffer{};
  while (is_connected) {
    const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    is_connected = got > 0 && send_all(fd_, buffer.data(), static_cast<std::size_t>(got));
  }
  ended_ = true;
}

}  // namespace virtuserns::test_driver
