#include "conf/base/packet.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace virtuserns {

Result<void> send_packet(int socket, std::span<const std::uint8_t> bytes, std::span<const int> files) {
  if (bytes.size() > kMaxPacket || files.size() > kMaxPacketFiles) return fail(VIR_ERR_RPC, "send packet: too large");
  iovec data{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPacketFiles * sizeof(int))] = {};
  if (!files.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(files.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(files.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), files.data(), files.size() * sizeof(int));
  }
  for (;;) {
    if (::sendmsg(socket, &message, MSG_NOSIGNAL) >= 0) return {};
    if (errno != EINTR) return sys_fail("send packet");
  }
}

Result<Packet> recv_packet(int socket) {
  // The size first: a buffer for the largest packet would cost every idle controller a quarter of a megabyte.
  ssize_t size = 0;
  while ((size = ::recv(socket, nullptr, 0, MSG_PEEK | MSG_TRUNC)) < 0)
    if (errno != EINTR) return sys_fail("receive packet");
  Packet packet;
  packet.bytes.resize(std::min(static_cast<std::size_t>(size), kMaxPacket) + 1);
  iovec data{packet.bytes.data(), packet.bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPacketFiles * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  while ((size = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC)) < 0)
    if (errno != EINTR) return sys_fail("receive packet");
  // Every descriptor is owned before anything is judged, so that a refused packet leaks none.
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int file = -1;
      std::memcpy(&file, CMSG_DATA(header) + i * sizeof(int), sizeof file);
      packet.files.emplace_back(file);
    }
  }
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || static_cast<std::size_t>(size) > kMaxPacket)
    return fail(VIR_ERR_RPC, "receive packet: too large");
  packet.bytes.resize(static_cast<std::size_t>(size));
  return packet;
}

}  // namespace virtuserns
