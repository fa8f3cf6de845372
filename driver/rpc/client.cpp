#include "driver/rpc/client.h"

#include <sys/epoll.h>

#include <algorithm>

#include "conf/base/log.h"
#include "driver/rpc/protocol.h"

namespace virtuserns::rpc {
namespace {

constexpr std::size_t kBytesPerRound = 256 * 1024;  // read from one client before the others have their turn
constexpr std::size_t kMaxStreams = 64;             // open at once on one connection
constexpr std::uint64_t kMsPer64KiB = 1000;         // added to the time a long message may take

Lane lane_of(Priority priority) {
  switch (priority) {
    case Priority::kHigh:
      return Lane::kHigh;
    case Priority::kAuth:
      return Lane::kAuth;
    default:
      return Lane::kLow;
  }
}

Frame keepalive_frame(std::int32_t procedure) {
  return make_frame({kKeepaliveProgram, kProgramVersion, procedure, MessageType::kEvent, 0, Status::kOk});
}

}  // namespace

Client::Client(std::shared_ptr<ClientHost> host, std::unique_ptr<Session> session, SocketFd socket)
    : host_(std::move(host)), session_(std::move(session)), receiver_(host_->budget), socket_(std::move(socket)) {
  accepted_ms_ = last_heard_ms_ = last_ping_ms_ = Loop::now_ms();
  // Before a client is allowed in it has nothing long to say.
  if (!session_->is_authenticated()) receiver_.limit_frame(64 * 1024);
}

Client::~Client() {
  if (host_->destroyed) host_->destroyed(*session_);
}

Result<void> Client::start() {
  interest_ = EPOLLIN;
  return host_->loop.add(socket_.get(), interest_, [this, self = weak_from_this()](std::uint32_t events) {
    if (const auto alive = self.lock()) on_ready(events);
  });
}

void Client::close(const std::string& why) {
  if (is_closed_) return;
  is_closed_ = true;
  const auto self = shared_from_this();
  log_debug("rpc.client", "client " + std::to_string(session_->id()) + ": " + why);
  host_->loop.remove(socket_.get());
  streams_.clear();
  waiting_.clear();
  {
    const std::lock_guard lock(out_mutex_);
    socket_.reset();
    out_.clear();
    is_broken_ = true;
  }
  host_->closed(*this);
}

void Client::on_ready(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) flush();
  if (is_closed_) return;
  if ((interest_ & EPOLLIN) != 0) return read_messages();
  // Not read at the moment, and gone: nobody is left to answer. (epoll would say so for ever.)
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) close("hung up");
}

void Client::read_messages() {
  for (std::size_t round = 0; round < kBytesPerRound && !is_closed_ && may_read();) {
    const std::size_t before = receiver_.buffered_bytes();
    const auto read = receiver_.read_from(socket_);
    if (!read) return close(read.error().text);
    if (*read == Receiver::Read::kEnd) return close("end of connection");
    if (*read == Receiver::Read::kNothing) break;
    last_heard_ms_ = Loop::now_ms();
    unanswered_pings_ = 0;  // any traffic is a sign of life
    round += receiver_.buffered_bytes() - before;
    take_messages();
  }
  if (!is_closed_) update_interest();
}

void Client::take_messages() {
  const auto self = shared_from_this();
  while (!is_closed_ && may_read()) {
    auto message = receiver_.next();
    if (!message) return close(message.error().text);
    if (!*message) break;
    message_since_ms_ = 0;
    on_message(std::move(**message));
  }
  if (!receiver_.is_mid_message())
    message_since_ms_ = 0;
  else if (message_since_ms_ == 0)
    message_since_ms_ = Loop::now_ms();
}

void Client::on_message(Message message) {
  if (message.header.program == kKeepaliveProgram) return on_keepalive(message);
  switch (message.header.type) {
    case MessageType::kCall:
    case MessageType::kCallWithFds:
      if (closes_when_sent_) return;
      if (in_flight_ < host_->limits.requests && waiting_.empty()) return start_call(std::move(message));
      waiting_.push_back(std::move(message));
      has_waiting_ = true;
      // The last reply may have left before it could see the flag.
      if (in_flight_ < host_->limits.requests) post(&Client::resume);
      return;
    case MessageType::kStream:
    case MessageType::kStreamHole: {
      // Of an unknown stream: it ended while the packet was on its way. Dropped, as libvirtd does.
      const auto found = streams_.find(message.header.serial);
      if (found != streams_.end()) found->second->on_packet(message);
      return;
    }
    default:
      return;  // replies and events are not for us; dropped, as libvirtd does
  }
}

