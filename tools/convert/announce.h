// Neighbours are told that a MAC address is somewhere else now.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "tools/convert/domains.h"

namespace virtuserns::convert {

using Mac = std::array<std::uint8_t, 6>;
// A whole frame each. An ARP request for the address that asks, as RFC 5227 has it; an unsolicited neighbour advertisement.
[[nodiscard]] std::string arp_announcement(const Mac& mac, const std::array<std::uint8_t, 4>& address);
[[nodiscard]] std::string neighbour_advertisement(const Mac& mac, const std::array<std::uint8_t, 16>& address);

// One for each address of each link that is in a bridge of the host: sent from the bridge itself to all of its ports, so that it
// does not matter whether the container's own is forwarding yet. How many were sent.
[[nodiscard]] Result<unsigned> announce(const std::vector<ContainerLink>& links);

}  // namespace virtuserns::convert
