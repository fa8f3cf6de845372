#include "driver/compute/machine_xml.h"

#include <optional>

#include "conf/base/text.h"
#include "driver/compute/domain_xml.h"
#include "xml/writer.h"

namespace virtuserns::compute {
namespace {

using xml::Element;

Element kib(const char* name, std::uint64_t amount) {
  Element element(name);
  element.attribute("unit", "KiB").text(std::to_string(amount));
  return element;
}

Element limits_of(const DiskLimits& limits) {
  Element iotune("iotune");
  const std::pair<const char*, std::optional<std::uint64_t>> all[] = {{"read_bytes_sec", limits.read_bytes},
                                                                      {"write_bytes_sec", limits.write_bytes},
                                                                      {"read_iops_sec", limits.read_iops},
                                                                      {"write_iops_sec", limits.write_iops}};
  for (const auto& [name, value] : all)
    if (value) iotune.child(name, *value);
  return iotune;
}

// libvirt is not to give it to whom it runs machines as: others start from it.
Element base_of(const std::string& path) {
  Element source("source"), base("backingStore");
  source.attribute("file", path).child(Element("seclabel").attribute("model", "dac").attribute("relabel", "no"));
  base.attribute("type", "file").child(Element("format").attribute("type", "raw")).child(std::move(source));
  base.child(Element("backingStore"));
  return base;
}

Element own_disk(const std::string& path, const std::string& base, const std::string& device,
                 const DiskLimits& limits) {
  Element disk("disk");
  disk.attribute("type", "file").attribute("device", "disk");
  disk.child(Element("driver").attribute("name", "qemu").attribute("type", "qcow2").attribute("discard", "unmap"));
  disk.child(Element("source").attribute("file", path)).child(base_of(base));
  disk.child(Element("target").attribute("dev", device).attribute("bus", "virtio"));
  disk.child_if(limits_of(limits));
  return disk;
}

// Found by its label; no guest needs another driver for it than for its disk.
Element drive_of(const std::string& path) {
  Element drive("disk");
  drive.attribute("type", "file").attribute("device", "disk");
  drive.child(Element("driver").attribute("name", "qemu").attribute("type", "raw"));
  drive.child(Element("source").attribute("file", path));
  drive.child(Element("target").attribute("dev", "vdz").attribute("bus", "virtio"));
  drive.child(Element("readonly"));
  return drive;
}

Element volume_of(const VolumeRef& volume) {
  Element disk("disk");
  disk.attribute("type", "block").attribute("device", "disk");
  disk.child(Element("driver").attribute("name", "qemu").attribute("type", "raw").attribute("cache", "none"));
  disk.child(Element("source").attribute("dev", volume.path));
  disk.child(Element("target")
                 .attribute("dev", volume.device.substr(std::string_view("/dev/").size()))
                 .attribute("bus", "virtio"));
  disk.child_if("serial", volume.serial);
  if (volume.is_readonly) disk.child(Element("readonly"));
  return disk;
}

Element interface_of(const Vif& vif) {
  Element interface("interface");
  interface.attribute("type", "bridge");
  interface.child(Element("mac").attribute("address", vif.mac));
  interface.child(Element("source").attribute("bridge", vif.bridge));
  interface.child(Element("target").attribute("dev", vif.device));
  interface.child(Element("model").attribute("type", "virtio"));
  if (vif.mtu != 0) interface.child(Element("mtu").attribute("size", vif.mtu));
  return interface;
}

Element serial_of(const std::string& log) {
  Element serial("serial");
  serial.attribute("type", "pty");
  serial.child(Element("log").attribute("file", log).attribute("append", "on"));
  serial.child(Element("target").attribute("port", 0));
  return serial;
}

Result<Element> devices_of(const Record& record, const MachineParts& parts) {
  const auto limits = TRY(read_disk_limits(record.spec.flavor));
  Element devices("devices");
  if (!parts.rescue_disk.empty()) devices.child(own_disk(parts.rescue_disk, parts.rescue_base, "vda", limits));
  if (!parts.disk.empty()) devices.child(own_disk(parts.disk, parts.disk_base, device_of_own_disk(record), limits));
  // A volume that is the root is what it boots from, unless it is rescued.
  for (const bool is_root : {true, false})
    for (const auto& volume : record.volumes)
      if (volume.is_root == is_root) devices.child(volume_of(volume));
  if (!parts.config_drive.empty()) devices.child(drive_of(parts.config_drive));
  for (const auto& vif : record.network) devices.child(interface_of(vif));
  devices.child(serial_of(parts.console_log));
  Element random("rng");
  random.attribute("model", "virtio").child(Element("backend").attribute("model", "random").text("/dev/urandom"));
  devices.child(std::move(random));
  return devices;
}

Result<Element> cputune_of(const Flavor& flavor) {
  const auto limits = TRY(read_cpu_limits(flavor));
  Element cputune("cputune");
  const std::pair<const char*, std::optional<std::uint64_t>> all[] = {
      {"shares", limits.shares}, {"period", limits.period_us}, {"quota", limits.quota_us}};
  for (const auto& [name, value] : all)
    if (value) cputune.child(name, *value);
  return cputune;
}

}  // namespace

std::string device_of_own_disk(const Record& record) { return record.rescue ? "vdy" : "vda"; }

Result<GuestType> choose_machine_type(const std::vector<GuestType>& types) {
  // The host's own architecture is the one that it can run by hardware; without that it is the first that has 64 bits.
  for (const auto* virt : {"kvm", "qemu"})
    for (const auto& type : types)
      if (type.os == "hvm" && type.virt == virt && type.arch == "x86_64") return type;
  return fail(VIR_ERR_CONFIG_UNSUPPORTED, "the hypervisor runs no machines of x86_64");
}

Result<std::string> make_machine_xml(const Record& record, const GuestType& type, const MachineParts& parts) {
  const auto& spec = record.spec;
  Element domain("domain"), os("os"), features("features");
  domain.attribute("type", type.virt)
      .child("name", spec.name)
      .child("uuid", spec.uuid)
      .child_if("title", title_of(spec));
  domain.child(kib("memory", spec.flavor.memory_mb * 1024)).child("vcpu", spec.flavor.vcpus);
  domain.child_if(TRY(cputune_of(spec.flavor)));
  os.child(Element("type").attribute("arch", type.arch).text(type.os)).child(Element("boot").attribute("dev", "hd"));
  domain.child(std::move(os));
  domain.child(std::move(features.child(Element("acpi")).child(Element("apic"))));
  if (type.virt == "kvm") domain.child(Element("cpu").attribute("mode", "host-model"));
  domain.child(TRY(devices_of(record, parts)));
  return domain.to_string();
}

std::string make_machine_interface(const Vif& vif) { return interface_of(vif).to_string(); }
std::string make_machine_volume(const VolumeRef& volume) { return volume_of(volume).to_string(); }

}  // namespace virtuserns::compute
