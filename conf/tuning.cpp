#include "conf/tuning.h"

#include <libvirt/libvirt.h>

#include <algorithm>
#include <array>

#include "conf/base/text.h"

namespace virtuserns {
namespace {

constexpr std::array<ParamRule, 3> kMemoryRules{{{VIR_DOMAIN_MEMORY_HARD_LIMIT, VIR_TYPED_PARAM_ULLONG},
                                                 {VIR_DOMAIN_MEMORY_SOFT_LIMIT, VIR_TYPED_PARAM_ULLONG},
                                                 {VIR_DOMAIN_MEMORY_SWAP_HARD_LIMIT, VIR_TYPED_PARAM_ULLONG}}};

// The ranges of the kernel: cpu.shares (v1; v2 weights are computed from it), cpu.cfs_period_us, cpu.cfs_quota_us,
// blkio.weight.
constexpr std::uint64_t kMinShares = 2, kMaxShares = 262'144;
constexpr std::uint64_t kMinPeriodUs = 1'000, kMaxPeriodUs = 1'000'000;
constexpr std::int64_t kMinQuotaUs = 1'000, kMaxQuotaUs = 18'446'744'073'709'551;
constexpr std::uint32_t kMinWeight = 10, kMaxWeight = 1'000;

const char* type_name(int type) {
  static constexpr std::array kNames{"unknown", "int", "uint", "llong", "ullong", "double", "boolean", "string"};
  return kNames.at(static_cast<std::size_t>(type));
}

int type_of(const TypedValue& value) { return static_cast<int>(value.index()) + 1; }

template <class T>
const T* find(const TypedParams& params, const char* field) {
  auto found = std::find_if(params.begin(), params.end(), [&](const TypedParam& p) { return p.field == field; });
  return found == params.end() ? nullptr : std::get_if<T>(&found->value);
}

Error out_of_range(const char* field, const std::string& value, const std::string& low, const std::string& high) {
  return fail(VIR_ERR_INVALID_ARG,
              std::string(field) + " '" + value + "' must be in range (" + low + ", " + high + ")");
}

std::optional<std::uint64_t> limit(std::uint64_t kib) {
  if (kib >= kMemoryUnlimitedKib) return std::nullopt;
  return kib;
}

// Of a kept element, which is canonical: single quotes, no blanks around '='. Enough for the two plain attributes of
// <vcpupin>; anything else is the XML layer's.
std::string_view attribute(std::string_view element, std::string_view name) {
  const std::string opening = " " + std::string(name) + "='";
  const auto at = element.find(opening);
  if (at == std::string_view::npos) return {};
  const auto begin = at + opening.size();
  const auto end = element.find('\'', begin);
  return end == std::string_view::npos ? std::string_view{} : element.substr(begin, end - begin);
}

// ---- blkio devices ----------------------------------------------------------------------------------------------

using DeviceValues = std::vector<std::pair<std::string, std::uint64_t>>;

struct DeviceField {
  const char* field;
  bool is_64_bit;
  void (*set)(BlkioDevice&, std::uint64_t);
  std::uint64_t (*get)(const BlkioDevice&);
};

template <auto Member>
constexpr DeviceField device_field(const char* name) {
  using Value = typename std::remove_reference_t<decltype(std::declval<BlkioDevice&>().*Member)>::value_type;
  return {name, sizeof(Value) == 8,
          [](BlkioDevice& device, std::uint64_t value) {
            if (value == 0) {
              (device.*Member).reset();
            } else {
              device.*Member = static_cast<Value>(value);
            }
          },
          [](const BlkioDevice& device) -> std::uint64_t { return (device.*Member).value_or(0); }};
}

constexpr std::array kDeviceFields{
    device_field<&BlkioDevice::weight>(VIR_DOMAIN_BLKIO_DEVICE_WEIGHT),
    device_field<&BlkioDevice::read_iops>(VIR_DOMAIN_BLKIO_DEVICE_READ_IOPS),
    device_field<&BlkioDevice::write_iops>(VIR_DOMAIN_BLKIO_DEVICE_WRITE_IOPS),
    device_field<&BlkioDevice::read_bytes>(VIR_DOMAIN_BLKIO_DEVICE_READ_BPS),
    device_field<&BlkioDevice::write_bytes>(VIR_DOMAIN_BLKIO_DEVICE_WRITE_BPS),
};

Result<DeviceValues> parse_device_values(const DeviceField& field, const std::string& text) {
  DeviceValues values;
  if (text.empty()) return values;
  const auto parts = split(text, ',');
  if (parts.size() % 2 != 0) {
    return fail(VIR_ERR_INVALID_ARG, "unable to parse blkio device " + quote(field.field) + " " + quote(text));
  }
  for (std::size_t i = 0; i < parts.size(); i += 2) {
    const auto number = parse_number<std::uint64_t>(parts[i + 1]);
    const bool fits = number && (field.is_64_bit || *number <= UINT32_MAX);
    if (parts[i].empty() || !fits) {
      return fail(VIR_ERR_INVALID_ARG, "invalid value " + quote(parts[i + 1]) + " for parameter " +
                                           quote(field.field) + " of device " + quote(parts[i]));
    }
    const bool is_weight = field.get == kDeviceFields[0].get;
    if (is_weight && *number != 0 && (*number < kMinWeight || *number > kMaxWeight)) {
      return out_of_range(field.field, std::to_string(*number), std::to_string(kMinWeight),
                          std::to_string(kMaxWeight));
    }
    values.emplace_back(parts[i], *number);
  }
  return values;
}

void merge_device_values(BlkioTune& blkio, const DeviceField& field, const DeviceValues& values) {
  for (const auto& [path, value] : values) {
    auto found = std::find_if(blkio.devices.begin(), blkio.devices.end(),
                              [&, &wanted = path](const BlkioDevice& device) { return device.path == wanted; });
    if (found == blkio.devices.end()) {
      if (value == 0) continue;
      BlkioDevice device;
      device.path = path;
      found = blkio.devices.insert(blkio.devices.end(), std::move(device));
    }
    field.set(*found, value);
  }
  std::erase_if(blkio.devices, [](const BlkioDevice& device) {
    return !device.weight && !device.read_iops && !device.write_iops && !device.read_bytes && !device.write_bytes;
  });
}

Result<void> check_against(const TypedParams& params, const ParamRule* rules, std::size_t count) {
  for (auto param = params.begin(); param != params.end(); ++param) {
    const auto* rule =
        std::find_if(rules, rules + count, [&](const ParamRule& r) { return param->field == r.field; });
    if (rule == rules + count) {
      return fail(VIR_ERR_ARGUMENT_UNSUPPORTED, "parameter " + quote(param->field) + " not supported");
    }
    if (std::any_of(params.begin(), param, [&](const TypedParam& p) { return p.field == param->field; })) {
      return fail(VIR_ERR_INVALID_ARG, "parameter " + quote(param->field) + " occurs multiple times");
    }
    if (type_of(param->value) != rule->type) {
      return fail(VIR_ERR_INVALID_ARG, std::string("invalid type '") + type_name(type_of(param->value)) +
                                           "' for parameter " + quote(param->field) + ", expected '" +
                                           type_name(rule->type) + "'");
    }
  }
  return {};
}

}  // namespace

Result<void> check_params(const TypedParams& params, std::initializer_list<ParamRule> rules) {
  return check_against(params, rules.begin(), rules.size());
}

// ---- memory -----------------------------------------------------------------------------------------------------

TypedParams memory_params(const DomainDef& def) {
  const MemoryTune& tune = def.memtune;
  return {{VIR_DOMAIN_MEMORY_HARD_LIMIT, tune.hard_limit_kib.value_or(kMemoryUnlimitedKib)},
          {VIR_DOMAIN_MEMORY_SOFT_LIMIT, tune.soft_limit_kib.value_or(kMemoryUnlimitedKib)},
          {VIR_DOMAIN_MEMORY_SWAP_HARD_LIMIT, tune.swap_hard_limit_kib.value_or(kMemoryUnlimitedKib)}};
}

Result<void> check_memory_params(const TypedParams& params) {
  return check_against(params, kMemoryRules.data(), kMemoryRules.size());
}

Result<void> apply_memory_params(DomainDef& def, const TypedParams& params) {
  TRY(check_memory_params(params));
  MemoryTune tune = def.memtune;
  const auto take = [&](const char* field, std::optional<std::uint64_t>& into) {
    if (const auto* kib = find<std::uint64_t>(params, field)) into = limit(*kib);
  };
  take(VIR_DOMAIN_MEMORY_HARD_LIMIT, tune.hard_limit_kib);
  take(VIR_DOMAIN_MEMORY_SOFT_LIMIT, tune.soft_limit_kib);
  take(VIR_DOMAIN_MEMORY_SWAP_HARD_LIMIT, tune.swap_hard_limit_kib);
  // The kernel counts memory + swap against the swap limit, so a lower one could never be reached.
  if (tune.hard_limit_kib.value_or(kMemoryUnlimitedKib) > tune.swap_hard_limit_kib.value_or(kMemoryUnlimitedKib)) {
    return fail(VIR_ERR_INVALID_ARG,
                "memory hard_limit tunable value must be lower than or equal to swap_hard_limit");
  }
  def.memtune = tune;
  return {};
}

// ---- scheduler --------------------------------------------------------------------------------------------------

TypedParams scheduler_params(const DomainDef& def, const SchedulerValues& unset) {
  const CpuTune& tune = def.cputune;
  return {{VIR_DOMAIN_SCHEDULER_CPU_SHARES, tune.shares.value_or(unset.shares)},
          {VIR_DOMAIN_SCHEDULER_VCPU_PERIOD, tune.period_us.value_or(unset.period_us)},
          {VIR_DOMAIN_SCHEDULER_VCPU_QUOTA, tune.quota_us.value_or(unset.quota_us)}};
}

Result<void> check_scheduler_params(const TypedParams& params) {
  TRY(check_params(params, {{VIR_DOMAIN_SCHEDULER_CPU_SHARES, VIR_TYPED_PARAM_ULLONG},
                            {VIR_DOMAIN_SCHEDULER_VCPU_PERIOD, VIR_TYPED_PARAM_ULLONG},
                            {VIR_DOMAIN_SCHEDULER_VCPU_QUOTA, VIR_TYPED_PARAM_LLONG}}));
  const auto* shares = find<std::uint64_t>(params, VIR_DOMAIN_SCHEDULER_CPU_SHARES);
  if (shares && *shares != 0 && (*shares < kMinShares || *shares > kMaxShares)) {
    return out_of_range(VIR_DOMAIN_SCHEDULER_CPU_SHARES, std::to_string(*shares), std::to_string(kMinShares),
                        std::to_string(kMaxShares));
  }
  const auto* period = find<std::uint64_t>(params, VIR_DOMAIN_SCHEDULER_VCPU_PERIOD);
  if (period && *period != 0 && (*period < kMinPeriodUs || *period > kMaxPeriodUs)) {
    return out_of_range(VIR_DOMAIN_SCHEDULER_VCPU_PERIOD, std::to_string(*period), std::to_string(kMinPeriodUs),
                        std::to_string(kMaxPeriodUs));
  }
  const auto* quota = find<std::int64_t>(params, VIR_DOMAIN_SCHEDULER_VCPU_QUOTA);
  if (quota && *quota > 0 && (*quota < kMinQuotaUs || *quota > kMaxQuotaUs)) {
    return out_of_range(VIR_DOMAIN_SCHEDULER_VCPU_QUOTA, std::to_string(*quota), std::to_string(kMinQuotaUs),
                        std::to_string(kMaxQuotaUs));
  }
  return {};
}

Result<void> apply_scheduler_params(DomainDef& def, const TypedParams& params) {
  TRY(check_scheduler_params(params));
  // Zero takes the value out of the definition, as it does in libvirt's XML.
  if (const auto* shares = find<std::uint64_t>(params, VIR_DOMAIN_SCHEDULER_CPU_SHARES)) {
    def.cputune.shares = *shares ? std::optional(*shares) : std::nullopt;
  }
  if (const auto* period = find<std::uint64_t>(params, VIR_DOMAIN_SCHEDULER_VCPU_PERIOD)) {
    def.cputune.period_us = *period ? std::optional(*period) : std::nullopt;
  }
  if (const auto* quota = find<std::int64_t>(params, VIR_DOMAIN_SCHEDULER_VCPU_QUOTA)) {
    def.cputune.quota_us = *quota ? std::optional(*quota) : std::nullopt;
  }
  return {};
}

// ---- blkio ------------------------------------------------------------------------------------------------------

TypedParams blkio_params(const DomainDef& def) {
  TypedParams params{{VIR_DOMAIN_BLKIO_WEIGHT, def.blkio.weight.value_or(0)}};
  for (const DeviceField& field : kDeviceFields) {
    std::vector<std::string> parts;
    for (const BlkioDevice& device : def.blkio.devices) {
      const std::uint64_t value = field.get(device);
      if (value != 0) parts.push_back(device.path + "," + std::to_string(value));
    }
    params.push_back({field.field, join(parts, ",")});
  }
  return params;
}

Result<void> check_blkio_params(const TypedParams& params) {
  TRY(check_params(params, {{VIR_DOMAIN_BLKIO_WEIGHT, VIR_TYPED_PARAM_UINT},
                            {VIR_DOMAIN_BLKIO_DEVICE_WEIGHT, VIR_TYPED_PARAM_STRING},
                            {VIR_DOMAIN_BLKIO_DEVICE_READ_IOPS, VIR_TYPED_PARAM_STRING},
                            {VIR_DOMAIN_BLKIO_DEVICE_WRITE_IOPS, VIR_TYPED_PARAM_STRING},
                            {VIR_DOMAIN_BLKIO_DEVICE_READ_BPS, VIR_TYPED_PARAM_STRING},
                            {VIR_DOMAIN_BLKIO_DEVICE_WRITE_BPS, VIR_TYPED_PARAM_STRING}}));
  const auto* weight = find<std::uint32_t>(params, VIR_DOMAIN_BLKIO_WEIGHT);
  if (weight && *weight != 0 && (*weight < kMinWeight || *weight > kMaxWeight)) {
    return out_of_range(VIR_DOMAIN_BLKIO_WEIGHT, std::to_string(*weight), std::to_string(kMinWeight),
                        std::to_string(kMaxWeight));
  }
  for (const DeviceField& field : kDeviceFields) {
    if (const auto* text = find<std::string>(params, field.field)) (void)TRY(parse_device_values(field, *text));
  }
  return {};
}

Result<void> apply_blkio_params(DomainDef& def, const TypedParams& params) {
  TRY(check_blkio_params(params));
  if (const auto* weight = find<std::uint32_t>(params, VIR_DOMAIN_BLKIO_WEIGHT)) {
    def.blkio.weight = *weight ? std::optional(*weight) : std::nullopt;
  }
  for (const DeviceField& field : kDeviceFields) {
    const auto* text = find<std::string>(params, field.field);
    if (text) merge_device_values(def.blkio, field, TRY(parse_device_values(field, *text)));
  }
  return {};
}

// ---- sizes ------------------------------------------------------------------------------------------------------

std::uint64_t current_memory_kib(const DomainDef& def) {
  return def.current_memory_kib != 0 ? def.current_memory_kib : def.max_memory_kib;
}

Result<void> apply_memory_size(const AffectedDefs& defs, std::uint64_t kib, unsigned flags) {
  if (kib == 0) return fail(VIR_ERR_INVALID_ARG, "memory must not be zero");
  if (flags & VIR_DOMAIN_MEM_MAXIMUM) {
    if (defs.live) return fail(VIR_ERR_OPERATION_INVALID, "Cannot resize the max memory on an active domain");
    if (!defs.config) return {};
    // The current size stays what it was, unless the new maximum is below it.
    defs.config->current_memory_kib = std::min(current_memory_kib(*defs.config), kib);
    defs.config->max_memory_kib = kib;
    return {};
  }
  for (const DomainDef* def : {defs.live, defs.config}) {
    if (def && kib > def->max_memory_kib) {
      return fail(VIR_ERR_INVALID_ARG, "Cannot set memory higher than max memory");
    }
  }
  for (DomainDef* def : {defs.live, defs.config}) {
    if (def) def->current_memory_kib = kib;
  }
  return {};
}

std::vector<std::vector<bool>> vcpu_pins(const DomainDef& def, std::size_t host_cpus) {
  const auto fit = [host_cpus](std::vector<bool> cpus) {
    cpus.resize(host_cpus);
    return cpus;
  };
  std::vector<bool> everywhere(host_cpus, true);
  if (auto cpuset = parse_bitmap(def.vcpu.cpuset)) everywhere = fit(std::move(*cpuset));
  std::vector<std::vector<bool>> pins(def.vcpu.max, everywhere);
  for (const KeptXml& kept : def.cputune.kept) {
    if (kept.name != "vcpupin") continue;
    const auto vcpu = parse_number<std::uint32_t>(attribute(kept.xml, "vcpu"));
    auto cpus = parse_bitmap(attribute(kept.xml, "cpuset"));
    if (vcpu && *vcpu < pins.size() && cpus) pins[*vcpu] = fit(std::move(*cpus));
  }
  return pins;
}

Result<void> apply_vcpu_pin(DomainDef& def, unsigned vcpu, const std::vector<bool>& cpus) {
  if (vcpu >= def.vcpu.max) {
    return fail(VIR_ERR_INVALID_ARG, "vcpu " + std::to_string(vcpu) + " is out of range of cpus in the definition " +
                                         std::to_string(def.vcpu.max));
  }
  if (std::find(cpus.begin(), cpus.end(), true) == cpus.end()) {
    return fail(VIR_ERR_INVALID_ARG, "empty cpu list for pinning");
  }
  const std::string number = std::to_string(vcpu);
  std::erase_if(def.cputune.kept,
                [&](const KeptXml& kept) { return kept.name == "vcpupin" && attribute(kept.xml, "vcpu") == number; });
  def.cputune.kept.push_back({"vcpupin", "<vcpupin vcpu='" + number + "' cpuset='" + format_bitmap(cpus) + "'/>"});
  std::stable_sort(def.cputune.kept.begin(), def.cputune.kept.end(), [](const KeptXml& a, const KeptXml& b) {
    if (a.name != "vcpupin" || b.name != "vcpupin") return a.name == "vcpupin" && b.name != "vcpupin";
    return parse_number<std::uint32_t>(attribute(a.xml, "vcpu")) <
           parse_number<std::uint32_t>(attribute(b.xml, "vcpu"));
  });
  return {};
}

std::uint32_t current_vcpus(const DomainDef& def) { return def.vcpu.current.value_or(def.vcpu.max); }

Result<void> apply_vcpu_count(const AffectedDefs& defs, unsigned count, unsigned host_max, unsigned flags) {
  if (count == 0) return fail(VIR_ERR_INVALID_ARG, "vcpu count must not be zero");
  if (count > host_max) {
    return fail(VIR_ERR_INVALID_ARG, "requested cpu amount exceeds maximum supported amount (" +
                                         std::to_string(count) + " > " + std::to_string(host_max) + ")");
  }
  const bool is_maximum = (flags & VIR_DOMAIN_VCPU_MAXIMUM) != 0;
  if (is_maximum && defs.live) {
    return fail(VIR_ERR_OPERATION_INVALID, "maximum vcpu count of a live domain can't be modified");
  }
  for (const DomainDef* def : {defs.live, defs.config}) {
    if (def && !is_maximum && count > def->vcpu.max) {
      return fail(VIR_ERR_INVALID_ARG, "requested cpu amount exceeds maximum (" + std::to_string(count) + " > " +
                                           std::to_string(def->vcpu.max) + ")");
    }
  }
  for (DomainDef* def : {defs.live, defs.config}) {
    if (!def) continue;
    const std::uint32_t current = is_maximum ? std::min(current_vcpus(*def), count) : count;
    if (is_maximum) def->vcpu.max = count;
    def->vcpu.current = current < def->vcpu.max ? std::optional(current) : std::nullopt;
  }
  return {};
}

}  // namespace virtuserns
