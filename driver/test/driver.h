// The in-memory driver: every operation of driver.h on domains that exist only as data.
//
// Deterministic: fixed host facts, domain ids that count from 1, and statistics that are a function of how often
// they were asked for. It needs no privilege, so the front end, clients and tools can be tried against it.
//
// Definitions, sizes, devices and events of these are the base's (driver/domain); nothing is stored. Locks: see
// driver/domain/table.h.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "driver/domain/domain_driver.h"
#include "driver/test/console.h"

namespace virtuserns::test_driver {

struct TestDomain : DriverDomain {
  std::uint64_t ticks = 0;               // advances with each look at a running domain
  std::unique_ptr<EchoConsole> console;  // the open session, if any
};

inline constexpr std::uint32_t kHostCpus = 16;
inline constexpr unsigned kMaxVcpus = 32;
inline constexpr std::uint64_t kHostMemoryKib = 3'145'728;

class TestDriver final : public TypedDomainDriver<TestDomain> {
 public:
  explicit TestDriver(EventHub& events) : TypedDomainDriver(events) {}

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
  Result<std::vector<VcpuInfo>> vcpus(const Uuid&) override;
  Result<std::vector<MemoryStat>> memory_stats(const Uuid&, unsigned flags) override;
  Result<BlockStats> block_stats(const Uuid&, const std::string& path) override;
  Result<InterfaceStats> interface_stats(const Uuid&, const std::string& device) override;
  Result<std::vector<InterfaceAddresses>> interface_addresses(const Uuid&, unsigned source, unsigned flags) override;
  Result<CpuStats> cpu_stats(const Uuid&, unsigned flags) override;
  Result<std::string> domain_hostname(const Uuid&, unsigned flags) override;

  // devices.cpp
  Result<SocketFd> open_console(const Caller&, const Uuid&, const std::string& device, unsigned flags) override;
  Result<NamespaceFds> open_namespaces(const Caller&, const Uuid&, unsigned flags) override;

 private:
  // A domain with its job and then its mutex: what is done with it is done at once.
  struct Owned {
    Job job;
    Locked domain;
    TestDomain* operator->() const { return domain.operator->(); }
    TestDomain& operator*() const { return *domain; }
  };
  [[nodiscard]] Result<Owned> own(const Uuid& uuid) const;
  [[nodiscard]] Result<Owned> own_active(const Uuid& uuid) const;

  // hooks of the base
  DefaultsContext defaults_context() const override { return {"x86_64", "/bin/true"}; }
  OwnedRules owned_rules() const override { return {"/bin/true", 16'384, 64}; }
  std::size_t host_cpus() const override { return kHostCpus; }
  Result<std::string> attach_live(DriverDomain& domain, DomainDef& live, DeviceDef device) override;
  Result<std::string> detach_live(DriverDomain& domain, DomainDef& live, const DeviceDef& device) override;
  Result<void> update_live(DriverDomain& domain, DomainDef& live, const DeviceDef& device) override;
  void sample_live(DriverDomain& domain, const DomainDef& def, StatsSample& sample) override;

  // All with the domain's mutex held.
  void run_locked(TestDomain& domain, const Caller& caller, unsigned flags);
  void assign_live_values_locked(TestDomain& domain);
  void restart_locked(TestDomain& domain);
  void end_locked(TestDomain& domain, int shutoff_reason, int stopped_detail);

  std::atomic<int> next_id_{1};
  std::atomic<int> next_link_{0};
};

}  // namespace virtuserns::test_driver
