#include "driver/compute/frame.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace virtuserns::compute {
namespace {

constexpr std::size_t kChunk = 64 * 1024;

// How many came before the end: fewer than asked for, only there.
Result<std::size_t> read_some(const Fd& socket, char* to, std::size_t size) {
  std::size_t got = 0;
  while (got < size) {
    const auto count = ::read(socket.get(), to + got, size - got);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return sys_fail("read a frame");
    if (count == 0) break;
    got += static_cast<std::size_t>(count);
  }
  return got;
}

Result<void> send_all(const Fd& socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto count = ::write(socket.get(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return sys_fail("write a frame");
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

constexpr const char* kCutOff = "the other side closed in the middle of a frame";

// What follows the first byte of a frame.
Result<std::string> read_after(const Fd& socket, char first) {
  std::array<char, 3> rest{};
  if (TRY(read_some(socket, rest.data(), rest.size())) < rest.size()) return fail(VIR_ERR_RPC, kCutOff);
  std::size_t length = static_cast<unsigned char>(first);
  for (const char byte : rest) length = length << 8 | static_cast<unsigned char>(byte);
  if (length > kMaxFrame)
    return fail(VIR_ERR_RPC, "a frame of " + std::to_string(length) + " bytes: at most " + std::to_string(kMaxFrame) +
                                 " are possible");
  std::string content;
  while (content.size() < length) {
    const auto before = content.size();
    content.resize(std::min(length, before + kChunk));
    if (TRY(read_some(socket, content.data() + before, content.size() - before)) < content.size() - before)
      return fail(VIR_ERR_RPC, kCutOff);
  }
  return content;
}

Result<std::string> make_frame(std::string_view content) {
  if (content.size() > kMaxFrame) return fail(VIR_ERR_RPC, "the answer is longer than a frame may be");
  const auto size = static_cast<std::uint32_t>(content.size());
  std::string frame;
  frame.reserve(content.size() + 4);
  for (int shift = 24; shift >= 0; shift -= 8) frame += static_cast<char>(size >> shift & 255);
  return frame.append(content);
}

}  // namespace

Result<std::optional<std::string>> read_frame(const Fd& socket) {
  char first = 0;
  if (TRY(read_some(socket, &first, 1)) == 0) return std::optional<std::string>();
  return std::optional(TRY(read_after(socket, first)));
}

Result<void> write_frame_with(const Fd& socket, std::string_view content, const Fd& passed) {
  // The descriptor goes with the first byte; a frame is never empty.
  char first = static_cast<char>(static_cast<std::uint32_t>(content.size()) >> 24);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  iovec part{&first, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  auto* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = passed.get();
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  const auto frame = TRY(make_frame(content));
  if (::sendmsg(socket.get(), &message, MSG_NOSIGNAL) != 1) return sys_fail("pass a descriptor");
  return send_all(socket, std::string_view(frame).substr(1));
}

Result<std::pair<std::string, Fd>> read_frame_with(const Fd& socket) {
  char first = 0;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  iovec part{&first, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC) != 1) return fail(VIR_ERR_RPC, "the other side closed");
  Fd passed;
  for (auto* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
    if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
      passed = Fd(fd);
    }
  return std::pair(TRY(read_after(socket, first)), std::move(passed));
}

Result<void> write_frame(const Fd& socket, std::string_view content) {
  return send_all(socket, TRY(make_frame(content)));
}

}  // namespace virtuserns::compute
