#include "tools/convert/kvm_devices.h"

#include <algorithm>
#include <array>

#include "conf/base/text.h"
#include "conf/domain_devices.h"
#include "conf/validate.h"
#include "xml/devices.h"

namespace virtuserns::convert {

using xml::Node;

namespace {

// Kept in the definition for the day when the driver honours them; until then it says that it does not.
constexpr std::array kKeptOfInterface = {"bandwidth", "filterref", "vlan",        "virtualport",
                                         "port",      "backend",   "portForward", "source/@portgroup"};

std::string object_of(const Node& node, const std::string& name) {
  return "<" + std::string(node.name()) + "> " + quote(name);
}

template <class T>
T number_or(const Node& node, std::string_view attribute, T fallback) {
  const auto value = node.number<T>(attribute, 0);
  return value && *value ? **value : fallback;
}

// A card of the machine that a container cannot have.
void refuse_interface(const Node& node, const Error& error, Mapped& mapped) {
  mapped.findings.push_back(
      {Severity::kBlock, object_of(node, node.child("mac").attribute_or("address")),
       "is of type " + quote(node.attribute_or("type")) + ", which a container has not: " + error.text,
       "give the machine's XML a card of type bridge, network or direct in its place"});
}

void report_interface(const Node& node, const InterfaceDef& def, const std::string& object, Mapped& mapped) {
  if (def.type == InterfaceType::kUser)
    mapped.findings.push_back({Severity::kNote, object, "is of type 'user'",
                               "virtuserns-domain-xml(5) says which daemon starts such a card"});
  if (def.type == InterfaceType::kDirect && def.direct_mode == "passthrough")
    mapped.findings.push_back({Severity::kLoss, object, "takes all of " + quote(def.source) + " on the host",
                               "the machine must be off while the container runs"});
  if (node.attribute_or("trustGuestRxFilters") == "yes")
    mapped.findings.push_back({Severity::kNote, object, "trustGuestRxFilters is of a virtual card", ""});
}

void map_interface(const Node& node, const MapOptions& options, Mapped& mapped) {
  auto parsed = xml::parse_interface(node, xml::kParseInactive);
  if (!parsed) return refuse_interface(node, parsed.error(), mapped);
  auto def = std::move(*parsed);
  std::erase_if(def.kept, [](const KeptXml& kept) {
    return std::find(kKeptOfInterface.begin(), kKeptOfInterface.end(), kept.name) == kKeptOfInterface.end();
  });
  def.model.clear();
  def.alias.reset();
  const auto nic = std::find_if(options.nics.begin(), options.nics.end(), [&](const GuestNic& known) {
    return def.mac && (known.mac == *def.mac || known.former_mac == *def.mac);
  });
  const auto object = object_of(node, def.mac ? format_mac(*def.mac) : "");
  if (nic != options.nics.end()) {
    def.guest_dev = nic->guest_dev;
    def.mac = nic->mac;
  } else if (options.identity == Identity::kCopy) {
    def.mac.reset();  // apply_defaults makes one
  }
  // A name on the host is one machine's; that of a copy would be taken.
  if (options.identity == Identity::kCopy) def.target_dev.clear();
  if (const auto verdict = validate_device(def); !verdict) return refuse_interface(node, verdict.error(), mapped);
  report_interface(node, def, object, mapped);
  mapped.def.interfaces.push_back(std::move(def));
}

ConsoleDef console_of(const Node& node, Mapped& mapped) {
  ConsoleDef console;
  const auto type = node.attribute_or("type", "pty");
  const auto port = node.child("target").attribute_or("port", "0");
  const auto object = object_of(node, port);
  const auto log = node.child("log");
  console.log_file = log.attribute_or("file");
  if (const auto append = log.attribute("append"); append && !console.log_file.empty())
    console.log_append = *append == "on";
  if (type == "file" && console.log_file.empty()) {
    const auto source = node.child("source");
    console.log_file = source.attribute_or("path");
    if (const auto append = source.attribute("append")) console.log_append = *append == "on";
    mapped.findings.push_back({Severity::kChange, object, "what it wrote to a file is the log of a console now", ""});
  } else if (type != "pty") {
    mapped.findings.push_back({Severity::kLoss, object,
                               "is of type " + quote(type) + ": the console is a pty of the host", "virsh console"});
  }
  if (const auto verdict = validate_device(console); !verdict) {
    mapped.findings.push_back({Severity::kLoss, object, "its log is left out: " + verdict.error().text, ""});
    console.log_file.clear(), console.log_append.reset();
  }
  return console;
}

}  // namespace

SourceDisk read_disk(const Node& node) {
  SourceDisk disk;
  disk.target = node.child("target").attribute_or("dev");
  disk.device = node.attribute_or("device", "disk");
  disk.type = node.attribute_or("type", "file");
  disk.format = node.child("driver").attribute_or("type");
  const auto source = node.child("source");
  for (const auto* attribute : {"file", "dev", "dir"})
    if (disk.source.empty()) disk.source = source.attribute_or(attribute);
  disk.is_readonly = static_cast<bool>(node.child("readonly"));
  disk.is_shared = static_cast<bool>(node.child("shareable"));
  disk.has_encryption = node.child("encryption") || source.child("encryption");
  return disk;
}

std::optional<NicSource> read_nic(const Node& node) {
  const auto mac = xml::parse_mac(node.child("mac").attribute_or("address"));
  if (!mac) return std::nullopt;
  NicSource nic{*mac, {}, node.child("model").attribute_or("type")};
  const auto address = node.child("address");
  if (address.attribute_or("type") != "pci") return nic;
  NicSource::Pci pci;
  pci.domain = number_or(address, "domain", 0u), pci.bus = number_or(address, "bus", 0u);
  pci.slot = number_or(address, "slot", 0u), pci.function = number_or(address, "function", 0u);
  pci.is_multifunction = address.attribute_or("multifunction") == "on";
  nic.pci = pci;
  return nic;
}

void map_interfaces(const Node& devices, const MapOptions& options, Mapped& mapped) {
  for (const Node node : devices.children("interface")) map_interface(node, options, mapped);
}

void map_consoles(const Node& devices, Mapped& mapped) {
  // The first <console> of a machine is its first serial line once more.
  auto nodes = devices.children("serial");
  auto consoles = devices.children("console");
  const bool is_repeated =
      !nodes.empty() && !consoles.empty() && consoles[0].child("target").attribute_or("type", "serial") == "serial";
  if (is_repeated) consoles.erase(consoles.begin());
  nodes.insert(nodes.end(), consoles.begin(), consoles.end());
  for (const Node node : nodes) mapped.def.consoles.push_back(console_of(node, mapped));
}

void map_shares(const Node& devices, const MapOptions& options, Mapped& mapped) {
  for (const Node node : devices.children("filesystem")) {
    const auto tag = node.child("target").attribute_or("dir");
    const auto object = object_of(node, tag);
    const auto type = node.attribute_or("type", "mount");
    const auto directory = node.child("source").attribute_or("dir");
    const auto share = std::find_if(options.shares.begin(), options.shares.end(),
                                    [&](const GuestShare& known) { return known.tag == tag; });
    if (type != "mount" || directory.empty()) {
      mapped.findings.push_back({Severity::kLoss, object,
                                 "is of type " + quote(type) + " without a directory of the host",
                                 "add a <filesystem> to the domain"});
      continue;
    }
    if (share == options.shares.end()) {
      mapped.findings.push_back({Severity::kLoss, object,
                                 "shares " + quote(directory) + ", and the guest's fstab mounts it nowhere",
                                 "add <filesystem type='mount'> with its place inside to the domain"});
      continue;
    }
    FilesystemDef def;
    def.source = directory;
    def.target = share->mount_point;
    def.readonly = static_cast<bool>(node.child("readonly"));
    auto verdict = validate_device(def);
    // The place is the guest's word: it must not stand in the way of the root or of another share.
    const auto& others = mapped.def.filesystems;
    if (std::any_of(others.begin(), others.end(), [&](const auto& other) { return other.target == def.target; }))
      verdict = fail(VIR_ERR_XML_ERROR, quote(def.target) + " has a filesystem already");
    if (!verdict) {
      mapped.findings.push_back({Severity::kLoss, object, "is left out: " + verdict.error().text, ""});
      continue;
    }
    if (node.attribute_or("accessmode") == "mapped")
      mapped.findings.push_back({Severity::kLoss, object,
                                 "keeps owners in attributes (accessmode='mapped'), which a container does not read",
                                 "chown the files on the host as the container is to see them"});
    mapped.findings.push_back({Severity::kChange, object, "is mounted by the host on " + quote(def.target), ""});
    mapped.def.filesystems.push_back(std::move(def));
  }
}

void report_disks(const Node& devices, const MapOptions& options, Mapped& mapped) {
  for (const Node node : devices.children("disk")) {
    const auto disk = read_disk(node);
    const auto object = object_of(node, disk.target);
    const auto& converted = options.converted_disks;
    const bool is_converted = std::find(converted.begin(), converted.end(), disk.target) != converted.end();
    if (node.child("iotune"))
      mapped.findings.push_back({Severity::kLoss, object, "its throttling (<iotune>) is not there for filesystems",
                                 "limit the device of the host by <blkiotune>"});
    if (is_converted) continue;
    const bool is_removable = disk.device == "cdrom" || disk.device == "floppy";
    mapped.findings.push_back({is_removable ? Severity::kNote : Severity::kLoss, object,
                               is_removable
                                   ? disk.source.empty() ? "is an empty drive" : "the medium in it is left out"
                                   : "is not converted: no filesystem of the container is on it",
                               ""});
  }
}

}  // namespace virtuserns::convert
