// The product's driver: every operation of driver.h on domains that live in controllers of their own.
//
// Who changes what:
//  * An operation that changes a domain takes its job first (one at a time for a domain), works without any lock, and
//    takes the domain's mutex only to look and to record (driver/domain/table.h). Those that change definitions are
//    the base's.
//  * What a controller tells (started, rebooted, ended) is recorded by the reactor's thread, or by a start or a destroy that
//    waits for it, under the mutex alone, so that a job which waits for a controller never stands in the way of what the
//    controller says.
//  * Work that waits and belongs to nobody (cleaning up after a dead controller, connecting again to one that has hung up) is
//    the housekeeper's. The spawner runs controllers while those who start domains still think about what they will tell them.
// Events are emitted under the domain's mutex: watchers hear them in the order in which they happened.
//
// Files: definitions/<uuid>.xml (durable); driver_run/<uuid>.status and .plan (as long as it runs, never torn; both are
// written before the controller is told its plan, so that a daemon killed at any moment leaves enough to find or reap it).
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>

#include "conf/daemon_config.h"
#include "conf/paths.h"
#include "conf/store.h"
#include "driver/domain/domain_driver.h"
#include "driver/kernel/seccomp_filter.h"
#include "driver/kernel/facts.h"
#include "driver/userns/broker.h"
#include "driver/userns/channel.h"
#include "driver/userns/launch.h"
#include "driver/userns/make_plan.h"
#include "driver/userns/systemd.h"
#include "driver/userns/task_thread.h"
#include "xml/status.h"

namespace virtuserns::userns {

struct UsernsDomain;

inline constexpr std::chrono::milliseconds kFirstPause{50};  // before connecting again
// Of a controller: what it answers at once, and what takes a boot.
inline constexpr int kRequestTimeoutMs = 5'000, kStartTimeoutMs = 60'000;

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
  std::string scope_group;  // of the systemd scope that it is in; empty: none

  std::mutex connecting;  // held by whoever connects again; before mutex
  std::mutex mutex;       // of what follows
  std::condition_variable changed;
  std::optional<Result<void>> outcome;  // of the start
  bool is_ending = false, has_ended = false;
  bool is_cleaned_up = false;  // somebody does it, after a dead controller: a second would hit the domain's next life
  std::uint64_t last_sequence = 0;
  bool is_to_connect = false;  // after `pause`, which grows with each failure
  std::chrono::milliseconds pause = kFirstPause;
};
using RunPtr = std::shared_ptr<Run>;

// Whose pause it is: one for a dump ends with the dump, or with the next daemon when that one died in it.
enum class DumpPause { kNone, kOurs, kLeft };

struct UsernsDomain : DriverDomain {
  RunPtr run;  // guarded by mutex
  controller::BootRecord boot;
  DumpPause dump_pause = DumpPause::kNone;     // guarded by mutex
  std::atomic<unsigned> destroys_waiting = 0;  // for its job; a dump gives way to them
  std::mutex status_mutex;                     // one writer of the status file at a time
};

class Backend final : public TypedDomainDriver<UsernsDomain> {
 public:
  Backend(const DaemonConfig& config, const Paths& paths, EventHub& events);
  ~Backend() override { stop(); }

  // recover.cpp
  Result<void> start() override;
  void stop() override;
  void reload(const DaemonConfig& config) override;

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
  Result<std::vector<std::uint64_t>> node_free_pages(const std::vector<std::uint32_t>& page_sizes_kib, int start_cell,
                                                     unsigned cell_count, unsigned flags) override;
  Result<std::string> sysinfo(unsigned flags) override;
  Result<SecurityModel> security_model() override;
  Result<SecurityLabel> security_label(const Uuid&) override;

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
  Result<void> set_user_password(const Caller&, const Uuid&, const std::string& user, const std::string& password,
                                 unsigned flags) override;  // plug.cpp
  // dump.cpp: VIR_ERR_OPERATION_ABORTED: the domain was destroyed meanwhile
  Result<void> core_dump(const Caller&, const Uuid&, const std::string& to, unsigned flags) override;

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
  Result<StartedCommand> exec(const Caller&, const Uuid&, const ExecDef& def, Fd program) override;

