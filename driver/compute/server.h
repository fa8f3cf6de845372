// The socket of the compute API: a thread for each connection, which answers one request after another.
#pragma once

#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/compute/methods.h"

namespace virtuserns::compute {

inline constexpr std::size_t kMaxConnections = 64, kMaxQueuedEvents = 10'000;

// Who listens to events. Thread-safe; add() may be called by anybody and never blocks: a listener that does not read is told "lost".
class EventHub {
 public:
  void add(const DomainEvent& event);
  // Until the connection closes.
  void serve(const Fd& socket);
  void stop();

 private:
  struct Listener {
    std::list<std::string> queued;
    bool has_lost_some = false;
  };
  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Listener> listeners_;
  bool is_ending_ = false;
};

class Server {
 public:
  Server(const Service& service, EventHub& events) : service_(service), events_(events) {}
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Makes the socket (mode 0660, of `group`), or takes the one of systemd. VIR_ERR_RESOURCE_BUSY: another one serves it.
  [[nodiscard]] Result<void> listen(const std::string& path, const std::string& group);
  // Until `stop` can be read. Requests that are under way come to their end.
  [[nodiscard]] Result<void> serve(const Fd& stop);

 private:
  struct Connection {
    SocketFd socket;
    Peer peer;
    std::thread thread;
    bool is_done = false;
  };
  void accept_one();
  void run(Connection& connection);
  void reap(bool all);
  [[nodiscard]] Result<Peer> check_peer(const SocketFd& socket) const;

  Service service_;
  EventHub& events_;
  SocketFd listener_;
  std::string path_;
  Fd lock_;
  gid_t group_ = 0;
  std::mutex mutex_;
  std::list<Connection> connections_;
};

}  // namespace virtuserns::compute
