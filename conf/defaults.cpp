#include "conf/defaults.h"

#include <sys/random.h>

#include <algorithm>

namespace virtuserns {

namespace {

// virMacAddrGenerate with QEMU's prefix, which libvirt's LXC driver uses too.
MacAddress make_random_mac() {
  MacAddress mac{{0x52, 0x54, 0x00}};
  while (::getrandom(mac.bytes.data() + 3, 3, 0) != 3) {
  }
  return mac;
}

// virDomainDiskDefPostParse: the name of the target tells the bus.
std::string bus_of(const DiskDef& disk) {
  if (disk.device == "floppy") return "fdc";
  const std::pair<const char*, const char*> kBuses[] = {
      {"sd", "scsi"}, {"vd", "virtio"}, {"xvd", "xen"}, {"ubd", "uml"}};
  for (const auto& [prefix, bus] : kBuses)
    if (disk.target_dev.starts_with(prefix)) return bus;
  return "ide";
}

void default_ips(std::vector<IpAddressDef>& ips) {
  for (auto& ip : ips)
    if (ip.family.empty()) ip.family = ip.address.find(':') == std::string::npos ? "ipv4" : "ipv6";
}

struct FillDevice {
  void operator()(FilesystemDef& fs) const {
    const auto is_socket = [](const KeptXml& k) { return k.name == "source/@socket"; };
    if (fs.access_mode.empty() && std::none_of(fs.kept.begin(), fs.kept.end(), is_socket))
      fs.access_mode = "passthrough";
  }
  void operator()(DiskDef& disk) const {
    if (disk.device.empty()) disk.device = "disk";
    if (disk.target_bus.empty()) disk.target_bus = bus_of(disk);
    if (disk.device == "cdrom") disk.readonly = true;
  }
  void operator()(InterfaceDef& interface) const {
    if (!interface.mac) interface.mac = make_random_mac();
    default_ips(interface.ips);
    default_ips(interface.source_ips);
  }
  void operator()(ConsoleDef&) const {}
  void operator()(HostdevDef& hostdev) const {
    if (hostdev.type == HostdevType::kSubsysUsb && hostdev.managed.empty()) hostdev.managed = "no";
    default_ips(hostdev.ips);
  }
};

void sort_by_start(std::vector<IdMapEntry>& entries) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const IdMapEntry& a, const IdMapEntry& b) { return a.start < b.start; });
}

// virDiskNameToIndex: "sdb" is 1, "vdaa" 26, partition numbers do not count; -1: no such name.
int disk_index(std::string_view name) {
  for (const std::string_view prefix : {"fd", "hd", "vd", "sd", "xvd", "ubd"}) {
    if (!name.starts_with(prefix)) continue;
    int index = 0;
    std::size_t letters = 0;
    for (const char c : name.substr(prefix.size())) {
      if (c < 'a' || c > 'z') break;
      if (++letters > 5) return -1;
      index = index * 26 + (c - 'a' + 1);
    }
    return index - 1;
  }
  return -1;
}

// virDomainDiskInsert: disks of one bus stand together, in the order of their names. Unlike libvirt the bus is known
// by now, so that a second round trip changes nothing.
void order_disks(std::vector<DiskDef>& disks) {
  std::vector<DiskDef> ordered;
  for (auto& disk : disks) {
    const auto is_same_bus = [&](const DiskDef& d) { return d.target_bus == disk.target_bus; };
    const auto is_later = [&](const DiskDef& d) {
      return is_same_bus(d) && disk_index(d.target_dev) > disk_index(disk.target_dev);
    };
    auto at = std::find_if(ordered.begin(), ordered.end(), is_later);
    if (at == ordered.end()) at = std::find_if(ordered.rbegin(), ordered.rend(), is_same_bus).base();
    if (at == ordered.begin() && !std::any_of(ordered.begin(), ordered.end(), is_same_bus)) at = ordered.end();
    ordered.insert(at, std::move(disk));
  }
  disks = std::move(ordered);
}

}  // namespace

void apply_defaults(DomainDef& def, const DefaultsContext& context) {
  if (!def.has_uuid && !is_valid_uuid(def.uuid)) def.uuid = make_random_uuid();
  def.has_uuid = true;
  if (def.current_memory_kib == 0 || def.current_memory_kib > def.max_memory_kib)
    def.current_memory_kib = def.max_memory_kib;
  if (def.vcpu.placement.empty()) def.vcpu.placement = "static";
  if (def.os.type.empty()) def.os.type = "exe";
  if (def.os.arch.empty()) def.os.arch = context.arch;
  if (def.os.init.empty()) def.os.init = "/sbin/init";
  if (def.clock.offset.empty()) def.clock.offset = "utc";
  if (def.emulator.empty()) def.emulator = context.emulator;
  if (def.consoles.empty()) def.consoles.emplace_back();
  // virDomainDefParseXML numbers consoles by their order, whatever the text says.
  for (std::size_t i = 0; i < def.consoles.size(); ++i) def.consoles[i].target_port = static_cast<std::uint32_t>(i);
  sort_by_start(def.idmap.uid);
  sort_by_start(def.idmap.gid);
  const FillDevice fill;
  for (auto& device : def.filesystems) fill(device);
  for (auto& device : def.disks) fill(device);
  order_disks(def.disks);
  for (auto& device : def.interfaces) fill(device);
  for (auto& device : def.hostdevs) fill(device);
}

void apply_device_defaults(DeviceDef& device, const DomainDef& domain) {
  std::visit(FillDevice{}, device);
  if (auto* console = std::get_if<ConsoleDef>(&device);
      console && console->target_port == 0 && !domain.consoles.empty())
    console->target_port = static_cast<std::uint32_t>(domain.consoles.size());
}

}  // namespace virtuserns