 private:
  // definitions.cpp: hooks of the base
  DefaultsContext defaults_context() const override { return {host_.node.arch, paths_.controller}; }
  OwnedRules owned_rules() const override { return {paths_.controller, pids_limit_, config_.max_domains_per_owner}; }
  Result<void> reserve(const DomainDef& def) override { return broker_.claim(def); }
  void restore(const DomainDef& def) override { broker_.restore(def); }
  void release(const Uuid& uuid) override { broker_.release(uuid); }
  Result<void> store_definition(const DomainDef& def) override;
  Result<void> remove_definition(const Uuid& uuid) override;
  Result<void> store_autostart(const Uuid& uuid, bool on) override;
  void live_changed(const std::shared_ptr<DriverDomain>& domain) override;
  std::vector<std::string> live_messages_locked(const DriverDomain& domain) override;
  void autodestroy(const Uuid& uuid) override;
  void load_definitions();

  // lifecycle.cpp
  [[nodiscard]] Result<RunPtr> active_run(const Job& job);
  [[nodiscard]] Result<void> start_domain(const Job& job, const Caller& caller, DomainDef def, std::vector<Fd> files,
                                          unsigned flags);
  [[nodiscard]] kernel::SeccompFilter seccomp_filter(const kernel::SeccompPolicy& policy);
  class Launch;
  [[nodiscard]] Result<PlanContext> context_of(const DomainDef& def, std::size_t passed_files);
  [[nodiscard]] Result<void> refuse_written_bases(const DomainDef& def);
  [[nodiscard]] Result<RunPtr> spawn(const Job& job, DomainDef def, const FilesPtr& files);
  [[nodiscard]] Result<bool> begin(Run& run, const MadePlan& made, bool persistent, Launch& launch,
                                   const Scope* scope);
  enum class Heard { kEnough, kEnd, kNothing };
  // Reads what the controller says until that is enough, or the channel's end, or nothing more came in time.
  [[nodiscard]] Heard listen(const RunPtr& run, int timeout_ms, bool (*is_enough)(const Run&));
  [[nodiscard]] Result<void> await_start(const RunPtr& run, int timeout_ms);
  void abandon(const RunPtr& run);
  [[nodiscard]] Result<void> destroy_run(const RunPtr& run);
  [[nodiscard]] Result<void> freeze(const Job& job, const RunPtr& run, bool is_frozen);
  [[nodiscard]] Result<void> end_by_destroy(const Uuid& uuid);
  [[nodiscard]] Result<void> ask(const Uuid& uuid, const controller::ShutdownRequest& request);

  // reconnect.cpp: controllers that hang up and live
  void watch_channel(const RunPtr& run);
  void on_hang_up(const RunPtr& run);
  void connect_later_locked(const RunPtr& run);
  void ask_status(const RunPtr& run);
  // No-op unless it has hung up. Does not wait: what is asked next is answered after the status.
  void connect_again(const RunPtr& run);
  // What a controller says of itself to a daemon that has just connected to it; called by whoever reads the channel.
  void on_status(const RunPtr& run, const controller::StatusReply& reply);

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
  // False: it has ended, or is another's.
  [[nodiscard]] static bool claim_clean_up(Run& run);
  [[nodiscard]] static bool wait_ended(Run& run, int timeout_ms);
  void acknowledge(const RunPtr& run, std::uint64_t sequence);
  void save_status(const Object& domain);
  [[nodiscard]] Result<void> save_starting(const Run& run, bool persistent, const std::vector<std::uint8_t>& plan);
  [[nodiscard]] std::optional<controller::ExitRecord> read_exit_record(const Uuid& uuid) const;
  [[nodiscard]] std::string run_file(const Uuid& uuid, const char* suffix) const;
  void remove_run_files(const Uuid& uuid) const;
  [[nodiscard]] Result<LaunchPlan> read_plan(const Uuid& uuid) const;

  // scopes.cpp: among systemd's units
  [[nodiscard]] bool wants_scope() const;
  [[nodiscard]] std::optional<Scope> scope_of(const Run& run);
  [[nodiscard]] std::vector<CgroupHierarchy> hierarchies_below(const std::string& root) const;
  [[nodiscard]] Result<void> place(const Scope& scope, const Launched& launched, const std::string& name);
  void remember_scope(const Run& run);
  void forget_scope(const Uuid& uuid);
  [[nodiscard]] std::string scope_group_of(const Uuid& uuid) const;
  void list_machine(const RunPtr& run);
  void unlist_machine(const Run& run);

