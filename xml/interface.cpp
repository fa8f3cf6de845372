#include <algorithm>

#include "xml/devices.h"
#include "xml/kept.h"
#include "xml/order.h"
#include "xml/parts.h"

namespace virtuserns::xml {

namespace {

constexpr Word<InterfaceType> kTypes[] = {{"bridge", InterfaceType::kBridge},
                                          {"network", InterfaceType::kNetwork},
                                          {"ethernet", InterfaceType::kEthernet},
                                          {"direct", InterfaceType::kDirect},
                                          {"user", InterfaceType::kUser}};

// The attribute of <source> that DomainDef holds; empty: none.
std::string_view source_attribute(InterfaceType type) {
  switch (type) {
    case InterfaceType::kBridge:
      return "bridge";
    case InterfaceType::kNetwork:
      return "network";
    case InterfaceType::kDirect:
    case InterfaceType::kUser:
      return "dev";
    case InterfaceType::kEthernet:
      break;
  }
  return {};
}

// Names that a daemon gave (virDomainNetDefParseXML): of no meaning in a definition.
bool is_generated_name(std::string_view name) {
  return name.starts_with("vnet") || name.starts_with("macvtap") || name.starts_with("macvlan");
}

Result<void> parse_source(const Node& node, unsigned flags, InterfaceDef& def) {
  const auto source = TRY(node.only_child("source"));
  const auto name = source_attribute(def.type);
  const bool is_needed = !name.empty() && def.type != InterfaceType::kUser;
  if (is_needed && source.attribute_or(name).empty())
    return node.error("<interface type='" + std::string(word_of(def.type, kTypes)) + "'> needs <source " +
                      std::string(name) + "=''/>");
  if (!source) return {};
  if (!name.empty()) def.source = source.attribute_or(name);
  if (def.type == InterfaceType::kDirect)
    def.direct_mode = TRY(parse_choice(source, "mode of a direct interface", source.attribute_or("mode", "vepa"),
                                       {"vepa", "bridge", "private", "passthrough"}));
  TRY(parse_ip_info(source, def.source_ips, def.source_routes));
  // What a network resolved to is live.
  const bool is_stale = def.type == InterfaceType::kNetwork && (flags & kParseLive) == 0;
  std::vector<KeptXml> rest;
  keep_rest(source, {name, def.type == InterfaceType::kDirect ? "mode" : ""}, {"ip", "route"}, rest, "source/");
  for (auto& item : rest)
    if (!is_stale ||
        (item.name != "source/@bridge" && item.name != "source/@portid" && item.name != "source/@macTableManager"))
      def.kept.push_back(std::move(item));
  return {};
}

Result<PortRangeDef> parse_port_range(const Node& node) {
  PortRangeDef range;
  const auto port = [&](std::string_view name) -> Result<std::optional<std::uint16_t>> {
    const auto number = TRY(node.number<std::uint16_t>(name));
    if (number && *number == 0)
      return node.error("invalid value '0' for attribute '" + std::string(name) + "' of <range>: ports begin at 1");
    return number;
  };
  const auto start = TRY(port("start"));
  range.end = TRY(port("end"));
  range.to = TRY(port("to"));
  constexpr Word<bool> kYesNo[] = {{"yes", true}, {"no", false}};
  if (const auto exclude = node.attribute("exclude"))
    range.exclude = TRY(parse_word(node, "value of 'exclude'", *exclude, kYesNo));
  if (!start) return node.error("<range> of <portForward> needs start=''");
  range.start = *start;
  return range;
}

Result<void> parse_port_forwards(const Node& node, InterfaceDef& def) {
  for (const auto& child : node.children("portForward")) {
    PortForwardDef forward;
    forward.proto =
        TRY(parse_choice(child, "protocol of <portForward>", child.attribute_or("proto"), {"tcp", "udp"}));
    forward.address = TRY(parse_any_address(child, "address"));
    forward.dev = child.attribute_or("dev");
    for (const auto& range : child.children("range")) forward.ranges.push_back(TRY(parse_port_range(range)));
    keep_rest(child, {"proto", "address", "dev"}, {"range"}, forward.kept);
    def.port_forwards.push_back(std::move(forward));
  }
  return {};
}

Result<void> parse_backend(const Node& node, InterfaceDef& def) {
  const auto backend = TRY(node.only_child("backend"));
  if (!backend) return {};
  if (const auto type = backend.attribute("type"))
    def.backend = TRY(parse_choice(backend, "type of <backend>", *type, {"passt"}));
  def.backend_log = backend.attribute_or("logFile");
  keep_rest(backend, {"type", "logFile"}, {}, def.kept, "backend/");
  return {};
}

Result<void> parse_small_children(const Node& node, unsigned flags, InterfaceDef& def) {
  if (const auto target = TRY(node.only_child("target"))) {
    def.target_dev = target.attribute_or("dev");
    if ((flags & kParseLive) == 0 && is_generated_name(def.target_dev)) def.target_dev.clear();
    keep_rest(target, {"dev"}, {}, def.kept, "target/");
  }
  if (const auto guest = TRY(node.only_child("guest"))) {
    def.guest_dev = guest.attribute_or("dev");
    std::vector<KeptXml> rest;
    keep_rest(guest, {"dev"}, {}, rest, "guest/");
    for (auto& item : rest)
      if ((flags & kParseLive) != 0 || item.name != "guest/@actual") def.kept.push_back(std::move(item));
  }
  if (const auto model = TRY(node.only_child("model"))) {
    def.model = model.attribute_or("type");
    keep_rest(model, {"type"}, {}, def.kept, "model/");
  }
  if (const auto link = TRY(node.only_child("link"))) {
    constexpr Word<LinkState> kStates[] = {{"up", LinkState::kUp}, {"down", LinkState::kDown}};
    def.link_state = TRY(parse_word(link, "link state", link.attribute_or("state"), kStates));
  }
  if (const auto mtu = TRY(node.only_child("mtu"))) {
    def.mtu = TRY(mtu.number<std::uint32_t>("size"));
    if (!def.mtu) return mtu.error("<mtu> has no size");
    if (*def.mtu == 0) def.mtu.reset();
  }
  return {};
}

}  // namespace

std::optional<MacAddress> parse_mac(std::string_view text) {
  MacAddress mac;
  const auto parts = split(text, ':');
  if (parts.size() != mac.bytes.size()) return std::nullopt;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto byte = parse_number<std::uint8_t>(parts[i], 16);
    if (!byte || parts[i].size() > 2) return std::nullopt;
    mac.bytes[i] = *byte;
  }
  return mac;
}

