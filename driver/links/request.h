// What a session and the link broker (broker.h) say to each other: one packet each way on a connection of SOCK_SEQPACKET.
// The request carries one descriptor, the network namespace that the guest's end is to be in.
#pragma once

#include <array>
#include <string>
#include <variant>

#include "conf/base/fd.h"
#include "conf/base/xdr.h"

namespace virtuserns::links {

inline constexpr std::size_t kMaxNetName = 15;  // IFNAMSIZ, less the final NUL

struct LinkRequest {
  std::uint32_t version = 1;
  xdr::Text<kMaxNetName> bridge, guest_name;
  std::array<std::uint8_t, 6> guest_mac{};
  std::optional<std::uint32_t> mtu;
  bool is_up = true;
};
struct LinkMade {
  xdr::Text<kMaxNetName> host_name;
};
struct LinkRefused {
  std::int32_t code = 0, sys_errno = 0;
  xdr::Text<2048> text;
};
using LinkAnswer = std::variant<LinkMade, LinkRefused>;

// Bytes of anybody: what comes out may be handed to the kernel.
[[nodiscard]] Result<LinkRequest> decode_request(std::span<const std::uint8_t> bytes);

// Asks the broker at `socket_path`, and waits. The name of the host's end.
[[nodiscard]] Result<std::string> ask_for_link(const std::string& socket_path, const LinkRequest& request,
                                               const NsFd& net);

}  // namespace virtuserns::links
