#include "tools/convert/announce.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "conf/base/fd.h"
#include "conf/base/text.h"
#include "driver/kernel/link.h"

namespace virtuserns::convert {
namespace {

using V4 = std::array<std::uint8_t, 4>;
using V6 = std::array<std::uint8_t, 16>;

template <std::size_t N>
void append(std::string& frame, const std::array<std::uint8_t, N>& bytes) {
  frame.append(bytes.begin(), bytes.end());
}

void append_be16(std::string& frame, std::uint32_t value) {
  frame += {static_cast<char>(value >> 8 & 0xff), static_cast<char>(value & 0xff)};
}

// RFC 1071, of text of an even length.
std::uint16_t checksum(std::string_view text) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    sum += static_cast<std::uint32_t>(static_cast<unsigned char>(text[i]) << 8 |
                                      static_cast<unsigned char>(text[i + 1]));
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

std::optional<Mac> parse_mac(const std::string& text) {
  const auto parts = split(text, ':');
  Mac mac{};
  if (parts.size() != mac.size()) return std::nullopt;
  for (std::size_t i = 0; i < mac.size(); ++i) {
    const auto byte = parse_number<std::uint8_t>(parts[i], 16);
    if (!byte) return std::nullopt;
    mac[i] = *byte;
  }
  return mac;
}

// "": it is no address that others would know.
std::string frame_of(const Mac& mac, const std::string& address) {
  V4 v4{};
  V6 v6{};
  if (::inet_pton(AF_INET, address.c_str(), v4.data()) == 1) return arp_announcement(mac, v4);
  const bool is_v6 = ::inet_pton(AF_INET6, address.c_str(), v6.data()) == 1;
  const bool is_link_local = v6[0] == 0xfe && (v6[1] & 0xc0) == 0x80;
  if (is_v6 && !is_link_local) return neighbour_advertisement(mac, v6);
  return "";
}

Result<void> send_frame(const Fd& socket, std::uint32_t link, const std::string& frame) {
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(link);
  to.sll_halen = ETH_ALEN;
  std::copy_n(frame.begin(), ETH_ALEN, to.sll_addr);
  if (::sendto(socket.get(), frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) < 0)
    return sys_fail("send");
  return {};
}

}  // namespace

std::string arp_announcement(const Mac& mac, const V4& address) {
  std::string frame(ETH_ALEN, '\xff');
  append(frame, mac);
  append_be16(frame, ETH_P_ARP);
  append_be16(frame, 1);  // Ethernet
  append_be16(frame, ETH_P_IP);
  append_be16(frame, ETH_ALEN << 8 | 4);
  append_be16(frame, 1);  // a request
  append(frame, mac);
  append(frame, address);
  frame.append(ETH_ALEN, '\0');
  append(frame, address);
  return frame;
}

std::string neighbour_advertisement(const Mac& mac, const V6& address) {
  constexpr V6 kAllNodes{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  constexpr std::uint32_t kSize = 32, kIcmp = 58;
  std::string message = {'\x88', 0, 0, 0, '\x20', 0, 0, 0};  // type 136; override
  append(message, address);
  message += {2, 1};  // the target's link-layer address
  append(message, mac);
  std::string summed;
  append(summed, address);
  append(summed, kAllNodes);
  for (const auto half : {0U, kSize, 0U, kIcmp}) append_be16(summed, half);
  const auto sum = checksum(summed + message);
  message[2] = static_cast<char>(sum >> 8), message[3] = static_cast<char>(sum & 0xff);

  std::string frame = {0x33, 0x33, 0, 0, 0, 1};
  append(frame, mac);
  append_be16(frame, ETH_P_IPV6);
  frame += {'\x60', 0, 0, 0};
  append_be16(frame, kSize);
  frame += {static_cast<char>(kIcmp), '\xff'};
  append(frame, address);
  append(frame, kAllNodes);
  return frame + message;
}

Result<unsigned> announce(const std::vector<ContainerLink>& links) {
  const Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!socket) return sys_fail("open a packet socket");
  auto route = TRY(kernel::RouteSocket::open());
  unsigned sent = 0;
  for (const auto& link : links) {
    const auto mac = parse_mac(link.mac);
    const auto end = kernel::find_link(route, link.name);
    if (!mac || !end || end->master_index == 0) continue;
    for (const auto& address : link.addresses)
      if (const auto frame = frame_of(*mac, address); !frame.empty()) {
        TRY(send_frame(socket, end->master_index, frame), "announce " + quote(address));
        ++sent;
      }
  }
  return sent;
}

}  // namespace virtuserns::convert
