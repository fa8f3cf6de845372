// Daemons that talk to this controller: the one that started it, and those that found its socket later.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "driver/controller/supervise.h"

namespace virtuserns::controller {

namespace {
constexpr std::size_t kMaxConnections = 16;
constexpr std::size_t kMaxRequestMemory = 4 * 1024 * 1024;
}  // namespace

void Supervisor::accept_connection() {
  SocketFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) return;
  ucred peer{};
  socklen_t size = sizeof peer;
  // The credentials of connect(2), kept by the kernel: later changes of the peer do not matter.
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return;
  if (peer.uid != 0 && peer.uid != owner_) return;
  if (connections_.size() >= kMaxConnections) close_connection(connections_.begin()->first);
  add_connection(std::move(socket));
}

void Supervisor::add_connection(SocketFd socket) {
  // A daemon that does not read must not stop the controller.
  ::fcntl(socket.get(), F_SETFL, O_NONBLOCK);
  const std::size_t id = next_connection_++;
  watch(socket, EventKind::kConnection, id);
  connections_[id] = Connection{std::move(socket), id};
}

void Supervisor::close_connection(std::size_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second.socket.get(), nullptr);
  connections_.erase(found);
}

// What a daemon that is dead has asked for and nobody was told of: it is dropped, also when it waits unread, so that what
// the next daemon is told about the domain's state stays true.
void Supervisor::forget_dead_daemons() {
  if (!freezes_.empty()) poll_freezes();  // what is done is done
  std::vector<std::size_t> dead;
  for (const auto& [id, connection] : connections_) {
    pollfd entry{connection.socket.get(), 0, 0};
    if (::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLHUP | POLLERR)) != 0) dead.push_back(id);
  }
  for (const auto id : dead) close_connection(id);
  std::erase_if(freezes_, [&](const PendingFreeze& pending) {
    if (connections_.contains(pending.connection)) return false;
    if (pending.freeze) (void)stem_.freeze(false);
    return true;
  });
}

void Supervisor::on_connection(std::size_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  auto packet = recv_packet(found->second.socket.get());
  if (!packet && packet.error().sys_errno == EAGAIN) return;
  if (!packet || packet->bytes.empty()) return close_connection(id);
  const auto request = xdr::decode_exact<Request>(packet->bytes, kMaxRequestMemory);
  // Without a serial there is nothing to answer to: a daemon of another make is told by the closed connection.
  if (!request) return close_connection(id);
  request_files_ = std::move(packet->files);
  handle(id, *request);
  request_files_.clear();
}

bool Supervisor::send(std::size_t id, const FromController& message, std::span<const int> files) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return false;
  if (send_packet(found->second.socket.get(), xdr::encode(message), files)) return true;
  close_connection(id);  // gone, or it does not read; unacknowledged notes are kept for the next one
  return false;
}

void Supervisor::note(const Note& note) {
  unacknowledged_.push_back(note);
  if (!connections_.empty()) send(connections_.rbegin()->first, FromController(note));
}

void Supervisor::reply(std::size_t id, std::uint32_t serial, const Result<void>& result) {
  Reply reply{serial, EmptyReply{}};
  if (!result) reply.body = to_wire(result.error());
  send(id, FromController(reply));
}

}  // namespace virtuserns::controller
