#include "driver/compute/frame.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>

namespace virtuserns::compute {
namespace {

constexpr std::size_t kChunk = 64 * 1024;

// How many came before the end: fewer than asked for, only there.
Result<std::size_t> read_some(const Fd& socket, char* to, std::size_t size) {
  std::size_t got = 0;
  while (got < size) {
    const auto count = ::recv(socket.get(), to + got, size - got, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return sys_fail("read from the client");
    if (count == 0) break;
    got += static_cast<std::size_t>(count);
  }
  return got;
}

Result<void> send_all(const Fd& socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto count = ::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return sys_fail("write to the client");
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

}  // namespace

Result<std::optional<std::string>> read_frame(const Fd& socket) {
  std::array<char, 4> header{};
  const auto got = TRY(read_some(socket, header.data(), header.size()));
  if (got == 0) return std::optional<std::string>();
  if (got < header.size()) return fail(VIR_ERR_RPC, "the client closed in the middle of a frame");
  std::size_t length = 0;
  for (const char byte : header) length = length << 8 | static_cast<unsigned char>(byte);
  if (length > kMaxFrame)
    return fail(VIR_ERR_RPC, "a frame of " + std::to_string(length) + " bytes: at most " + std::to_string(kMaxFrame) +
                                 " are possible");
  std::string content;
  while (content.size() < length) {
    const auto before = content.size();
    content.resize(std::min(length, before + kChunk));
    if (TRY(read_some(socket, content.data() + before, content.size() - before)) < content.size() - before)
      return fail(VIR_ERR_RPC, "the client closed in the middle of a frame");
  }
  return std::optional(std::move(content));
}

Result<void> write_frame(const Fd& socket, std::string_view content) {
  if (content.size() > kMaxFrame) return fail(VIR_ERR_RPC, "the answer is longer than a frame may be");
  const auto size = static_cast<std::uint32_t>(content.size());
  std::string frame;
  frame.reserve(content.size() + 4);
  for (int shift = 24; shift >= 0; shift -= 8) frame += static_cast<char>(size >> shift & 255);
  frame += content;
  return send_all(socket, frame);
}

}  // namespace virtuserns::compute
