// Typed parameters <-> DomainDef: memory, scheduler, blkio; memory size and vcpu count. Pure.
//
// A driver calls the `apply_` function on a copy of each affected definition, pushes the live copy's values into the
// kernel, and keeps the copies when that went well. Names, wire types, units, ranges, codes and words are libvirt's
// (virDomainSetMemoryParameters and its sisters).
#pragma once

#include <initializer_list>
#include <string>

#include "conf/base/result.h"
#include "conf/domain.h"
#include "conf/domain_objects.h"
#include "conf/typed_param.h"

namespace virtuserns {

inline constexpr std::uint64_t kMemoryUnlimitedKib = 9'007'199'254'740'991;  // VIR_DOMAIN_MEMORY_PARAM_UNLIMITED

struct ParamRule {
  const char* field;
  int type;  // virTypedParameterType
};
// Every parameter is known, of its type, and given once. Otherwise VIR_ERR_ARGUMENT_UNSUPPORTED (unknown name) or
// VIR_ERR_INVALID_ARG, as virTypedParamsValidate says it.
[[nodiscard]] Result<void> check_params(const TypedParams& params, std::initializer_list<ParamRule> rules);

// hard_limit, soft_limit, swap_hard_limit in KiB; kMemoryUnlimitedKib where there is no limit.
[[nodiscard]] TypedParams memory_params(const DomainDef& def);
[[nodiscard]] Result<void> check_memory_params(const TypedParams& params);
[[nodiscard]] Result<void> apply_memory_params(DomainDef& def, const TypedParams& params);

// cpu_shares, vcpu_period, vcpu_quota. `unset`: what an absent value reads as (a definition says 0, the kernel of a
// running domain 1024, 100000, -1: pass those for a live query where no better source is at hand).
struct SchedulerValues {
  std::uint64_t shares = 0, period_us = 0;
  std::int64_t quota_us = 0;
};
inline constexpr SchedulerValues kLiveSchedulerDefaults{1024, 100'000, -1};
[[nodiscard]] TypedParams scheduler_params(const DomainDef& def, const SchedulerValues& unset = {});
[[nodiscard]] Result<void> check_scheduler_params(const TypedParams& params);
[[nodiscard]] Result<void> apply_scheduler_params(DomainDef& def, const TypedParams& params);

// weight, device_weight, device_{read,write}_{iops,bytes}_sec ("/dev/sda,100,/dev/sdb,200").
[[nodiscard]] TypedParams blkio_params(const DomainDef& def);
[[nodiscard]] Result<void> check_blkio_params(const TypedParams& params);
[[nodiscard]] Result<void> apply_blkio_params(DomainDef& def, const TypedParams& params);

// <currentMemory>, or <memory> where there is none.
[[nodiscard]] std::uint64_t current_memory_kib(const DomainDef& def);
// virDomainSetMemoryFlags: the current size, or with VIR_DOMAIN_MEM_MAXIMUM the maximum, in the given definitions.
// All checks before the first change. A running domain's maximum is fixed: VIR_ERR_OPERATION_INVALID.
[[nodiscard]] Result<void> apply_memory_size(const AffectedDefs& defs, std::uint64_t kib, unsigned flags);

// <vcpupin>, which lives among the kept elements of <cputune>. One set of host cpus per vcpu of the maximum; all of
// `host_cpus` (or the <vcpu cpuset>) where nothing is pinned.
[[nodiscard]] std::vector<std::vector<bool>> vcpu_pins(const DomainDef& def, std::size_t host_cpus);
[[nodiscard]] Result<void> apply_vcpu_pin(DomainDef& def, unsigned vcpu, const std::vector<bool>& cpus);

[[nodiscard]] std::uint32_t current_vcpus(const DomainDef& def);
// virDomainSetVcpusFlags, likewise. `host_max`: what virConnectGetMaxVcpus says.
[[nodiscard]] Result<void> apply_vcpu_count(const AffectedDefs& defs, unsigned count, unsigned host_max,
                                            unsigned flags);

}  // namespace virtuserns
