// Sizes and limits. They limit nothing here; that they are kept and shown as libvirt would is the point.
#include "conf/tuning.h"

#include <libvirt/libvirt.h>

#include "driver/test/driver.h"

namespace virtuserns::test_driver {
namespace {

constexpr unsigned kImpactFlags = VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG;
constexpr unsigned kGetFlags = kImpactFlags | VIR_TYPED_PARAM_STRING_OKAY;

}  // namespace

// ---- memory -----------------------------------------------------------------------------------------------------

Result<std::uint64_t> TestDriver::max_memory_kib(const Uuid& uuid) { return TRY(find(uuid))->def.max_memory_kib; }

Result<void> TestDriver::set_memory(const Caller&, const Uuid& uuid, std::uint64_t kib, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags | VIR_DOMAIN_MEM_MAXIMUM, "set_memory"));
  const Locked domain = TRY(find(uuid));
  return change_affected(*domain, flags,
                         [&](const AffectedDefs& defs) { return apply_memory_size(defs, kib, flags); });
}

Result<TypedParams> TestDriver::memory_parameters(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kGetFlags, "memory_parameters"));
  const Locked domain = TRY(find(uuid));
  return memory_params(*TRY(queried_def(*domain, flags)));
}

Result<void> TestDriver::set_memory_parameters(const Caller&, const Uuid& uuid, const TypedParams& params,
                                               unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "set_memory_parameters"));
  TRY(check_memory_params(params));
  const Locked domain = TRY(find(uuid));
  return change_each(*domain, flags, [&](DomainDef& def) { return apply_memory_params(def, params); });
}

// ---- cpu --------------------------------------------------------------------------------------------------------

Result<std::string> TestDriver::scheduler_type(const Uuid& uuid, int* parameter_count) {
  (void)TRY(find(uuid));
  if (parameter_count) *parameter_count = 3;
  return std::string("posix");  // what libvirt calls the kernel's cpu controller
}

Result<TypedParams> TestDriver::scheduler_parameters(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kGetFlags, "scheduler_parameters"));
  const Locked domain = TRY(find(uuid));
  const DomainDef* def = TRY(queried_def(*domain, flags));
  const bool is_live = domain->is_active() && def == &domain->def && !(flags & VIR_DOMAIN_AFFECT_CONFIG);
  return scheduler_params(*def, is_live ? kLiveSchedulerDefaults : SchedulerValues{});
}

Result<void> TestDriver::set_scheduler_parameters(const Caller&, const Uuid& uuid, const TypedParams& params,
                                                  unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "set_scheduler_parameters"));
  TRY(check_scheduler_params(params));
  const Locked domain = TRY(find(uuid));
  return change_each(*domain, flags, [&](DomainDef& def) { return apply_scheduler_params(def, params); });
}

Result<int> TestDriver::vcpu_count(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags | VIR_DOMAIN_VCPU_MAXIMUM, "vcpu_count"));
  const Locked domain = TRY(find(uuid));
  const DomainDef* def = TRY(queried_def(*domain, flags));
  return static_cast<int>((flags & VIR_DOMAIN_VCPU_MAXIMUM) ? def->vcpu.max : current_vcpus(*def));
}

Result<void> TestDriver::set_vcpus(const Caller&, const Uuid& uuid, unsigned count, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags | VIR_DOMAIN_VCPU_MAXIMUM, "set_vcpus"));
  const Locked domain = TRY(find(uuid));
  return change_affected(*domain, flags,
                         [&](const AffectedDefs& defs) { return apply_vcpu_count(defs, count, kMaxVcpus, flags); });
}

Result<std::vector<std::vector<bool>>> TestDriver::vcpu_pins(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "vcpu_pins"));
  const Locked domain = TRY(find(uuid));
  return virtuserns::vcpu_pins(*TRY(queried_def(*domain, flags)), kHostCpus);
}

Result<void> TestDriver::pin_vcpu(const Caller&, const Uuid& uuid, unsigned vcpu, const std::vector<bool>& cpus,
                                  unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "pin_vcpu"));
  const Locked domain = TRY(find(uuid));
  std::vector<bool> known = cpus;
  known.resize(kHostCpus);  // as libvirt does: bits of cpus that the host does not have mean nothing
  return change_each(*domain, flags, [&](DomainDef& def) { return apply_vcpu_pin(def, vcpu, known); });
}

// ---- block io ---------------------------------------------------------------------------------------------------

Result<TypedParams> TestDriver::blkio_parameters(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kGetFlags, "blkio_parameters"));
  const Locked domain = TRY(find(uuid));
  return blkio_params(*TRY(queried_def(*domain, flags)));
}

Result<void> TestDriver::set_blkio_parameters(const Caller&, const Uuid& uuid, const TypedParams& params,
                                              unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "set_blkio_parameters"));
  TRY(check_blkio_params(params));
  const Locked domain = TRY(find(uuid));
  return change_each(*domain, flags, [&](DomainDef& def) { return apply_blkio_params(def, params); });
}

}  // namespace virtuserns::test_driver
