// The fields of virConnectGetAllDomainStats, from one sample of a domain. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/typed_param.h"

namespace virtuserns {

// A value of -1 or nullopt: not known, no field.
struct InterfaceSample {
  std::string name;
  std::int64_t rx_bytes = -1, rx_packets = -1, rx_errors = -1, rx_dropped = -1;
  std::int64_t tx_bytes = -1, tx_packets = -1, tx_errors = -1, tx_dropped = -1;
};

struct BlockSample {
  std::string name, path;
  std::int64_t read_requests = -1, read_bytes = -1, write_requests = -1, write_bytes = -1;
};

struct VcpuSample {
  std::uint32_t number = 0;
  int state = 0;
  std::optional<std::uint64_t> time_ns;
};

struct MemorySample {
  int tag = 0;
  std::uint64_t value = 0;
};  // virDomainMemoryStatTags

struct StatsSample {
  int state = 0, reason = 0;
  bool active = false;  // cpu, vcpu.N, net and block only then, as libvirt's drivers have it
  std::optional<std::uint64_t> cpu_time_ns, cpu_user_ns, cpu_system_ns;
  std::uint64_t balloon_current_kib = 0, balloon_maximum_kib = 0;
  std::vector<MemorySample> memory;
  std::uint32_t vcpu_current = 0, vcpu_maximum = 0;
  std::vector<VcpuSample> vcpus;
  std::vector<InterfaceSample> interfaces;
  std::vector<BlockSample> blocks;
};

// VIR_DOMAIN_STATS_* that bulk_stats can tell.
extern const unsigned kSupportedStats;
// `stats` 0: all. With VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS in `flags` an unsupported bit is
// VIR_ERR_ARGUMENT_UNSUPPORTED; otherwise it is ignored.
[[nodiscard]] Result<unsigned> select_stats(unsigned stats, unsigned flags);
// The fields of the selected groups, in libvirt's order, names and types.
[[nodiscard]] TypedParams bulk_stats(const StatsSample& sample, unsigned stats);

}  // namespace virtuserns
