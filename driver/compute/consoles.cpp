#include "driver/compute/consoles.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "conf/base/log.h"
#include "conf/base/text.h"

namespace virtuserns::compute {
namespace {

using client::last_error;

constexpr int kVisitMs = 60'000;  // how long one may take to come
constexpr int kTickMs = 500;      // how soon the end of the program is seen
constexpr int kWouldBlock = -2;   // of virStreamRecv and virStreamSend

Result<SocketFd> listen_at(const std::string& address) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_flags = AI_NUMERICHOST | AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  if (::getaddrinfo(address.c_str(), "0", &hints, &found) != 0)
    return fail(VIR_ERR_CONF_SYNTAX, quote(address) + " is no address (console_address)");
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  SocketFd socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket || ::bind(socket.get(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(socket.get(), 1) != 0)
    return sys_fail("listen at " + quote(address));
  return socket;
}

Result<std::uint16_t> port_of(const SocketFd& socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
    return sys_fail("ask for a port");
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

// The console as a stream that never blocks; `wake` can be read when there is something.
Result<client::Stream> open_stream(client::Domain domain, const std::string& uuid) {
  client::Stream stream(::virStreamNew(::virDomainGetConnect(domain.get()), VIR_STREAM_NONBLOCK));
  if (!stream) return last_error("make a stream");
  if (::virDomainOpenConsole(domain.get(), nullptr, stream.get(), VIR_DOMAIN_CONSOLE_FORCE) != 0)
    return last_error("open the console of " + uuid);
  return stream;
}

// What has come from one side and is not with the other yet: a terminal's worth. Libvirt's library keeps whatever of a stream is not taken
// from it, without an end. So the instance is listened to all the time, and what its visitor does not take is dropped, oldest first.
class Relay {
 public:
  Relay(virStreamPtr stream, const SocketFd& visitor) : stream_(stream), visitor_(visitor) {}

  // False: one side has ended.
  bool from_instance() {
    int got = 0;
    for (int parts = 0; parts < kMostParts; ++parts) {
      std::array<char, 4096> bytes;
      got = ::virStreamRecv(stream_, bytes.data(), bytes.size());
      if (got <= 0) break;
      to_visitor_.append(bytes.data(), static_cast<std::size_t>(got));
    }
    has_more_ = got > 0;
    if (to_visitor_.size() > kMostWaiting) to_visitor_.erase(0, to_visitor_.size() - kMostWaiting);
    return has_more_ || got == kWouldBlock;
  }
  bool from_visitor() {
    std::array<char, 4096> bytes;
    const auto got = ::recv(visitor_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    to_instance_.append(bytes.data(), static_cast<std::size_t>(got));
    return true;
  }
  // What both sides take now.
  bool pass_on() {
    while (!to_instance_.empty()) {
      const int sent = ::virStreamSend(stream_, to_instance_.data(), to_instance_.size());
      if (sent == kWouldBlock) break;
      if (sent < 0) return false;
      to_instance_.erase(0, static_cast<std::size_t>(sent));
    }
    return tell_visitor();
  }
  bool tell_visitor() {
    while (!to_visitor_.empty()) {
      const auto sent = ::send(visitor_.get(), to_visitor_.data(), to_visitor_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return errno == EAGAIN;
      to_visitor_.erase(0, static_cast<std::size_t>(sent));
    }
    return true;
  }
  // Of the visitor's socket, to be waited for.
  [[nodiscard]] short wanted() const {
    return static_cast<short>((to_instance_.size() < kMostWaiting ? POLLIN : 0) |
                              (to_visitor_.empty() ? 0 : POLLOUT));
  }
  [[nodiscard]] int patience_ms() const { return has_more_ ? 0 : to_instance_.empty() ? kTickMs : kRetryMs; }

 private:
  static constexpr std::size_t kMostWaiting = 64 * 1024;
  static constexpr int kMostParts = 64;  // before the other side has its turn
  static constexpr int kRetryMs = 20;

  virStreamPtr stream_;
  const SocketFd& visitor_;
  std::string to_instance_, to_visitor_;
  bool has_more_ = false;
};

}  // namespace

Consoles::~Consoles() {
  is_ending_ = true;
  for (auto& session : sessions_) session.thread.join();
}

void Consoles::reap() {
  for (auto it = sessions_.begin(); it != sessions_.end();) {
    const auto next = std::next(it);
    if (it->is_done) {
      it->thread.join();
      sessions_.erase(it);
    }
    it = next;
  }
}

Result<std::uint16_t> Consoles::open(const std::string& uuid, const std::string& address) {
  auto listener = TRY(listen_at(address));
  const auto port = TRY(port_of(listener));
  const std::lock_guard lock(mutex_);
  reap();
  // The one that waits still: nova-serialproxy asks once more, and goes on only if the port is that of its token.
  for (auto& session : sessions_)
    if (session.uuid == uuid && session.is_waiting) {
      session.waited_ms = 0;
      return session.port;
    }
  if (sessions_.size() >= kMaxConsoles)
    return fail(VIR_ERR_RESOURCE_BUSY, std::to_string(kMaxConsoles) + " consoles are open already: close one");
  auto& session = sessions_.emplace_back();
  session.listener = std::move(listener);
  session.port = port;
  session.uuid = uuid;
  session.thread = std::thread([this, &session] { run(session); });
  return port;
}

void Consoles::run(Session& session) {
  const auto goes_on_waiting = [&](bool has_visitor) {
    const std::lock_guard lock(mutex_);
    session.waited_ms += kTickMs;
    session.is_waiting = !has_visitor && session.waited_ms < kVisitMs && !is_ending_;
    return session.is_waiting;
  };
  bool has_visitor = false;
  do {
    pollfd polled{session.listener.get(), POLLIN, 0};
    has_visitor = ::poll(&polled, 1, kTickMs) > 0;
  } while (goes_on_waiting(has_visitor));
  if (has_visitor) {
    const SocketFd visitor(::accept4(session.listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    session.listener.reset();
    if (visitor) relay(session.uuid, visitor);
  }
  session.listener.reset();
  session.is_done = true;
}

// The connection is the console's until it ends: hypervisor.cpp says why none is shared.
void Consoles::relay(const std::string& uuid, const SocketFd& visitor) {
  const auto opened = hypervisor_.run_on(uuid, [&](client::Domain domain) -> Result<void> {
    const auto stream = TRY(open_stream(std::move(domain), uuid));
    relay(stream, visitor);
    return {};
  });
  if (!opened) log_info("compute", "a console: " + opened.error().text);
}

void Consoles::relay(const client::Stream& stream, const SocketFd& visitor) {
  const Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  auto* number = new int(wake.get());
  const auto on_readable = [](virStreamPtr, int, void* fd) { (void)::eventfd_write(*static_cast<int*>(fd), 1); };
  if (!wake ||
      ::virStreamEventAddCallback(stream.get(), VIR_STREAM_EVENT_READABLE | VIR_STREAM_EVENT_HANGUP, on_readable,
                                  number, [](void* fd) { delete static_cast<int*>(fd); }) != 0) {
    delete number;
    return;
  }
  Relay both(stream.get(), visitor);
  bool is_open = both.from_instance();
  while (is_open && !is_ending_) {
    pollfd polled[] = {{visitor.get(), both.wanted(), 0}, {wake.get(), POLLIN, 0}};
    const int patience = both.patience_ms();
    if (::poll(polled, 2, patience) < 0 && errno != EINTR) break;
    eventfd_t ignored = 0;
    if (polled[1].revents != 0) (void)::eventfd_read(wake.get(), &ignored);
    if (polled[1].revents != 0 || patience == 0) is_open = both.from_instance();
    if (is_open && (polled[0].revents & ~POLLOUT) != 0) is_open = both.from_visitor();
    is_open = both.pass_on() && is_open;
  }
  // Its last words, to whoever reads them now.
  pollfd last{visitor.get(), POLLOUT, 0};
  if (::poll(&last, 1, kTickMs) > 0) (void)both.tell_visitor();
  (void)::virStreamEventRemoveCallback(stream.get());
  (void)::virStreamAbort(stream.get());
}

}  // namespace virtuserns::compute
