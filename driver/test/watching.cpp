// What can be seen of a domain. Every counter is a function of the domain's ticks, and each look is one tick.
#include <libvirt/libvirt.h>

#include <algorithm>

#include "conf/domain_devices.h"
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

std::vector<MemorySample> memory_of(const DomainDef& def) {
  const std::uint64_t current_kib = current_memory_kib(def);
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

}  // namespace

void TestDriver::sample_live(DriverDomain& object, const DomainDef& def, StatsSample& sample) {
  auto& domain = static_cast<TestDomain&>(object);
  const std::lock_guard lock(domain.mutex);
  tick(domain);
  sample.cpu_time_ns = cpu_time_ns(domain);
  sample.cpu_user_ns = user_time_ns(domain);
  sample.cpu_system_ns = system_time_ns(domain);
  sample.memory = memory_of(def);
  for (const InterfaceDef& link : def.interfaces) {
    sample.interfaces.push_back(sample_of(link.target_dev, traffic_of(domain)));
  }
  for (const DiskDef& disk : def.disks) sample.blocks.push_back(sample_of(disk, io_of(domain)));
}

Result<DomainInfo> TestDriver::info(const Uuid& uuid) {
  const Locked domain = TRY(find(uuid));
  tick(*domain);
  DomainInfo info = info_locked(*domain);
  if (domain->is_active()) info.cpu_time_ns = cpu_time_ns(*domain);
  return info;
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
  TRY(refuse_unknown_flags(flags, 0, "virDomainMemoryStats"));
  const Locked domain = TRY(find_active(uuid));
  std::vector<MemoryStat> stats;
  for (const MemorySample& sample : memory_of(domain->def)) stats.push_back({sample.tag, sample.value});
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
  (void)TRY(find_interface(domain->def, device));
  tick(*domain);
  return traffic_of(*domain);
}

Result<std::vector<InterfaceAddresses>> TestDriver::interface_addresses(const Uuid& uuid, unsigned source,
                                                                        unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainInterfaceAddresses"));
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
  TRY(refuse_unknown_flags(flags, VIR_TYPED_PARAM_STRING_OKAY, "virDomainGetCPUStats"));
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

Result<std::string> TestDriver::domain_hostname(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_GET_HOSTNAME_LEASE | VIR_DOMAIN_GET_HOSTNAME_AGENT,
                           "virDomainGetHostname"));
  return TRY(find_active(uuid))->def.name;
}

}  // namespace virtuserns::test_driver
