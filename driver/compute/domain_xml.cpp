#include "driver/compute/domain_xml.h"

#include <algorithm>

#include "conf/base/text.h"
#include "conf/uuid.h"
#include "xml/devices.h"
#include "xml/domain.h"
#include "xml/writer.h"

namespace virtuserns::compute {
namespace {

using xml::Element;

constexpr std::string_view kDefaultInit = "/sbin/init";

std::string setting(const std::map<std::string, std::string>& settings, const std::string& key) {
  const auto found = settings.find(key);
  return found == settings.end() ? std::string() : found->second;
}

Result<std::optional<std::uint64_t>> number_spec(const Flavor& flavor, const std::string& key, std::uint64_t least,
                                                 std::uint64_t most) {
  const auto said = setting(flavor.extra_specs, key);
  if (said.empty()) return std::optional<std::uint64_t>();
  const auto value = parse_number<std::uint64_t>(said);
  if (!value || *value < least || *value > most)
    return fail(VIR_ERR_INVALID_ARG, "extra spec " + key + "=" + quote(said) + ": needs a number from " +
                                         std::to_string(least) + " to " + std::to_string(most));
  return value;
}

bool is_true(const std::string& said) { return said == "true" || said == "True" || said == "1" || said == "yes"; }

Result<void> set_cpu(const Flavor& flavor, DomainDef& def) {
  const auto limits = TRY(read_cpu_limits(flavor));
  def.vcpu.max = flavor.vcpus;
  def.cputune.shares = limits.shares;
  def.cputune.period_us = limits.period_us;
  if (limits.quota_us) def.cputune.quota_us = static_cast<std::int64_t>(*limits.quota_us);
  return {};
}

// The disk is a loop device of its own, so its limits are the instance's.
Result<void> set_disk_limits(const Flavor& flavor, const std::string& device, DomainDef& def) {
  const auto said = TRY(read_disk_limits(flavor));
  BlkioDevice limits;
  limits.path = device;
  limits.read_bytes = said.read_bytes;
  limits.write_bytes = said.write_bytes;
  if (said.read_iops) limits.read_iops = static_cast<std::uint32_t>(*said.read_iops);
  if (said.write_iops) limits.write_iops = static_cast<std::uint32_t>(*said.write_iops);
  if (said.is_any() && !device.empty()) def.blkio.devices.push_back(limits);
  return {};
}

FilesystemDef mount_of(std::string source, std::string target) {
  FilesystemDef fs;
  fs.source = std::move(source);
  fs.target = std::move(target);
  return fs;
}

// What <userns:domain> in <metadata> says.
class Extensions {
 public:
  void add_overlay(const std::string& target, const std::string& lower) {
    Element overlay("userns:overlay");
    overlay.attribute("target", target);
    overlay.child(Element("userns:lower").attribute("dir", lower));
    element_.child(std::move(overlay));
  }
  void set_group(const std::string& name) { element_.child(Element("userns:ids").attribute("group", name)); }
  void set_nesting() { element_.child(Element("userns:seccomp").attribute("nesting", "yes")); }
  void put_into(DomainDef& def) {
    if (element_.is_empty()) return;
    element_.attribute("xmlns:userns", kUsernsUri);
    def.metadata.push_back({std::string(kUsernsUri), std::string(trim(element_.to_string()))});
  }

