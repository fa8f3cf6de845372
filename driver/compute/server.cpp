#include "driver/compute/server.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <vector>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "driver/compute/frame.h"

namespace virtuserns::compute {
namespace {

constexpr int kBacklog = 64;

Result<gid_t> find_group(const std::string& name) {
  if (name.empty()) return ::getegid();
  std::vector<char> buffer(64 * 1024);
  group entry{}, *found = nullptr;
  if (::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 || !found)
    return fail(VIR_ERR_CONF_SYNTAX, "there is no group " + quote(name) + " (socket_group)");
  return found->gr_gid;
}

std::vector<gid_t> groups_of_peer(const SocketFd& socket) {
  std::vector<gid_t> groups(1024);
  socklen_t size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) != 0) size = 0;
  groups.resize(size / sizeof(gid_t));
  return groups;
}

// The other end has hung up; what it still says is not read.
bool is_gone(const Fd& socket) {
  pollfd polled{socket.get(), POLLIN | POLLRDHUP, 0};
  return ::poll(&polled, 1, 0) > 0;
}

}  // namespace

// ---- events -------------------------------------------------------------------------------------------------------

void EventHub::add(const DomainEvent& event) {
  const auto text = format_event(event, std::time(nullptr));
  const std::lock_guard lock(mutex_);
  for (auto& listener : listeners_) {
    if (listener.queued.size() < kMaxQueuedEvents)
      listener.queued.push_back(text);
    else
      listener.has_lost_some = true;
  }
  changed_.notify_all();
}

void EventHub::serve(const Fd& socket) {
  std::unique_lock lock(mutex_);
  const auto mine = listeners_.emplace(listeners_.end());
  while (!is_ending_) {
    changed_.wait_for(lock, std::chrono::milliseconds(500), [&] { return is_ending_ || !mine->queued.empty(); });
    std::list<std::string> queued;
    queued.swap(mine->queued);
    if (std::exchange(mine->has_lost_some, false)) queued.push_back(format_event({"", "lost"}, std::time(nullptr)));
    lock.unlock();
    bool is_open = !is_gone(socket);
    for (const auto& text : queued) is_open = is_open && write_frame(socket, text);
    lock.lock();
    if (!is_open) break;
  }
  listeners_.erase(mine);
}

void EventHub::stop() {
  const std::lock_guard lock(mutex_);
  is_ending_ = true;
  changed_.notify_all();
}

// ---- server -------------------------------------------------------------------------------------------------------

Server::~Server() {
  listener_.reset();
  reap(true);
  if (lock_) (void)::unlink(path_.c_str());
}

Result<void> Server::listen(const std::string& path, const std::string& group) {
  group_ = TRY(find_group(group));
  if (::sd_listen_fds(1) > 0) {
    listener_ = SocketFd(SD_LISTEN_FDS_START);
    return {};
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(VIR_ERR_CONF_SYNTAX, quote(path) + " is too long for a socket");
  path.copy(address.sun_path, path.size());
  TRY(make_directories(path.substr(0, path.rfind('/')), 0755));
  lock_ = TRY(lock_file(path + ".lock"), "another virtuserns-compute serves " + quote(path));
  path_ = path;
  (void)::unlink(path.c_str());
  SocketFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return sys_fail("make a socket");
  // Nobody connects before it has its owner and mode.
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return sys_fail("bind " + quote(path));
  if (::chown(path.c_str(), static_cast<uid_t>(-1), group_) != 0 || ::chmod(path.c_str(), 0660) != 0)
    return sys_fail("own " + quote(path));
  if (::listen(socket.get(), kBacklog) != 0) return sys_fail("listen on " + quote(path));
  listener_ = std::move(socket);
  return {};
}

Result<Peer> Server::check_peer(const SocketFd& socket) const {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return sys_fail("ask who the client is");
  const Peer peer{credentials.uid};
  if (credentials.uid == 0 || credentials.uid == ::geteuid() || credentials.gid == group_) return peer;
  const auto groups = groups_of_peer(socket);
  if (std::find(groups.begin(), groups.end(), group_) != groups.end()) return peer;
  return fail(VIR_ERR_AUTH_FAILED, "user " + std::to_string(credentials.uid) + " is not in the socket's group");
}

void Server::accept_one() {
  SocketFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket) return;
  const auto peer = check_peer(socket);
  const std::lock_guard lock(mutex_);
  if (!peer || connections_.size() >= kMaxConnections) {
    log_warning("compute.api", peer ? "too many clients: one is turned away" : peer.error().text);
    return;
  }
  auto& connection = connections_.emplace_back();
  connection.socket = std::move(socket);
  connection.peer = *peer;
  connection.thread = std::thread([this, &connection] { run(connection); });
}

void Server::run(Connection& connection) {
  while (true) {
    const auto frame = read_frame(connection.socket);
    if (!frame) log_debug("compute.api", frame.error().text);
    if (!frame || !*frame) break;
    const auto reply = answer(service_, connection.peer, **frame);
    const auto written = reply.passed ? write_frame_with(connection.socket, reply.text, reply.passed)
                                      : write_frame(connection.socket, reply.text);
    if (!written) break;
    if (!reply.wants_events) continue;
    events_.serve(connection.socket);
    break;
  }
  const std::lock_guard lock(mutex_);
  ::shutdown(connection.socket.get(), SHUT_RDWR);
  connection.is_done = true;
}

// Those that are done; or all, which ends their reading, but not what they are doing.
void Server::reap(bool all) {
  std::list<Connection> done;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = connections_.begin(); it != connections_.end();) {
      const auto next = std::next(it);
      if (all) ::shutdown(it->socket.get(), SHUT_RD);
      if (all || it->is_done) done.splice(done.end(), connections_, it);
      it = next;
    }
  }
  for (auto& connection : done) connection.thread.join();
}

Result<void> Server::serve(const Fd& stop) {
  (void)::sd_notify(0, "READY=1");
  while (true) {
    pollfd polled[] = {{listener_.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}};
    if (::poll(polled, 2, 1000) < 0 && errno != EINTR) return sys_fail("wait for clients");
    if (polled[1].revents != 0) break;
    if (polled[0].revents != 0) accept_one();
    reap(false);
  }
  (void)::sd_notify(0, "STOPPING=1");
  events_.stop();
  service_.compute.images().stop();
  listener_.reset();
  reap(true);
  return {};
}

}  // namespace virtuserns::compute
