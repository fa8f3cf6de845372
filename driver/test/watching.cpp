// What can be seen of a domain. Every counter is a function of the domain's ticks, and each look is one tick.
#include <libvirt/libvirt.h>

#include <algorithm>

#include "conf/bulk_stats.h"
#include "conf/domain_devices.h"
#include "conf/validate.h"
#include "driver/test/driver.h"

namespace virtuserns::test_driver {
namespace {

constexpr std::uint64_t kTickNs = 10'000'000;  // of cpu time
constexpr std::uint64_t kTickBytes = 1'000;    // of traffic, a packet or request each
constexpr std::uint64_t kSwapKib = 0;

// A paused domain stands still.
void tick(TestDomain& domain) {
  if (domain.state == VIR_DOMAIN_RUNNING) ++domain.ticks;
}

std::uint64_t cpu_time_ns(const TestDomain& domain) { return domain.ticks * kTickNs; }
std::uint64_t user_time_ns(const TestDomain& domain) { return cpu_time_ns(domain) / 4 * 3; }
std::uint64_t system_time_ns(const TestDomain& domain) { return cpu_time_ns(domain) - user_time_ns(domain); }

std::vector<MemorySample> memory_of(const TestDomain& domain) {
  const std::uint64_t current_kib = current_memory_kib(domain.def);
  return {{VIR_DOMAIN_MEMORY_STAT_ACTUAL_BALLOON, current_kib},
          {VIR_DOMAIN_MEMORY_STAT_SWAP_IN, kSwapKib},
          {VIR_DOMAIN_MEMORY_STAT_RSS, current_kib / 4}};
}

InterfaceStats traffic_of(const TestDomain& domain) {
  const auto packets = static_cast<std::int64_t>(domain.ticks);
  const auto bytes = packets * static_cast<std::int64_t>(kTickBytes);
  return InterfaceStats{bytes, packets, 0, 0, bytes / 2, packets / 2, 0, 0};
}

BlockStats io_of(const TestDomain& domain) {
  const auto requests = static_cast<std::int64_t>(domain.ticks);
  const auto bytes = requests * 4096;
  return BlockStats{requests, bytes, requests / 2, bytes / 2, -1};
}

Result<const InterfaceDef*> find_link(const DomainDef& def, const std::string& device) {
  auto found = std::find_if(def.interfaces.begin(), def.interfaces.end(), [&](const InterfaceDef& link) {
    return link.target_dev == device || (link.mac && format_mac(*link.mac) == device);
  });
  if (found == def.interfaces.end()) {
    return fail(VIR_ERR_INVALID_ARG, "'" + device + "' is not a known interface");
  }
  return &*found;
}

InterfaceSample sample_link(const TestDomain& domain, const InterfaceDef& link) {
  const InterfaceStats stats = traffic_of(domain);
  return {link.target_dev, stats.rx_bytes,   stats.rx_packets, stats.rx_errors, stats.rx_dropped,
          stats.tx_bytes,  stats.tx_packets, stats.tx_errors,  stats.tx_dropped};
}

StatsSample sample_of(const TestDomain& domain) {
  StatsSample sample;
  sample.state = domain.state;
  sample.reason = domain.reason;
  sample.active = domain.is_active();
  sample.balloon_current_kib = current_memory_kib(domain.def);
  sample.balloon_maximum_kib = domain.def.max_memory_kib;
  sample.vcpu_current = current_vcpus(domain.def);
  sample.vcpu_maximum = domain.def.vcpu.max;
  if (!sample.active) return sample;
  sample.cpu_time_ns = cpu_time_ns(domain);
  sample.cpu_user_ns = user_time_ns(domain);
  sample.cpu_system_ns = system_time_ns(domain);
  sample.memory = memory_of(domain);
  for (std::uint32_t vcpu = 0; vcpu < sample.vcpu_current; ++vcpu) {
    sample.vcpus.push_back({vcpu, VIR_VCPU_RUNNING, cpu_time_ns(domain) / sample.vcpu_current});
  }
  for (const InterfaceDef& link : domain.def.interfaces) sample.interfaces.push_back(sample_link(domain, link));
  const BlockStats io = io_of(domain);
  for (const DiskDef& disk : domain.def.disks) {
    sample.blocks.push_back(
        {disk.target_dev, disk.source, io.read_requests, io.read_bytes, io.write_requests, io.write_bytes});
  }
  return sample;
}

}  // namespace

Result<DomainInfo> TestDriver::info(const Uuid& uuid) {
  const Locked domain = TRY(find(uuid));
  tick(*domain);
  DomainInfo info;
  info.state = domain->state;
  info.max_memory_kib = domain->def.max_memory_kib;
  info.memory_kib = current_memory_kib(domain->def);
  info.vcpus = current_vcpus(domain->def);
  info.cpu_time_ns = domain->is_active() ? cpu_time_ns(*domain) : 0;
  return info;
}

Result<DomainState> TestDriver::state(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "state"));
  const Locked domain = TRY(find(uuid));
  return DomainState{domain->state, domain->reason};
}

