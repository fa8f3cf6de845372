// <ip> and <route>: addresses are read and printed by inet_pton and inet_ntop, as virSocketAddr does.
#include <arpa/inet.h>

#include "xml/devices.h"

namespace virtuserns::xml {

namespace {

struct Address {
  std::string family, text;  // canonical
};

std::optional<Address> parse_address(const std::string& text) {
  unsigned char bytes[16];
  char canonical[INET6_ADDRSTRLEN];
  for (const auto& [family, name] : {std::pair{AF_INET, "ipv4"}, std::pair{AF_INET6, "ipv6"}})
    if (::inet_pton(family, text.c_str(), bytes) == 1 && ::inet_ntop(family, bytes, canonical, sizeof canonical))
      return Address{name, canonical};
  return std::nullopt;
}

// Attribute `name` as an address of `family` (any if empty, and then set).
Result<std::string> address_attribute(const Node& node, std::string_view name, std::string& family) {
  const auto text = node.attribute(name);
  if (!text) return std::string();
  auto address = parse_address(*text);
  if (!address)
    return node.error("invalid value " + quote(*text) + " for attribute '" + std::string(name) + "' of <" +
                      std::string(node.name()) + ">: an IPv4 or IPv6 address is needed");
  if (family.empty()) family = address->family;
  if (family != address->family)
    return node.error("address " + quote(*text) + " of <" + std::string(node.name()) + "> is not of family " +
                      quote(family));
  return std::move(address->text);
}

Result<std::optional<std::uint32_t>> parse_prefix(const Node& node, const std::string& family) {
  const auto prefix = TRY(node.number<std::uint32_t>("prefix"));
  const std::uint32_t most = family == "ipv6" ? 128 : 32;
  if (prefix && *prefix > most)
    return node.error("prefix " + std::to_string(*prefix) + " of <" + std::string(node.name()) + "> is more than " +
                      std::to_string(most));
  return prefix;
}

Result<std::string> parse_family(const Node& node) {
  const auto family = node.attribute("family");
  if (!family) return std::string();
  if (*family != "ipv4" && *family != "ipv6")
    return node.error("unknown address family " + quote(*family) + " in <" + std::string(node.name()) +
                      ">: known are ipv4, ipv6");
  return *family;
}

Result<IpAddressDef> parse_ip(const Node& node) {
  IpAddressDef ip;
  ip.family = TRY(parse_family(node));
  ip.address = TRY(address_attribute(node, "address", ip.family));
  if (ip.address.empty()) return node.error("<ip> has no address");
  ip.peer = TRY(address_attribute(node, "peer", ip.family));
  ip.prefix = TRY(parse_prefix(node, ip.family));
  if (ip.prefix == 0U) ip.prefix.reset();  // libvirt's "not given"
  return ip;
}

Result<RouteDef> parse_route(const Node& node) {
  RouteDef route;
  auto family = TRY(parse_family(node));
  route.family = family;
  if (family.empty()) family = "ipv4";  // virNetDevIPRouteCreate
  route.address = TRY(address_attribute(node, "address", family));
  route.netmask = TRY(address_attribute(node, "netmask", family));
  route.gateway = TRY(address_attribute(node, "gateway", family));
  route.prefix = TRY(parse_prefix(node, family));
  route.metric = TRY(node.number<std::uint32_t>("metric"));
  if (route.address.empty()) return node.error("<route> has no address: the default route is '0.0.0.0' or '::'");
  if (route.gateway.empty()) return node.error("<route> has no gateway");
  if (route.prefix && !route.netmask.empty())
    return node.error("<route> has both a netmask and a prefix: give one of them");
  if (family == "ipv6" && !route.netmask.empty())
    return node.error("<route> of family ipv6 takes a prefix, not a netmask");
  if (route.metric == 0U) return node.error("metric of <route> must be above 0");
  return route;
}

}  // namespace

Result<void> parse_ip_info(const Node& node, std::vector<IpAddressDef>& ips, std::vector<RouteDef>& routes) {
  for (const Node child : node.children("ip")) ips.push_back(TRY(parse_ip(child)));
  for (const Node child : node.children("route")) routes.push_back(TRY(parse_route(child)));
  return {};
}

Result<std::string> parse_any_address(const Node& node, std::string_view name) {
  std::string family;
  return address_attribute(node, name, family);
}

void add_ip_info(Element& element, const std::vector<IpAddressDef>& ips, const std::vector<RouteDef>& routes) {
  for (const auto& ip : ips) {
    Element child("ip");
    child.attribute("address", ip.address).attribute_if("family", ip.family);
    if (ip.prefix) child.attribute("prefix", *ip.prefix);
    element.child(std::move(child.attribute_if("peer", ip.peer)));
  }
  for (const auto& route : routes) {
    Element child("route");
    child.attribute_if("family", route.family)
        .attribute("address", route.address)
        .attribute_if("netmask", route.netmask);
    if (route.prefix) child.attribute("prefix", *route.prefix);
    child.attribute("gateway", route.gateway);
    if (route.metric) child.attribute("metric", *route.metric);
    element.child(std::move(child));
  }
}

}  // namespace virtuserns::xml
