// Network links, addresses and routes over rtnetlink(7), in the network namespace of the socket.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "driver/kernel/netlink.h"

namespace virtuserns::kernel {

using MacAddress = std::array<std::uint8_t, 6>;

struct VethRequest {
  std::string host_name, peer_name;  // host_name may hold "%d"
  MacAddress peer_mac{};
  std::string bridge;  // empty: none
  std::optional<std::uint32_t> mtu;
  bool is_up = true;
  std::optional<std::uint32_t> host_mtu;         // of the host's end, if it is not to be `mtu`
  std::uint32_t host_index = 0, peer_index = 0;  // both, or the kernel chooses. EBUSY: taken
};
// A pair whose peer is born in `peer_ns`: moving it there would cost a grace period. One message makes it, puts it in
// the bridge and up. Never removed by us while the namespace lives: both ends die with it.
[[nodiscard]] Result<void> create_veth(RouteSocket& route, const VethRequest& request, const NsFd& peer_ns);

struct MacvlanRequest {
  std::string host_device, name, mode;
  MacAddress mac{};
  std::uint32_t index = 0;  // or the kernel chooses
};
[[nodiscard]] Result<void> create_macvlan(RouteSocket& route, const MacvlanRequest& request, const NsFd& ns);
// A device of ours goes away under a new name; a hardware device comes back when the namespace dies.
[[nodiscard]] Result<void> move_link(RouteSocket& route, const std::string& device, const std::string& new_name,
                                     const NsFd& ns);
[[nodiscard]] Result<void> create_bridge(RouteSocket& route, const std::string& name);
[[nodiscard]] Result<void> remove_link(RouteSocket& route, const std::string& name);
[[nodiscard]] Result<void> remove_link(RouteSocket& route, std::uint32_t index);
// Of this and the next: `index`, if it is not 0, tells the link; the name is for errors then.
[[nodiscard]] Result<void> set_link_up(RouteSocket& route, const std::string& name, std::uint32_t index = 0);
// How the namespace of `route` calls `ns` (RTM_GETNSID); nothing: it has no name for it.
[[nodiscard]] Result<std::optional<std::int32_t>> name_of_namespace(RouteSocket& route, const NsFd& ns);

struct LinkFacts {
  std::uint32_t index = 0, peer_index = 0;  // peer_index: IFLA_LINK
  std::uint32_t master_index = 0, mtu = 0;
  std::string name, kind;
  std::optional<std::int32_t> peer_namespace;  // IFLA_LINK_NETNSID
  std::vector<std::uint8_t> mac;
};
[[nodiscard]] Result<LinkFacts> find_link(RouteSocket& route, const std::string& name);
[[nodiscard]] Result<LinkFacts> find_link(RouteSocket& route, std::uint32_t index);
[[nodiscard]] Result<std::vector<LinkFacts>> list_links(RouteSocket& route);
struct AddressFacts {
  std::uint32_t link_index = 0, prefix = 0;
  std::vector<std::uint8_t> bytes;
};
[[nodiscard]] Result<std::vector<AddressFacts>> list_addresses(RouteSocket& route);

struct AddressRequest {
  std::string device;
  std::vector<std::uint8_t> address;
  std::uint32_t prefix = 0;
  std::vector<std::uint8_t> peer;
  std::uint32_t index = 0;
};
[[nodiscard]] Result<void> add_address(RouteSocket& route, const AddressRequest& request);
struct RouteRequest {
  std::string device;
  std::vector<std::uint8_t> network;
  std::uint32_t prefix = 0;
  std::vector<std::uint8_t> gateway;
  std::optional<std::uint32_t> metric;
  std::uint32_t index = 0;
};
[[nodiscard]] Result<void> add_route(RouteSocket& route, const RouteRequest& request);

// The messages themselves, for tests of their bytes.
[[nodiscard]] NetlinkMessage veth_message(const VethRequest& request, std::uint32_t bridge_index, int peer_ns);

}  // namespace virtuserns::kernel