Result<ControlInfo> TestDriver::control_info(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "control_info"));
  (void)TRY(find_active(uuid));
  return ControlInfo{VIR_DOMAIN_CONTROL_OK, 0, 0};
}

Result<std::vector<VcpuInfo>> TestDriver::vcpus(const Uuid& uuid) {
  const Locked domain = TRY(find(uuid));
  if (!domain->is_active()) {
    return fail(VIR_ERR_OPERATION_INVALID, "cannot retrieve vcpu information for inactive domain");
  }
  tick(*domain);
  const auto pins = virtuserns::vcpu_pins(domain->def, kHostCpus);
  const std::uint32_t count = current_vcpus(domain->def);
  std::vector<VcpuInfo> list;
  for (std::uint32_t number = 0; number < count; ++number) {
    VcpuInfo vcpu;
    vcpu.number = number;
    vcpu.state = VIR_VCPU_RUNNING;
    vcpu.cpu_time_ns = cpu_time_ns(*domain) / count;
    vcpu.affinity = pins[number];
    // On the first host cpu that it may use, its number permitting.
    const auto may_run = std::find(vcpu.affinity.begin(), vcpu.affinity.end(), true);
    vcpu.cpu = number < kHostCpus && vcpu.affinity[number] ? static_cast<int>(number)
                                                           : static_cast<int>(may_run - vcpu.affinity.begin());
    list.push_back(std::move(vcpu));
  }
  return list;
}

Result<std::vector<MemoryStat>> TestDriver::memory_stats(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "memory_stats"));
  const Locked domain = TRY(find_active(uuid));
  std::vector<MemoryStat> stats;
  for (const MemorySample& sample : memory_of(*domain)) stats.push_back({sample.tag, sample.value});
  return stats;
}

Result<BlockStats> TestDriver::block_stats(const Uuid& uuid, const std::string& path) {
  const Locked domain = TRY(find_active(uuid));
  const auto& disks = domain->def.disks;
  const bool is_known = path.empty() || std::any_of(disks.begin(), disks.end(), [&](const DiskDef& disk) {
                          return disk.target_dev == path || disk.source == path;
                        });
  if (!is_known) return fail(VIR_ERR_INVALID_ARG, "invalid path: " + path);
  tick(*domain);
  return io_of(*domain);
}

Result<InterfaceStats> TestDriver::interface_stats(const Uuid& uuid, const std::string& device) {
  const Locked domain = TRY(find_active(uuid));
  (void)TRY(find_link(domain->def, device));
  tick(*domain);
  return traffic_of(*domain);
}

Result<std::vector<InterfaceAddresses>> TestDriver::interface_addresses(const Uuid& uuid, unsigned source,
                                                                        unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "interface_addresses"));
  if (source > VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP) {
    return fail(VIR_ERR_ARGUMENT_UNSUPPORTED, "Unknown IP address data source " + std::to_string(source));
  }
  const Locked domain = TRY(find_active(uuid));
  std::vector<InterfaceAddresses> list;
  for (const InterfaceDef& link : domain->def.interfaces) {
    InterfaceAddresses one{link.target_dev, link.mac ? format_mac(*link.mac) : "", {}};
    for (const IpAddressDef& ip : link.ips) {
      const bool is_v6 = ip.address.find(':') != std::string::npos;
      one.addresses.push_back(
          {is_v6 ? VIR_IP_ADDR_TYPE_IPV6 : VIR_IP_ADDR_TYPE_IPV4, ip.address, ip.prefix.value_or(is_v6 ? 64U : 24U)});
    }
    if (one.addresses.empty()) {
      one.addresses.push_back({VIR_IP_ADDR_TYPE_IPV4, "192.168.0." + std::to_string(list.size() + 1), 24});
    }
    list.push_back(std::move(one));
  }
  return list;
}

