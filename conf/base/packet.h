// One message and its descriptors, over a SOCK_SEQPACKET socket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns {

inline constexpr std::size_t kMaxPacket = 256 * 1024;
inline constexpr std::size_t kMaxPacketFiles = 16;

struct Packet {
  std::vector<std::uint8_t> bytes;  // empty: the peer has closed
  std::vector<Fd> files;            // received close-on-exec
};
// A non-blocking socket that is full gives EAGAIN in Error::sys_errno.
[[nodiscard]] Result<void> send_packet(int socket, std::span<const std::uint8_t> bytes,
                                       std::span<const int> files = {});
// Larger messages and surplus descriptors are an error, and nothing is leaked.
[[nodiscard]] Result<Packet> recv_packet(int socket);

}  // namespace virtuserns
