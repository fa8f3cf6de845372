#include "driver/kernel/link.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/socket.h>

#include "conf/base/text.h"

namespace virtuserns::kernel {

namespace {

constexpr std::uint16_t kCreate = NLM_F_CREATE | NLM_F_EXCL;

template <class T>
std::optional<std::pair<T, std::span<const std::uint8_t>>> take_header(std::span<const std::uint8_t> payload) {
  if (payload.size() < NLMSG_ALIGN(sizeof(T))) return std::nullopt;
  T head{};
  std::memcpy(&head, payload.data(), sizeof head);
  return std::pair(head, payload.subspan(NLMSG_ALIGN(sizeof(T))));
}

std::optional<LinkFacts> read_link(std::span<const std::uint8_t> payload) {
  const auto parts = take_header<ifinfomsg>(payload);
  if (!parts) return std::nullopt;
  LinkFacts facts;
  facts.index = static_cast<std::uint32_t>(parts->first.ifi_index);
  for (const auto& attribute : parse_attributes(parts->second)) {
    if (attribute.type == IFLA_IFNAME) facts.name = attribute.text();
    if (attribute.type == IFLA_LINK) facts.peer_index = attribute.u32();
    if (attribute.type == IFLA_MASTER) facts.master_index = attribute.u32();
    if (attribute.type == IFLA_MTU) facts.mtu = attribute.u32();
    if (attribute.type == IFLA_LINK_NETNSID) facts.peer_namespace = static_cast<std::int32_t>(attribute.u32());
    if (attribute.type == IFLA_LINKINFO)
      for (const auto& info : parse_attributes(attribute.bytes))
        if (info.type == IFLA_INFO_KIND) facts.kind = info.text();
    if (attribute.type == IFLA_ADDRESS && attribute.bytes.size() <= 32)
      facts.mac.assign(attribute.bytes.begin(), attribute.bytes.end());
  }
  return facts;
}

Result<LinkFacts> query_link(RouteSocket& route, NetlinkMessage message, const std::string& context) {
  std::optional<LinkFacts> facts;
  TRY(route.query(std::move(message),
                  [&](std::uint16_t type, std::span<const std::uint8_t> payload) {
                    if (type == RTM_NEWLINK) facts = read_link(payload);
                  }),
      context);
  if (!facts) return fail(VIR_ERR_INTERNAL_ERROR, context + ": no answer");
  return std::move(*facts);
}

std::optional<std::uint8_t> family_of(std::size_t address_size) {
  if (address_size == 4) return AF_INET;
  if (address_size == 16) return AF_INET6;
  return std::nullopt;
}

std::optional<std::uint32_t> macvlan_mode(const std::string& mode) {
  if (mode == "private") return MACVLAN_MODE_PRIVATE;
  if (mode == "vepa" || mode.empty()) return MACVLAN_MODE_VEPA;
  if (mode == "bridge") return MACVLAN_MODE_BRIDGE;
  if (mode == "passthrough") return MACVLAN_MODE_PASSTHRU;
  return std::nullopt;
}

Error bad_address() { return fail(VIR_ERR_INTERNAL_ERROR, "network address has neither 4 nor 16 bytes"); }

}  // namespace

NetlinkMessage veth_message(const VethRequest& request, std::uint32_t bridge_index, int peer_ns) {
  NetlinkMessage message(RTM_NEWLINK, kCreate);
  ifinfomsg head{};
  if (request.is_up) head.ifi_flags = head.ifi_change = IFF_UP;
  head.ifi_index = static_cast<int>(request.host_index);
  message.header(head);
  message.attribute(IFLA_IFNAME, request.host_name);
  if (const auto mtu = request.host_mtu ? request.host_mtu : request.mtu) message.attribute(IFLA_MTU, *mtu);
  if (bridge_index != 0) message.attribute(IFLA_MASTER, bridge_index);
  // As libvirt does: the guest's address with a first byte of fe, the highest there is, so that the bridge, which takes
  // its lowest port's address, never changes its own when a container comes or goes.
  MacAddress host_mac = request.peer_mac;
  host_mac[0] = 0xfe;
  message.attribute(IFLA_ADDRESS, std::span<const std::uint8_t>(host_mac));
  const auto info = message.begin(IFLA_LINKINFO);
  message.attribute(IFLA_INFO_KIND, std::string_view("veth"));
  const auto data = message.begin(IFLA_INFO_DATA);
  const auto peer = message.begin(VETH_INFO_PEER);
  ifinfomsg peer_head{};
  peer_head.ifi_index = static_cast<int>(request.peer_index);
  message.header(peer_head);
  message.attribute(IFLA_IFNAME, request.peer_name);
  message.attribute(IFLA_ADDRESS, std::span<const std::uint8_t>(request.peer_mac));
  if (request.mtu) message.attribute(IFLA_MTU, *request.mtu);
  message.attribute(IFLA_NET_NS_FD, static_cast<std::uint32_t>(peer_ns));
  message.end(peer);
  message.end(data);
  message.end(info);
  return message;
}

Result<void> create_veth(RouteSocket& route, const VethRequest& request, const NsFd& peer_ns) {
  // A pattern ("vnet%d") is no name that anybody knows: then the guest's end tells which one.
  const bool is_pattern = request.host_name.find('%') != std::string::npos;
  const std::string context = "create veth " + quote(is_pattern ? request.peer_name : request.host_name);
  std::uint32_t bridge_index = 0;
  if (!request.bridge.empty()) {
    const auto bridge = find_link(route, request.bridge);
    if (!bridge && bridge.error().sys_errno == ENODEV)
      return Error{VIR_ERR_CONFIG_UNSUPPORTED, ENODEV,
                   context + ": the host has no bridge " + quote(request.bridge) + ": create it ('ip link add " +
                       printable(request.bridge) + " type bridge'), or name another one in <source bridge>"};
    if (!bridge) return Error(bridge.error()).with_context(context);
    bridge_index = bridge->index;
  }
  auto made = route.request(veth_message(request, bridge_index, peer_ns.get()));
  if (!made && made.error().sys_errno == EEXIST)
    return Error{VIR_ERR_OPERATION_FAILED, EEXIST, context + ": there is a link of that name already"};
  TRY(std::move(made), context);
  return {};
}

Result<void> create_macvlan(RouteSocket& route, const MacvlanRequest& request, const NsFd& ns) {
  const std::string context = "create macvlan on " + quote(request.host_device);
  const auto mode = macvlan_mode(request.mode);
  if (!mode) return fail(VIR_ERR_CONFIG_UNSUPPORTED, context + ": mode " + quote(request.mode) + " is not known");
  const auto lower = TRY(find_link(route, request.host_device), context);
  NetlinkMessage message(RTM_NEWLINK, kCreate);
  ifinfomsg head{};
  head.ifi_index = static_cast<int>(request.index);
  message.header(head);
  message.attribute(IFLA_LINK, lower.index);
  message.attribute(IFLA_IFNAME, request.name);
  message.attribute(IFLA_ADDRESS, std::span<const std::uint8_t>(request.mac));
  message.attribute(IFLA_NET_NS_FD, static_cast<std::uint32_t>(ns.get()));
  const auto info = message.begin(IFLA_LINKINFO);
  message.attribute(IFLA_INFO_KIND, std::string_view("macvlan"));
  const auto data = message.begin(IFLA_INFO_DATA);
  message.attribute(IFLA_MACVLAN_MODE, *mode);
  message.end(data);
  message.end(info);
  TRY(route.request(std::move(message)), context);
  return {};
}

Result<void> move_link(RouteSocket& route, const std::string& device, const std::string& new_name, const NsFd& ns) {
  const std::string context = "move device " + quote(device);
  const auto link = TRY(find_link(route, device), context);
  NetlinkMessage message(RTM_SETLINK, 0);
  ifinfomsg head{};
  head.ifi_index = static_cast<int>(link.index);
  message.header(head);
  if (!new_name.empty()) message.attribute(IFLA_IFNAME, new_name);
  message.attribute(IFLA_NET_NS_FD, static_cast<std::uint32_t>(ns.get()));
  TRY(route.request(std::move(message)), context);
  return {};
}

Result<void> create_bridge(RouteSocket& route, const std::string& name) {
  NetlinkMessage message(RTM_NEWLINK, kCreate);
  message.header(ifinfomsg{});
  message.attribute(IFLA_IFNAME, name);
  const auto info = message.begin(IFLA_LINKINFO);
  message.attribute(IFLA_INFO_KIND, std::string_view("bridge"));
  message.end(info);
  TRY(route.request(std::move(message)), "create bridge " + quote(name));
  return {};
}

Result<void> remove_link(RouteSocket& route, const std::string& name) {
  NetlinkMessage message(RTM_DELLINK, 0);
  message.header(ifinfomsg{});
  message.attribute(IFLA_IFNAME, name);
  TRY(route.request(std::move(message)), "remove link " + quote(name));
  return {};
}

Result<void> remove_link(RouteSocket& route, std::uint32_t index) {
  NetlinkMessage message(RTM_DELLINK, 0);
  ifinfomsg head{};
  head.ifi_index = static_cast<int>(index);
  message.header(head);
  TRY(route.request(std::move(message)), "remove link " + std::to_string(index));
  return {};
}

Result<void> set_link_up(RouteSocket& route, const std::string& name, std::uint32_t index) {
  NetlinkMessage message(RTM_NEWLINK, 0);
  ifinfomsg head{};
  head.ifi_flags = head.ifi_change = IFF_UP;
  head.ifi_index = static_cast<int>(index);
  message.header(head);
  if (index == 0) message.attribute(IFLA_IFNAME, name);
  TRY(route.request(std::move(message)), "set link " + quote(name) + " up");
  return {};
}

Result<LinkFacts> find_link(RouteSocket& route, const std::string& name) {
  NetlinkMessage message(RTM_GETLINK, 0);
  message.header(ifinfomsg{});
  message.attribute(IFLA_IFNAME, name);
  return query_link(route, std::move(message), "find link " + quote(name));
}

Result<LinkFacts> find_link(RouteSocket& route, std::uint32_t index) {
  NetlinkMessage message(RTM_GETLINK, 0);
  ifinfomsg head{};
  head.ifi_index = static_cast<int>(index);
  message.header(head);
  return query_link(route, std::move(message), "find link " + std::to_string(index));
}

Result<std::vector<LinkFacts>> list_links(RouteSocket& route) {
  std::vector<LinkFacts> links;
  NetlinkMessage message(RTM_GETLINK, NLM_F_DUMP);
  message.header(ifinfomsg{});
  TRY(route.query(std::move(message),
                  [&](std::uint16_t type, std::span<const std::uint8_t> payload) {
                    if (type != RTM_NEWLINK || links.size() >= 1024)
                      return;  // the container decides how many there are
                    if (auto link = read_link(payload)) links.push_back(std::move(*link));
                  }),
      "list links");
  return links;
}

Result<std::vector<AddressFacts>> list_addresses(RouteSocket& route) {
  std::vector<AddressFacts> addresses;
  NetlinkMessage message(RTM_GETADDR, NLM_F_DUMP);
  message.header(ifaddrmsg{});
  TRY(route.query(std::move(message),
                  [&](std::uint16_t type, std::span<const std::uint8_t> payload) {
                    const auto parts = take_header<ifaddrmsg>(payload);
                    if (type != RTM_NEWADDR || !parts || addresses.size() >= 4096) return;
                    AddressFacts facts{parts->first.ifa_index, parts->first.ifa_prefixlen, {}};
                    // On a point-to-point link IFA_ADDRESS is the other end and IFA_LOCAL ours; elsewhere IPv6 has IFA_ADDRESS alone.
                    for (const auto& attribute : parse_attributes(parts->second))
                      if (family_of(attribute.bytes.size()) &&
                          (attribute.type == IFA_LOCAL || (attribute.type == IFA_ADDRESS && facts.bytes.empty())))
                        facts.bytes.assign(attribute.bytes.begin(), attribute.bytes.end());
                    if (!facts.bytes.empty()) addresses.push_back(std::move(facts));
                  }),
      "list addresses");
  return addresses;
}

Result<std::optional<std::int32_t>> name_of_namespace(RouteSocket& route, const NsFd& ns) {
  NetlinkMessage message(RTM_GETNSID, 0);
  message.header(rtgenmsg{});
  message.attribute(NETNSA_FD, static_cast<std::uint32_t>(ns.get()));
  std::optional<std::int32_t> name;
  TRY(route.query(std::move(message),
                  [&](std::uint16_t type, std::span<const std::uint8_t> payload) {
                    const auto parts = take_header<rtgenmsg>(payload);
                    if (type != RTM_NEWNSID || !parts) return;
                    for (const auto& attribute : parse_attributes(parts->second))
                      if (attribute.type == NETNSA_NSID) name = static_cast<std::int32_t>(attribute.u32());
                  }),
      "name of a network namespace");
  if (name && *name < 0) name.reset();  // NETNSA_NSID_NOT_ASSIGNED
  return name;
}

Result<void> add_address(RouteSocket& route, const AddressRequest& request) {
  const std::string context = "add address on " + quote(request.device);
  const auto family = family_of(request.address.size());
  if (!family || (!request.peer.empty() && request.peer.size() != request.address.size())) return bad_address();
  const auto index = request.index != 0 ? request.index : TRY(find_link(route, request.device), context).index;
  NetlinkMessage message(RTM_NEWADDR, kCreate);
  ifaddrmsg head{};
  head.ifa_family = *family;
  head.ifa_prefixlen = static_cast<std::uint8_t>(request.prefix);
  head.ifa_index = index;
  // The address was chosen by the administrator: duplicate detection would only delay the first second of the guest.
  if (*family == AF_INET6) head.ifa_flags = IFA_F_NODAD;
  message.header(head);
  message.attribute(IFA_LOCAL, std::span<const std::uint8_t>(request.address));
  message.attribute(IFA_ADDRESS,
                    std::span<const std::uint8_t>(request.peer.empty() ? request.address : request.peer));
  if (*family == AF_INET && request.peer.empty() && request.prefix > 0 && request.prefix < 31) {
    auto broadcast = request.address;
    for (std::uint32_t bit = request.prefix; bit < 32; ++bit)
      broadcast[bit / 8] = static_cast<std::uint8_t>(broadcast[bit / 8] | (0x80u >> bit % 8));
    message.attribute(IFA_BROADCAST, std::span<const std::uint8_t>(broadcast));
  }
  TRY(route.request(std::move(message)), context);
  return {};
}

Result<void> add_route(RouteSocket& route, const RouteRequest& request) {
  const std::string context = "add route" + (request.device.empty() ? std::string() : " on " + quote(request.device));
  const auto family = family_of(request.network.empty() ? request.gateway.size() : request.network.size());
  if (!family ||
      (!request.gateway.empty() && !request.network.empty() && request.gateway.size() != request.network.size()))
    return bad_address();
  NetlinkMessage message(RTM_NEWROUTE, kCreate);
  rtmsg head{};
  head.rtm_family = *family;
  head.rtm_dst_len = static_cast<std::uint8_t>(request.prefix);
  head.rtm_table = RT_TABLE_MAIN;
  head.rtm_protocol = RTPROT_BOOT;
  head.rtm_scope = request.gateway.empty() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  head.rtm_type = RTN_UNICAST;
  message.header(head);
  if (request.prefix > 0) message.attribute(RTA_DST, std::span<const std::uint8_t>(request.network));
  if (!request.gateway.empty()) message.attribute(RTA_GATEWAY, std::span<const std::uint8_t>(request.gateway));
  if (request.index != 0)
    message.attribute(RTA_OIF, request.index);
  else if (!request.device.empty())
    message.attribute(RTA_OIF, TRY(find_link(route, request.device), context).index);
  if (request.metric) message.attribute(RTA_PRIORITY, *request.metric);
  TRY(route.request(std::move(message)), context);
  return {};
}

}  // namespace virtuserns::kernel
