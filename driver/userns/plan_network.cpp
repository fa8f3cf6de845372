// Links, addresses and routes. A domain has a network namespace of its own always; <privnet/> says no more than that.
#include <arpa/inet.h>

#include <algorithm>

#include "conf/base/text.h"
#include "conf/port_forward.h"
#include "driver/userns/plan_parts.h"

namespace virtuserns::userns {

namespace {

std::vector<std::uint8_t> address_bytes(const std::string& text) {
  std::uint8_t bytes[16];
  if (::inet_pton(AF_INET, text.c_str(), bytes) == 1) return {bytes, bytes + 4};
  if (::inet_pton(AF_INET6, text.c_str(), bytes) == 1) return {bytes, bytes + 16};
  return {};
}

// virSocketAddrGetIPPrefix: the class of an IPv4 address, 64 for IPv6.
std::uint32_t default_prefix(const std::vector<std::uint8_t>& address) {
  if (address.size() == 16) return 64;
  if (address.empty()) return 0;
  return address[0] < 128 ? 8 : address[0] < 192 ? 16 : address[0] < 224 ? 24 : 32;
}

std::uint32_t mask_bits(const std::string& netmask) {
  std::uint32_t bits = 0;
  for (const auto byte : address_bytes(netmask)) bits += static_cast<std::uint32_t>(__builtin_popcount(byte));
  return bits;
}

Result<AddressStep> address_step(const std::string& device, const IpAddressDef& ip) {
  AddressStep step{device, address_bytes(ip.address), 0, {}};
  if (step.address.empty()) return unsupported("<ip> " + quote(ip.address) + " is no address");
  step.prefix = ip.prefix.value_or(default_prefix(step.address));
  if (!ip.peer.empty()) step.peer = address_bytes(ip.peer);
  return step;
}

Result<RouteStep> route_step(const std::string& device, const RouteDef& route) {
  RouteStep step{device, address_bytes(route.address), 0, address_bytes(route.gateway), route.metric};
  if (step.network.empty()) return unsupported("<route> " + quote(route.address) + " is no address");
  if (step.gateway.empty()) return unsupported("<route> gateway " + quote(route.gateway) + " is no address");
  const bool is_default =
      std::all_of(step.network.begin(), step.network.end(), [](std::uint8_t b) { return b == 0; });
  step.prefix = route.prefix             ? *route.prefix
                : !route.netmask.empty() ? mask_bits(route.netmask)
                : is_default             ? 0
                                         : default_prefix(step.network);
  return step;
}

enum class Up { kNo, kYes };

Result<void> configure(Draft& draft, const std::string& device, const std::vector<IpAddressDef>& ips,
                       const std::vector<RouteDef>& routes, Up up) {
  auto& inside = draft.plan().inside;
  for (const auto& ip : ips) inside.push_back(TRY(address_step(device, ip)));
  // A route needs its link up: those of a link that stays down are the guest's business.
  if (up == Up::kNo) return {};
  inside.push_back(LinkUpStep{device});
  for (const auto& route : routes) inside.push_back(TRY(route_step(device, route)));
  return {};
}

Result<std::string> bridge_of(const Draft& draft, const InterfaceDef& interface) {
  switch (interface.type) {
    case InterfaceType::kBridge:
      return interface.source;
    case InterfaceType::kEthernet:
      return std::string();
    case InterfaceType::kNetwork: {
      const auto found = draft.context.network_bridges.find(interface.source);
      if (found == draft.context.network_bridges.end() || found->second.empty())
        return fail(VIR_ERR_NO_NETWORK, "network " + quote(interface.source) + " is not active or has no bridge");
      return found->second;
    }
    case InterfaceType::kDirect:
    case InterfaceType::kUser:
      break;
  }
  return fail(VIR_ERR_INTERNAL_ERROR, "an interface of this type is in no bridge");
}

// With an address of its own and no way out that is named: the first address of its network that is not the guest's, as slirp
// has it. Whatever it is, passt answers for it.
std::string first_of_network(const AddressStep& ip) {
  auto bytes = ip.address;
  if (bytes.empty()) return {};
  for (std::uint32_t bit = ip.prefix; bit < bytes.size() * 8; ++bit)
    bytes[bit / 8] = static_cast<std::uint8_t>(bytes[bit / 8] & ~(0x80u >> bit % 8));
  ++bytes.back();
  if (bytes == ip.address) ++bytes.back();
  char text[INET6_ADDRSTRLEN] = "";
  ::inet_ntop(bytes.size() == 4 ? AF_INET : AF_INET6, bytes.data(), text, sizeof text);
  return text;
}

bool is_default_route(const RouteDef& route) {
  const auto bytes = address_bytes(route.address);
  return (!route.prefix || *route.prefix == 0) && route.netmask.empty() && !bytes.empty() &&
         std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; });
}

