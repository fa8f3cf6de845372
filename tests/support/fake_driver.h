// FakeDriver: a driver of a few lines whose answers tests choose, for the front end's tests and fuzzers.
#pragma once

#include <libvirt/libvirt.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "driver/driver.h"

namespace virtuserns::test {

class FakeDriver : public Driver {
 public:
  explicit FakeDriver(EventHub* events = nullptr) : events_(events) {}

  // ---- what a test looks at or sets ----
  std::atomic<int> calls_{0};  // operations that reached the driver
  std::atomic<std::uint64_t> closed_connection_{0};
  std::function<void()> on_slow_;  // runs in node_free_memory_bytes
  SocketFd console_peer_;          // the far side of the last console
  Caller last_caller_;

  static DomainRef ref(int n) {
    DomainRef ref{"fake" + std::to_string(n), {}, n};
    ref.uuid.bytes.fill(static_cast<std::uint8_t>(n));
    ref.uuid.bytes[0] = 0xfa;
    return ref;
  }

  std::string type_name() const override { return "FAKE"; }
  void connection_closed(std::uint64_t id) override { closed_connection_ = id; }
  Result<std::uint64_t> hypervisor_version() override { return count(std::uint64_t{1'002'003}); }
  Result<Capabilities> capabilities() override { return count(Capabilities{}); }
  Result<int> max_vcpus(const std::string&) override { return count(4); }
  Result<NodeFacts> node_facts() override {
    NodeFacts facts;
    facts.arch = facts.cpu_model = "x86_64";
    facts.memory_kib = 4096;
    facts.cpus = 9;
    facts.present_cpus.assign(9, true);
    facts.online_cpus.assign(9, true);
    facts.online_cpus[1] = false;
    return count(facts);
  }
  Result<std::uint64_t> node_free_memory_bytes() override {
    ++calls_;
    if (on_slow_) on_slow_();
    return std::uint64_t{42};
  }
  Result<std::vector<NodeStat>> node_cpu_stats(int, unsigned) override {
    return count(std::vector<NodeStat>{{"kernel", 1}, {"user", 2}, {"idle", 3}});
  }
  Result<std::string> sysinfo(unsigned) override { return count(std::string("<sysinfo/>")); }
  Result<SecurityModel> security_model() override { return count(SecurityModel{"none", "0"}); }

  Result<std::vector<DomainSummary>> list_domains() override {
    std::vector<DomainSummary> list{{ref(1), VIR_DOMAIN_RUNNING, true, true},
                                    {ref(2), VIR_DOMAIN_PAUSED, false},
                                    {ref(3), VIR_DOMAIN_SHUTOFF, true}};
    list[2].ref.id = -1;
    return count(list);
  }
  Result<DomainRef> lookup_by_id(int id) override { return find(id >= 1 && id <= 2, id); }
  Result<DomainRef> lookup_by_name(const std::string& name) override { return find(name == "fake1", 1); }
  Result<DomainRef> lookup_by_uuid(const Uuid& uuid) override { return find(uuid == ref(1).uuid, 1); }

  Result<DomainRef> define(const Caller& caller, DomainDef def, unsigned) override {
    note(caller);
    return count(DomainRef{def.name, def.uuid, -1});
  }
  Result<DomainDef> definition(const Caller& caller, const Uuid& uuid, unsigned) override {
    note(caller);
    DomainDef def;
    def.name = "fake1";
    def.uuid = uuid;
    def.id = 1;
    def.os.init = "/bin/sh";
    return count(def);
  }
  Result<void> destroy(const Caller& caller, const Uuid&, unsigned) override {
    note(caller);
    ++calls_;
    if (events_ != nullptr)
      events_->emit({ref(1), LifecycleEvent{VIR_DOMAIN_EVENT_STOPPED, VIR_DOMAIN_EVENT_STOPPED_DESTROYED}});
    return {};
  }
  Result<DomainRef> create(const Caller& caller, const Uuid&, std::vector<Fd> files, unsigned) override {
    note(caller);
    files_ = files.size();
    return count(ref(1));
  }
  std::atomic<std::size_t> files_{0};
  Result<DomainInfo> info(const Uuid&) override { return count(DomainInfo{VIR_DOMAIN_RUNNING, 1024, 512, 2, 77}); }
  Result<DomainState> state(const Uuid&, unsigned) override { return count(DomainState{VIR_DOMAIN_RUNNING, 1}); }
  Result<int> vcpu_count(const Uuid&, unsigned) override { return count(2); }
  Result<std::vector<VcpuInfo>> vcpus(const Uuid&) override {
    return count(std::vector<VcpuInfo>{{0, VIR_VCPU_RUNNING, 5, 1, {true, false, true}},
                                       {1, VIR_VCPU_RUNNING, 6, 2, std::vector<bool>(9, true)}});
  }
  Result<std::vector<std::vector<bool>>> vcpu_pins(const Uuid&, unsigned) override {
    return count(std::vector<std::vector<bool>>{{true}, {false, true}});
  }
  Result<CpuStats> cpu_stats(const Uuid&, unsigned) override {
    CpuStats stats;
    stats.cpus = 3;
    stats.total = {{"cpu_time", std::uint64_t{9}}, {"user_time", std::uint64_t{4}}};
    for (std::uint64_t i = 0; i < 3; ++i) stats.per_cpu.push_back({{"cpu_time", i}});
    return count(stats);
  }
  Result<TypedParams> memory_parameters(const Uuid&, unsigned) override {
    return count(
        TypedParams{{"hard_limit", std::uint64_t{1}}, {"soft_limit", std::uint64_t{2}}, {"note", std::string("x")}});
  }
  Result<void> set_memory_parameters(const Caller& caller, const Uuid&, const TypedParams&, unsigned) override {
    note(caller);
    ++calls_;
    return {};
  }
  Result<std::vector<std::string>> messages(const Uuid&, unsigned) override {
    return count(std::vector<std::string>{"hello"});
  }
  Result<SecurityLabel> security_label(const Uuid&) override { return count(SecurityLabel{"lbl", true}); }
  Result<SocketFd> open_console(const Caller& caller, const Uuid&, const std::string&, unsigned) override {
    note(caller);
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
      return sys_fail("socketpair");
    console_peer_ = SocketFd(ends[1]);
    ++calls_;
    return SocketFd(ends[0]);
  }
  Result<NamespaceFds> open_namespaces(const Caller&, const Uuid&, unsigned) override {
    NamespaceFds namespaces;
    for (int i = 0; i < 6; ++i) namespaces.fds.emplace_back(::dup(0));
    ++calls_;
    return namespaces;
  }

 private:
  template <class T>
  Result<T> count(T value) {
    ++calls_;
    return value;
  }
  Result<DomainRef> find(bool exists, int n) {
    ++calls_;
    if (!exists) return fail(VIR_ERR_NO_DOMAIN, "no domain with matching name");
    return ref(n);
  }
  void note(const Caller& caller) {
    const std::lock_guard lock(mutex_);
    last_caller_ = caller;
  }

  EventHub* events_;
  std::mutex mutex_;
};

}  // namespace virtuserns::test