void Client::on_keepalive(const Message& message) {
  if (message.header.procedure != kKeepalivePing || message.header.type != MessageType::kEvent) return;
  {
    const std::lock_guard lock(out_mutex_);
    if (is_pong_queued_) return;  // one answer serves any number of unread ones
    is_pong_queued_ = true;
  }
  send(keepalive_frame(kKeepalivePong), Kind::kOther, kKeepaliveProgram);
}

void Client::start_call(Message message) {
  ++in_flight_;
  const auto row = admit(*session_, message.header);
  if (!row) return send(error_frame(message.header, row.error()), Kind::kReply);
  if ((*row)->priority == Priority::kInline) return run_call(**row, std::move(message));
  // A job must be copyable to be a std::function.
  auto shared = std::make_shared<Message>(std::move(message));
  host_->workers.submit(
      lane_of((*row)->priority), session_->peer().uid,
      [self = shared_from_this(), row = *row, shared] { self->run_call(*row, std::move(*shared)); });
}

void Client::run_call(const Row& row, Message message) {
  const Header request = message.header;
  finish_call(request, serve(*session_, row, std::move(message)));
}

void Client::finish_call(const Header& request, Answer answer) {
  if (answer.closes_connection) closes_when_sent_ = true;
  if (!answer.stream) return send(std::move(answer.frame), Kind::kReply);
  // The stream must be known before the client can send to it, and its data must follow the reply.
  auto shared = std::make_shared<Answer>(std::move(answer));
  host_->loop.post([self = shared_from_this(), request, shared] { self->start_stream(request, std::move(*shared)); });
}

void Client::start_stream(const Header& request, Answer answer) {
  if (is_closed_) return;
  if (streams_.size() >= kMaxStreams || streams_.contains(request.serial)) {
    const Error error =
        fail(VIR_ERR_INVALID_STREAM, streams_.size() >= kMaxStreams ? "too many streams" : "serial is in use");
    return send(error_frame(request, error), Kind::kReply);
  }
  send(std::move(answer.frame), Kind::kReply);
  streams_.emplace(request.serial, std::make_unique<Stream>(host_->loop, *this, request, std::move(*answer.stream)));
}

void Client::send_packet(Frame frame, std::uint32_t serial, bool is_data) {
  send(std::move(frame), is_data ? Kind::kStreamData : Kind::kOther, serial);
}

void Client::stream_over(std::uint32_t serial) {
  if (auto node = streams_.extract(serial); !node.empty()) over_.push_back(std::move(node.mapped()));
  post(&Client::resume);
}

void Client::stream_drained() {
  if (is_paused_) post(&Client::resume);
}

bool Client::may_read() const {
  if (closes_when_sent_ || waiting_.size() >= host_->limits.waiting_calls) return false;
  std::size_t queued = 0;
  for (const auto& [serial, stream] : streams_) queued += stream->queued_bytes();
  return queued < host_->limits.stream_bytes;
}

void Client::update_interest() {
  if (is_closed_) return;
  is_paused_ = !may_read();
  std::uint32_t wanted = is_paused_ ? 0 : static_cast<std::uint32_t>(EPOLLIN);
  {
    const std::lock_guard lock(out_mutex_);
    if (wants_write_) wanted |= EPOLLOUT;
  }
  if (wanted == interest_) return;
  interest_ = wanted;
  host_->loop.modify(socket_.get(), wanted);
}

// A place became free: calls that waited begin, and messages that were received meanwhile are looked at.
void Client::resume() {
  if (is_closed_) return;
  while (!waiting_.empty() && in_flight_ < host_->limits.requests && !closes_when_sent_) {
    Message message = std::move(waiting_.front());
    waiting_.pop_front();
    start_call(std::move(message));
  }
  has_waiting_ = !waiting_.empty();
  if (has_waiting_ && in_flight_ < host_->limits.requests) post(&Client::resume);
  take_messages();
  update_interest();
}

