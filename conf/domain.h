// DomainDef: what was asked for. Plain data, comparable, no behaviour, no XML, no kernel.
//
// It holds everything that libvirt's LXC driver honours, in libvirt's own terms (formatdomain.rst). Elements of
// libvirt's schema that this project does not honour are kept as text (KeptXml) at the place where they stood, so
// that they survive a round trip and can be reported (virDomainGetMessages).
//
// Three stages make one: xml::parse_domain (text to data, no defaults), apply_defaults (conf/defaults.h),
// validate (conf/validate.h). Units are in the names; memory is in KiB as in libvirt.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "conf/uuid.h"

namespace virtuserns {

// An element (or attribute) that is kept and formatted back, but not honoured.
struct KeptXml {
  // Where it stood, from the struct that keeps it: "tpm" a child element, "@foo" an attribute of the element itself,
  // "source/@portgroup" and "target/model" an attribute and a child of a modelled child.
  std::string name;
  std::string xml;  // the element, canonically indented from column 0; or the attribute's value
  bool operator==(const KeptXml&) const = default;
};

// A child of <metadata>: one namespaced element, kept verbatim.
struct MetadataElement {
  std::string uri;
  std::string xml;  // the element with its namespace declaration, canonically indented from column 0
  bool operator==(const MetadataElement&) const = default;
};

// ---- identity -------------------------------------------------------------------------------------------------

struct IdMapEntry {
  std::uint32_t start = 0;              // first id inside
  std::optional<std::uint32_t> target;  // first id outside; absent: the range broker chooses (our extension)
  std::uint32_t count = 0;
  bool operator==(const IdMapEntry&) const = default;
};

struct IdMapDef {
  std::vector<IdMapEntry> uid;  // sorted by start after apply_defaults
  std::vector<IdMapEntry> gid;
  [[nodiscard]] bool empty() const { return uid.empty() && gid.empty(); }
  bool operator==(const IdMapDef&) const = default;
};

// ---- os -------------------------------------------------------------------------------------------------------

struct InitEnv {
  std::string name, value;
  bool operator==(const InitEnv&) const = default;
};

struct OsDef {
  std::string type = "exe";
  std::string arch;  // "x86_64", "i686"
  std::string machine;
  std::string init;
  std::vector<std::string> init_args;
  std::vector<InitEnv> init_env;
  std::string init_dir, init_user, init_group;
  std::string cmdline;
  std::vector<KeptXml> kept;
  bool operator==(const OsDef&) const = default;
};

// ---- resources ------------------------------------------------------------------------------------------------

struct MemoryTune {
  std::optional<std::uint64_t> hard_limit_kib, soft_limit_kib, swap_hard_limit_kib, min_guarantee_kib;
  std::vector<KeptXml> kept;
  bool operator==(const MemoryTune&) const = default;
};

struct CpuTune {
  std::optional<std::uint64_t> shares, period_us;
  std::optional<std::int64_t> quota_us;  // negative: no limit
  std::vector<KeptXml> kept;             // vcpupin, emulatorpin, ...
  bool operator==(const CpuTune&) const = default;
};

struct BlkioDevice {
  std::string path;
  std::optional<std::uint32_t> weight;
  std::optional<std::uint32_t> read_iops, write_iops;
  std::optional<std::uint64_t> read_bytes, write_bytes;  // per second
  bool operator==(const BlkioDevice&) const = default;
};

struct BlkioTune {
  std::optional<std::uint32_t> weight;
  std::vector<BlkioDevice> devices;
  std::vector<KeptXml> kept;
  bool operator==(const BlkioTune&) const = default;
};

struct NumaTune {
  std::string mode;       // strict | interleave | preferred | restrictive
  std::string placement;  // static | auto
  std::string nodeset;    // "0-3,^2" as written, normalised
  std::vector<KeptXml> kept;
  bool present = false;
  bool operator==(const NumaTune&) const = default;
};

struct VcpuDef {
  std::uint32_t max = 1;
  std::optional<std::uint32_t> current;  // current='N' when fewer than max
  std::string placement;                 // static | auto
  std::string cpuset;                    // normalised "0-1,4"; empty: all
  std::vector<KeptXml> kept;
  bool operator==(const VcpuDef&) const = default;
};

struct ResourceDef {
  std::string partition;  // empty: "/machine"
  std::vector<KeptXml> kept;
  bool present = false;
  bool operator==(const ResourceDef&) const = default;
};

// ---- features, clock, lifecycle -------------------------------------------------------------------------------

enum class CapabilitiesPolicy { kDefault, kAllow, kDeny };

struct FeaturesDef {
  bool privnet = false;
  bool capabilities_present = false;
  CapabilitiesPolicy capabilities_policy = CapabilitiesPolicy::kDefault;
  std::map<std::string, bool> capabilities;  // "net_admin" -> on
  std::vector<KeptXml> kept;
  bool present = false;
  bool operator==(const FeaturesDef&) const = default;
};

struct TimerDef {
  std::string name;  // rtc, hpet, ...
  std::optional<bool> present;
  std::vector<KeptXml> kept;
  bool operator==(const TimerDef&) const = default;
};

struct ClockDef {
  std::string offset = "utc";  // utc | localtime | timezone | variable | absolute
  std::vector<KeptXml> kept;   // other attributes ('@timezone', '@adjustment', '@basis')
  std::vector<TimerDef> timers;
  bool operator==(const ClockDef&) const = default;
};

// The last two only for on_crash; kept for libvirt's sake, a container has no core of its own: they act as the first two.
enum class LifecycleAction { kDestroy, kRestart, kPreserve, kRenameRestart, kCoredumpDestroy, kCoredumpRestart };

// ---- devices --------------------------------------------------------------------------------------------------

struct DeviceAlias {
  std::string name;  // live XML only ("console0"), or a user alias "ua-..."
  bool operator==(const DeviceAlias&) const = default;
};

enum class FilesystemType { kMount, kBind, kRam, kFile, kBlock, kTemplate, kVolume };

struct FilesystemDef {
  FilesystemType type = FilesystemType::kMount;
  std::string access_mode;    // passthrough | mapped | squash; empty: not written
  std::string driver_type;    // path | handle | loop | nbd | ...; empty: no <driver>
  std::string driver_format;  // raw | qcow2 ...
  std::string driver_wrpolicy;
  std::string source;  // dir, file, dev or template name; for ram unused
  std::uint64_t ram_usage_kib = 0;
  std::string source_pool, source_volume;
  std::string target;
  bool readonly = false;
  std::optional<std::uint64_t> space_hard_limit_bytes, space_soft_limit_bytes;
  std::optional<DeviceAlias> alias;
  std::vector<KeptXml> kept;
  bool operator==(const FilesystemDef&) const = default;
};

enum class DiskType { kFile, kBlock };

struct DiskDef {
  DiskType type = DiskType::kFile;
  std::string device;  // disk | cdrom ...; empty: not written
  std::string driver_name, driver_type, driver_cache;
  std::string source;
  std::string target_dev, target_bus;
  bool readonly = false;
  std::optional<DeviceAlias> alias;
  std::vector<KeptXml> kept;
  bool operator==(const DiskDef&) const = default;
};

struct MacAddress {
  std::array<std::uint8_t, 6> bytes{};
  auto operator<=>(const MacAddress&) const = default;
};

struct IpAddressDef {
  std::string family;  // ipv4 | ipv6 (as written, or deduced)
  std::string address;
  std::optional<std::uint32_t> prefix;
  std::string peer;
  bool operator==(const IpAddressDef&) const = default;
};

struct RouteDef {
  std::string family;
  std::string address;  // network; "0.0.0.0" / "::" with prefix 0 is the default route
  std::optional<std::uint32_t> prefix;
  std::string netmask;
  std::string gateway;
  std::optional<std::uint32_t> metric;
  bool operator==(const RouteDef&) const = default;
};

enum class InterfaceType { kBridge, kNetwork, kEthernet, kDirect, kUser };
enum class LinkState { kDefault, kUp, kDown };

// <portForward>: ports of the host that lead into the container (type='user').
struct PortRangeDef {
  std::uint16_t start = 0;
  std::optional<std::uint16_t> end, to;
  std::optional<bool> exclude;
  bool operator==(const PortRangeDef&) const = default;
};
struct PortForwardDef {
  std::string proto;         // tcp | udp
  std::string address, dev;  // of the host; empty: any
  std::vector<PortRangeDef> ranges;
  std::vector<KeptXml> kept;
  bool operator==(const PortForwardDef&) const = default;
};

struct InterfaceDef {
  InterfaceType type = InterfaceType::kBridge;
  std::optional<MacAddress> mac;  // filled by apply_defaults (52:54:00:xx:xx:xx, as virDomainNetGenerateMAC)
  std::string source;             // bridge, network or dev
  std::string direct_mode;        // vepa | bridge | private | passthrough
  std::string target_dev;         // host side name; live XML always has it
  std::string guest_dev;          // name inside
  std::string model;
  LinkState link_state = LinkState::kDefault;
  std::optional<std::uint32_t> mtu;
  std::vector<IpAddressDef> ips;
  std::vector<RouteDef> routes;
  std::vector<IpAddressDef> source_ips;  // <source><ip> (host side of type ethernet)
  std::vector<RouteDef> source_routes;
  std::vector<PortForwardDef> port_forwards;
  std::string backend;  // passt; empty: the same, with type='user'
  std::string backend_log;
  std::optional<DeviceAlias> alias;
  std::vector<KeptXml> kept;  // filterref, bandwidth, virtualport, vlan, port, tune, coalesce, ...
  bool operator==(const InterfaceDef&) const = default;
};

struct ConsoleDef {
  std::string type = "pty";
  std::string source_path;  // live XML: "/dev/pts/N" of the host side
  std::string tty;          // live XML: the old tty='' attribute, same as source_path
  std::string target_type = "lxc";
  std::uint32_t target_port = 0;
  std::string log_file;
  std::optional<bool> log_append;
  std::optional<DeviceAlias> alias;
  std::vector<KeptXml> kept;
  bool operator==(const ConsoleDef&) const = default;
};

enum class HostdevType { kCapsStorage, kCapsMisc, kCapsNet, kSubsysUsb };

struct HostdevDef {
  HostdevType type = HostdevType::kCapsMisc;
  std::string source;             // block, char or interface
  std::string managed;            // yes | no; empty: not written
  std::vector<IpAddressDef> ips;  // capsNet
  std::vector<RouteDef> routes;
  std::vector<KeptXml> source_kept;  // usb <vendor>, <product>, <address> below <source>
  std::optional<DeviceAlias> alias;
  std::vector<KeptXml> kept;
  bool operator==(const HostdevDef&) const = default;
};

// Any one device, as attach, detach and update take it.
using DeviceDef = std::variant<FilesystemDef, DiskDef, InterfaceDef, ConsoleDef, HostdevDef>;

// ---- security label, extension namespaces ---------------------------------------------------------------------

struct SeclabelDef {
  std::string type;  // none | static | dynamic
  std::string model;
  std::string relabel;
  std::string label, imagelabel, baselabel;
  std::vector<KeptXml> kept;
  bool operator==(const SeclabelDef&) const = default;
};

// <lxc:namespace>
struct SharedNamespace {
  std::string kind;  // sharenet | shareipc | shareuts
  std::string type;  // none | name | pid | netns
  std::string value;
  bool operator==(const SharedNamespace&) const = default;
};

// <userns:seccomp>: what differs from the default policy (conf/system_calls.h). Sorted, without repeats.
struct SeccompDef {
  bool has_nesting = false;  // nesting='yes': user namespaces inside
  bool is_logged = true;     // log='no'
  std::vector<std::string> allow, deny;
  auto operator<=>(const SeccompDef&) const = default;
};

// <userns:owner>: the host user that a domain of userns:///system belongs to. Its ids come out of that user's delegation, and
// with access_drivers = [ "owner" ] that user may manage it.
struct OwnerDef {
  std::string user;                  // a name that is no number; empty: `uid`
  std::optional<std::uint32_t> uid;  // above 0
  // sources='host': directories of its <filesystem> are opened by the host's root and shifted as those of any domain, in place
  // of being opened as the owner and used as they are. Administrators alone may say so.
  bool has_host_sources = false;
  bool operator==(const OwnerDef&) const = default;
};

// A file below an overlay: <userns:backing file='' format=''/>.
struct BackingDef {
  std::string file, format;
  auto operator<=>(const BackingDef&) const = default;
};

// <userns:image target=''>: which part of the image at a <filesystem type='file'> or 'block' is its file system. Nothing given:
// all of it.
struct ImagePartDef {
  std::string target;  // that of the <filesystem>
  std::optional<std::uint32_t> partition;
  std::optional<std::uint64_t> offset_bytes, size_bytes;
  std::string subvolume;             // of btrfs; empty: the default one
  std::vector<BackingDef> backings;  // of an overlay, from the top to the bottom
  auto operator<=>(const ImagePartDef&) const = default;
};

// <userns:overlay target=''>: the directory of a <filesystem type='mount'> is what an overlay writes to, and these directories,
// <userns:lower dir=''/>, are what it lies over and only reads.
struct OverlayDef {
  std::string target;               // that of the <filesystem>
  std::vector<std::string> lowers;  // from the top to the bottom
  auto operator<=>(const OverlayDef&) const = default;
};

// Our extensions: the children of one element <userns:domain xmlns:userns="urn:virtuserns:domain:1.0"> inside
// <metadata>, the one place where libvirt's schema and every client keep a foreign element. The text stays in
// DomainDef::metadata, which is what is formatted; this struct is what the parser read in it.
inline constexpr std::string_view kUsernsUri = "urn:virtuserns:domain:1.0";
struct UsernsDef {
  std::optional<std::uint64_t> pids_limit;  // <userns:pids limit='N'/>; absent: the driver's default
  std::optional<std::uint32_t> id_count;    // <userns:ids count='N'/>: size of the automatic range
  std::string id_group;                     // <userns:ids group='NAME'/>: domains of one share ids; empty: none
  SeccompDef seccomp;
  std::optional<OwnerDef> owner;
  std::vector<ImagePartDef> images;
  std::vector<OverlayDef> overlays;
  bool operator==(const UsernsDef&) const = default;
};

struct DomainDef {
  std::string virt_type = "lxc";
  int id = -1;  // -1: not running. Not part of the persistent XML.
  std::string name;
  Uuid uuid;
  bool has_uuid = false;  // parser's: <uuid> was given
  std::string title, description;
  std::vector<MetadataElement> metadata;

