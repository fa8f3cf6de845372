#include "conf/validate.h"

#include <algorithm>
#include <set>

#include "conf/base/text.h"
#include "conf/capability_names.h"
#include "conf/port_forward.h"
#include "conf/reserved_target.h"
#include "conf/validate_parts.h"

namespace virtuserns {

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

bool has_dot_dot(std::string_view path) {
  const auto parts = split(path, '/');
  return std::find(parts.begin(), parts.end(), "..") != parts.end();
}

std::string tidy_path(std::string_view path) {
  std::string tidy;
  for (const auto part : split(path, '/'))
    if (!part.empty() && part != ".") tidy.append("/").append(part);
  return tidy.empty() ? "/" : tidy;
}

Result<void> validate_absolute(const std::string& path, const std::string& what) {
  if (path.empty() || path.front() != '/') return xml_error(what + " " + quote(path) + " must be an absolute path");
  if (has_control(path)) return xml_error(what + " " + quote(path) + " has a control character");
  if (path.size() >= 4096) return xml_error(what + " is longer than 4095 bytes");
  return {};
}

namespace {

// A count that no machine has, but that bounds what a definition can make us allocate.
constexpr std::uint32_t kMaxVcpus = 16384;
constexpr std::uint64_t kMaxMemoryKib = (std::uint64_t{1} << 63) / 1024;
constexpr std::size_t kMaxNameBytes = 250;  // with ".xml" a file name of at most 255 bytes (NAME_MAX)

// Names of network interfaces on Linux: dev_valid_name() of the kernel.
Result<void> validate_link_name(const std::string& name, const std::string& what) {
  if (name.empty()) return {};
  const bool is_bad = name.size() > 15 || name == "." || name == ".." || has_control(name) ||
                      name.find_first_of("/: ") != std::string::npos;
  if (is_bad)
    return xml_error(what + " " + quote(name) +
                     " is not a valid interface name: at most 15 characters, no '/', ':' or blank");
  return {};
}

Result<void> validate_os(const OsDef& os) {
  if (os.type != "exe")
    return unsupported("os type " + quote(os.type) + " is not supported: containers have <type>exe</type>");
  static const std::set<std::string_view> kArches = {"x86_64", "i686",        "aarch64", "armv7l",
                                                     "armv6l", "ppc64",       "ppc64le", "riscv64",
                                                     "s390x",  "loongarch64", "mips64",  "mips64el"};
  if (!os.arch.empty() && !kArches.contains(os.arch)) return unsupported("unknown architecture " + quote(os.arch));
  TRY(validate_absolute(os.init.empty() ? "/sbin/init" : os.init, "<init>"));
  if (!os.init_dir.empty()) TRY(validate_absolute(os.init_dir, "<initdir>"));
  for (const auto& env : os.init_env)
    if (env.name.empty() || env.name.find('=') != std::string::npos || has_control(env.name))
      return xml_error("<initenv> name " + quote(env.name) + " is not a valid environment variable name");
  for (const auto& [who, what] : {std::pair{&os.init_user, "<inituser>"}, std::pair{&os.init_group, "<initgroup>"}})
    if (has_control(*who) || who->find_first_of(":/") != std::string::npos)
      return xml_error(std::string(what) + " " + quote(*who) +
                       " is not a valid name: use a name or '+1000' for a number");
  return {};
}

Result<void> validate_resources(const DomainDef& def) {
  if (def.max_memory_kib == 0)
    return xml_error("memory size must be specified: write <memory unit='MiB'>512</memory>, above 0");
  if (def.max_memory_kib >= kMaxMemoryKib) return fail(VIR_ERR_OVERFLOW, "<memory> is too large");
  if (def.vcpu.max == 0) return xml_error("<vcpu> is 0: at least 1 is needed");
  if (def.vcpu.max > kMaxVcpus)
    return xml_error("<vcpu> is " + std::to_string(def.vcpu.max) + ": at most " + std::to_string(kMaxVcpus) +
                     " are possible");
  if (def.vcpu.current && (*def.vcpu.current == 0 || *def.vcpu.current > def.vcpu.max))
    return xml_error("current='" + std::to_string(*def.vcpu.current) + "' of <vcpu> must be from 1 to " +
                     std::to_string(def.vcpu.max));
  const auto& tune = def.memtune;
  if (tune.hard_limit_kib == 0U)
    return xml_error("<hard_limit> of <memtune> is 0: nothing could run, raise it or remove it");
  if (tune.hard_limit_kib && tune.swap_hard_limit_kib && *tune.swap_hard_limit_kib < *tune.hard_limit_kib)
    return xml_error("<swap_hard_limit> counts memory and swap together: it must not be below <hard_limit>");
  const auto& cpu = def.cputune;
  if (cpu.period_us && (*cpu.period_us < 1000 || *cpu.period_us > 1000000))
    return xml_error("<period> " + std::to_string(*cpu.period_us) +
                     " of <cputune> must be from 1000 to 1000000 microseconds");
  if (cpu.quota_us && *cpu.quota_us > 0 && (*cpu.quota_us < 1000 || *cpu.quota_us > 17592186044415))
    return xml_error("<quota> " + std::to_string(*cpu.quota_us) +
                     " of <cputune> must be from 1000 to 17592186044415 microseconds, or negative");
  return {};
}

// virDomainDefValidate and virCgroup: 100 to 1000 for the whole, 10 since Linux 3.x for both.
Result<void> validate_blkio(const BlkioTune& tune) {
  const auto check = [](std::optional<std::uint32_t> weight) -> Result<void> {
    if (weight && (*weight < 10 || *weight > 1000))
      return xml_error("<weight> " + std::to_string(*weight) + " of <blkiotune> must be from 10 to 1000");
    return {};
  };
  TRY(check(tune.weight));
  std::set<std::string_view> seen;
  for (const auto& device : tune.devices) {
    TRY(check(device.weight));
    TRY(validate_absolute(device.path, "<path> of <blkiotune>"));
    if (!seen.insert(device.path).second)
      return xml_error("<blkiotune> names device " + quote(device.path) + " twice");
  }
  return {};
}

Result<void> validate_partition(const std::string& partition) {
  if (partition.empty()) return {};
  TRY(validate_absolute(partition, "<partition>"));
  for (const auto part : split(std::string_view(partition).substr(1), '/'))
    if (part.empty() || part == "." || part == "..")
      return xml_error("<partition> " + quote(partition) +
                       " has an empty, '.' or '..' part: write it as '/machine/web'");
  return {};
}

Result<void> validate_features(const FeaturesDef& features) {
  for (const auto& [name, is_on] : features.capabilities)
    if (!is_capability_name(name))
      return unsupported("unknown capability " + quote(name) +
                         ": write it as 'net_admin', as in capabilities(7) without CAP_");
  return {};
}

Result<void> validate_filesystem(const FilesystemDef& fs) {
  if (fs.type == FilesystemType::kTemplate || fs.type == FilesystemType::kVolume)
    return unsupported(std::string("filesystem type '") +
                       (fs.type == FilesystemType::kVolume ? "volume" : "template") +
                       "' is not supported: use mount, file, block or ram");
  if (fs.target.empty()) return xml_error("<filesystem> has no target: write <target dir='/'/>");
  TRY(validate_absolute(fs.target, "filesystem target"));
  if (has_dot_dot(fs.target)) return xml_error("filesystem target " + quote(fs.target) + " must not have '..' in it");
  if (is_reserved_target(tidy_path(fs.target)))
    return unsupported("filesystem target " + quote(fs.target) + " is not supported: " + kReservedTargetRemedy);
  if (fs.type == FilesystemType::kRam) {
    if (fs.ram_usage_kib == 0) return xml_error("filesystem " + quote(fs.target) + " of type ram has size 0");
    return {};
  }
  return validate_absolute(fs.source, "source of filesystem " + quote(fs.target));
}

Result<void> validate_filesystems(const std::vector<FilesystemDef>& filesystems) {
  std::set<std::string> targets;
  for (const auto& fs : filesystems) {
    TRY(validate_filesystem(fs));
    if (!targets.insert(tidy_path(fs.target)).second)
      return xml_error("filesystem target " + quote(tidy_path(fs.target)) + " appears twice");
  }
  if (!targets.contains("/"))
    return xml_error(
        "domain has no root filesystem: add <filesystem type='mount'><source dir='/path/to/root'/><target "
        "dir='/'/></filesystem>");
  return {};
}

Result<void> validate_disk(const DiskDef& disk) {
  if (disk.target_dev.empty()) return xml_error("<disk> has no target: write <target dev='vda'/>");
  if (disk.target_dev.find('/') != std::string::npos || has_control(disk.target_dev) || disk.target_dev == "." ||
      disk.target_dev == "..")
    return xml_error("disk target " + quote(disk.target_dev) + " must be a name below /dev, such as 'vda'");
  if (disk.source.empty()) return xml_error("disk " + quote(disk.target_dev) + " has no source");
  return validate_absolute(disk.source, "source of disk " + quote(disk.target_dev));
}

// Of passt (driver/controller/pasta.h), which is what carries <interface type='user'>.
Result<void> validate_user_interface(const InterfaceDef& interface) {
  if (interface.type != InterfaceType::kUser) {
    if (!interface.port_forwards.empty())
      return unsupported(
          "<portForward> is for <interface type='user'>: what is in a bridge has an address of its own");
    if (!interface.backend.empty() || !interface.backend_log.empty())
      return unsupported("<backend type='passt'> and its logFile are for <interface type='user'>");
    return {};
  }
  if (interface.guest_dev.size() > 14)
    return unsupported("guest name " + quote(interface.guest_dev) +
                       " of <interface type='user'>: passt makes names of at most 14 characters");
  if (!interface.source_ips.empty() || !interface.source_routes.empty())
    return unsupported("<source> of <interface type='user'> has no addresses or routes: they are the host's own");
  if (!interface.backend_log.empty())
    TRY(validate_absolute(interface.backend_log, "logFile of <backend type='passt'>"));
  TRY(validate_link_name(interface.source, "source of <interface>"));
  for (const auto& forward : interface.port_forwards) TRY(validate_link_name(forward.dev, "dev of <portForward>"));
  (void)TRY(forwarded_ports(interface));
  return {};
}

Result<void> validate_interface(const InterfaceDef& interface) {
  if (interface.mac && (interface.mac->bytes[0] & 1) != 0)
    return xml_error("MAC address of <interface> is a multicast address: its first byte must be even");
  if (interface.mac && *interface.mac == MacAddress{})
    return xml_error("MAC address of <interface> is 00:00:00:00:00:00");
  for (const auto& kept : interface.kept)
    if (kept.name == "script" || kept.name == "downscript")
      return unsupported("<" + kept.name +
                         "> of <interface> is not supported: the host runs no scripts for containers");
  const bool needs_source = interface.type != InterfaceType::kEthernet && interface.type != InterfaceType::kUser;
  if (needs_source && interface.source.empty()) return xml_error("<interface> has no source");
  if (interface.type == InterfaceType::kBridge || interface.type == InterfaceType::kDirect)
    TRY(validate_link_name(interface.source, "source of <interface>"));
  TRY(validate_link_name(interface.target_dev, "target of <interface>"));
  TRY(validate_link_name(interface.guest_dev, "guest name of <interface>"));
  if (interface.mtu && *interface.mtu < 68) return xml_error("<mtu> of <interface> must be at least 68");
  return validate_user_interface(interface);
}

Result<void> validate_console(const ConsoleDef& console) {
  if (console.type != "pty")
    return unsupported("console type " + quote(console.type) + " is not supported: use type='pty'");
  if (console.target_type != "lxc")
    return unsupported("console target type " + quote(console.target_type) +
                       " is not supported: use <target type='lxc'/>");
  if (!console.log_file.empty()) TRY(validate_absolute(console.log_file, "log file of <console>"));
  return {};
}

Result<void> validate_hostdev(const HostdevDef& hostdev) {
  if (hostdev.type == HostdevType::kCapsNet) return validate_link_name(hostdev.source, "interface of <hostdev>");
  if (hostdev.type == HostdevType::kSubsysUsb) return {};
  TRY(validate_absolute(hostdev.source, "source of <hostdev>"));
  if (has_dot_dot(hostdev.source))
    return xml_error("source of <hostdev> " + quote(hostdev.source) + " must not have '..' in it");
  return {};
}

struct ValidateDevice {
  Result<void> operator()(const FilesystemDef& d) const { return validate_filesystem(d); }
  Result<void> operator()(const DiskDef& d) const { return validate_disk(d); }
  Result<void> operator()(const InterfaceDef& d) const { return validate_interface(d); }
  Result<void> operator()(const ConsoleDef& d) const { return validate_console(d); }
  Result<void> operator()(const HostdevDef& d) const { return validate_hostdev(d); }
};

// type='...' of the start tag of a kept element.
std::string kept_type(const KeptXml& kept) {
  const auto tag = std::string_view(kept.xml).substr(0, kept.xml.find('>'));
  const auto at = tag.find(" type='");
  if (at == std::string_view::npos) return {};
  const auto value = tag.substr(at + 7);
  return std::string(value.substr(0, value.find('\'')));
}

// libvirt's LXC driver takes these in a definition and fails at start.
Result<void> validate_kept_devices(const std::vector<KeptXml>& kept) {
  for (const auto& device : kept)
    for (const auto name : {"disk", "filesystem", "interface", "hostdev", "console"})
      if (device.name == name)
        return unsupported("<" + device.name + "> of type " + quote(kept_type(device)) +
                           " is not supported by containers");
  return {};
}

Result<void> validate_devices(const DomainDef& def) {
  TRY(validate_filesystems(def.filesystems));
  std::set<std::string_view> disks, host_links, guest_links;
  for (const auto& disk : def.disks) {
    TRY(validate_disk(disk));
    if (!disks.insert(disk.target_dev).second)
      return xml_error("disk target " + quote(disk.target_dev) + " appears twice");
  }
  std::set<MacAddress> macs;
  for (const auto& interface : def.interfaces) {
    TRY(validate_interface(interface));
    if (interface.mac && !macs.insert(*interface.mac).second)
      return xml_error("two interfaces have the same MAC address");
    if (!interface.guest_dev.empty() && !guest_links.insert(interface.guest_dev).second)
      return xml_error("guest name " + quote(interface.guest_dev) + " of <interface> appears twice");
    if (!interface.target_dev.empty() && !host_links.insert(interface.target_dev).second)
      return xml_error("target " + quote(interface.target_dev) + " of <interface> appears twice");
  }
  for (const auto& console : def.consoles) TRY(validate_console(console));
  for (const auto& hostdev : def.hostdevs) TRY(validate_hostdev(hostdev));
  return validate_kept_devices(def.kept_devices);
}

Result<void> validate_shared_namespaces(const DomainDef& def) {
  for (const auto& shared : def.shared_namespaces) {
    if (shared.type == "netns" && shared.kind != "sharenet")
      return unsupported("<lxc:" + shared.kind + "> cannot have type 'netns': use 'name' or 'pid'");
    if (shared.type == "netns" && shared.value.find('/') != std::string::npos)
      return xml_error("network namespace " + quote(shared.value) + " must be a name below /run/netns");
    if (shared.value.empty()) return xml_error("<lxc:" + shared.kind + "> has an empty value");
    const auto pid = parse_number<int>(shared.value);
    if (shared.type == "pid" && (!pid || *pid <= 0))
      return xml_error("<lxc:" + shared.kind + "> value " + quote(shared.value) + " is not a process id");
    if (shared.kind == "sharenet" && !def.interfaces.empty())
      return unsupported("<lxc:sharenet> cannot be combined with <interface>: the network is the other domain's");
  }
  return {};
}

}  // namespace

Result<void> validate_name(const std::string& name) {
  if (trim(name).empty()) return fail(VIR_ERR_NO_NAME, "domain name must not be empty");
  if (name.size() > kMaxNameBytes)
    return xml_error("domain name " + quote(name.substr(0, 32) + "...") + " has " + std::to_string(name.size()) +
                     " bytes: at most " + std::to_string(kMaxNameBytes));
  if (name == "." || name == "..") return xml_error("domain name must not be " + quote(name));
  if (name.find('/') != std::string::npos)
    return xml_error("domain name " + quote(name) + " must not have a '/' in it");
  if (has_control(name)) return xml_error("domain name " + quote(name) + " must not have control characters in it");
  if (!is_utf8(name)) return xml_error("domain name " + quote(name) + " is not valid UTF-8");
  return {};
}

Result<void> validate(const DomainDef& def) {
  if (def.virt_type != "lxc")
    return unsupported("domain type " + quote(def.virt_type) + " is not supported: use <domain type='lxc'>");
  TRY(validate_name(def.name));
  if (!is_valid_uuid(def.uuid) && def.has_uuid)
    return xml_error("uuid " + quote(format_uuid(def.uuid)) + " must not have all bytes equal");
  if (def.title.find('\n') != std::string::npos)
    return xml_error("<title> must be one line: use <description> for more");
  TRY(validate_resources(def));
  TRY(validate_blkio(def.blkio));
  TRY(validate_partition(def.resource.partition));
  TRY(validate_os(def.os));
  TRY(validate_idmap(def.idmap));
  TRY(validate_ids(def));
  TRY(validate_features(def.features));
  TRY(validate_devices(def));
  TRY(validate_overlay_sources(def));
  return validate_shared_namespaces(def);
}

Result<void> validate_device(const DeviceDef& device) { return std::visit(ValidateDevice{}, device); }

}  // namespace virtuserns
