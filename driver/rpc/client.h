// Client: one connection. Reads messages, keeps its limits, hands calls to workers, sends what they answer.
//
// Whatever a client does hurts only itself: calls in flight and waiting, bytes queued for it, time for a message and
// descriptors are bounded, and each bound ends either its reading or its connection.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "conf/base/loop.h"
#include "driver/rpc/dispatch.h"
#include "driver/rpc/message.h"
#include "driver/rpc/session.h"
#include "driver/rpc/stream.h"
#include "driver/rpc/workers.h"

namespace virtuserns::rpc {

class Client;

struct ClientLimits {
  unsigned requests = 5;         // calls in flight; a call counts until its reply has left
  int keepalive_interval_s = 5;  // -1: none
  unsigned keepalive_count = 5;
  std::size_t waiting_calls = 32;             // read but not begun; above it the client is not read
  std::size_t event_bytes = 8 * 1024 * 1024;  // queued events; above it the client is too slow and dropped
  std::size_t stream_bytes = 256 * 1024;      // queued for streams; above it the client is not read
  std::uint64_t message_ms = 30'000;          // for a message that has begun to arrive, and more for long ones
  std::uint64_t open_ms = 60'000;             // for the opening, while no call of it is under way
};

// What clients need of the server; shared with them, for the last reference to a client may be dropped after the
// server.
struct ClientHost {
  Loop& loop;
  Workers& workers;
  InputBudget budget;
  ClientLimits limits;
  std::function<void(Client&)> closed;            // loop's thread, once
  std::function<void(const Session&)> destroyed;  // any thread: no call of it runs any more
};

class Client final : public StreamSink, public std::enable_shared_from_this<Client> {
 public:
  Client(std::shared_ptr<ClientHost> host, std::unique_ptr<Session> session, SocketFd socket);
  ~Client() override;

  // ---- any thread ----
  [[nodiscard]] Session& session() { return *session_; }
  [[nodiscard]] const Session& session() const { return *session_; }
  void send_event(Frame frame);

  // ---- loop's thread ----
  [[nodiscard]] Result<void> start();
  void close(const std::string& why);
  void sweep(std::uint64_t now_ms);  // keepalive and deadlines; about once a second
  [[nodiscard]] bool is_closed() const { return is_closed_; }
  [[nodiscard]] bool is_open() const { return session_->driver() != nullptr; }
  [[nodiscard]] std::uint64_t last_heard_ms() const { return last_heard_ms_; }

  void send_packet(Frame frame, std::uint32_t serial, bool is_data) override;
  void stream_over(std::uint32_t serial) override;
  void stream_drained() override;

 private:
  enum class Kind { kReply, kEvent, kStreamData, kOther };
  struct Outgoing {
    Frame frame;
    Kind kind = Kind::kOther;
    std::uint32_t serial = 0;
    std::size_t sent_bytes = 0, sent_fds = 0;
  };

  void on_ready(std::uint32_t events);
  void read_messages();
  void take_messages();
  void on_message(Message message);
  void on_keepalive(const Message& message);
  void start_call(Message message);
  void run_call(const Row& row, Message message);
  void finish_call(const Header& request, Answer answer);
  void start_stream(const Header& request, Answer answer);
  [[nodiscard]] bool may_read() const;
  void update_interest();
  void resume();

  void send(Frame frame, Kind kind, std::uint32_t serial = 0);
  void flush();
  [[nodiscard]] std::vector<Outgoing> flush_locked();
  void after_sent(std::vector<Outgoing> sent);
  void post(void (Client::*what)());
  void close_slow() { close("too slow for its events"); }
  void close_broken() { close("cannot be written to"); }
  void close_done() { close("closed by the client"); }

  const std::shared_ptr<ClientHost> host_;
  const std::unique_ptr<Session> session_;

  // loop's thread
  Receiver receiver_;
  std::deque<Message> waiting_;
  std::map<std::uint32_t, std::unique_ptr<Stream>> streams_;
  std::vector<std::unique_ptr<Stream>> over_;  // destroyed at the next sweep
  std::uint32_t interest_ = 0;
  std::uint64_t accepted_ms_ = 0, last_heard_ms_ = 0, message_since_ms_ = 0, last_ping_ms_ = 0;
  unsigned unanswered_pings_ = 0;
  bool is_closed_ = false, is_paused_ = false;

  std::atomic<unsigned> in_flight_{0};
  std::atomic<bool> closes_when_sent_{false};
  std::atomic<bool> has_waiting_{false};  // a reply that leaves makes room for somebody

  std::mutex out_mutex_;  // guards what follows; the socket is read without it, by the loop's thread, which closes it
  SocketFd socket_;
  std::deque<Outgoing> out_;
  std::size_t event_bytes_ = 0;
  bool is_pong_queued_ = false, is_broken_ = false, wants_write_ = false;
};

}  // namespace virtuserns::rpc
