// The tree of a domain: root, /dev, /proc, /sys, its filesystems, and the device nodes it may use.
#include <algorithm>

#include "conf/base/text.h"
#include "conf/image_formats.h"
#include "conf/validate.h"
#include "driver/userns/plan_parts.h"

namespace virtuserns::userns {

namespace {

// Tells of the host, or reaches it (runc's and nspawn's lists together).
const std::vector<std::string> kMaskedProc = {
    "/proc/kcore",       "/proc/kmsg",        "/proc/keys",          "/proc/key-users",     "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/latency_stats", "/proc/sysrq-trigger", "/proc/acpi",
    "/proc/scsi",        "/proc/asound",      "/proc/interrupts",    "/proc/kallsyms",      "/proc/kpagecount",
    "/proc/kpageflags",  "/proc/kpagecgroup", "/proc/vmallocinfo",   "/proc/pagetypeinfo",  "/proc/slabinfo",
    "/proc/config.gz"};
const std::vector<std::string> kReadonlyProc = {"/proc/sys",           "/proc/bus",    "/proc/fs",
                                                "/proc/irq",           "/proc/mtrr",   "/proc/sysvipc",
                                                "/proc/dynamic_debug", "/proc/driver", "/proc/tty"};
// The network namespace's own knobs, as libvirt leaves them open.
const std::vector<std::string> kWritableProc = {"/proc/sys/net/ipv4", "/proc/sys/net/ipv6"};
const std::vector<std::string> kMaskedSys = {
    "/sys/firmware",      "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security",
    "/sys/kernel/config", "/sys/fs/bpf",       "/sys/fs/pstore",      "/sys/devices/virtual/powercap",
    "/sys/power",         "/sys/hypervisor",   "/sys/kernel/slab"};

std::string element(const FilesystemDef& fs) { return "<filesystem> at " + quote(fs.target); }

Result<OwnerShift> owner_shift(Draft& draft, const FilesystemDef& fs, const FilesystemFacts& facts) {
  // Never shifted: a set-user-id program that container root makes in a tree of host root's ids would be host root's.
  if (draft.context.source_user && fs.access_mode == "mapped")
    return unsupported(element(fs) + ": accessmode 'mapped' is not for domains with an owner");
  if (draft.context.source_user) return OwnerShift::kAlreadyShifted;
  const bool is_shifted = facts.owner_uid == draft.plan_uid() && facts.owner_gid == draft.plan_gid();
  if (is_shifted && fs.access_mode != "mapped") return OwnerShift::kAlreadyShifted;
  const bool is_session = draft.context.paths.is_session;
  if (draft.context.host.has_idmapped_mounts && !is_session) return OwnerShift::kIdmappedMount;
  // Who is not root of the machine has nobody's file system shifted (mount_setattr(2)); their other ones may be looked at.
  const bool is_root_of_machine = draft.context.host.is_initial_user_namespace && !is_session;
  if (!is_root_of_machine && fs.access_mode != "mapped" && fs.target != "/") {
    draft.message(element(fs) + ": " + quote(fs.source) +
                  " does not belong to the domain's root; its files show as nobody's");
    return OwnerShift::kAlreadyShifted;
  }
  const std::string root = std::to_string(draft.plan_uid());
  return unsupported(element(fs) + ": " + quote(fs.source) + " belongs to " + std::to_string(facts.owner_uid) + ":" +
                     std::to_string(facts.owner_gid) + " and not to the domain's root, " + root + ":" +
                     std::to_string(draft.plan_gid()) + ", and no idmapped mount is to be had " +
                     (is_session ? "by an ordinary user: make it by 'virt-userns-rootfs create --first " + root + "'"
                      : is_root_of_machine
                          ? "from this kernel: change the owners of all its files to the domain's ids first"
                          : "in a container: change the owners of all its files to the domain's ids first"));
}

// What qemu-storage-daemon reads, and "raw", which needs nobody.
Result<std::string> image_format(const FilesystemDef& fs) {
  const std::string type = fs.driver_type.empty() ? "loop" : fs.driver_type;
  const std::string format = fs.driver_format.empty() ? "raw" : fs.driver_format;
  if (fs.type == FilesystemType::kBlock && format != "raw")
    return unsupported(element(fs) + ": a block device can only be of format 'raw'");
  if (type != "loop" && type != "nbd")
    return unsupported(element(fs) + ": filesystem driver " + quote(type) +
                       " is not supported, only 'loop' and 'nbd'");
  if (!is_image_format(format))
    return unsupported(element(fs) + ": images of format " + quote(format) + " are not supported, only " +
                       image_format_names());
  if (type == "loop" && format != "raw")
    return unsupported(element(fs) + ": images of format " + quote(format) +
                       " need <driver type='nbd'>, 'loop' is for 'raw'");
  return format;
}

// Who mounts a file system from a device has to be root of the machine, not of a user namespace (user_namespaces(7)).
Result<void> check_host_for_images(const Draft& draft, const FilesystemDef& fs) {
  const auto& context = draft.context;
  if (context.paths.is_session || !context.host.is_initial_user_namespace)
    return unsupported(element(fs) + ": the kernel mounts images for root of the machine alone, not for " +
                       (context.paths.is_session ? "an ordinary user (userns:///session)" : "a container") +
                       ": unpack it into a directory, or use userns:///system of the machine");
  return {};
}

Result<void> add_image(Draft& draft, const FilesystemDef& fs, std::uint32_t id) {
  auto format = TRY(image_format(fs));
  ImageSourceStep step{id, fs.type == FilesystemType::kBlock, {{fs.source, std::move(format)}}};
  step.is_readonly = fs.readonly;
  if (const auto* part = find_image_part(draft.def, fs)) {
    step.partition = part->partition.value_or(0);
    step.offset_bytes = part->offset_bytes.value_or(0);
    step.size_bytes = part->size_bytes.value_or(0);
    step.subvolume = part->subvolume;
    if (!part->backings.empty() && step.chain.front().format != "qcow2")
      return unsupported(element(fs) + ": only an image of format 'qcow2' lies on <userns:backing>");
    for (const auto& backing : part->backings) step.chain.push_back({backing.file, backing.format});
  }
  const auto& context = draft.context;
  const bool needs_daemon = step.chain.front().format != "raw";
  if (needs_daemon && context.storage_daemon.empty())
    return unsupported(element(fs) + ": images of format " + quote(step.chain.front().format) +
                       " are read by qemu-storage-daemon, which is not on this host: install the package "
                       "qemu-system-common (Debian), or convert the image to 'raw'");
  auto& before = draft.plan().before;
  const bool is_first = std::none_of(before.begin(), before.end(), [](const BeforeStep& other) {
    return std::holds_alternative<ImageHelpersStep>(other);
  });
  if (is_first)
    before.push_back(ImageHelpersStep{context.image_prober, context.storage_daemon, context.image_filter});
  before.push_back(std::move(step));
  return {};
}

Result<void> add_source(Draft& draft, const FilesystemDef& fs, std::uint32_t id) {
  const auto& user = draft.context.source_user;
  if (is_image(fs) && user)
    return unsupported(element(fs) +
                       ": an image or device is for domains without an owner, or with <userns:owner sources='host'>");
  if (is_image(fs)) return add_image(draft, fs, id);
  draft.plan().before.push_back(SourceStep{id, fs.source, false, fs.readonly, user});
  return {};
}

Result<void> plan_filesystem(Draft& draft, const FilesystemDef& fs, const FilesystemFacts& facts) {
  auto& plan = draft.plan();
  switch (fs.type) {
    case FilesystemType::kMount:
    case FilesystemType::kFile:
    case FilesystemType::kBlock: {
      if (is_image(fs)) TRY(check_host_for_images(draft, fs));
      const auto* overlay = find_overlay(draft.def, fs);
      // The layers of an overlay are shifted, not the whole: that the kernel refuses.
      const auto shift = overlay ? OwnerShift::kAlreadyShifted : TRY(owner_shift(draft, fs, facts));
      const std::uint32_t id = draft.next_source++;
      TRY(overlay ? plan_overlay(draft, fs, *overlay, facts, id) : add_source(draft, fs, id));
      if (fs.target == "/")
        plan.from_parent.push_back(RootStep{id, shift, fs.readonly});
      else
        plan.from_parent.push_back(BindStep{id, fs.target, shift, fs.readonly});
      break;
    }
    case FilesystemType::kBind:
      plan.from_parent.push_back(InnerBindStep{fs.source, fs.target, fs.readonly});
      break;
    case FilesystemType::kRam:
      plan.from_parent.push_back(TmpfsStep{fs.target, fs.ram_usage_kib * 1024, 0755, fs.readonly});
      break;
    case FilesystemType::kTemplate:
    case FilesystemType::kVolume:
      return unsupported(element(fs) + ": types 'template' and 'volume' are not supported");
  }
  if (fs.space_hard_limit_bytes || fs.space_soft_limit_bytes)
    draft.message(element(fs) + ": space limits are not applied");
  return {};
}

void add_node(Draft& draft, const std::string& host_source, const std::string& target, bool is_optional) {
  const std::uint32_t id = draft.next_source++;
  draft.plan().before.push_back(DeviceSourceStep{id, host_source, is_optional});
  draft.plan().from_parent.push_back(DeviceNodeStep{id, target});
}

FilesystemFacts facts_of(const Draft& draft, std::size_t i) {
  return i < draft.context.filesystems.size() ? draft.context.filesystems[i] : FilesystemFacts{};
}

bool has_unified(const HostFacts& host) {
  for (const auto& hierarchy : host.hierarchies)
    if (hierarchy.is_v2) return true;
  return host.has_unmounted_cgroup2;
}

}  // namespace

std::uint32_t Draft::plan_uid() const { return made.plan.host_uid; }
std::uint32_t Draft::plan_gid() const { return made.plan.host_gid; }

Result<void> plan_mounts(Draft& draft) {
  const auto& def = draft.def;
  const FilesystemDef* root = nullptr;
  for (std::size_t i = 0; i < def.filesystems.size(); ++i) {
    if (def.filesystems[i].target != "/") continue;
    if (root) return unsupported("two <filesystem> elements have the target '/'");
    root = &def.filesystems[i];
    if (root->type != FilesystemType::kMount && root->type != FilesystemType::kFile &&
        root->type != FilesystemType::kBlock)
      return unsupported("the root filesystem must be of type 'mount', 'file' or 'block'");
    if (root->type == FilesystemType::kMount && root->source == "/")
      return unsupported("the host's own root directory cannot be the root filesystem of a domain");
    TRY(plan_filesystem(draft, *root, facts_of(draft, i)));
  }
  // libvirt's driver would start such a domain on the host's own files.
  if (!root)
    return unsupported("domain has no root filesystem: add <filesystem type='mount'> with <target dir='/'/>");

  auto& steps = draft.plan().from_parent;
  std::optional<std::uint32_t> pts_gid;
  if (to_host(draft.maps.gid, 5)) pts_gid = 5;
  steps.push_back(DevStep{65'536, static_cast<std::uint32_t>(draft.plan().consoles.size()), pts_gid});
  // Of its own: what programs share must not have to fit into /dev. It counts against the domain's memory.
  steps.push_back(TmpfsStep{"/dev/shm", 0, 01777, false});
  for (const char* node : {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"})
    add_node(draft, node, node, false);
  const bool has_containers = def.userns.seccomp.has_nesting;
  steps.push_back(ProcStep{kMaskedProc, kReadonlyProc, kWritableProc, has_containers});
  steps.push_back(SysStep{kMaskedSys, has_containers});
  if (has_unified(draft.context.host) && !draft.context.paths.is_session) steps.push_back(CgroupMountStep{});
  steps.push_back(MqueueStep{});
  return plan_filesystems(draft);
}

Result<void> plan_filesystems(Draft& draft) {
  for (std::size_t i = 0; i < draft.def.filesystems.size(); ++i)
    if (const auto& fs = draft.def.filesystems[i]; fs.target != "/")
      TRY(plan_filesystem(draft, fs, facts_of(draft, i)));
  return {};
}

Result<void> plan_devices(Draft& draft) {
  for (const auto& disk : draft.def.disks) {
    const std::string name = "<disk> " + quote(disk.target_dev);
    if (disk.type == DiskType::kFile)
      return unsupported(name + ": disks of type 'file' are not supported; use <filesystem type='file'>");
    if (!draft.context.devices.count(disk.source))
      return unsupported(name + ": " + quote(disk.source) + " is no device of this host");
    // The node belongs to container root, and neither its mode nor its mount keeps that root from writing.
    if (disk.readonly && !device_hierarchy(draft.context.host))
      return unsupported(name + ": cannot be read-only on this host, which has no cgroup that limits devices");
    add_node(draft, disk.source, "/dev/" + disk.target_dev, false);
    // It may be taken away, and another one come in its place. A session's domain has no stem that could.
    std::get<DeviceNodeStep>(draft.plan().from_parent.back()).is_loose = !draft.context.paths.is_session;
  }
  for (const auto& hostdev : draft.def.hostdevs) {
    switch (hostdev.type) {
      case HostdevType::kCapsNet:
        break;  // plan_network
      case HostdevType::kCapsStorage:
      case HostdevType::kCapsMisc: {
        const auto found = draft.context.devices.find(hostdev.source);
        if (found == draft.context.devices.end())
          return unsupported("<hostdev> " + quote(hostdev.source) + " is no device of this host");
        if (found->second.is_block != (hostdev.type == HostdevType::kCapsStorage))
          return unsupported("<hostdev> " + quote(hostdev.source) + " is a " +
                             (found->second.is_block ? "block" : "character") + " device: use type='" +
                             (found->second.is_block ? "storage" : "misc") + "'");
        add_node(draft, hostdev.source, hostdev.source, false);
        break;
      }
      case HostdevType::kSubsysUsb:
        return unsupported("<hostdev type='usb'> is not supported");
    }
  }
  return {};
}

}  // namespace virtuserns::userns
