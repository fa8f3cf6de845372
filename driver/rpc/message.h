// Messages of libvirt's RPC: framing, and descriptors that travel beside it.
//
// A frame is a u32 length (which counts itself), a 24-byte header and the payload. A call or reply with descriptors
// starts its payload with their u32 count; after the frame each one comes with a NUL byte of its own, which the
// length does not count.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "conf/base/xdr.h"

namespace virtuserns::rpc {

inline constexpr std::size_t kLengthBytes = 4, kHeaderBytes = 24;
inline constexpr std::size_t kMaxFrameBytes = 33'554'436;  // 32 MiB and the length word
inline constexpr std::size_t kMaxPayloadBytes = kMaxFrameBytes - kLengthBytes - kHeaderBytes;
inline constexpr std::size_t kMaxMessageFds = 32;

enum class MessageType : std::int32_t {
  kCall = 0,
  kReply,
  kEvent,
  kStream,
  kCallWithFds,
  kReplyWithFds,
  kStreamHole
};
enum class Status : std::int32_t { kOk = 0, kError, kContinue };

struct Header {
  std::uint32_t program = 0, version = 0;
  std::int32_t procedure = 0;
  MessageType type = MessageType::kCall;
  std::uint32_t serial = 0;
  Status status = Status::kOk;
};

// What was received.
struct Message {
  Header header;
  std::vector<std::uint8_t> payload;  // without the count of descriptors
  std::vector<Fd> fds;
};

// What is to be sent: the whole frame.
struct Frame {
  std::vector<std::uint8_t> bytes;
  std::vector<Fd> fds;
};

// Builds a frame in place. start() reserves the length and header; write the payload to the returned buffer; finish()
// fills in the length. A payload over the limit is an error, for the sender to report in its place.
class FrameBuilder {
 public:
  explicit FrameBuilder(const Header& header, std::vector<Fd> fds = {});
  [[nodiscard]] std::vector<std::uint8_t>& bytes() { return frame_.bytes; }
  [[nodiscard]] Result<Frame> finish() &&;

 private:
  Frame frame_;
};

template <class T>
[[nodiscard]] Result<Frame> make_frame(const Header& header, const T& payload) {
  FrameBuilder builder(header);
  xdr::Writer(builder.bytes()).write(payload);
  return std::move(builder).finish();
}
[[nodiscard]] Frame make_frame(const Header& header);                                           // no payload
[[nodiscard]] Frame make_data_frame(const Header& header, std::span<const std::uint8_t> data);  // raw stream data

// Memory that all clients together may hold in frames that are not complete yet (beyond a small share of their own).
class InputBudget {
 public:
  explicit InputBudget(std::size_t bytes) : left_(static_cast<std::int64_t>(bytes)) {}
  [[nodiscard]] bool take(std::size_t bytes);
  void give(std::size_t bytes) { left_.fetch_add(static_cast<std::int64_t>(bytes)); }

 private:
  std::atomic<std::int64_t> left_;
};

// The receiving side of one connection. An error from any function means: close the connection, it cannot be
// resynchronised. Descriptors are closed with it.
class Receiver {
 public:
  explicit Receiver(InputBudget& budget) : budget_(budget) {}
  ~Receiver();
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;

  enum class Read { kSome, kNothing, kEnd };
  // One recvmsg of a non-blocking socket. Memory grows with what has arrived, never with what was announced.
  [[nodiscard]] Result<Read> read_from(const SocketFd& socket);
  // For tests and fuzzing: as if `bytes` and `fds` had been received.
  [[nodiscard]] Result<void> append(std::span<const std::uint8_t> bytes, std::vector<Fd> fds = {});
  // The next complete message, if there is one.
  [[nodiscard]] Result<std::optional<Message>> next();
  [[nodiscard]] bool is_mid_message() const { return end_ != start_ || !fds_.empty(); }
  void limit_frame(std::size_t bytes) { max_frame_ = bytes; }  // smaller for clients that are not authenticated
  [[nodiscard]] std::size_t buffered_bytes() const { return end_ - start_; }

 private:
  [[nodiscard]] Result<void> make_room(std::size_t bytes);
  [[nodiscard]] Result<std::size_t> frame_bytes() const;  // of the frame at the start; 0: not known yet
  void consume(std::size_t bytes);

  InputBudget& budget_;
  std::vector<std::uint8_t> buffer_;
  std::size_t start_ = 0, end_ = 0;  // what is received and not consumed
  std::size_t budgeted_ = 0;
  std::size_t max_frame_ = kMaxFrameBytes;
  std::deque<Fd> fds_;
};

// Sends as much as the socket takes. `sent_bytes` and `sent_fds` are the progress within `frame`. True: complete.
[[nodiscard]] Result<bool> send_frame(const SocketFd& socket, const Frame& frame, std::size_t& sent_bytes,
                                      std::size_t& sent_fds);

}  // namespace virtuserns::rpc
