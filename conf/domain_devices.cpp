#include "conf/domain_devices.h"

#include <algorithm>
#include <set>

#include "conf/base/text.h"

namespace virtuserns {
namespace {

template <class... Arms>
struct Overloaded : Arms... {
  using Arms::operator()...;
};
template <class... Arms>
Overloaded(Arms...) -> Overloaded<Arms...>;  // clang 14 deduces no aggregates (P1816)

template <class Device, class Matches>
Device* find_one(std::vector<Device>& devices, const Matches& matches) {
  auto found = std::find_if(devices.begin(), devices.end(), matches);
  return found == devices.end() ? nullptr : &*found;
}

DiskDef* find_disk(DomainDef& def, const DiskDef& wanted) {
  return find_one(def.disks, [&](const DiskDef& disk) { return disk.target_dev == wanted.target_dev; });
}

FilesystemDef* find_filesystem(DomainDef& def, const FilesystemDef& wanted) {
  return find_one(def.filesystems, [&](const FilesystemDef& fs) { return fs.target == wanted.target; });
}

HostdevDef* find_hostdev(DomainDef& def, const HostdevDef& wanted) {
  return find_one(def.hostdevs, [&](const HostdevDef& hostdev) {
    return hostdev.type == wanted.type && hostdev.source == wanted.source &&
           hostdev.source_kept == wanted.source_kept;
  });
}

// By MAC and alias as far as they are given; a description without either fits an only interface.
Result<InterfaceDef*> find_interface(DomainDef& def, const InterfaceDef& wanted) {
  const auto matches = [&](const InterfaceDef& link) {
    if (wanted.mac && link.mac != wanted.mac) return false;
    return !wanted.alias || (link.alias && link.alias->name == wanted.alias->name);
  };
  const auto count = std::count_if(def.interfaces.begin(), def.interfaces.end(), matches);
  if (count == 1) return &*std::find_if(def.interfaces.begin(), def.interfaces.end(), matches);
  const std::string mac = wanted.mac ? format_mac(*wanted.mac) : "(null)";
  if (count > 1) {
    return fail(VIR_ERR_OPERATION_FAILED, wanted.mac ? "multiple devices matching MAC address " + mac + " found"
                                                     : "multiple matching devices found");
  }
  return fail(VIR_ERR_DEVICE_MISSING, "no device found matching MAC address '" + mac + "' and alias '" +
                                          (wanted.alias ? wanted.alias->name : "(null)") + "'");
}

template <class Device>
DeviceDef take_out(std::vector<Device>& devices, Device* device) {
  Device taken = std::move(*device);
  devices.erase(devices.begin() + (device - devices.data()));
  return taken;
}

}  // namespace

Result<void> attach_to(DomainDef& def, DeviceDef device) {
  return std::visit(
      Overloaded{[&](DiskDef& disk) -> Result<void> {
                   if (find_disk(def, disk)) {
                     return fail(VIR_ERR_INVALID_ARG, "target " + printable(disk.target_dev) + " already exists.");
                   }
                   def.disks.push_back(std::move(disk));
                   return {};
                 },
                 [&](FilesystemDef& fs) -> Result<void> {
                   if (find_filesystem(def, fs)) return fail(VIR_ERR_INVALID_ARG, "Target already exists");
                   def.filesystems.push_back(std::move(fs));
                   return {};
                 },
                 [&](InterfaceDef& link) -> Result<void> {
                   const bool taken = link.mac && find_one(def.interfaces, [&](const InterfaceDef& other) {
                                        return other.mac == link.mac;
                                      });
                   if (taken) {
                     return fail(VIR_ERR_OPERATION_FAILED,
                                 "network device with MAC address " + format_mac(*link.mac) + " already exists");
                   }
                   def.interfaces.push_back(std::move(link));
                   return {};
                 },
                 [&](HostdevDef& hostdev) -> Result<void> {
                   if (find_hostdev(def, hostdev)) {
                     return fail(VIR_ERR_INVALID_ARG, "device is already in the domain configuration");
                   }
                   def.hostdevs.push_back(std::move(hostdev));
                   return {};
                 },
                 [](ConsoleDef&) -> Result<void> {
                   return fail(VIR_ERR_CONFIG_UNSUPPORTED, "persistent attach of device is not supported");
                 }},
      device);
}

Result<DeviceDef> detach_from(DomainDef& def, const DeviceDef& device) {
  return std::visit(Overloaded{[&](const DiskDef& disk) -> Result<DeviceDef> {
                                 DiskDef* found = find_disk(def, disk);
                                 if (!found)
                                   return fail(VIR_ERR_INVALID_ARG, "no target device " + printable(disk.target_dev));
                                 return take_out(def.disks, found);
                               },
                               [&](const FilesystemDef& fs) -> Result<DeviceDef> {
                                 FilesystemDef* found = find_filesystem(def, fs);
                                 if (!found)
                                   return fail(VIR_ERR_DEVICE_MISSING, "no matching filesystem device was found");
                                 return take_out(def.filesystems, found);
                               },
                               [&](const InterfaceDef& link) -> Result<DeviceDef> {
                                 return take_out(def.interfaces, TRY(find_interface(def, link)));
                               },
                               [&](const HostdevDef& hostdev) -> Result<DeviceDef> {
                                 HostdevDef* found = find_hostdev(def, hostdev);
                                 if (!found)
                                   return fail(VIR_ERR_INVALID_ARG, "device not present in domain configuration");
                                 return take_out(def.hostdevs, found);
                               },
                               [](const ConsoleDef&) -> Result<DeviceDef> {
                                 return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                                             "persistent detach of device is not supported");
                               }},
                    device);
}

Result<void> update_in(DomainDef& def, DeviceDef device) {
  auto* link = std::get_if<InterfaceDef>(&device);
  if (!link) return fail(VIR_ERR_CONFIG_UNSUPPORTED, "persistent update of device is not supported");
  InterfaceDef* found = TRY(find_interface(def, *link));
  if (!link->mac) link->mac = found->mac;
  if (!link->alias) link->alias = found->alias;
  if (link->target_dev.empty()) link->target_dev = found->target_dev;
  *found = std::move(*link);
  return {};
}

void assign_aliases(DomainDef& def) {
  const auto assign = [](auto& devices, const std::string& prefix) {
    std::set<std::string> taken;
    for (const auto& device : devices) {
      if (device.alias) taken.insert(device.alias->name);
    }
    int next = 0;
    for (auto& device : devices) {
      if (device.alias) continue;
      while (taken.contains(prefix + std::to_string(next))) ++next;
      device.alias = DeviceAlias{prefix + std::to_string(next++)};
    }
  };
  assign(def.disks, "disk");
  assign(def.filesystems, "fs");
  assign(def.interfaces, "net");
  assign(def.consoles, "console");
  assign(def.hostdevs, "hostdev");
}

std::string alias_of(const DeviceDef& device) {
  return std::visit([](const auto& any) { return any.alias ? any.alias->name : std::string(); }, device);
}

std::string format_mac(const MacAddress& mac) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : mac.bytes) {
    if (!text.empty()) text += ':';
    text += kHex[byte >> 4];
    text += kHex[byte & 15];
  }
  return text;
}

}  // namespace virtuserns
