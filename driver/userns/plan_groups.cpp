// Control groups and limits. One step for each hierarchy; v1, v2 and the hybrid of both.
#include <algorithm>
#include <limits>
#include <set>

#include "conf/base/text.h"
#include "conf/tuning.h"
#include "driver/userns/plan_parts.h"
#include "driver/userns/scope.h"

namespace virtuserns::userns {

namespace {

// name=systemd limits nothing, but systemd with v1 alone takes what is in a unit's group there for the unit's processes:
// left in the daemon's group, those of a domain would be moved out of their limits when a setting of the unit the daemon
// was started in changes. net_cls, perf_event and such limit nothing.
const std::set<std::string> kControllersV1 = {"cpu",     "cpuacct", "cpuset", "memory",      "devices",
                                              "freezer", "blkio",   "pids",   "name=systemd"};
const std::set<std::string> kControllersV2 = {"cpu", "cpuset", "memory", "io", "pids"};

std::string bytes_of(std::uint64_t kib) { return kib >= kMemoryUnlimitedKib ? "-1" : std::to_string(kib * 1024); }

std::string number(const DeviceNumber& device) {
  return std::to_string(device.major) + ":" + std::to_string(device.minor);
}

std::uint64_t pids_limit(const Draft& draft) {
  return draft.def.userns.pids_limit.value_or(draft.context.config.pids_limit);
}

void append(std::vector<FileWrite>& to, std::vector<FileWrite> from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

// The nodes every domain may use and those of its definition; bound in, never made (mknod is refused anyway).
std::vector<DeviceRule> device_rules(const Draft& draft) {
  std::vector<DeviceRule> rules = standard_device_rules();
  const auto own = own_device_rules(draft);
  rules.insert(rules.end(), own.begin(), own.end());
  return rules;
}

std::vector<FileWrite> cpuset_writes_v1(const Draft& draft) {
  // A fresh v1 group has neither cpus nor memory nodes, and nobody can enter it before it has both.
  const auto& tune = draft.def.numatune;
  return {{"cpuset.mems", tune.present && !tune.nodeset.empty() ? tune.nodeset : draft.context.cpuset_mems},
          {"cpuset.cpus", cpu_list(draft.def, draft.context.cpuset_cpus)}};
}

std::vector<FileWrite> writes_of(Draft& draft, const std::string& controller, LimitFiles files) {
  const LimitContext limits{files, draft.context.has_swap_limit || files == LimitFiles::kV2,
                            draft.context.blkio_weight_file};
  const bool is_v1 = files == LimitFiles::kV1;
  if (controller == "memory") return memory_writes(draft.def, limits);
  if (controller == "cpu") return cpu_writes(draft.def, files);
  if (controller == "pids") return {{"pids.max", std::to_string(pids_limit(draft))}};
  if (controller == "blkio" || controller == "io") return io_writes(draft.def, limits, draft.context.devices);
  if (controller == "cpuset" && is_v1) return cpuset_writes_v1(draft);
  if (controller == "cpuset") {
    std::vector<FileWrite> writes;
    if (const auto cpus = cpu_list(draft.def, draft.context.cpuset_cpus); cpus != draft.context.cpuset_cpus)
      writes.push_back({"cpuset.cpus", cpus});
    if (draft.def.numatune.present && !draft.def.numatune.nodeset.empty())
      writes.push_back({"cpuset.mems", draft.def.numatune.nodeset});
    return writes;
  }
  return {};
}

// Who is not root of the machine can make no node, and the kernel takes no filter from them.
bool has_devices_to_limit(const PlanContext& context) {
  return context.host.is_initial_user_namespace && !context.paths.is_session;
}

// What was asked for and has nobody to enforce it.
void report_missing(Draft& draft, const std::set<std::string>& present) {
  const auto& def = draft.def;
  const auto missing = [&](const char* v1, const char* v2) { return !present.count(v1) && !present.count(v2); };
  const bool is_session = draft.context.paths.is_session;
  const auto nobody = [&](const std::string& controller) {
    return is_session ? "no control group of the " + controller + " controller is delegated to you"
                      : "this host has no " + controller + " controller";
  };
  if (missing("memory", "memory")) draft.message("memory is not limited: " + nobody("memory"));
  if (missing("pids", "pids")) draft.message("the number of processes is not limited: " + nobody("pids"));
  if ((def.cputune.shares || def.cputune.quota_us) && missing("cpu", "cpu"))
    draft.message("<cputune> is not applied: " + nobody("cpu"));
  if (!def.vcpu.cpuset.empty() && missing("cpuset", "cpuset"))
    draft.message("<vcpu cpuset> is not applied: " + nobody("cpuset"));
  if ((def.blkio.weight || !def.blkio.devices.empty()) && missing("blkio", "io"))
    draft.message("<blkiotune> is not applied: " + nobody("block i/o"));
  if (present.count("memory") && def.memtune.swap_hard_limit_kib &&
      draft.context.host.cgroup_mode != CgroupMode::kV2 && !draft.context.has_swap_limit)
    draft.message("<swap_hard_limit> is not applied: this host does not account swap");
  if (present.count("blkio") && def.blkio.weight && draft.context.blkio_weight_file.empty())
    draft.message("<blkiotune><weight> is not applied: this host's i/o scheduler has no weights");
  if (!present.count("devices") && has_devices_to_limit(draft.context))
    draft.message("devices are limited by what is in /dev only: this host has no cgroup that limits devices");
}

}  // namespace

std::vector<DeviceRule> own_device_rules(const Draft& draft) {
  constexpr std::uint32_t kReadWrite = DeviceRule::kRead | DeviceRule::kWrite;
  std::vector<DeviceRule> rules;
  const auto allow = [&](const std::string& path, std::uint32_t access) {
    if (const auto found = draft.context.devices.find(path); found != draft.context.devices.end())
      rules.push_back({found->second.is_block ? DeviceKind::kBlock : DeviceKind::kCharacter, found->second.major,
                       found->second.minor, access});
  };
  for (const auto& disk : draft.def.disks) allow(disk.source, disk.readonly ? DeviceRule::kRead : kReadWrite);
  for (const auto& hostdev : draft.def.hostdevs) {
    if (hostdev.type != HostdevType::kCapsNet) allow(hostdev.source, kReadWrite);
    if (hostdev.source == "/dev/fuse") rules.push_back({DeviceKind::kCharacter, 10, 229});
    if (hostdev.source == "/dev/net/tun") rules.push_back({DeviceKind::kCharacter, 10, 200});
  }
  return rules;
}

const CgroupHierarchy* device_hierarchy(const HostFacts& host) {
  const CgroupHierarchy* found = nullptr;
  for (const auto& hierarchy : host.hierarchies) {
    const auto& names = hierarchy.controllers;
    if (!hierarchy.is_v2 && std::find(names.begin(), names.end(), "devices") != names.end()) return &hierarchy;
    if (hierarchy.is_v2) found = &hierarchy;
  }
  return found;
}

void plan_groups(Draft& draft) {
  const auto& context = draft.context;
  std::set<std::string> present;
  const auto limits_devices = has_devices_to_limit(context) ? device_hierarchy(context.host) : nullptr;
  for (const auto& hierarchy : draft.context.host.hierarchies) {
    CgroupStep step;
    step.mount = hierarchy.mount;
    step.is_v2 = hierarchy.is_v2;
    step.path = group_path(draft.def, context.config, context.scope_group, hierarchy);
    if (!context.scope_group.empty() && is_systemds(hierarchy)) step.scope = context.scope_group;
    // A user's own daemon has a scope of the user's systemd, or the groups that were delegated to it, or none.
    step.is_optional = draft.context.paths.is_session && step.scope.empty();
    step.delegate = hierarchy.is_v2;
    const auto& wanted = hierarchy.is_v2 ? kControllersV2 : kControllersV1;
    for (const auto& controller : hierarchy.controllers) {
      if (!wanted.count(controller)) continue;
      step.controllers.push_back(controller);
      present.insert(controller);
      append(step.writes, writes_of(draft, controller, hierarchy.is_v2 ? LimitFiles::kV2 : LimitFiles::kV1));
    }
    if (&hierarchy == limits_devices) {
      step.device_rules = device_rules(draft);
      present.insert("devices");
    }
    // cgroup2 is wanted even without controllers: cgroup.kill and cgroup.freeze.
    if (step.is_v2 || !step.controllers.empty()) draft.plan().before.push_back(std::move(step));
  }
  // On a host with v1 alone. Without controllers, and still what an init needs to keep its services apart: of v1 nothing
  // is ever given away.
  if (context.host.has_unmounted_cgroup2 && !context.paths.is_session) {
    CgroupStep step;
    step.is_v2 = step.delegate = true;
    step.path = group_path(draft.def, context.config);
    draft.plan().before.push_back(std::move(step));
  }
  report_missing(draft, present);
}

std::string cpu_list(const DomainDef& def, const std::string& available) {
  const auto& vcpu = def.vcpu;
  const std::string& wanted = vcpu.cpuset.empty() ? available : vcpu.cpuset;
  const bool is_pinned = std::any_of(def.cputune.kept.begin(), def.cputune.kept.end(),
                                     [](const KeptXml& kept) { return kept.name == "vcpupin"; });
  if (!vcpu.current && !is_pinned) return wanted;
  const auto host = parse_bitmap(available);
  auto cpus = parse_bitmap(wanted);
  if (!cpus || !host) return wanted;
  // The processes of a container are no vcpus: together they get what all the vcpus have.
  if (is_pinned) {
    cpus->assign(host->size(), false);
    const auto pins = vcpu_pins(def, host->size());
    for (std::size_t number = 0; number < pins.size() && number < current_vcpus(def); ++number)
      for (std::size_t cpu = 0; cpu < pins[number].size() && cpu < host->size(); ++cpu)
        if (pins[number][cpu] && (*host)[cpu]) (*cpus)[cpu] = true;
  }
  std::uint32_t left =
      vcpu.current ? std::max<std::uint32_t>(1, *vcpu.current) : std::numeric_limits<std::uint32_t>::max();
  for (std::size_t i = 0; i < cpus->size(); ++i) {
    if (!(*cpus)[i]) continue;
    if (left == 0)
      (*cpus)[i] = false;
    else
      --left;
  }
  const auto text = format_bitmap(*cpus);
  return text.empty() ? wanted : text;
}

std::vector<FileWrite> memory_writes(const DomainDef& def, const LimitContext& context) {
  const auto& tune = def.memtune;
  const std::uint64_t hard = tune.hard_limit_kib.value_or(current_memory_kib(def));
  std::vector<FileWrite> writes;
  if (context.files == LimitFiles::kV2) {
    const auto text = [](std::uint64_t kib) {
      return kib >= kMemoryUnlimitedKib ? std::string("max") : bytes_of(kib);
    };
    if (hard != 0) writes.push_back({"memory.max", text(hard)});
    if (tune.soft_limit_kib) writes.push_back({"memory.high", text(*tune.soft_limit_kib)});
    // libvirt's limit counts memory and swap together, v2's swap alone.
    if (tune.swap_hard_limit_kib && context.has_swap_limit)
      writes.push_back(
          {"memory.swap.max",
           *tune.swap_hard_limit_kib >= kMemoryUnlimitedKib
               ? "max"
               : std::to_string((*tune.swap_hard_limit_kib - std::min(hard, *tune.swap_hard_limit_kib)) * 1024)});
    return writes;
  }
  if (hard != 0) writes.push_back({"memory.limit_in_bytes", bytes_of(hard)});
  if (tune.soft_limit_kib) writes.push_back({"memory.soft_limit_in_bytes", bytes_of(*tune.soft_limit_kib)});
  if (tune.swap_hard_limit_kib && context.has_swap_limit)
    writes.push_back({"memory.memsw.limit_in_bytes", bytes_of(std::max(hard, *tune.swap_hard_limit_kib))});
  return writes;
}

std::vector<FileWrite> cpu_writes(const DomainDef& def, LimitFiles files) {
  const auto& tune = def.cputune;
  std::vector<FileWrite> writes;
  if (files == LimitFiles::kV2) {
    if (tune.shares) writes.push_back({"cpu.weight", std::to_string(weight_of_shares(*tune.shares))});
    if (tune.quota_us || tune.period_us) {
      const std::int64_t quota = tune.quota_us.value_or(-1);
      writes.push_back({"cpu.max", (quota > 0 ? std::to_string(quota) : "max") + " " +
                                       std::to_string(tune.period_us.value_or(100'000))});
    }
    return writes;
  }
  if (tune.shares) writes.push_back({"cpu.shares", std::to_string(*tune.shares)});
  if (tune.period_us && *tune.period_us != 0)
    writes.push_back({"cpu.cfs_period_us", std::to_string(*tune.period_us)});
  if (tune.quota_us && *tune.quota_us != 0) writes.push_back({"cpu.cfs_quota_us", std::to_string(*tune.quota_us)});
  return writes;
}

std::vector<FileWrite> io_writes(const DomainDef& def, const LimitContext& context,
                                 const std::map<std::string, DeviceNumber>& devices) {
  std::vector<FileWrite> writes;
  const bool is_v2 = context.files == LimitFiles::kV2;
  if (def.blkio.weight && *def.blkio.weight != 0) {
    if (is_v2)
      writes.push_back({"io.weight", "default " + std::to_string(*def.blkio.weight)});
    else if (!context.blkio_weight_file.empty())
      writes.push_back({context.blkio_weight_file, std::to_string(*def.blkio.weight)});
  }
  for (const auto& device : def.blkio.devices) {
    const auto found = devices.find(device.path);
    if (found == devices.end()) continue;
    const std::string prefix = number(found->second) + " ";
    const auto limit = [&](const auto& value, const char* v1, const char* v2) {
      if (!value) return;
      const bool lifted = *value == 0;
      if (is_v2)
        writes.push_back({"io.max", prefix + v2 + "=" + (lifted ? "max" : std::to_string(*value))});
      else
        writes.push_back({v1, prefix + std::to_string(*value)});
    };
    limit(device.read_iops, "blkio.throttle.read_iops_device", "riops");
    limit(device.write_iops, "blkio.throttle.write_iops_device", "wiops");
    limit(device.read_bytes, "blkio.throttle.read_bps_device", "rbps");
    limit(device.write_bytes, "blkio.throttle.write_bps_device", "wbps");
    if (device.weight && *device.weight != 0 && is_v2)
      writes.push_back({"io.weight", prefix + std::to_string(*device.weight)});
  }
  return writes;
}

std::uint64_t weight_of_shares(std::uint64_t shares) {
  return std::clamp<std::uint64_t>((std::min<std::uint64_t>(shares, 262'144) * 100 + 512) / 1024, 1, 10'000);
}
std::uint64_t shares_of_weight(std::uint64_t weight) { return weight * 1024 / 100; }

}  // namespace virtuserns::userns
