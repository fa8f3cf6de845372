#include <algorithm>
#include <cstdio>

#include "xml/devices.h"
#include "xml/kept.h"
#include "xml/order.h"
#include "xml/parts.h"

namespace virtuserns::xml {

namespace {

constexpr Word<HostdevType> kCapabilityTypes[] = {
    {"storage", HostdevType::kCapsStorage}, {"misc", HostdevType::kCapsMisc}, {"net", HostdevType::kCapsNet}};

std::string_view source_element(HostdevType type) {
  switch (type) {
    case HostdevType::kCapsStorage:
      return "block";
    case HostdevType::kCapsMisc:
      return "char";
    case HostdevType::kCapsNet:
      return "interface";
    case HostdevType::kSubsysUsb:
      break;
  }
  return {};
}

std::string hex4(std::uint32_t number) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%.4x", number);
  return text;
}

// <vendor id=''/>, <product id=''/>, <address bus='' device=''/> in libvirt's spelling.
Result<void> parse_usb_source(const Node& source, HostdevDef& def) {
  const auto vendor = TRY(source.only_child("vendor")), product = TRY(source.only_child("product"));
  const auto address = TRY(source.only_child("address"));
  if (!vendor != !product)
    return source.error("<source> of a USB hostdev needs both <vendor> and <product>, or none");
  if (!vendor && !address)
    return source.error("<source> of a USB hostdev needs <vendor> and <product>, or <address>");
  for (const Node& node : {vendor, product}) {
    if (!node) continue;
    const auto id = TRY(node.number<std::uint16_t>("id", 0));
    if (!id) return node.error("<" + std::string(node.name()) + "> has no id");
    Element element{std::string(node.name())};
    def.source_kept.push_back(
        {std::string(node.name()), std::string(trim(element.attribute("id", hex4(*id)).to_string()))});
  }
  if (!address) return {};
  const auto bus = TRY(address.number<std::uint32_t>("bus", 0)),
             device = TRY(address.number<std::uint32_t>("device", 0));
  if (!bus || !device) return address.error("<address> of a USB hostdev needs bus and device");
  // libvirt prints no address that says nothing.
  if (*bus != 0 || *device != 0) {
    Element element("address");
    def.source_kept.push_back(
        {"address", std::string(trim(element.attribute("bus", *bus).attribute("device", *device).to_string()))});
  }
  return {};
}

Result<void> parse_usb(const Node& node, const Node& source, HostdevDef& def) {
  def.type = HostdevType::kSubsysUsb;
  const bool is_managed = TRY(node.yes_no("managed")).value_or(false);
  def.managed = is_managed ? "yes" : "no";
  TRY(parse_usb_source(source, def));
  keep_rest(source, {}, {"vendor", "product", "address"}, def.kept, "source/");
  return {};
}

}  // namespace

Result<HostdevDef> parse_hostdev(const Node& node, unsigned flags) {
  HostdevDef def;
  const auto mode =
      TRY(parse_choice(node, "hostdev mode", node.attribute_or("mode", "subsystem"), {"subsystem", "capabilities"}));
  const auto type = node.attribute_or("type");
  const auto source = TRY(node.only_child("source"));
  if (!source) return node.error("<hostdev> has no <source>");
  if (mode == "subsystem") {
    if (type != "usb")
      return node.error(VIR_ERR_CONFIG_UNSUPPORTED, "unknown hostdev type " + quote(type) + ": known is usb");
    TRY(parse_usb(node, source, def));
  } else {
    def.type = TRY(parse_word(node, "hostdev type", type, kCapabilityTypes, VIR_ERR_CONFIG_UNSUPPORTED));
    const auto name = source_element(def.type);
    def.source = TRY(source.only_child(name)).text();
    if (def.source.empty())
      return node.error("<hostdev type='" + type + "'> needs <source><" + std::string(name) + ">...");
    keep_rest(source, {}, {name}, def.kept, "source/");
    if (def.type == HostdevType::kCapsNet) TRY(parse_ip_info(node, def.ips, def.routes));
  }
  def.alias = parse_alias(node, flags);
  const bool is_net = def.type == HostdevType::kCapsNet;
  keep_rest(node, {"mode", "type", "managed"},
            {"source", is_net ? "ip" : "source", is_net ? "route" : "source", "alias"}, def.kept);
  return def;
}

Element make_hostdev(const HostdevDef& def, FormatKind kind) {
  Element element("hostdev");
  Element source("source");
  if (def.type == HostdevType::kSubsysUsb) {
    element.attribute("mode", "subsystem").attribute("type", "usb");
    element.attribute("managed", def.managed.empty() ? "no" : def.managed);
    source.kept(def.kept, "source/");
    source.kept(def.source_kept);
  } else {
    element.attribute("mode", "capabilities").attribute("type", word_of(def.type, kCapabilityTypes));
    source.child(source_element(def.type), def.source).kept(def.kept, "source/");
  }
  element.child(std::move(source));
  add_ip_info(element, def.ips, def.routes);
  add_alias(element, def.alias, kind);
  return element.kept(def.kept).sort({}, order::kHostdev);
}

}  // namespace virtuserns::xml
