#include "driver/rpc/stream.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>

#include "driver/rpc/error.h"

namespace virtuserns::rpc {
namespace {

constexpr std::size_t kPacketBytes = 64 * 1024;

}  // namespace

Stream::Stream(Loop& loop, StreamSink& sink, const Header& call, SocketFd fd)
    : loop_(loop), sink_(sink), call_(call), fd_(std::move(fd)) {
  watch();
}

Stream::~Stream() { end(); }

Header Stream::packet(Status status) const {
  return {call_.program, call_.version, call_.procedure, MessageType::kStream, call_.serial, status};
}

// The descriptor is watched only for what could be done: epoll reports a hang-up always, and would do so for ever.
void Stream::watch() {
  std::uint32_t wanted = 0;
  if (!is_over_ && fd_) {
    if (!is_packet_under_way_ && !is_at_end_ && !is_finishing_) wanted |= EPOLLIN;
    if (!to_fd_.empty()) wanted |= EPOLLOUT;
  }
  if (wanted == watched_) return;
  if (wanted == 0)
    loop_.remove(fd_.get());
  else if (watched_ != 0)
    loop_.modify(fd_.get(), wanted);
  else if (!loop_.add(fd_.get(), wanted, [this](std::uint32_t) { on_ready(); }))
    return;
  watched_ = wanted;
}

void Stream::on_ready() {
  const std::uint32_t wanted = watched_;
  if ((wanted & EPOLLOUT) != 0) write_some();
  if ((wanted & EPOLLIN) != 0 && !is_over_) read_some();
  watch();
}

void Stream::read_some() {
  std::array<std::uint8_t, kPacketBytes> buffer;
  const ssize_t count = ::read(fd_.get(), buffer.data(), buffer.size());
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  // EIO is how a terminal says that nobody has its other side open any more.
  if (count < 0 && errno != EIO && errno != ECONNRESET) return fail_with(sys_fail("read from the console"));
  is_at_end_ = count <= 0;
  is_packet_under_way_ = !is_at_end_;
  // An empty packet says that no data follows; the client then finishes the stream.
  sink_.send_packet(
      make_data_frame(packet(Status::kContinue), {buffer.data(), count > 0 ? static_cast<std::size_t>(count) : 0}),
      call_.serial, !is_at_end_);
}

void Stream::packet_sent() {
  is_packet_under_way_ = false;
  watch();
}

void Stream::write_some() {
  while (!to_fd_.empty()) {
    const auto& head = to_fd_.front();
    const ssize_t count = ::write(fd_.get(), head.data() + head_written_, head.size() - head_written_);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    if (count < 0) return is_finishing_ ? finish() : fail_with(sys_fail("write to the console"));
    queued_bytes_ -= static_cast<std::size_t>(count);
    head_written_ += static_cast<std::size_t>(count);
    if (head_written_ < head.size()) return;
    to_fd_.pop_front();
    head_written_ = 0;
  }
  sink_.stream_drained();
  if (is_finishing_) finish();
}

void Stream::on_packet(const Message& message) {
  if (is_over_) return;
  if (message.header.type != MessageType::kStream) return fail_with(fail(VIR_ERR_RPC, "a console takes no holes"));
  switch (message.header.status) {
    case Status::kContinue:
      if (message.payload.empty() || is_finishing_) return;
      queued_bytes_ += message.payload.size();
      to_fd_.push_back(message.payload);
      if (to_fd_.size() == 1) write_some();
      break;
    case Status::kOk:  // finish: what was sent before still goes out
      is_finishing_ = true;
      if (to_fd_.empty()) finish();
      break;
    case Status::kError:  // abort
      finish();
      break;
    default:
      return fail_with(fail(VIR_ERR_RPC, "unexpected status in a stream"));
  }
  watch();
}

void Stream::finish() {
  if (is_over_) return;
  sink_.send_packet(make_frame(packet(Status::kOk)), call_.serial, false);
  end();
  sink_.stream_over(call_.serial);
}

void Stream::fail_with(const Error& error) {
  if (is_over_) return;
  auto frame = make_frame(packet(Status::kError), make_remote_error(error));
  sink_.send_packet(std::move(frame).value(), call_.serial, false);
  end();
  sink_.stream_over(call_.serial);
}

void Stream::end() {
  is_over_ = true;
  to_fd_.clear();
  queued_bytes_ = 0;
  watch();
  fd_.reset();
}

}  // namespace virtuserns::rpc
