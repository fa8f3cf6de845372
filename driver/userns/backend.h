// The product's driver: every operation of driver.h on domains that live in controllers of their own.
//
// Who changes what:
//  * An operation that changes a domain takes its job first (one at a time for a domain), works without any lock, and
//    takes the domain's mutex only to look and to record.
//  * What a controller tells (started, rebooted, ended) is recorded by the reactor's thread, under the mutex alone, so
//    that a job which waits for a controller never stands in the way of what the controller says.
//  * Work that waits and belongs to nobody (cleaning up after a dead controller) is the housekeeper's.
// Events are emitted under the domain's mutex: watchers hear them in the order in which they happened.
//
// Files: definitions/<uuid>.xml (durable); driver_run/<uuid>.status and .plan (as long as it runs, never torn; both are
// written before the controller is spawned, so that a daemon killed at any moment leaves enough to find or reap it).
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "conf/bulk_stats.h"
#include "conf/daemon_config.h"
#include "conf/domain_objects.h"
#include "conf/paths.h"
#include "conf/store.h"
#include "conf/tuning.h"
#include "driver/driver.h"
#include "driver/kernel/facts.h"
#include "driver/userns/broker.h"
#include "driver/userns/channel.h"
#include "driver/userns/launch.h"
#include "driver/userns/make_plan.h"
#include "xml/status.h"

namespace virtuserns::userns {

struct UsernsDomain;

// One life of a domain, from before the spawn of its controller until nothing is left of it.
struct Run {
  std::weak_ptr<UsernsDomain> domain;
  Uuid uuid;
  pid_t pid = 0;
  std::uint64_t start_time = 0;
  PidFd process;
  std::unique_ptr<Channel> channel;
  std::atomic<std::uint64_t> channel_watch = 0, process_watch = 0;

  // Until Started: what will run.
  DomainDef live;
  IdMaps maps;
  std::vector<std::string> messages;
  std::uint64_t started_ms = 0;
  std::string log_path;

  std::mutex mutex;  // of what follows
  std::condition_variable changed;
  std::optional<Result<void>> outcome;  // of the start
  bool is_ending = false, has_ended = false;
  std::uint64_t last_sequence = 0;
};
using RunPtr = std::shared_ptr<Run>;

struct UsernsDomain : DomainObject {
  std::timed_mutex job;
  RunPtr run;  // guarded by mutex
  controller::BootRecord boot;
  std::optional<std::uint64_t> autodestroy_by;  // Caller::connection_id
  std::mutex status_mutex;                      // one writer of the status file at a time
};

class Backend final : public Driver {
 public:
  Backend(const DaemonConfig& config, const Paths& paths, EventHub& events);
  ~Backend() override { stop(); }

  // recover.cpp
  Result<void> start() override;
  void stop() override;
  // lifecycle.cpp
  void autostart_all() override;
  bool has_active_domains() override;
  void connection_closed(std::uint64_t connection_id) override;

  // host.cpp
  std::string type_name() const override { return "LXC"; }
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
  using Object = std::shared_ptr<UsernsDomain>;
  // A domain with its mutex held.
  struct Locked {
    Object domain;
    std::unique_lock<std::mutex> lock;
    UsernsDomain* operator->() const { return domain.get(); }
    UsernsDomain& operator*() const { return *domain; }
  };
  // A domain whose job is ours, without its mutex.
  struct Job {
    Object domain;
    std::unique_lock<std::timed_mutex> lock;
    [[nodiscard]] Locked look() const { return Backend::lock(domain); }
  };
  [[nodiscard]] static Locked lock(Object domain);
  [[nodiscard]] Result<Locked> find(const Uuid& uuid) const;
  [[nodiscard]] Result<Locked> find_active(const Uuid& uuid) const;
  [[nodiscard]] Result<Job> take_job(const Uuid& uuid) const;
  [[nodiscard]] Result<Job> claim(const std::string& name, const Uuid& uuid);
  [[nodiscard]] Result<RunPtr> active_run(const Job& job) const;
  void forget_if_empty(const Object& domain);

