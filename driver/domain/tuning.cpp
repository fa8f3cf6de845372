// Sizes and limits: checked, put into the definitions, and made true of what runs by the module.
#include "conf/tuning.h"

#include "driver/domain/domain_driver.h"

namespace virtuserns {

namespace {

constexpr unsigned kGetFlags = kImpactFlags | VIR_TYPED_PARAM_STRING_OKAY;

}  // namespace

Result<void> DomainDriver::apply_limits(DriverDomain&, DomainDef&, Limits, const TypedParams&) { return {}; }
void DomainDriver::read_limits(DomainDef&, Limits) {}

Result<void> DomainDriver::change_limits(const Caller& caller, const Uuid& uuid, unsigned flags, Limits limits,
                                         const TypedParams& given, const Change& change,
                                         std::optional<EventBody> event) {
  const auto job = TRY(domains_.take_job(uuid));
  bool is_live = false;
  TRY(change_defs(caller, job, flags, change, [&](DomainDef& live) {
    is_live = true;
    return apply_limits(*job.domain, live, limits, given);
  }));
  if (is_live && event) emit(job, std::move(*event));
  return {};
}

Result<DomainDef> DomainDriver::queried_limits(const Uuid& uuid, unsigned flags, Limits limits) {
  DomainDef def;
  bool is_live = false;
  {
    const auto domain = TRY(domains_.find(uuid));
    def = *TRY(queried_def(*domain, flags));
    is_live = domain->is_active() && !(flags & VIR_DOMAIN_AFFECT_CONFIG);
  }
  if (is_live) read_limits(def, limits);
  return def;
}

// ---- memory -----------------------------------------------------------------------------------------------------

Result<std::uint64_t> DomainDriver::max_memory_kib(const Uuid& uuid) {
  return TRY(domains_.find(uuid))->def.max_memory_kib;
}

Result<void> DomainDriver::set_memory(const Caller& caller, const Uuid& uuid, std::uint64_t kib, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags | VIR_DOMAIN_MEM_MAXIMUM, "virDomainSetMemoryFlags"));
  return change_limits(
      caller, uuid, flags, Limits::kMemorySize, {},
      [&](const AffectedDefs& defs) { return apply_memory_size(defs, kib, flags); }, BalloonChangeEvent{kib});
}

Result<TypedParams> DomainDriver::memory_parameters(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kGetFlags, "virDomainGetMemoryParameters"));
  return memory_params(TRY(queried_limits(uuid, flags, Limits::kMemory)));
}

Result<void> DomainDriver::set_memory_parameters(const Caller& caller, const Uuid& uuid, const TypedParams& params,
                                                 unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "virDomainSetMemoryParameters"));
  TRY(check_memory_params(params));
  return change_limits(caller, uuid, flags, Limits::kMemory, params,
                       in_each([&](DomainDef& def) { return apply_memory_params(def, params); }));
}

// ---- cpu --------------------------------------------------------------------------------------------------------

Result<std::string> DomainDriver::scheduler_type(const Uuid& uuid, int* parameter_count) {
  (void)TRY(domains_.find(uuid));
  if (parameter_count) *parameter_count = 3;
  return std::string("posix");  // what libvirt calls the kernel's cpu controller
}

Result<TypedParams> DomainDriver::scheduler_parameters(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kGetFlags, "virDomainGetSchedulerParametersFlags"));
  const auto domain = TRY(domains_.find(uuid));
  const DomainDef* def = TRY(queried_def(*domain, flags));
  const bool is_live = domain->is_active() && def == &domain->def && !(flags & VIR_DOMAIN_AFFECT_CONFIG);
  return scheduler_params(*def, is_live ? kLiveSchedulerDefaults : SchedulerValues{});
}

Result<void> DomainDriver::set_scheduler_parameters(const Caller& caller, const Uuid& uuid, const TypedParams& params,
                                                    unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "virDomainSetSchedulerParametersFlags"));
  TRY(check_scheduler_params(params));
  TypedParams tunable;
  for (const auto& param : params) tunable.push_back({"cputune." + param.field, param.value});
  return change_limits(caller, uuid, flags, Limits::kCpu, params,
                       in_each([&](DomainDef& def) { return apply_scheduler_params(def, params); }),
                       TunableEvent{std::move(tunable)});
}

Result<int> DomainDriver::vcpu_count(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags | VIR_DOMAIN_VCPU_MAXIMUM, "virDomainGetVcpusFlags"));
  const auto domain = TRY(domains_.find(uuid));
  const DomainDef* def = TRY(queried_def(*domain, flags));
  return static_cast<int>((flags & VIR_DOMAIN_VCPU_MAXIMUM) ? def->vcpu.max : current_vcpus(*def));
}

Result<void> DomainDriver::set_vcpus(const Caller& caller, const Uuid& uuid, unsigned count, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags | VIR_DOMAIN_VCPU_MAXIMUM, "virDomainSetVcpusFlags"));
  const auto host_max = static_cast<unsigned>(TRY(max_vcpus("")));
  return change_limits(caller, uuid, flags, Limits::kVcpuCount, {},
                       [&](const AffectedDefs& defs) { return apply_vcpu_count(defs, count, host_max, flags); });
}

Result<std::vector<std::vector<bool>>> DomainDriver::vcpu_pins(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "virDomainGetVcpuPinInfo"));
  const auto domain = TRY(domains_.find(uuid));
  return virtuserns::vcpu_pins(*TRY(queried_def(*domain, flags)), host_cpus());
}

Result<void> DomainDriver::pin_vcpu(const Caller& caller, const Uuid& uuid, unsigned vcpu,
                                    const std::vector<bool>& cpus, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "virDomainPinVcpuFlags"));
  return change_limits(caller, uuid, flags, Limits::kVcpuPins, {},
                       in_each([&](DomainDef& def) { return apply_vcpu_pin(def, vcpu, cpus); }));
}

// ---- block i/o --------------------------------------------------------------------------------------------------

Result<TypedParams> DomainDriver::blkio_parameters(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kGetFlags, "virDomainGetBlkioParameters"));
  return blkio_params(TRY(queried_limits(uuid, flags, Limits::kBlockIo)));
}

Result<void> DomainDriver::set_blkio_parameters(const Caller& caller, const Uuid& uuid, const TypedParams& params,
                                                unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "virDomainSetBlkioParameters"));
  TRY(check_blkio_params(params));
  return change_limits(caller, uuid, flags, Limits::kBlockIo, params,
                       in_each([&](DomainDef& def) { return apply_blkio_params(def, params); }));
}

}  // namespace virtuserns