  // recover.cpp
  struct FoundStatus {
    Uuid uuid;
    Result<xml::DomainStatus> status;
    bool is_newer = false;  // than this program reads
  };
  using Statuses = std::vector<FoundStatus>;
  [[nodiscard]] Result<Statuses> read_statuses() const;
  [[nodiscard]] Result<void> refuse_newer(const Statuses& statuses) const;
  void recover_all(Statuses statuses);
  void recover(const Uuid& uuid, xml::DomainStatus status);
  [[nodiscard]] bool reconnect(const RunPtr& run, const xml::DomainStatus& status);
  void take_over(const RunPtr& run, const xml::DomainStatus& status, const controller::StatusReply& reply);
  void bury(const Uuid& uuid, const xml::DomainStatus* status);
  void clean_leftovers(const std::set<std::string>& known);

  // plug.cpp
  Result<std::string> attach_live(DriverDomain& domain, DomainDef& live, DeviceDef device) override;
  Result<std::string> detach_live(DriverDomain& domain, DomainDef& live, const DeviceDef& device) override;
  [[nodiscard]] static RunPtr run_of(DriverDomain& domain);
  [[nodiscard]] Result<DevicePlan> plan_device(const DomainDef& live, const IdMaps& maps,
                                               const DeviceDef& device) const;
  template <class Wanted>
  [[nodiscard]] Result<Wanted> ask_stem(const Uuid& uuid, const controller::DeviceAsk& ask,
                                        std::span<const int> files = {}) const;
  void settle_later(const RunPtr& run);
  void settle_devices(const RunPtr& run);

  // dump.cpp
  [[nodiscard]] Result<void> pause_for_dump(const Job& job, const RunPtr& run);
  [[nodiscard]] Result<void> resume_after_dump(const Job& job, const RunPtr& run);
  void resume_after_dump_later(const RunPtr& run);
  [[nodiscard]] controller::DumpAsk dump_ask(const DomainDef& live, pid_t init) const;

  // watching.cpp
  [[nodiscard]] std::string group_file(const DomainDef& def, const char* controller, const char* file) const;
  void sample_live(DriverDomain& domain, const DomainDef& def, StatsSample& sample) override;

  // tuning.cpp
  std::size_t host_cpus() const override;
  Result<void> apply_limits(DriverDomain& domain, DomainDef& live, Limits changed, const TypedParams& given) override;
  void read_limits(DomainDef& live, Limits wanted) override;
  [[nodiscard]] bool uses_v2(const char* controller) const;
  [[nodiscard]] LimitContext limit_context(const char* controller) const;
  [[nodiscard]] Result<void> write_limits(const RunPtr& run, const char* controller,
                                          std::vector<FileWrite> writes) const;
  [[nodiscard]] Result<void> write_memory(const RunPtr& run, const DomainDef& def,
                                          std::vector<FileWrite> writes) const;
  [[nodiscard]] Result<void> write_block_io(const RunPtr& run, const DomainDef& def) const;

  const DaemonConfig& config_;
  // Of the configuration, what may change while domains run: calls read it while reload writes.
  std::atomic<bool> allow_enter_namespace_;
  std::atomic<std::uint64_t> pids_limit_;
  const Paths& paths_;
  HostFacts host_;
  Store store_;
  RangeBroker broker_;
  Reactor reactor_;

  TaskThread housekeeper_, spawner_;

  Systemd systemd_{paths_.user_systemd};
  Machines machines_;
  mutable std::mutex scopes_mutex_;           // taken last
  std::map<Uuid, std::string> scope_groups_;  // of what runs in a scope

  std::mutex filters_mutex_;
  std::map<kernel::SeccompPolicy, kernel::SeccompFilter> filters_;
};

// The reason of the state (virDomainShutoffReason) and the detail of the event that a cause of an end comes to.
struct EndReason {
  int shutoff = 0, stopped = 0;
};
[[nodiscard]] EndReason end_reason_of(controller::ExitCause cause);
// Who listens there: the credentials that the kernel kept at listen(2).
[[nodiscard]] pid_t peer_pid(const SocketFd& socket);

}  // namespace virtuserns::userns
