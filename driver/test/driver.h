// The in-memory driver: every operation of driver.h on domains that exist only as data.
//
// Deterministic: fixed host facts, domain ids that count from 1, and statistics that are a function of how often
// they were asked for. It needs no privilege, so the front end, clients and tools can be tried against it.
//
// Locks: see conf/domain_objects.h. Events are emitted under the domain's mutex, so that what a watcher hears is in
// the order in which it happened.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conf/domain_objects.h"
#include "conf/tuning.h"
#include "driver/driver.h"
#include "driver/test/console.h"

namespace virtuserns::test_driver {

struct TestDomain : DomainObject {
  std::uint64_t ticks = 0;                      // advances with each look at a running domain
  std::optional<std::uint64_t> autodestroy_by;  // Caller::connection_id
  std::unique_ptr<EchoConsole> console;         // the open session, if any
};

class TestDriver final : public Driver {
 public:
  explicit TestDriver(EventHub& events) : events_(events) {}

  void autostart_all() override;
  bool has_active_domains() override;
  void connection_closed(std::uint64_t connection_id) override;

  // host.cpp
  std::string type_name() const override { return "TEST"; }
  Result<std::uint64_t> hypervisor_version() override;
  Result<Capabilities> capabilities() override;
  Result<DomainCapabilities> domain_capabilities(const std::string& emulator, const std::string& arch,
                                                 const std::string& machine, const std::string& virt_type) override;
  Result<int> max_vcpus(const std::string& type) override;
  Result<NodeFacts> node_facts() override;
  Result<std::vector<NodeStat>> node_cpu_stats(int cpu, unsigned flags) override;
  Result<std::vector<NodeStat>> node_memory_stats(int cell, unsigned flags) override;
  Result<std::uint64_t> node_free_memory_bytes() override;
  Result<std::vector<std::uint64_t>> node_cells_free_memory_bytes(int start, int max) override;
  Result<std::vector<std::uint64_t>> node_free_pages(const std::vector<std::uint32_t>& page_sizes_kib, int start_cell,
                                                     unsigned cell_count, unsigned flags) override;
  Result<SecurityModel> security_model() override;

  // definitions.cpp
  Result<std::vector<DomainSummary>> list_domains() override;
  Result<DomainRef> lookup_by_id(int id) override;
  Result<DomainRef> lookup_by_name(const std::string& name) override;
  Result<DomainRef> lookup_by_uuid(const Uuid& uuid) override;
  Result<DomainRef> define(const Caller&, DomainDef def, unsigned flags) override;
  Result<void> undefine(const Caller&, const Uuid&, unsigned flags) override;
  Result<DomainDef> definition(const Caller&, const Uuid&, unsigned flags) override;
  Result<void> rename(const Caller&, const Uuid&, const std::string& new_name, unsigned flags) override;
  Result<bool> autostart(const Uuid&) override;
  Result<void> set_autostart(const Caller&, const Uuid&, bool on) override;
  Result<bool> is_active(const Uuid&) override;
  Result<bool> is_persistent(const Uuid&) override;
  Result<bool> is_updated(const Uuid&) override;
  Result<bool> has_managed_save(const Uuid&, unsigned flags) override;
  Result<std::string> metadata(const Uuid&, int type, const std::string& uri, unsigned flags) override;
  Result<void> set_metadata(const Caller&, const Uuid&, int type, std::optional<std::string> value,
                            const std::string& uri, unsigned flags) override;

  // lifecycle.cpp
  Result<DomainRef> create(const Caller&, const Uuid&, std::vector<Fd> files, unsigned flags) override;
  Result<DomainRef> create_transient(const Caller&, DomainDef def, std::vector<Fd> files, unsigned flags) override;
  Result<void> shutdown(const Caller&, const Uuid&, unsigned flags) override;
  Result<void> reboot(const Caller&, const Uuid&, unsigned flags) override;
  Result<void> reset(const Caller&, const Uuid&, unsigned flags) override;
  Result<void> destroy(const Caller&, const Uuid&, unsigned flags) override;
  Result<void> suspend(const Caller&, const Uuid&) override;
  Result<void> resume(const Caller&, const Uuid&) override;
  Result<void> send_process_signal(const Caller&, const Uuid&, std::int64_t pid, unsigned signal,
                                   unsigned flags) override;

  // watching.cpp
  Result<DomainInfo> info(const Uuid&) override;
  Result<DomainState> state(const Uuid&, unsigned flags) override;
  Result<ControlInfo> control_info(const Uuid&, unsigned flags) override;
  Result<std::vector<VcpuInfo>> vcpus(const Uuid&) override;
  Result<std::vector<MemoryStat>> memory_stats(const Uuid&, unsigned flags) override;
  Result<BlockStats> block_stats(const Uuid&, const std::string& path) override;
  Result<InterfaceStats> interface_stats(const Uuid&, const std::string& device) override;
  Result<std::vector<InterfaceAddresses>> interface_addresses(const Uuid&, unsigned source, unsigned flags) override;
  Result<CpuStats> cpu_stats(const Uuid&, unsigned flags) override;
  Result<std::vector<DomainStats>> all_stats(const std::vector<Uuid>& uuids, unsigned stats, unsigned flags) override;
  Result<std::string> domain_hostname(const Uuid&, unsigned flags) override;
  Result<std::vector<std::string>> messages(const Uuid&, unsigned flags) override;
  Result<SecurityLabel> security_label(const Uuid&) override;