 private:
  Element element_{"userns:domain"};
};

// Instances of one project may share their ids, and with them volumes; whoever has the flavor or the image made says so.
Result<void> set_isolation(const InstanceSpec& spec, Extensions& extensions) {
  auto said = setting(spec.flavor.extra_specs, "userns:isolation");
  if (said.empty()) said = setting(spec.image_properties, "userns_isolation");
  if (said.empty() || said == "instance") return {};
  if (said != "project")
    return fail(VIR_ERR_INVALID_ARG, "userns:isolation=" + quote(said) + ": needs 'instance' or 'project'");
  if (spec.project.empty()) return fail(VIR_ERR_INVALID_ARG, "userns:isolation=project: the instance has no project");
  // As virtusernsd names the group of what Nova's own driver defines (ids_per).
  extensions.set_group("nova-" + spec.project);
  return {};
}

void add_filesystems(const Record& record, const Places& places, DomainDef& def, Extensions& extensions) {
  const std::string own_root = record.rescue ? "/mnt" : "/";
  if (record.rescue) {
    def.filesystems.push_back(mount_of(places.rescue_root, "/"));
    extensions.add_overlay("/", places.rescue_base);
  }
  if (!places.base.empty()) {
    def.filesystems.push_back(mount_of(places.root, own_root));
    extensions.add_overlay(own_root, places.base);
  }
  for (const auto& volume : record.volumes) {
    if (!volume.is_root) continue;
    auto fs = mount_of(volume.path, own_root);
    fs.type = FilesystemType::kBlock;
    fs.readonly = volume.is_readonly;
    def.filesystems.push_back(std::move(fs));
  }
  if (!places.config_drive.empty()) {
    auto fs = mount_of(places.config_drive, "/config-2");
    fs.readonly = true;
    def.filesystems.push_back(std::move(fs));
  }
}

Result<InterfaceDef> make_interface(const Vif& vif) {
  InterfaceDef def;
  const bool is_of_ovs = vif.type == kOpenVSwitch;
  def.type = is_of_ovs ? InterfaceType::kEthernet : InterfaceType::kBridge;
  def.mac = xml::parse_mac(vif.mac);
  if (!def.mac) return fail(VIR_ERR_INVALID_ARG, quote(vif.mac) + " is no MAC address");
  if (!is_of_ovs) def.source = vif.bridge;
  def.target_dev = vif.device;
  def.link_state = LinkState::kUp;
  if (vif.mtu != 0) def.mtu = vif.mtu;
  for (const auto& ip : vif.ips) def.ips.push_back({"", ip.address, ip.prefix, ""});
  for (const auto& route : vif.routes) {
    const auto parts = split(route.to, '/');
    RouteDef to;
    to.address = std::string(parts.front());
    to.prefix = parse_number<std::uint32_t>(parts.back());
    to.gateway = route.via;
    def.routes.push_back(std::move(to));
  }
  for (auto& ip : def.ips) ip.family = ip.address.find(':') == std::string::npos ? "ipv4" : "ipv6";
  for (auto& route : def.routes) route.family = route.address.find(':') == std::string::npos ? "ipv4" : "ipv6";
  return def;
}

DiskDef make_disk(const VolumeRef& volume) {
  DiskDef def;
  def.type = DiskType::kBlock;
  def.device = "disk";
  def.source = volume.path;
  def.target_dev = volume.device.substr(std::string_view("/dev/").size());
  def.readonly = volume.is_readonly;
  return def;
}

void set_identity(const InstanceSpec& spec, DomainDef& def) {
  def.name = spec.name;
  def.uuid = *parse_uuid(spec.uuid);
  def.has_uuid = true;
  def.title = title_of(spec);
  if (!spec.ids) return;
  const IdMapEntry line{0, spec.ids->first, spec.ids->count};
  def.idmap = IdMapDef{{line}, {line}};
}

}  // namespace

std::string title_of(const InstanceSpec& spec) {
  std::string title = spec.display_name;
  std::replace_if(
      title.begin(), title.end(), [](unsigned char c) { return c < ' ' || c == 127; }, ' ');
  return title;
}

Result<CpuLimits> read_cpu_limits(const Flavor& flavor) {
  CpuLimits limits;
  limits.shares = TRY(number_spec(flavor, "quota:cpu_shares", 2, 262144));
  limits.period_us = TRY(number_spec(flavor, "quota:cpu_period", 1000, 1000000));
  limits.quota_us = TRY(number_spec(flavor, "quota:cpu_quota", 1000, 17592186044415));
  return limits;
}

Result<DiskLimits> read_disk_limits(const Flavor& flavor) {
  DiskLimits limits;
  limits.read_bytes = TRY(number_spec(flavor, "quota:disk_read_bytes_sec", 1, 1ull << 50));
  limits.write_bytes = TRY(number_spec(flavor, "quota:disk_write_bytes_sec", 1, 1ull << 50));
  limits.read_iops = TRY(number_spec(flavor, "quota:disk_read_iops_sec", 1, 4294967295));
  limits.write_iops = TRY(number_spec(flavor, "quota:disk_write_iops_sec", 1, 4294967295));
  return limits;
}

Result<std::string> make_domain_xml(const Record& record, const Places& places) {
  const auto& spec = record.spec;
  DomainDef def;
  set_identity(spec, def);
  def.max_memory_kib = def.current_memory_kib = spec.flavor.memory_mb * 1024;
  TRY(set_cpu(spec.flavor, def));
  TRY(set_disk_limits(spec.flavor, places.disk_device, def));
  const auto init = setting(spec.image_properties, "userns_init");
  def.os.init = init.empty() ? std::string(kDefaultInit) : init;
  // What cloud-init and systemd ask for the kind of machine.
  def.os.init_env.push_back({"product_name", "OpenStack Nova"});
  def.features.present = def.features.privnet = true;

  Extensions extensions;
  add_filesystems(record, places, def, extensions);
  if (is_true(setting(spec.flavor.extra_specs, "userns:nesting"))) extensions.set_nesting();
  TRY(set_isolation(spec, extensions));
  extensions.put_into(def);
  for (const auto& vif : record.network) def.interfaces.push_back(TRY(make_interface(vif)));
  for (const auto& volume : record.volumes)
    if (!volume.is_root) def.disks.push_back(make_disk(volume));
  ConsoleDef console;
  console.log_file = places.console_log;
  console.log_append = true;
  def.consoles.push_back(std::move(console));
  return xml::format_domain(def, xml::FormatKind::kInactive);
}

Result<std::string> make_interface_xml(const Vif& vif) {
  return xml::format_device(DeviceDef(TRY(make_interface(vif))), xml::FormatKind::kInactive);
}

std::string make_disk_xml(const VolumeRef& volume) {
  return xml::format_device(DeviceDef(make_disk(volume)), xml::FormatKind::kInactive);
}

Result<std::optional<IdRange>> read_ids(const std::string& domain_xml) {
  const auto def = TRY(xml::parse_domain(domain_xml, xml::kParseLive));
  for (const auto& line : def.idmap.uid)
    if (line.start == 0 && line.target) return std::optional(IdRange{*line.target, line.count});
  return std::optional<IdRange>();
}

}  // namespace virtuserns::compute
