#include "driver/rpc/message.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace virtuserns::rpc {
namespace {

constexpr std::size_t kOwnShareBytes = 64 * 1024;  // of buffer that needs no budget
constexpr std::size_t kReadBytes = 64 * 1024;

std::uint32_t u32_at(std::span<const std::uint8_t> bytes, std::size_t at) {
  return static_cast<std::uint32_t>(bytes[at]) << 24 | static_cast<std::uint32_t>(bytes[at + 1]) << 16 |
         static_cast<std::uint32_t>(bytes[at + 2]) << 8 | bytes[at + 3];
}

void put_u32(std::vector<std::uint8_t>& bytes, std::size_t at, std::uint32_t value) {
  for (int i = 0; i < 4; ++i)
    bytes[at + static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(value >> (24 - 8 * i));
}

}  // namespace

FrameBuilder::FrameBuilder(const Header& header, std::vector<Fd> fds) {
  frame_.bytes.reserve(128);
  xdr::Writer writer(frame_.bytes);
  writer.u32(0);
  writer.write(header);
  if (!fds.empty()) writer.u32(static_cast<std::uint32_t>(fds.size()));
  frame_.fds = std::move(fds);
}

Result<Frame> FrameBuilder::finish() && {
  if (frame_.bytes.size() > kMaxFrameBytes) return fail(VIR_ERR_RPC, "reply is too large for a message");
  put_u32(frame_.bytes, 0, static_cast<std::uint32_t>(frame_.bytes.size()));
  return std::move(frame_);
}

Frame make_frame(const Header& header) { return FrameBuilder(header).finish().value(); }

Frame make_data_frame(const Header& header, std::span<const std::uint8_t> data) {
  FrameBuilder builder(header);
  builder.bytes().insert(builder.bytes().end(), data.begin(), data.end());
  return std::move(builder).finish().value();
}

bool InputBudget::take(std::size_t bytes) {
  const auto want = static_cast<std::int64_t>(bytes);
  if (left_.fetch_sub(want) >= want) return true;
  left_.fetch_add(want);
  return false;
}

Receiver::~Receiver() { budget_.give(budgeted_); }

Result<void> Receiver::make_room(std::size_t bytes) {
  if (start_ > 0 && (start_ == end_ || buffer_.size() - end_ < bytes)) {
    std::memmove(buffer_.data(), buffer_.data() + start_, end_ - start_);
    end_ -= start_;
    start_ = 0;
  }
  if (buffer_.size() - end_ >= bytes) return {};
  // Doubling, but never beyond the frame at hand and one more read: what has arrived decides, not what was announced.
  const std::size_t wanted = std::max(end_ + bytes, std::min(end_ * 2, max_frame_ + kReadBytes));
  if (wanted > kOwnShareBytes + kReadBytes) {
    const std::size_t more = wanted - budgeted_;
    if (wanted > budgeted_ && !budget_.take(more))
      return fail(VIR_ERR_RPC, "too many large messages are being received");
    budgeted_ = std::max(budgeted_, wanted);
  }
  buffer_.resize(wanted);
  return {};
}

Result<Receiver::Read> Receiver::read_from(const SocketFd& socket) {
  // Small connections stay small: 4 KiB suffice for nearly every call.
  TRY(make_room(end_ - start_ < 4096 ? 4096 : std::min(kReadBytes, end_ - start_)));
  iovec io{buffer_.data() + end_, buffer_.size() - end_};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * (kMaxMessageFds + 1))];
  msghdr header{};
  header.msg_iov = &io;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t count = ::recvmsg(socket.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0) {
    if (errno == EAGAIN || errno == EINTR) return Read::kNothing;
    return sys_fail("receive");
  }
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t fds = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < fds; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      fds_.emplace_back(fd);
    }
  }
  if ((header.msg_flags & MSG_CTRUNC) != 0 || fds_.size() > kMaxMessageFds)
    return fail(VIR_ERR_RPC, "too many descriptors");
  if (count == 0) return Read::kEnd;
  end_ += static_cast<std::size_t>(count);
  return Read::kSome;
}