  // tuning.cpp
  Result<int> vcpu_count(const Uuid&, unsigned flags) override;
  Result<std::vector<std::vector<bool>>> vcpu_pins(const Uuid&, unsigned flags) override;
  Result<std::uint64_t> max_memory_kib(const Uuid&) override;
  Result<void> set_memory(const Caller&, const Uuid&, std::uint64_t kib, unsigned flags) override;
  Result<TypedParams> memory_parameters(const Uuid&, unsigned flags) override;
  Result<void> set_memory_parameters(const Caller&, const Uuid&, const TypedParams&, unsigned flags) override;
  Result<std::string> scheduler_type(const Uuid&, int* parameter_count) override;
  Result<TypedParams> scheduler_parameters(const Uuid&, unsigned flags) override;
  Result<void> set_scheduler_parameters(const Caller&, const Uuid&, const TypedParams&, unsigned flags) override;
  Result<TypedParams> blkio_parameters(const Uuid&, unsigned flags) override;
  Result<void> set_blkio_parameters(const Caller&, const Uuid&, const TypedParams&, unsigned flags) override;
  Result<void> set_vcpus(const Caller&, const Uuid&, unsigned count, unsigned flags) override;
  Result<void> pin_vcpu(const Caller&, const Uuid&, unsigned vcpu, const std::vector<bool>& cpus,
                        unsigned flags) override;

  // devices.cpp
  Result<void> attach_device(const Caller&, const Uuid&, DeviceDef device, unsigned flags) override;
  Result<void> detach_device(const Caller&, const Uuid&, DeviceDef device, unsigned flags) override;
  Result<void> update_device(const Caller&, const Uuid&, DeviceDef device, unsigned flags) override;
  Result<SocketFd> open_console(const Caller&, const Uuid&, const std::string& device, unsigned flags) override;
  Result<NamespaceFds> open_namespaces(const Caller&, const Uuid&, unsigned flags) override;

 private:
  // A domain with its mutex held. The mutex is released before the object can go.
  struct Locked {
    std::shared_ptr<TestDomain> domain;
    std::unique_lock<std::mutex> lock;
    TestDomain* operator->() const { return domain.get(); }
    TestDomain& operator*() const { return *domain; }
  };
  [[nodiscard]] static Locked lock(std::shared_ptr<TestDomain> domain);
  [[nodiscard]] Result<Locked> find(const Uuid& uuid) const;
  [[nodiscard]] Result<Locked> find_active(const Uuid& uuid) const;
  [[nodiscard]] Result<Locked> claim(const std::string& name, const Uuid& uuid);

  // All with the domain's mutex held.
  void emit_locked(const TestDomain& domain, EventBody body);
  void emit_lifecycle_locked(const TestDomain& domain, int event, int detail);
  void run_locked(TestDomain& domain, const Caller& caller, unsigned flags);
  void assign_live_values_locked(TestDomain& domain);
  void restart_locked(TestDomain& domain);
  void end_locked(TestDomain& domain, int shutoff_reason, int stopped_detail);
  void remove_locked(TestDomain& domain);

  EventHub& events_;
  DomainList<TestDomain> domains_;
  std::atomic<int> next_id_{1};
  std::atomic<int> next_link_{0};
};

[[nodiscard]] DomainRef ref_of(const DomainObject& domain);
inline constexpr std::uint32_t kHostCpus = 16;
inline constexpr unsigned kMaxVcpus = 32;
inline constexpr std::uint64_t kHostMemoryKib = 3'145'728;

// Mutations of both definitions that must not stop half way: `change` runs on copies, which replace the originals
// when it succeeded on every one.
template <class Change>
Result<void> change_affected(DomainObject& domain, unsigned flags, const Change& change) {
  const AffectedDefs defs = TRY(affected_defs(domain, flags));
  std::optional<DomainDef> live, config;
  if (defs.live) live = *defs.live;
  if (defs.config) config = *defs.config;
  TRY(change(AffectedDefs{live ? &*live : nullptr, config ? &*config : nullptr}));
  if (defs.live) *defs.live = std::move(*live);
  if (defs.config) {
    *defs.config = std::move(*config);
    domain.updated = domain.is_active();
  }
  return {};
}

// The same change in each affected definition.
template <class Change>
Result<void> change_each(DomainObject& domain, unsigned flags, const Change& change) {
  return change_affected(domain, flags, [&](const AffectedDefs& defs) -> Result<void> {
    if (defs.live) TRY(change(*defs.live));
    if (defs.config) TRY(change(*defs.config));
    return {};
  });
}

}  // namespace virtuserns::test_driver
