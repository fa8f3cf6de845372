// make_plan: a definition, the ids it was leased, and what this machine offers, to the plan that the controller
// carries out. Pure: everything read from the host is in PlanContext (driver/userns/observe.h reads it), so that the
// whole of a start can be compared with a golden file without root.
//
// What it decides on its own, where the definition is silent:
//  * its own user, pid, mount, uts, ipc, net and cgroup namespaces, always; lo is up;
//  * a limit on processes (userns:pids, else the daemon's pids_limit); devices by an allow-list;
//  * owner of a tree: one that belongs to container root already is used as it is, any other through an idmapped mount;
//  * /proc and /sys: masked where they tell of the host, read-only where they change it (kMasked.. in plan_mounts.cpp);
//  * capabilities: libvirt's default policy drops sys_module, sys_time, mknod, audit_control and mac_admin; ours drops
//    sys_rawio, syslog, wake_alarm, block_suspend, audit_read, mac_override, perfmon and bpf too (none of them means
//    anything in a user namespace but risk). <capabilities> brings back each by name; policy='allow' brings back all;
//  * the seccomp filter of driver/kernel/seccomp_filter.h, always, with what userns:seccomp changes in it;
//  * AppArmor's profile 'virtuserns-container' where it is loaded, unless <seclabel> says another or none.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/daemon_config.h"
#include "conf/domain.h"
#include "conf/idmap.h"
#include "conf/paths.h"
#include "driver/controller/plan.h"
#include "driver/controller/plug.h"
#include "driver/kernel/facts.h"

namespace virtuserns::userns {

inline constexpr const char* kApparmorProfile = "virtuserns-container";  // tools/data/apparmor/virtuserns.in

// What stands behind DomainDef::filesystems[i].
struct FilesystemFacts {
  std::uint32_t owner_uid = 0, owner_gid = 0;  // of the root of the tree (kMount; kFile and kBlock: unknown, 0)
  // Of an overlay: those of what the controller made in the directory; nothing is there yet; and of what lies below.
  bool is_new = false;
  std::vector<FilesystemFacts> lowers;
};

struct DeviceNumber {
  bool is_block = false;
  std::uint32_t major = 0, minor = 0;
};

struct PlanContext {
  HostFacts host;
  DaemonConfig config;
  Paths paths;
  std::vector<FilesystemFacts> filesystems;
  std::optional<SourceUser> source_user;  // who opens directories of filesystems: the owner, or (nobody) host root
  std::map<std::string, DeviceNumber> devices;         // by path: disks, hostdevs, blkio devices, block filesystems
  std::map<std::string, std::string> network_bridges;  // <interface type='network'>: name -> bridge
  std::string cpuset_cpus = "0", cpuset_mems = "0";    // v1: effective values of the parent group
  bool has_swap_limit = false;                         // v1: memory.memsw.limit_in_bytes exists
  std::string blkio_weight_file;                       // v1: "blkio.bfq.weight", "blkio.weight" or none
  // Of the scope that systemd makes ("machine.slice/..."), or empty: every group is ours.
  std::string scope_group;
  std::set<std::string> apparmor_profiles;  // that are loaded; none without AppArmor
  SeccompStep seccomp;
  // For images: what reads them (ImageHelpersStep). No storage_daemon: it is not installed.
  std::string image_prober, storage_daemon;
  std::vector<std::uint8_t> image_filter;
  std::uint32_t passed_files = 0;
};

struct MadePlan {
  LaunchPlan plan;
  std::vector<std::string> messages;  // what the definition asks for and this host cannot do (virDomainGetMessages)
};

// VIR_ERR_CONFIG_UNSUPPORTED names the element that cannot be done and the remedy.
[[nodiscard]] Result<MadePlan> make_plan(const DomainDef& def, const IdMaps& maps, const PlanContext& context);

// One device for a domain that runs, by the same rules. `only`: its definition with that device and no other; `context`: of that.
struct DevicePlan {
  std::vector<BeforeStep> sources;  // to be opened before it is asked for; their ids are those of `ask`
  controller::PlugAsk ask;
  std::vector<std::string> messages;
};
// VIR_ERR_OPERATION_UNSUPPORTED names what only a start can do, and --config.
[[nodiscard]] Result<DevicePlan> make_device_plan(const DomainDef& only, const IdMaps& maps,
                                                  const PlanContext& context);

// "virtuserns-<uuid>": the group's name in every hierarchy.
[[nodiscard]] std::string group_name(const DomainDef& def);
// Where a link to the terminal of the host is that leads to the console; empty: there is none, as for further ones of a domain, and in a
// session, whose user reaches none of the host's.
[[nodiscard]] std::string terminal_path(const Paths& paths, const Uuid& uuid, const ConsoleDef& console);
// "<cgroup_parent>/<partition>/virtuserns-<uuid>", without a leading slash.
[[nodiscard]] std::string group_path(const DomainDef& def, const DaemonConfig& config);
// The same in this hierarchy, when the domain has a scope: "<scope_group>/container" where systemd makes its groups.
[[nodiscard]] std::string group_path(const DomainDef& def, const DaemonConfig& config, const std::string& scope_group,
                                     const CgroupHierarchy& hierarchy);
// libvirt's rule: [A-Za-z0-9-] of the name, without leading dashes; at most 64 characters.
[[nodiscard]] std::string guest_hostname(const std::string& name);
[[nodiscard]] std::uint64_t capability_bounds(const FeaturesDef& features, std::uint64_t last_capability);
// What cpuset.cpus becomes: what <vcpupin> names, else <vcpu cpuset>, else all of `available`; of these the first
// <vcpu current>, where that is given (a plain <vcpu> limits nothing, as in libvirt).
[[nodiscard]] std::string cpu_list(const DomainDef& def, const std::string& available);

// ---- limits as writes to kernel files, shared with live tuning ----

enum class LimitFiles { kV1, kV2 };
struct LimitContext {
  LimitFiles files = LimitFiles::kV1;
  bool has_swap_limit = false;
  std::string blkio_weight_file;
};
// In an order the kernel accepts in a fresh group.
[[nodiscard]] std::vector<FileWrite> memory_writes(const DomainDef& def, const LimitContext& context);
[[nodiscard]] std::vector<FileWrite> cpu_writes(const DomainDef& def, LimitFiles files);
[[nodiscard]] std::vector<FileWrite> io_writes(const DomainDef& def, const LimitContext& context,
                                               const std::map<std::string, DeviceNumber>& devices);
// cpu.shares <-> cpu.weight: 1024 shares are the default weight of 100.
[[nodiscard]] std::uint64_t weight_of_shares(std::uint64_t shares);
[[nodiscard]] std::uint64_t shares_of_weight(std::uint64_t weight);

}  // namespace virtuserns::userns
