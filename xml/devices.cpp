#include "xml/devices.h"

#include <algorithm>

#include "xml/kept.h"
#include "xml/order.h"

namespace virtuserns::xml {

namespace {

// Types that DomainDef can hold. The others (disk type='network', interface type='vhostuser', hostdev type='pci')
// stay text: libvirt's LXC driver takes them in a definition too; conf/validate.h says what becomes of them.
bool is_modelled(const Node& node) {
  const auto type = node.attribute_or("type");
  const auto is_one_of = [&](std::initializer_list<std::string_view> words) {
    return std::find(words.begin(), words.end(), type) != words.end();
  };
  if (node.is("filesystem")) return true;
  if (node.is("disk")) return !is_one_of({"dir", "network", "volume", "nvme", "vhostuser"});
  if (node.is("interface"))
    return !is_one_of(
        {"vhostuser", "server", "client", "mcast", "internal", "hostdev", "udp", "vdpa", "null", "vds"});
  if (node.is("console")) return true;
  if (node.is("hostdev"))
    return node.attribute_or("mode") == "capabilities" || !is_one_of({"pci", "scsi", "scsi_host", "mdev"});
  return false;
}

Result<DeviceDef> parse_modelled(const Node& node, unsigned flags) {
  const auto widen = [](auto result) -> Result<DeviceDef> {
    if (!result) return std::move(result).error();
    return DeviceDef(std::move(result).value());
  };
  if (node.is("filesystem")) return widen(parse_filesystem(node, flags));
  if (node.is("disk")) return widen(parse_disk(node, flags));
  if (node.is("interface")) return widen(parse_interface(node, flags));
  if (node.is("console")) return widen(parse_console(node, flags));
  return widen(parse_hostdev(node, flags));
}

struct AddDevice {
  DomainDef& def;
  void operator()(FilesystemDef device) const { def.filesystems.push_back(std::move(device)); }
  void operator()(DiskDef device) const { def.disks.push_back(std::move(device)); }
  void operator()(InterfaceDef device) const { def.interfaces.push_back(std::move(device)); }
  void operator()(ConsoleDef device) const { def.consoles.push_back(std::move(device)); }
  void operator()(HostdevDef device) const { def.hostdevs.push_back(std::move(device)); }
};

struct MakeDevice {
  FormatKind kind;
  Element operator()(const FilesystemDef& device) const { return make_filesystem(device, kind); }
  Element operator()(const DiskDef& device) const { return make_disk(device, kind); }
  Element operator()(const InterfaceDef& device) const { return make_interface(device, kind); }
  Element operator()(const ConsoleDef& device) const { return make_console(device, kind); }
  Element operator()(const HostdevDef& device) const { return make_hostdev(device, kind); }
};

// Removes passwd='...' from the start tag of a canonical element.
std::string without_password(std::string xml) {
  constexpr std::string_view kPassword = " passwd='";
  const auto at = xml.find(kPassword);
  if (at == std::string::npos || at > xml.find('>')) return xml;
  const auto end = xml.find('\'', at + kPassword.size());
  return end == std::string::npos ? xml : xml.erase(at, end + 1 - at);
}

}  // namespace

Result<DeviceDef> parse_device(std::string_view text, unsigned flags) {
  const auto document = TRY(Document::parse(text), "device");
  const Node root = document.root();
  if (!is_modelled(root))
    return root.error(
        VIR_ERR_CONFIG_UNSUPPORTED,
        "device <" + std::string(root.name()) + "> of type " + quote(root.attribute_or("type")) +
            " is not supported by containers: known are filesystem, disk, interface, console and hostdev");
  return TRY(parse_modelled(root, flags), "device");
}

std::string format_device(const DeviceDef& device, FormatKind kind) {
  return std::visit(MakeDevice{kind}, device).to_string();
}

Result<void> parse_devices(const Node& node, unsigned flags, DomainDef& def) {
  def.emulator = TRY(node.only_child("emulator")).text();
  for (const Node child : node.children()) {
    if (child.is("emulator")) continue;
    if (is_modelled(child)) {
      std::visit(AddDevice{def}, TRY(parse_modelled(child, flags)));
    } else {
      std::string name(child.name());
      if (!child.prefix().empty()) name.insert(0, std::string(child.prefix()) + ":");
      def.kept_devices.push_back({std::move(name), canonical(child)});
    }
  }
  return {};
}

Element make_devices(const DomainDef& def, FormatKind kind, Secrets secrets) {
  Element element("devices");
  element.child_if("emulator", def.emulator);
  const MakeDevice make{kind};
  for (const auto& device : def.disks) element.child(make(device));
  for (const auto& device : def.filesystems) element.child(make(device));
  for (const auto& device : def.interfaces) element.child(make(device));
  for (const auto& device : def.consoles) element.child(make(device));
  for (const auto& device : def.hostdevs) element.child(make(device));
  for (const auto& item : def.kept_devices)
    element.raw(item.name,
                secrets == Secrets::kHide && item.name == "graphics" ? without_password(item.xml) : item.xml);
  return element.sort({}, order::kDevices);
}

std::optional<DeviceAlias> parse_alias(const Node& device, unsigned flags) {
  const auto name = device.child("alias").attribute_or("name");
  if (name.empty() || ((flags & kParseLive) == 0 && !name.starts_with("ua-"))) return std::nullopt;
  return DeviceAlias{name};
}

void add_alias(Element& element, const std::optional<DeviceAlias>& alias, FormatKind kind) {
  if (!alias || alias->name.empty()) return;
  if (kind == FormatKind::kInactive && !alias->name.starts_with("ua-")) return;
  element.child(std::move(Element("alias").attribute("name", alias->name)));
}

}  // namespace virtuserns::xml