Result<CpuStats> TestDriver::cpu_stats(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_TYPED_PARAM_STRING_OKAY, "cpu_stats"));
  const Locked domain = TRY(find_active(uuid));
  tick(*domain);
  CpuStats stats;
  stats.cpus = kHostCpus;
  stats.total = {{VIR_DOMAIN_CPU_STATS_CPUTIME, cpu_time_ns(*domain)},
                 {VIR_DOMAIN_CPU_STATS_USERTIME, user_time_ns(*domain)},
                 {VIR_DOMAIN_CPU_STATS_SYSTEMTIME, system_time_ns(*domain)}};
  for (std::uint32_t cpu = 0; cpu < kHostCpus; ++cpu) {
    stats.per_cpu.push_back({{VIR_DOMAIN_CPU_STATS_CPUTIME, cpu_time_ns(*domain) / kHostCpus}});
  }
  return stats;
}

Result<std::vector<DomainStats>> TestDriver::all_stats(const std::vector<Uuid>& uuids, unsigned stats,
                                                       unsigned flags) {
  constexpr unsigned kFilters =
      VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | VIR_CONNECT_GET_ALL_DOMAINS_STATS_INACTIVE |
      VIR_CONNECT_GET_ALL_DOMAINS_STATS_PERSISTENT | VIR_CONNECT_GET_ALL_DOMAINS_STATS_TRANSIENT |
      VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING | VIR_CONNECT_GET_ALL_DOMAINS_STATS_PAUSED |
      VIR_CONNECT_GET_ALL_DOMAINS_STATS_SHUTOFF | VIR_CONNECT_GET_ALL_DOMAINS_STATS_OTHER;
  TRY(refuse_unknown_flags(flags,
                           kFilters | VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT |
                               VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING |
                               static_cast<unsigned>(VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS),
                           "all_stats"));
  const unsigned selected = TRY(select_stats(stats, flags));
  std::vector<std::shared_ptr<TestDomain>> objects;
  if (uuids.empty()) {
    objects = domains_.all();
  } else {
    for (const Uuid& uuid : uuids) {
      // One that has gone meanwhile is left out, as the caller's own list may be old.
      if (auto found = domains_.find(uuid)) objects.push_back(std::move(found).value());
    }
  }
  std::vector<DomainStats> list;
  for (auto& object : objects) {
    const Locked domain = lock(std::move(object));
    const ListFacts facts{domain->state, domain->is_active(), domain->persistent};
    if (!domain->exists() || !passes_list_filter(facts, flags & kFilters)) continue;
    tick(*domain);
    list.push_back({ref_of(*domain), bulk_stats(sample_of(*domain), selected)});
  }
  return list;
}

Result<std::string> TestDriver::domain_hostname(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_GET_HOSTNAME_LEASE | VIR_DOMAIN_GET_HOSTNAME_AGENT, "domain_hostname"));
  return TRY(find_active(uuid))->def.name;
}

Result<std::vector<std::string>> TestDriver::messages(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_MESSAGE_DEPRECATION | VIR_DOMAIN_MESSAGE_TAINTING, "messages"));
  const Locked domain = TRY(find(uuid));
  // A kept but unused element is neither deprecated nor taint; it is told whenever not only deprecations are wanted.
  if (flags == VIR_DOMAIN_MESSAGE_DEPRECATION) return std::vector<std::string>{};
  return unhonoured(domain->def);
}

Result<SecurityLabel> TestDriver::security_label(const Uuid& uuid) {
  (void)TRY(find(uuid));
  return SecurityLabel{};
}

}  // namespace virtuserns::test_driver