void Client::send_event(Frame frame) { send(std::move(frame), Kind::kEvent); }

void Client::send(Frame frame, Kind kind, std::uint32_t serial) {
  std::vector<Outgoing> sent;
  bool is_overrun = false, is_broken = false, must_watch = false;
  {
    const std::lock_guard lock(out_mutex_);
    if (is_broken_) return;
    if (kind == Kind::kEvent) {
      event_bytes_ += frame.bytes.size();
      is_overrun = event_bytes_ > host_->limits.event_bytes;
    }
    const bool was_empty = out_.empty();
    if (!is_overrun) out_.push_back({std::move(frame), kind, serial});
    if (is_overrun)
      is_broken_ = true;
    else if (was_empty)
      sent = flush_locked();  // from this thread: most replies need nobody else
    is_broken = is_broken_;
    must_watch = !out_.empty() && !wants_write_;
    if (must_watch) wants_write_ = true;
  }
  if (is_overrun) return post(&Client::close_slow);
  if (is_broken) return post(&Client::close_broken);
  if (must_watch) post(&Client::update_interest);
  after_sent(std::move(sent));
}

void Client::flush() {
  std::vector<Outgoing> sent;
  bool is_broken = false;
  {
    const std::lock_guard lock(out_mutex_);
    sent = flush_locked();
    is_broken = is_broken_;
    if (out_.empty()) wants_write_ = false;
  }
  if (is_broken) return close("cannot be written to");
  after_sent(std::move(sent));
  update_interest();
}

std::vector<Client::Outgoing> Client::flush_locked() {
  std::vector<Outgoing> sent;
  while (!out_.empty() && !is_broken_) {
    Outgoing& head = out_.front();
    const auto done = send_frame(socket_, head.frame, head.sent_bytes, head.sent_fds);
    if (!done) is_broken_ = true;
    if (!done || !*done) break;
    if (head.kind == Kind::kEvent) event_bytes_ -= head.frame.bytes.size();
    if (head.kind == Kind::kOther && head.serial == kKeepaliveProgram) is_pong_queued_ = false;
    sent.push_back(std::move(head));
    out_.pop_front();
  }
  return sent;
}

void Client::after_sent(std::vector<Outgoing> sent) {
  bool has_room = false, is_last = false;
  for (const Outgoing& item : sent) {
    if (item.kind == Kind::kReply) {
      --in_flight_;
      has_room = true;
    } else if (item.kind == Kind::kStreamData) {
      host_->loop.post([self = shared_from_this(), serial = item.serial] {
        const auto found = self->streams_.find(serial);
        if (found != self->streams_.end()) found->second->packet_sent();
      });
    }
  }
  if (closes_when_sent_ && has_room) is_last = in_flight_ == 0;
  if (is_last) return post(&Client::close_done);
  if (has_room && has_waiting_) post(&Client::resume);
}

void Client::post(void (Client::*what)()) {
  host_->loop.post([self = weak_from_this(), what] {
    if (const auto alive = self.lock()) ((*alive).*what)();
  });
}

void Client::sweep(std::uint64_t now_ms) {
  over_.clear();
  if (is_closed_) return;
  if (session_->is_authenticated()) receiver_.limit_frame(kMaxFrameBytes);
  const ClientLimits& limits = host_->limits;
  if (message_since_ms_ != 0 && !is_paused_ &&
      now_ms - message_since_ms_ > limits.message_ms + receiver_.buffered_bytes() / (64 * 1024) * kMsPer64KiB)
    return close("takes too long to send a message");
  if (!is_open() && in_flight_ == 0 && now_ms - accepted_ms_ > limits.open_ms &&
      now_ms - last_heard_ms_ > limits.open_ms)
    return close("connected but did not open");
  if (!session_->wants_keepalive() || limits.keepalive_interval_s <= 0) return;
  const auto interval_ms = static_cast<std::uint64_t>(limits.keepalive_interval_s) * 1000;
  if (now_ms - std::max(last_heard_ms_, last_ping_ms_) < interval_ms) return;
  if (unanswered_pings_ >= limits.keepalive_count) return close("does not answer keepalive");
  ++unanswered_pings_;
  last_ping_ms_ = now_ms;
  send(keepalive_frame(kKeepalivePing), Kind::kOther);
}

}  // namespace virtuserns::rpc