  std::uint64_t max_memory_kib = 0;      // <memory>
  std::uint64_t current_memory_kib = 0;  // <currentMemory>; 0: equal to max
  BlkioTune blkio;
  MemoryTune memtune;
  VcpuDef vcpu;
  CpuTune cputune;
  NumaTune numatune;
  ResourceDef resource;
  OsDef os;
  IdMapDef idmap;
  FeaturesDef features;
  ClockDef clock;
  LifecycleAction on_poweroff = LifecycleAction::kDestroy;
  LifecycleAction on_reboot = LifecycleAction::kRestart;
  LifecycleAction on_crash = LifecycleAction::kDestroy;

  std::string emulator;
  std::vector<DiskDef> disks;
  std::vector<FilesystemDef> filesystems;
  std::vector<InterfaceDef> interfaces;
  std::vector<ConsoleDef> consoles;
  std::vector<HostdevDef> hostdevs;
  std::vector<KeptXml> kept_devices;  // tpm, video, serial, ...: formatted in libvirt's order

  std::vector<SeclabelDef> seclabels;
  std::vector<SharedNamespace> shared_namespaces;
  UsernsDef userns;
  std::vector<KeptXml> kept;  // top-level elements, formatted in libvirt's order

  bool operator==(const DomainDef&) const = default;
};

}  // namespace virtuserns
