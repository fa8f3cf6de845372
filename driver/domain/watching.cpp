// What can be told of a domain without asking what runs.
#include "conf/validate.h"
#include "driver/domain/domain_driver.h"

namespace virtuserns {

std::vector<std::string> DomainDriver::live_messages_locked(const DriverDomain&) { return {}; }

DomainInfo info_locked(const DomainObject& domain) {
  DomainInfo info;
  info.state = domain.state;
  info.max_memory_kib = domain.def.max_memory_kib;
  info.memory_kib = current_memory_kib(domain.def);
  info.vcpus = current_vcpus(domain.def);
  return info;
}

InterfaceSample sample_of(const std::string& name, const InterfaceStats& stats) {
  return {name,           stats.rx_bytes,   stats.rx_packets, stats.rx_errors, stats.rx_dropped,
          stats.tx_bytes, stats.tx_packets, stats.tx_errors,  stats.tx_dropped};
}

BlockSample sample_of(const DiskDef& disk, const BlockStats& stats) {
  return {disk.target_dev,  disk.source,          stats.read_requests,
          stats.read_bytes, stats.write_requests, stats.write_bytes};
}

Result<DomainState> DomainDriver::state(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainGetState"));
  const auto domain = TRY(domains_.find(uuid));
  return DomainState{domain->state, domain->reason};
}

Result<ControlInfo> DomainDriver::control_info(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainGetControlInfo"));
  const auto domain = TRY(domains_.find_active(uuid));
  // A job in work is told, and not waited for.
  const std::unique_lock job(domain->job, std::try_to_lock);
  return ControlInfo{static_cast<std::uint32_t>(job ? VIR_DOMAIN_CONTROL_OK : VIR_DOMAIN_CONTROL_JOB), 0, 0};
}

Result<std::vector<DomainStats>> DomainDriver::all_stats(const std::vector<Uuid>& uuids, unsigned stats,
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
                           "virConnectGetAllDomainStats"));
  const unsigned selected = TRY(select_stats(stats, flags));
  std::vector<DomainStats> list;
  // Under the domain's mutex is copied what is then sampled without it.
  const auto add = [&](DomainTable::Locked domain) {
    if (!passes_list_filter({domain->state, domain->is_active(), domain->persistent}, flags & kFilters)) return;
    const DomainDef def = domain->def;
    const DomainRef ref = ref_of(*domain);
    StatsSample sample;
    sample.state = domain->state;
    sample.reason = domain->reason;
    sample.active = domain->is_active();
    sample.balloon_current_kib = current_memory_kib(def);
    sample.balloon_maximum_kib = def.max_memory_kib;
    sample.vcpu_current = current_vcpus(def);
    sample.vcpu_maximum = def.vcpu.max;
    domain.lock.unlock();
    if (sample.active) {
      sample_live(*domain, def, sample);
      // The processes of a domain are no vcpus: its time is shared out among them.
      for (std::uint32_t vcpu = 0; vcpu < sample.vcpu_current; ++vcpu)
        sample.vcpus.push_back({vcpu, VIR_VCPU_RUNNING, sample.cpu_time_ns.value_or(0) / sample.vcpu_current});
    }
    list.push_back({ref, bulk_stats(sample, selected)});
  };
  if (uuids.empty()) {
    for (auto& object : domains_.all())
      if (auto domain = lock_domain(std::move(object)); domain->exists()) add(std::move(domain));
  }
  // One that has gone meanwhile is left out, as the caller's own list may be old.
  for (const auto& uuid : uuids)
    if (auto domain = domains_.find(uuid)) add(std::move(domain).value());
  return list;
}

Result<std::vector<std::string>> DomainDriver::messages(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_MESSAGE_DEPRECATION | VIR_DOMAIN_MESSAGE_TAINTING,
                           "virDomainGetMessages"));
  const auto domain = TRY(domains_.find(uuid));
  // A kept but unused element is neither deprecated nor taint; it is told whenever not only deprecations are wanted.
  if (flags == VIR_DOMAIN_MESSAGE_DEPRECATION) return std::vector<std::string>{};
  auto list = unhonoured(domain->def);
  if (domain->is_active())
    for (auto& message : live_messages_locked(*domain)) list.push_back(std::move(message));
  return list;
}

Result<SecurityLabel> DomainDriver::security_label(const Uuid& uuid) {
  (void)TRY(domains_.find(uuid));
  return SecurityLabel{};
}

}  // namespace virtuserns
