#include "conf/bulk_stats.h"

#include <libvirt/libvirt.h>

namespace virtuserns {
namespace {

// Named after the tag, as the balloon group of libvirt's qemu driver does. nullptr: has a field of its own.
const char* memory_field(int tag) {
  switch (tag) {
    case VIR_DOMAIN_MEMORY_STAT_SWAP_IN:
      return "balloon.swap_in";
    case VIR_DOMAIN_MEMORY_STAT_SWAP_OUT:
      return "balloon.swap_out";
    case VIR_DOMAIN_MEMORY_STAT_MAJOR_FAULT:
      return "balloon.major_fault";
    case VIR_DOMAIN_MEMORY_STAT_MINOR_FAULT:
      return "balloon.minor_fault";
    case VIR_DOMAIN_MEMORY_STAT_UNUSED:
      return "balloon.unused";
    case VIR_DOMAIN_MEMORY_STAT_AVAILABLE:
      return "balloon.available";
    case VIR_DOMAIN_MEMORY_STAT_USABLE:
      return "balloon.usable";
    case VIR_DOMAIN_MEMORY_STAT_RSS:
      return "balloon.rss";
    case VIR_DOMAIN_MEMORY_STAT_LAST_UPDATE:
      return "balloon.last-update";
    case VIR_DOMAIN_MEMORY_STAT_DISK_CACHES:
      return "balloon.disk_caches";
    case VIR_DOMAIN_MEMORY_STAT_HUGETLB_PGALLOC:
      return "balloon.hugetlb_pgalloc";
    case VIR_DOMAIN_MEMORY_STAT_HUGETLB_PGFAIL:
      return "balloon.hugetlb_pgfail";
    default:
      return nullptr;
  }
}

class Fields {
 public:
  void add(std::string field, TypedValue value) { params.push_back({std::move(field), std::move(value)}); }
  void add_known(std::string field, const std::optional<std::uint64_t>& value) {
    if (value) add(std::move(field), *value);
  }
  void add_counter(std::string field, std::int64_t value) {
    if (value >= 0) add(std::move(field), static_cast<std::uint64_t>(value));
  }
  TypedParams params;
};

void add_balloon(Fields& fields, const StatsSample& sample) {
  fields.add("balloon.current", sample.balloon_current_kib);
  fields.add("balloon.maximum", sample.balloon_maximum_kib);
  if (!sample.active) return;
  for (const MemorySample& stat : sample.memory) {
    if (const char* field = memory_field(stat.tag)) fields.add(field, stat.value);
  }
}

void add_vcpus(Fields& fields, const StatsSample& sample) {
  fields.add("vcpu.current", sample.vcpu_current);
  fields.add("vcpu.maximum", sample.vcpu_maximum);
  if (!sample.active) return;
  for (const VcpuSample& vcpu : sample.vcpus) {
    const std::string prefix = "vcpu." + std::to_string(vcpu.number);
    fields.add(prefix + ".state", static_cast<std::int32_t>(vcpu.state));
    fields.add_known(prefix + ".time", vcpu.time_ns);
  }
}

void add_interfaces(Fields& fields, const StatsSample& sample) {
  if (!sample.active) return;
  fields.add("net.count", static_cast<std::uint32_t>(sample.interfaces.size()));
  for (std::size_t i = 0; i < sample.interfaces.size(); ++i) {
    const InterfaceSample& link = sample.interfaces[i];
    const std::string prefix = "net." + std::to_string(i);
    fields.add(prefix + ".name", link.name);
    fields.add_counter(prefix + ".rx.bytes", link.rx_bytes);
    fields.add_counter(prefix + ".rx.pkts", link.rx_packets);
    fields.add_counter(prefix + ".rx.errs", link.rx_errors);
    fields.add_counter(prefix + ".rx.drop", link.rx_dropped);
    fields.add_counter(prefix + ".tx.bytes", link.tx_bytes);
    fields.add_counter(prefix + ".tx.pkts", link.tx_packets);
    fields.add_counter(prefix + ".tx.errs", link.tx_errors);
    fields.add_counter(prefix + ".tx.drop", link.tx_dropped);
  }
}

void add_blocks(Fields& fields, const StatsSample& sample) {
  if (!sample.active) return;
  fields.add("block.count", static_cast<std::uint32_t>(sample.blocks.size()));
  for (std::size_t i = 0; i < sample.blocks.size(); ++i) {
    const BlockSample& block = sample.blocks[i];
    const std::string prefix = "block." + std::to_string(i);
    fields.add(prefix + ".name", block.name);
    if (!block.path.empty()) fields.add(prefix + ".path", block.path);
    fields.add_counter(prefix + ".rd.reqs", block.read_requests);
    fields.add_counter(prefix + ".rd.bytes", block.read_bytes);
    fields.add_counter(prefix + ".wr.reqs", block.write_requests);
    fields.add_counter(prefix + ".wr.bytes", block.write_bytes);
  }
}

}  // namespace

const unsigned kSupportedStats = VIR_DOMAIN_STATS_STATE | VIR_DOMAIN_STATS_CPU_TOTAL | VIR_DOMAIN_STATS_BALLOON |
                                 VIR_DOMAIN_STATS_VCPU | VIR_DOMAIN_STATS_INTERFACE | VIR_DOMAIN_STATS_BLOCK;

Result<unsigned> select_stats(unsigned stats, unsigned flags) {
  if (stats == 0) return kSupportedStats;
  const unsigned unsupported = stats & ~kSupportedStats;
  if (unsupported != 0 && (flags & VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS)) {
    char bits[16];
    std::snprintf(bits, sizeof bits, "0x%x", unsupported);
    return fail(VIR_ERR_ARGUMENT_UNSUPPORTED,
                std::string("Stats types bits ") + bits + " are not supported by this daemon");
  }
  return stats & kSupportedStats;
}

TypedParams bulk_stats(const StatsSample& sample, unsigned stats) {
  Fields fields;
  if (stats & VIR_DOMAIN_STATS_STATE) {
    fields.add("state.state", static_cast<std::int32_t>(sample.state));
    fields.add("state.reason", static_cast<std::int32_t>(sample.reason));
  }
  if ((stats & VIR_DOMAIN_STATS_CPU_TOTAL) && sample.active) {
    fields.add_known("cpu.time", sample.cpu_time_ns);
    fields.add_known("cpu.user", sample.cpu_user_ns);
    fields.add_known("cpu.system", sample.cpu_system_ns);
  }
  if (stats & VIR_DOMAIN_STATS_BALLOON) add_balloon(fields, sample);
  if (stats & VIR_DOMAIN_STATS_VCPU) add_vcpus(fields, sample);
  if (stats & VIR_DOMAIN_STATS_INTERFACE) add_interfaces(fields, sample);
  if (stats & VIR_DOMAIN_STATS_BLOCK) add_blocks(fields, sample);
  return std::move(fields.params);
}

}  // namespace virtuserns
