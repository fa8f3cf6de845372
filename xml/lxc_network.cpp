#include "xml/lxc_network.h"

#include <arpa/inet.h>

#include <array>

#include "conf/base/text.h"
#include "xml/devices.h"

namespace virtuserns::xml {

namespace {

constexpr std::uint32_t kMaxNetworks = 1024;

Error bad(const std::string& text) { return fail(VIR_ERR_INVALID_ARG, text); }

bool is_address(const std::string& family, const std::string& text) {
  std::array<unsigned char, 16> bytes{};
  return ::inet_pton(family == "ipv6" ? AF_INET6 : AF_INET, text.c_str(), bytes.data()) == 1;
}

// "192.168.1.2/24 192.168.1.255": the broadcast address follows from the prefix.
Result<IpAddressDef> parse_ip(const std::string& family, std::string_view value) {
  const auto words = split_blanks(value);
  const auto parts = split(words.empty() ? value : words[0], '/');
  IpAddressDef ip{.family = family, .address = std::string(parts[0])};
  if (parts.size() > 1) ip.prefix = parse_number<std::uint32_t>(parts[1]);
  const bool is_bad = !is_address(family, ip.address) || parts.size() > 2 || (parts.size() == 2 && !ip.prefix) ||
                      ip.prefix.value_or(0) > (family == "ipv6" ? 128U : 32U);
  if (is_bad) return bad("address " + quote(value) + " is not an " + family + " address with prefix");
  return ip;
}

}  // namespace

Result<bool> LxcNetworks::set(Network& network, std::string_view key, std::string_view value) {
  const std::pair<std::string_view, std::string*> kTexts[] = {
      {"type", &network.type},     {"link", &network.link},         {"name", &network.name},
      {"hwaddr", &network.mac},    {"macvlan.mode", &network.mode}, {"vlan.id", &network.vlan},
      {"veth.pair", &network.pair}};
  for (const auto& [name, text] : kTexts)
    if (key == name) return *text = value, true;
  if (key == "flags") return network.is_up = value == "up", true;
  if (key == "mtu") {
    network.mtu = parse_number<std::uint32_t>(value);
    if (!network.mtu) return bad("mtu " + quote(value) + " is not a number");
    return true;
  }
  for (const std::string family : {"ipv4", "ipv6"}) {
    if (key == family || key == family + ".address") {
      network.ips.push_back(TRY(parse_ip(family, value)));
      return true;
    }
    if (key == family + ".gateway") {
      // The address of the bridge, which only LXC knows at start.
      if (value == "auto" || value == "dev") return false;
      if (!is_address(family, std::string(value)))
        return bad("gateway " + quote(value) + " is not an " + family + " address");
      network.routes.push_back(
          {.family = family, .address = family == "ipv6" ? "::" : "0.0.0.0", .gateway = std::string(value)});
      return true;
    }
  }
  return false;
}

Result<void> LxcNetworks::take(std::string_view key, std::string_view value, const Ignore& ignore) {
  const auto full = key;
  std::uint32_t number = 0;
  if (key.starts_with("lxc.network.")) {
    key.remove_prefix(12);
    if (key == "type") ++old_style_;
    number = old_style_;
  } else {
    key.remove_prefix(8);
    const auto dot = key.find('.');
    const auto parsed = parse_number<std::uint32_t>(key.substr(0, dot));
    if (!parsed || dot == std::string_view::npos)
      return ignore("key " + quote(full) + " is not imported"), Result<void>();
    number = *parsed;
    key.remove_prefix(dot + 1);
  }
  if (!networks_.contains(number) && networks_.size() >= kMaxNetworks) return bad("more than 1024 networks");
  if (!TRY(set(networks_[number], key, value))) ignore("key " + quote(full) + " is not imported");
  return {};
}

Result<InterfaceDef> LxcNetworks::make_interface(const Network& network) {
  InterfaceDef interface;
  if (network.type == "macvlan") {
    interface.type = InterfaceType::kDirect;
    interface.direct_mode = network.mode.empty()         ? "private"
                            : network.mode == "passthru" ? "passthrough"
                                                         : network.mode;
  } else {
    interface.type = network.link.empty() ? InterfaceType::kEthernet : InterfaceType::kBridge;
    interface.target_dev = network.pair;
  }
  interface.source = network.link;
  interface.guest_dev = network.name;
  interface.mtu = network.mtu;
  if (network.is_up) interface.link_state = LinkState::kUp;
  interface.ips = network.ips;
  interface.routes = network.routes;
  // "00:16:3e:xx:xx:xx" asks for a random address, which apply_defaults gives.
  if (network.mac.find_first_of("xX") != std::string::npos || network.mac.empty()) return interface;
  interface.mac = parse_mac(network.mac);
  if (!interface.mac) return bad("MAC address " + quote(network.mac) + " is not six hexadecimal bytes");
  return interface;
}

Result<void> LxcNetworks::finish(DomainDef& def, const Ignore& ignore) const {
  for (const auto& [number, network] : networks_) {
    const auto where = "network " + std::to_string(number);
    if (network.type == "veth" || network.type == "macvlan") {
      def.interfaces.push_back(TRY(make_interface(network), where));
    } else if (network.type == "phys" || network.type == "vlan") {
      HostdevDef hostdev{.type = HostdevType::kCapsNet};
      hostdev.source = network.type == "vlan" ? network.link + "." + network.vlan : network.link;
      hostdev.ips = network.ips;
      hostdev.routes = network.routes;
      if (network.link.empty()) return bad(where + ": no link");
      def.hostdevs.push_back(std::move(hostdev));
    } else if (network.type == "none") {
      ignore(where + ": type 'none' shares the host's network, which a domain cannot: it gets one of its own");
    } else if (network.type != "empty") {
      ignore(where + ": type " + quote(network.type) + " is not imported");
    }
  }
  if (def.interfaces.empty() && def.hostdevs.empty()) def.features.privnet = def.features.present = true;
  return {};
}

}  // namespace virtuserns::xml
