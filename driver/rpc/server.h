// Server: listening sockets, the clients they bring, and who may stay when there are too many.
//
// Admission: at most max_clients, of which a tenth is kept for root; at most max_clients_per_uid of one user other
// than root; at most max_anonymous_clients that have not authenticated. A newcomer over a limit takes the place of
// the oldest connection that was never opened, of the user with most of those; when there is none it is refused. So
// idle connections cannot lock anybody out, and nobody's open connection is ever taken away.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conf/base/loop.h"
#include "conf/daemon_config.h"
#include "driver/events.h"
#include "driver/rpc/client.h"
#include "driver/rpc/session.h"
#include "driver/rpc/workers.h"

namespace virtuserns::rpc {

class Server {
 public:
  Server(Loop& loop, const DaemonConfig& config, SessionHost sessions, EventHub& events);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  [[nodiscard]] Result<void> start();
  // Makes a socket at `path`, in place of a stale one. A live one is an error. `group` empty: not changed.
  [[nodiscard]] Result<void> listen(const std::string& path, unsigned mode, const std::string& group, bool read_only);
  [[nodiscard]] Result<void> adopt(SocketFd listener, bool read_only);  // from socket activation
  void reload(const DaemonConfig& config);                              // limits and auth, for connections to come
  void stop();  // closes everything; calls under way end first

  void run_in_background(Workers::Job job) { workers_.submit(Lane::kLow, 0, std::move(job)); }

  [[nodiscard]] std::size_t client_count() const { return clients_.size(); }
  // Called in the loop's thread whenever the last client has gone.
  void on_idle(std::function<void()> idle) { idle_ = std::move(idle); }

 private:
  struct Listener {
    SocketFd socket;
    bool read_only;
  };

  void accept_some(const Listener& listener);
  void admit_client(SocketFd socket, bool read_only);
  [[nodiscard]] bool make_place(const Peer& peer, bool is_anonymous);
  [[nodiscard]] bool evict(const std::function<bool(const Client&)>& candidate);
  void client_closed(Client& client);
  void session_over(const Session& session);
  void deliver(const Event& event);
  void sweep();
  void give_memory_back();

  Loop& loop_;
  DaemonConfig config_;
  const SessionHost sessions_;
  EventHub& events_;
  Workers workers_;
  const std::shared_ptr<ClientHost> host_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::uint64_t next_id_ = 1;
  Loop::TimerId sweep_timer_ = 0;
  std::size_t most_clients_ = 0;  // since memory was last given back
  int subscription_ = 0;
  std::function<void()> idle_;
  Fd spare_;  // given up to refuse a client when the process has no descriptor left

  std::mutex clients_mutex_;  // the loop's thread alone changes the list; others look at it under the mutex
  std::vector<std::shared_ptr<Client>> clients_;
};

}  // namespace virtuserns::rpc
