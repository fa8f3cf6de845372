// Stream: carries bytes between a descriptor of the driver and packets of one call's serial. Lives in the loop's
// thread.
//
// At most one packet of ours is under way to the client, so a slow client stops the reading here and not the daemon's
// memory. What the client sends and the descriptor does not take is queued; the client's reading stops above a limit.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/loop.h"
#include "driver/rpc/message.h"

namespace virtuserns::rpc {

// What a stream needs of its connection.
class StreamSink {
 public:
  virtual ~StreamSink() = default;
  // Queues a packet; Stream::packet_sent follows when it has left (data only).
  virtual void send_packet(Frame frame, std::uint32_t serial, bool is_data) = 0;
  // The stream is over. It is destroyed soon, not in this call.
  virtual void stream_over(std::uint32_t serial) = 0;
  // The descriptor has taken all that was queued for it.
  virtual void stream_drained() = 0;
};

class Stream {
 public:
  Stream(Loop& loop, StreamSink& sink, const Header& call, SocketFd fd);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void on_packet(const Message& message);  // from the client
  void packet_sent();
  [[nodiscard]] std::size_t queued_bytes() const { return queued_bytes_; }
  [[nodiscard]] bool is_over() const { return is_over_; }

 private:
  void on_ready();
  void read_some();
  void write_some();
  void finish();                       // answers the client's finish or abort
  void fail_with(const Error& error);  // tells the client
  void end();
  void watch();
  [[nodiscard]] Header packet(Status status) const;

  Loop& loop_;
  StreamSink& sink_;
  const Header call_;
  SocketFd fd_;
  std::deque<std::vector<std::uint8_t>> to_fd_;
  std::size_t head_written_ = 0, queued_bytes_ = 0;
  std::uint32_t watched_ = 0;
  bool is_packet_under_way_ = false, is_at_end_ = false, is_finishing_ = false, is_over_ = false;
};

}  // namespace virtuserns::rpc
