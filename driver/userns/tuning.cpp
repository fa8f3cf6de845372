// Sizes and limits: in the definition, and as writes to the groups of a running domain (through its controller, which
// owns them).
#include "conf/tuning.h"

#include <libvirt/libvirt.h>

#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/userns/change.h"
#include "driver/userns/observe.h"

namespace virtuserns::userns {

namespace {

constexpr unsigned kImpactFlags = VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG;
constexpr unsigned kGetFlags = kImpactFlags | VIR_TYPED_PARAM_STRING_OKAY;
constexpr int kRequestTimeoutMs = 5'000;

// The same change in each affected definition.
template <class Change>
auto in_each(const Change& change) {
  return [&change](const AffectedDefs& defs) -> Result<void> {
    if (defs.live) TRY(change(*defs.live));
    if (defs.config) TRY(change(*defs.config));
    return {};
  };
}

std::size_t host_cpus(const HostFacts& host) {
  return host.node.present_cpus.empty() ? host.node.cpus : host.node.present_cpus.size();
}

}  // namespace

bool Backend::uses_v2(const char* controller) const {
  for (const auto& hierarchy : host_.hierarchies)
    if (std::find(hierarchy.controllers.begin(), hierarchy.controllers.end(), controller) !=
        hierarchy.controllers.end())
      return hierarchy.is_v2;
  return false;
}

LimitContext Backend::limit_context(const char* controller) const {
  LimitContext context{uses_v2(controller) ? LimitFiles::kV2 : LimitFiles::kV1, true, "blkio.bfq.weight"};
  return context;
}

Result<void> Backend::write_limits(const RunPtr& run, const char* controller, std::vector<FileWrite> writes) const {
  if (writes.empty()) return {};
  controller::CgroupWriteRequest request;
  for (auto& write : writes) request.writes.push_back({controller, std::move(write.file), std::move(write.value)});
  (void)TRY(run->channel->request(std::move(request), kRequestTimeoutMs));
  return {};
}

// v1 refuses a memory limit above that of memory and swap, whichever is written first: one of the two orders works.
Result<void> Backend::write_memory(const RunPtr& run, const DomainDef& def) const {
  auto writes = memory_writes(def, limit_context("memory"));
  if (auto done = write_limits(run, "memory", writes); done) return {};
  std::reverse(writes.begin(), writes.end());
  return write_limits(run, "memory", std::move(writes));
}

// ---- memory -----------------------------------------------------------------------------------------------------

Result<std::uint64_t> Backend::max_memory_kib(const Uuid& uuid) { return TRY(find(uuid))->def.max_memory_kib; }

Result<void> Backend::set_memory(const Caller&, const Uuid& uuid, std::uint64_t kib, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags | VIR_DOMAIN_MEM_MAXIMUM, "set_memory"));
  TRY(change_defs(
      uuid, flags, [&](const AffectedDefs& defs) { return apply_memory_size(defs, kib, flags); },
      [&](const RunPtr& run, const DomainDef& def) -> Result<void> {
        // The size is a limit of its own, as in libvirt: also where <memtune> has set another.
        const bool is_v2 = uses_v2("memory");
        (void)def;
        return write_limits(run, "memory",
                            {{is_v2 ? "memory.max" : "memory.limit_in_bytes", std::to_string(kib * 1024)}});
      }));
  if (const auto domain = find(uuid); domain && (*domain)->is_active() && !(flags & VIR_DOMAIN_MEM_MAXIMUM))
    emit_locked(**domain, BalloonChangeEvent{current_memory_kib((*domain)->def)});
  return {};
}

Result<TypedParams> Backend::memory_parameters(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kGetFlags, "memory_parameters"));
  const Locked domain = TRY(find(uuid));
  DomainDef def = *TRY(queried_def(*domain, flags));
  // What runs has the limit that was set last, by <memtune> or by the size of the memory: only its group knows.
  if (domain->is_active() && !(flags & VIR_DOMAIN_AFFECT_CONFIG))
    if (const auto text = read_kernel_file(
            group_file(def, "memory", uses_v2("memory") ? "memory.max" : "memory.limit_in_bytes"), 64)) {
      if (const auto bytes = parse_number<std::uint64_t>(trim(*text)))
        def.memtune.hard_limit_kib = std::min(*bytes / 1024, kMemoryUnlimitedKib);
      else if (trim(*text) == "max")
        def.memtune.hard_limit_kib = kMemoryUnlimitedKib;
    }
  return memory_params(def);
}

Result<void> Backend::set_memory_parameters(const Caller&, const Uuid& uuid, const TypedParams& params,
                                            unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "set_memory_parameters"));
  TRY(check_memory_params(params));
  const auto change = [&](DomainDef& def) { return apply_memory_params(def, params); };
  return change_defs(uuid, flags, in_each(change),
                     [&](const RunPtr& run, const DomainDef& def) { return write_memory(run, def); });
}

// ---- cpu --------------------------------------------------------------------------------------------------------

Result<std::string> Backend::scheduler_type(const Uuid& uuid, int* parameter_count) {
  (void)TRY(find(uuid));
  if (parameter_count) *parameter_count = 3;
  return std::string("posix");
}