  // definitions.cpp
  [[nodiscard]] Result<void> prepare_def(DomainDef& def) const;
  [[nodiscard]] Result<void> save_definition(const DomainDef& def);
  // change.h
  template <class Change, class ApplyLive>
  [[nodiscard]] Result<void> change_defs(const Uuid& uuid, unsigned flags, const Change& change,
                                         const ApplyLive& apply_live);
  void emit_locked(const UsernsDomain& domain, EventBody body);
  void emit_lifecycle_locked(const UsernsDomain& domain, int event, int detail);

  // lifecycle.cpp
  [[nodiscard]] Result<void> start_domain(const Job& job, const Caller& caller, DomainDef def,
                                          const std::vector<Fd>& files, unsigned flags);
  [[nodiscard]] Result<RunPtr> spawn(const Job& job, DomainDef def, const std::vector<Fd>& files);
  [[nodiscard]] Result<void> await_start(const RunPtr& run, int timeout_ms);
  void abandon(const RunPtr& run);
  [[nodiscard]] Result<void> destroy_run(const RunPtr& run);
  [[nodiscard]] Result<void> end_by_destroy(const Job& job);
  [[nodiscard]] Result<void> ask(const Uuid& uuid, const controller::ShutdownRequest& request);

  // runs.cpp: what controllers say
  void watch(const RunPtr& run);
  void unwatch(Run& run);
  void on_note(const RunPtr& run, controller::Note note);
  void on_started(const RunPtr& run, const controller::BootRecord& boot, int running_reason);
  void on_rebooted(const RunPtr& run, const controller::RebootedNote& note);
  void on_ended(const RunPtr& run, const controller::ExitRecord& record);
  void on_controller_exit(const RunPtr& run);
  void end_run(const RunPtr& run, int shutoff_reason, int stopped_detail);
  void after_dead_controller(const RunPtr& run);
  [[nodiscard]] static bool wait_ended(Run& run, int timeout_ms);
  void acknowledge(const RunPtr& run, std::uint64_t sequence);
  void save_status(const Object& domain);
  [[nodiscard]] Result<void> save_starting(const Run& run, bool persistent, const LaunchPlan& plan);
  [[nodiscard]] std::string run_file(const Uuid& uuid, const char* suffix) const;
  void remove_run_files(const Uuid& uuid) const;
  [[nodiscard]] Result<LaunchPlan> read_plan(const Uuid& uuid) const;
  void submit(std::function<void()> task);
  void keep_house();

  // recover.cpp
  void load_definitions();
  void recover_all();
  void recover(const Uuid& uuid, xml::DomainStatus status);
  [[nodiscard]] bool reconnect(const RunPtr& run, const xml::DomainStatus& status);
  void bury(const Uuid& uuid, const xml::DomainStatus* status);
  void clean_leftovers(const std::set<std::string>& known);

  // watching.cpp
  [[nodiscard]] std::string group_file(const DomainDef& def, const char* controller, const char* file) const;
  [[nodiscard]] StatsSample sample(const Uuid& uuid, const DomainDef& def, int state, int reason, bool active) const;

  // tuning.cpp
  [[nodiscard]] bool uses_v2(const char* controller) const;
  [[nodiscard]] LimitContext limit_context(const char* controller) const;
  [[nodiscard]] Result<void> write_limits(const RunPtr& run, const char* controller,
                                          std::vector<FileWrite> writes) const;
  [[nodiscard]] Result<void> write_memory(const RunPtr& run, const DomainDef& def) const;

  const DaemonConfig& config_;
  const Paths& paths_;
  EventHub& events_;
  HostFacts host_;
  Store store_;
  RangeBroker broker_;
  DomainList<UsernsDomain> domains_;
  Reactor reactor_;

  std::mutex tasks_mutex_;
  std::condition_variable tasks_changed_;
  std::deque<std::function<void()>> tasks_;
  bool is_stopping_ = false;
  std::thread housekeeper_;

  std::mutex filters_mutex_;
  std::map<int, std::vector<std::uint8_t>> filters_;  // compiled seccomp programs by word size
};

[[nodiscard]] DomainRef ref_of(const DomainObject& domain);
// The reason of the state (virDomainShutoffReason) and the detail of the event that a cause of an end comes to.
struct EndReason {
  int shutoff = 0, stopped = 0;
};
[[nodiscard]] EndReason end_reason_of(controller::ExitCause cause);

}  // namespace virtuserns::userns