Result<void> Receiver::append(std::span<const std::uint8_t> bytes, std::vector<Fd> fds) {
  for (Fd& fd : fds) fds_.push_back(std::move(fd));
  if (fds_.size() > kMaxMessageFds) return fail(VIR_ERR_RPC, "too many descriptors");
  TRY(make_room(bytes.size()));
  std::copy(bytes.begin(), bytes.end(), buffer_.begin() + static_cast<std::ptrdiff_t>(end_));
  end_ += bytes.size();
  return {};
}

Result<std::size_t> Receiver::frame_bytes() const {
  if (end_ - start_ < kLengthBytes) return std::size_t{0};
  const std::size_t length = u32_at(buffer_, start_);
  if (length < kLengthBytes + kHeaderBytes) return fail(VIR_ERR_RPC, "message is too short for a header");
  if (length > max_frame_) return fail(VIR_ERR_RPC, "message is too long");
  return length;
}

void Receiver::consume(std::size_t bytes) {
  start_ += bytes;
  if (start_ != end_) return;
  start_ = end_ = 0;
  if (buffer_.size() <= kOwnShareBytes + kReadBytes) return;
  std::vector<std::uint8_t>().swap(buffer_);
  budget_.give(std::exchange(budgeted_, 0));
}

Result<std::optional<Message>> Receiver::next() {
  const std::size_t length = TRY(frame_bytes());
  if (length == 0 || end_ - start_ < length) {
    // Descriptors come after the whole frame that announces them: with no whole frame at hand they belong to none.
    if (!fds_.empty()) return fail(VIR_ERR_RPC, "unexpected descriptors");
    return std::optional<Message>();
  }
  const std::span<const std::uint8_t> frame(buffer_.data() + start_, length);
  Message message;
  message.header = TRY(xdr::decode<Header>(frame.subspan(kLengthBytes, kHeaderBytes)));
  std::size_t payload_at = kLengthBytes + kHeaderBytes, fds = 0;
  if (message.header.type == MessageType::kCallWithFds || message.header.type == MessageType::kReplyWithFds) {
    if (length < payload_at + 4) return fail(VIR_ERR_RPC, "message has no count of descriptors");
    fds = u32_at(frame, payload_at);
    if (fds > kMaxMessageFds) return fail(VIR_ERR_RPC, "too many descriptors");
    payload_at += 4;
    if (end_ - start_ < length + fds) return std::optional<Message>();
    if (fds_.size() < fds) return fail(VIR_ERR_RPC, "message has fewer descriptors than it says");
  }
  message.payload.assign(frame.begin() + static_cast<std::ptrdiff_t>(payload_at), frame.end());
  for (std::size_t i = 0; i < fds; ++i) {
    message.fds.push_back(std::move(fds_.front()));
    fds_.pop_front();
  }
  consume(length + fds);
  if (start_ == end_ && !fds_.empty()) return fail(VIR_ERR_RPC, "unexpected descriptors");
  return std::optional<Message>(std::move(message));
}

Result<bool> send_frame(const SocketFd& socket, const Frame& frame, std::size_t& sent_bytes, std::size_t& sent_fds) {
  while (sent_bytes < frame.bytes.size()) {
    const ssize_t count = ::send(socket.get(), frame.bytes.data() + sent_bytes, frame.bytes.size() - sent_bytes,
                                 MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return false;
    if (count < 0) return sys_fail("send");
    sent_bytes += static_cast<std::size_t>(count);
  }
  while (sent_fds < frame.fds.size()) {
    char nul = 0;
    iovec io{&nul, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header{};
    header.msg_iov = &io;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = frame.fds[sent_fds].get();
    std::memcpy(CMSG_DATA(part), &fd, sizeof fd);
    const ssize_t count = ::sendmsg(socket.get(), &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return false;
    if (count < 0) return sys_fail("send a descriptor");
    ++sent_fds;
  }
  return true;
}

}  // namespace virtuserns::rpc