Result<TypedParams> Backend::scheduler_parameters(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kGetFlags, "scheduler_parameters"));
  const Locked domain = TRY(find(uuid));
  const DomainDef* def = TRY(queried_def(*domain, flags));
  const bool is_live = domain->is_active() && def == &domain->def && !(flags & VIR_DOMAIN_AFFECT_CONFIG);
  return scheduler_params(*def, is_live ? kLiveSchedulerDefaults : SchedulerValues{});
}

Result<void> Backend::set_scheduler_parameters(const Caller&, const Uuid& uuid, const TypedParams& params,
                                               unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "set_scheduler_parameters"));
  TRY(check_scheduler_params(params));
  const auto change = [&](DomainDef& def) { return apply_scheduler_params(def, params); };
  TRY(change_defs(uuid, flags, in_each(change), [&](const RunPtr& run, const DomainDef& def) {
    return write_limits(run, "cpu", cpu_writes(def, limit_context("cpu").files));
  }));
  if (const auto domain = find(uuid); domain && (*domain)->is_active()) {
    TypedParams tunable;
    for (const auto& param : params) tunable.push_back({"cputune." + param.field, param.value});
    emit_locked(**domain, TunableEvent{std::move(tunable)});
  }
  return {};
}

Result<int> Backend::vcpu_count(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags | VIR_DOMAIN_VCPU_MAXIMUM, "vcpu_count"));
  const Locked domain = TRY(find(uuid));
  const DomainDef* def = TRY(queried_def(*domain, flags));
  return static_cast<int>((flags & VIR_DOMAIN_VCPU_MAXIMUM) ? def->vcpu.max : current_vcpus(*def));
}

Result<void> Backend::set_vcpus(const Caller&, const Uuid& uuid, unsigned count, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags | VIR_DOMAIN_VCPU_MAXIMUM, "set_vcpus"));
  PlanContext context = TRY(observe({}, host_, config_, paths_));
  return change_defs(
      uuid, flags,
      [&](const AffectedDefs& defs) -> Result<void> {
        TRY(apply_vcpu_count(defs, count, static_cast<unsigned>(host_cpus(host_)), flags));
        // Asked for while it runs: said outright, also where it is the maximum, because it limits (cpu_list).
        if (defs.live && !(flags & VIR_DOMAIN_VCPU_MAXIMUM)) defs.live->vcpu.current = count;
        return {};
      },
      [&](const RunPtr& run, const DomainDef& def) {
        return write_limits(run, "cpuset", {{"cpuset.cpus", cpu_list(def, context.cpuset_cpus)}});
      });
}

Result<std::vector<std::vector<bool>>> Backend::vcpu_pins(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "vcpu_pins"));
  const Locked domain = TRY(find(uuid));
  return virtuserns::vcpu_pins(*TRY(queried_def(*domain, flags)), host_cpus(host_));
}

Result<void> Backend::pin_vcpu(const Caller&, const Uuid& uuid, unsigned vcpu, const std::vector<bool>& cpus,
                               unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "pin_vcpu"));
  PlanContext context = TRY(observe({}, host_, config_, paths_));
  const auto change = [&](DomainDef& def) { return apply_vcpu_pin(def, vcpu, cpus); };
  return change_defs(uuid, flags, in_each(change), [&](const RunPtr& run, const DomainDef& def) {
    return write_limits(run, "cpuset", {{"cpuset.cpus", cpu_list(def, context.cpuset_cpus)}});
  });
}

// ---- block i/o --------------------------------------------------------------------------------------------------

Result<TypedParams> Backend::blkio_parameters(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kGetFlags, "blkio_parameters"));
  const Locked domain = TRY(find(uuid));
  DomainDef def = *TRY(queried_def(*domain, flags));
  // What runs has a weight even where <blkiotune> says nothing: "100", with cgroup v2 "default 100".
  if (domain->is_active() && !(flags & VIR_DOMAIN_AFFECT_CONFIG)) {
    const bool is_v2 = uses_v2("io");
    const char* controller = is_v2 ? "io" : "blkio";
    const auto file = is_v2 ? std::string("io.weight") : limit_context(controller).blkio_weight_file;
    const auto text = read_kernel_file(group_file(def, controller, file.c_str()), 4096);
    const auto words = text ? split_blanks(*text) : std::vector<std::string_view>();
    if (!words.empty())
      if (const auto weight = parse_number<std::uint32_t>(words[words[0] == "default" && words.size() > 1 ? 1 : 0]))
        def.blkio.weight = *weight;
  }
  return blkio_params(def);
}

Result<void> Backend::set_blkio_parameters(const Caller&, const Uuid& uuid, const TypedParams& params,
                                           unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "set_blkio_parameters"));
  TRY(check_blkio_params(params));
  const auto change = [&](DomainDef& def) { return apply_blkio_params(def, params); };
  return change_defs(uuid, flags, in_each(change), [&](const RunPtr& run, const DomainDef& def) -> Result<void> {
    const bool is_v2 = uses_v2("io");
    std::map<std::string, DeviceNumber> devices;
    for (const auto& device : def.blkio.devices) {
      const auto number = device_number(device.path);
      if (!number) return fail(VIR_ERR_INVALID_ARG, quote(device.path) + " is no device of this host");
      devices[device.path] = *number;
    }
    return write_limits(run, is_v2 ? "io" : "blkio", io_writes(def, limit_context(is_v2 ? "io" : "blkio"), devices));
  });
}

}  // namespace virtuserns::userns