// passt itself gives the guest one address and one gateway of each family; what is left of `interface` are init's steps.
Result<void> take_addresses(UserLinkStep& link, InterfaceDef& interface) {
  for (const bool is_v6 : {false, true}) {
    const auto is_ours = [&](const auto& def) { return address_bytes(def.address).size() == (is_v6 ? 16U : 4U); };
    auto& ips = interface.ips;
    const auto ip = std::find_if(ips.begin(), ips.end(), is_ours);
    if (ip == ips.end() || !ip->peer.empty()) continue;
    const auto step = TRY(address_step(link.guest_name, *ip));
    (is_v6 ? link.address6 : link.address) = ip->address;
    if (!is_v6) link.prefix = step.prefix;
    ips.erase(ip);
    auto& routes = interface.routes;
    const auto route = std::find_if(routes.begin(), routes.end(),
                                    [&](const RouteDef& def) { return is_ours(def) && is_default_route(def); });
    auto& gateway = is_v6 ? link.gateway6 : link.gateway;
    gateway = route == routes.end() ? first_of_network(step) : route->gateway;
    if (route != routes.end()) routes.erase(route);
  }
  return {};
}

Result<void> plan_user_link(Draft& draft, InterfaceDef interface, const std::string& guest) {
  UserLinkStep link;
  link.guest_name = guest;
  link.guest_mac = interface.mac.value_or(MacAddress{}).bytes;
  link.host_device = interface.source;
  link.mtu = interface.mtu;
  link.is_up = interface.link_state != LinkState::kDown;
  link.log_file = interface.backend_log;
  for (const auto& port : TRY(forwarded_ports(interface))) {
    std::string host = port.address.empty() && !port.dev.empty() ? "0.0.0.0" : port.address;
    if (!port.dev.empty()) host += "%" + port.dev;
    link.ports.push_back({port.is_udp, std::move(host), port.host, port.guest});
  }
  if (link.is_up) TRY(take_addresses(link, interface));
  const Up up = link.is_up ? Up::kYes : Up::kNo;
  draft.plan().from_parent.push_back(std::move(link));
  return configure(draft, guest, interface.ips, interface.routes, up);
}

Result<void> plan_interface(Draft& draft, const InterfaceDef& interface, const std::string& guest) {
  if (interface.type == InterfaceType::kUser) return plan_user_link(draft, interface, guest);
  const Up up = interface.link_state == LinkState::kDown ? Up::kNo : Up::kYes;
  const auto mac = interface.mac.value_or(MacAddress{}).bytes;
  if (interface.type == InterfaceType::kDirect) {
    draft.plan().from_parent.push_back(
        MacvlanStep{interface.source, guest, interface.direct_mode.empty() ? "vepa" : interface.direct_mode, mac});
    if (interface.mtu) draft.message("<mtu> of <interface type='direct'> is not applied");
  } else if (draft.context.paths.is_session && interface.type == InterfaceType::kBridge) {
    draft.plan().from_parent.push_back(
        LentLinkStep{draft.context.paths.link_broker, guest, mac, interface.source, interface.mtu, up == Up::kYes});
    if (!interface.target_dev.empty())
      draft.message("<target dev=" + quote(interface.target_dev) +
                    "> is not applied: the host's daemon gives links of users their names");
  } else {
    VethStep veth;
    veth.host_name = interface.target_dev.empty() ? "vnet%d" : interface.target_dev;
    veth.guest_name = guest;
    veth.guest_mac = mac;
    veth.bridge = TRY(bridge_of(draft, interface));
    veth.mtu = interface.mtu;
    veth.is_up = up == Up::kYes;
    draft.plan().from_parent.push_back(std::move(veth));
  }
  if (!interface.source_ips.empty() || !interface.source_routes.empty())
    draft.message("addresses and routes of the host's side of " + quote(guest) + " are not applied");
  return configure(draft, guest, interface.ips, interface.routes, up);
}

}  // namespace

Result<void> plan_network(Draft& draft) {
  std::size_t number = 0;
  for (const auto& interface : draft.def.interfaces) {
    const std::string guest = interface.guest_dev.empty() ? "eth" + std::to_string(number) : interface.guest_dev;
    ++number;
    TRY(plan_interface(draft, interface, guest), "interface " + quote(guest));
  }
  for (const auto& hostdev : draft.def.hostdevs) {
    if (hostdev.type != HostdevType::kCapsNet) continue;
    draft.plan().from_parent.push_back(MoveLinkStep{hostdev.source, hostdev.source});
    TRY(configure(draft, hostdev.source, hostdev.ips, hostdev.routes, Up::kYes), "hostdev " + quote(hostdev.source));
  }
  if (!draft.def.shared_namespaces.empty())
    return unsupported("<lxc:namespace>: sharing a namespace with another is not supported");
  return {};
}

}  // namespace virtuserns::userns
