// The daemon's ends of the controllers: one thread that waits for all of them, and one channel for each.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/controller/protocol.h"

namespace virtuserns::userns {

// One thread, one epoll. A handler runs on that thread, must not block, and reads until there is nothing more.
class Reactor {
 public:
  using Handler = std::function<void()>;
  Reactor() = default;
  ~Reactor() { stop(); }
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;
  [[nodiscard]] Result<void> start();
  void stop();  // returns when no handler runs
  // Watches `fd` until remove(), which must come before the descriptor is closed. A handler that is running when it
  // is removed by another thread may still finish.
  std::uint64_t add(const Fd& fd, Handler handler);
  void remove(std::uint64_t id);

 private:
  void run();
  Fd epoll_, wake_;
  std::mutex mutex_;
  struct Watched {
    int fd;
    std::shared_ptr<Handler> handler;
  };
  std::map<std::uint64_t, Watched> watched_;
  std::uint64_t next_id_ = 1;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

using RequestBody = decltype(controller::Request::body);
using ReplyBody = decltype(controller::Reply::body);

struct Answer {
  ReplyBody body;
  std::vector<Fd> files;
};

// Requests are answered by serial; notes go to whoever reads. Thread-safe.
class Channel {
 public:
  using OnDone = std::function<void(const ReplyBody&)>;

  explicit Channel(SocketFd socket);
  // Connects to a controller's socket; its name may be longer than a socket address holds.
  [[nodiscard]] static Result<SocketFd> connect(const std::string& path);

  // A WireError of the controller becomes an Error. VIR_ERR_OPERATION_TIMEOUT when it does not answer in time,
  // VIR_ERR_OPERATION_FAILED when the channel has closed.
  // `on_done`: called by whoever reads, when the answer is no error and before anything that was sent after it is read: what
  // the answer changes is recorded in the order in which it happened. Called without a lock but the reader's.
  [[nodiscard]] Result<Answer> request(RequestBody body, int timeout_ms, std::span<const int> files = {},
                                       OnDone on_done = {});
  // Waits for no reply. What comes is dropped, but for `on_done`, as above and whenever that is.
  [[nodiscard]] Result<void> tell(RequestBody body, int timeout_ms, OnDone on_done = {});
  // What has arrived, in the order in which it was sent, whichever threads call. False: the channel has closed, everybody
  // who waits is told.
  [[nodiscard]] bool read_available(const std::function<void(controller::Note)>& on_note);
  void close();
  [[nodiscard]] bool is_closed() const;
  // A closed one goes on by another connection. What was asked before is lost, and whoever waits for it told so.
  void reopen(SocketFd socket);
  // Of now: it stays open as long as somebody holds it.
  [[nodiscard]] std::shared_ptr<const SocketFd> socket() const;

 private:
  struct Waiter {
    OnDone on_done;
    bool is_waiting = true;  // else only on_done is wanted
    bool is_lost = false;    // the connection by which it was asked has closed
    std::optional<Answer> answer;
  };
  [[nodiscard]] OnDone on_done_of(const controller::Reply& reply);
  [[nodiscard]] Result<std::uint32_t> enter(OnDone on_done, bool is_waiting);
  [[nodiscard]] Result<void> send(const controller::Request& request, int timeout_ms, std::span<const int> files);

  std::mutex reading_;  // before mutex_
  mutable std::mutex mutex_;
  std::shared_ptr<const SocketFd> socket_;
  std::condition_variable arrived_;
  std::uint32_t next_serial_ = 1;
  std::map<std::uint32_t, Waiter> waiters_;
  bool is_closed_ = false;
};

}  // namespace virtuserns::userns