std::string format_mac(const MacAddress& mac) { return format_mac_bytes(mac.bytes); }

Result<InterfaceDef> parse_interface(const Node& node, unsigned flags) {
  InterfaceDef def;
  def.type = TRY(parse_word(node, "interface type", node.attribute_or("type", "user"), kTypes));
  if (const auto mac = TRY(node.only_child("mac"))) {
    const auto text = mac.attribute_or("address");
    def.mac = parse_mac(text);
    if (!def.mac) return mac.error("invalid MAC address " + quote(text) + ": write it as '52:54:00:12:34:56'");
    keep_rest(mac, {"address"}, {}, def.kept, "mac/");
  }
  TRY(parse_source(node, flags, def));
  TRY(parse_ip_info(node, def.ips, def.routes));
  TRY(parse_small_children(node, flags, def));
  TRY(parse_port_forwards(node, def));
  TRY(parse_backend(node, def));
  def.alias = parse_alias(node, flags);
  keep_rest(
      node, {"type"},
      {"mac", "source", "target", "guest", "model", "link", "mtu", "ip", "route", "portForward", "backend", "alias"},
      def.kept);
  return def;
}

namespace {

Element make_port_forward(const PortForwardDef& forward) {
  Element element("portForward");
  element.attribute("proto", forward.proto).attribute_if("address", forward.address);
  element.attribute_if("dev", forward.dev);
  for (const auto& range : forward.ranges) {
    Element child("range");
    child.attribute("start", range.start);
    if (range.end) child.attribute("end", *range.end);
    if (range.to) child.attribute("to", *range.to);
    if (range.exclude) child.attribute("exclude", *range.exclude ? "yes" : "no");
    element.child(std::move(child));
  }
  return std::move(element.kept(forward.kept));
}

}  // namespace

Element make_interface(const InterfaceDef& def, FormatKind kind) {
  Element element("interface");
  element.attribute("type", word_of(def.type, kTypes));
  Element mac("mac");
  if (def.mac) mac.attribute("address", format_mac(*def.mac));
  element.child_if(std::move(mac.kept(def.kept, "mac/")));
  Element source("source");
  if (const auto name = source_attribute(def.type); !name.empty()) source.attribute_if(name, def.source);
  source.attribute_if("mode", def.direct_mode);
  add_ip_info(source, def.source_ips, def.source_routes);
  element.child_if(std::move(source.kept(def.kept, "source/").sort(order::kInterfaceSourceAttributes, {})));
  add_ip_info(element, def.ips, def.routes);
  Element target("target");
  if (kind != FormatKind::kInactive || !is_generated_name(def.target_dev)) target.attribute_if("dev", def.target_dev);
  element.child_if(std::move(target.kept(def.kept, "target/")));
  Element guest("guest");
  element.child_if(std::move(guest.attribute_if("dev", def.guest_dev).kept(def.kept, "guest/")));
  Element model("model");
  element.child_if(std::move(model.attribute_if("type", def.model).kept(def.kept, "model/")));
  for (const auto& forward : def.port_forwards) element.child(make_port_forward(forward));
  Element backend("backend");
  backend.attribute_if("type", def.backend).attribute_if("logFile", def.backend_log);
  element.child_if(std::move(backend.kept(def.kept, "backend/").sort(order::kBackendAttributes, {})));
  if (def.link_state != LinkState::kDefault)
    element.child(std::move(Element("link").attribute("state", def.link_state == LinkState::kUp ? "up" : "down")));
  if (def.mtu) element.child(std::move(Element("mtu").attribute("size", *def.mtu)));
  add_alias(element, def.alias, kind);
  return element.kept(def.kept).sort({}, order::kInterface);
}

}  // namespace virtuserns::xml
