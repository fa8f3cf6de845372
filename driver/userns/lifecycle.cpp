// Starting and ending.
#include <libvirt/libvirt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/kernel/seccomp_filter.h"
#include "driver/userns/backend.h"
#include "driver/userns/observe.h"

namespace virtuserns::userns {

namespace {

constexpr int kStartTimeoutMs = 60'000;
constexpr int kRequestTimeoutMs = 5'000;
constexpr int kFreezeTimeoutMs = 15'000;
constexpr int kReapTimeoutMs = 20'000;
constexpr std::size_t kMaxFilters = 64;  // kept; definitions may differ without end

std::uint64_t realtime_ms() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
}

}  // namespace

// ---- start ------------------------------------------------------------------------------------------------------

// Compiled once: most domains have the same policy.
kernel::SeccompFilter Backend::seccomp_filter(const kernel::SeccompPolicy& policy) {
  const std::lock_guard lock(filters_mutex_);
  const auto found = filters_.find(policy);
  if (found != filters_.end()) return found->second;
  if (filters_.size() >= kMaxFilters) filters_.clear();
  return filters_[policy] = kernel::compile_seccomp_filter(policy);
}

// Everything up to a controller that is at work. On failure nothing of it is left.
Result<RunPtr> Backend::spawn(const Job& job, DomainDef def, const std::vector<Fd>& files) {
  auto run = std::make_shared<Run>();
  run->domain = job.domain;
  run->uuid = def.uuid;
  run->started_ms = realtime_ms();
  run->log_path = paths_.log + "/" + def.name + ".log";
  run->maps = TRY(broker_.lease(def));
  PlanContext context = TRY(observe(def, host_, config_, paths_));
  context.config.pids_limit = pids_limit_;
  context.passed_files = static_cast<std::uint32_t>(files.size());
  const bool is_32bit = def.os.arch == "i686" || def.os.arch == "armv7l";
  const auto filter = seccomp_filter({is_32bit ? kernel::Word::k32 : kernel::Word::k64, def.userns.seccomp});
  context.seccomp = {filter.program, def.userns.seccomp.is_logged, filter.refusable};
  run->live = std::move(def);

  const bool persistent = job.look()->persistent;
  if (wants_scope()) {
    const Scope scope = make_scope(run->live, run->started_ms, host_.cgroup_mode);
    run->scope_group = context.scope_group = scope.group();
    const MadePlan made = TRY(make_plan(run->live, run->maps, context));
    if (TRY(launch(*run, made, persistent, files, &scope))) return run;
    // systemd does not do it: as on a host without it.
    run->scope_group = context.scope_group = "";
  }
  const MadePlan made = TRY(make_plan(run->live, run->maps, context));
  (void)TRY(launch(*run, made, persistent, files, nullptr));
  return run;
}

// False: systemd made no scope, and nothing is left.
Result<bool> Backend::launch(Run& run, const MadePlan& made, bool persistent, const std::vector<Fd>& files,
                             const Scope* scope) {
  run.messages = made.messages;
  run.pid = 0;
  Undo undo;
  undo.add([this, uuid = run.uuid] { remove_run_files(uuid); });
  ::unlink(run_file(run.uuid, ".exit").c_str());  // of an earlier life: must not speak for this one
  TRY(save_starting(run, persistent, made.plan));
  if (::mkdir(made.plan.stage_path.c_str(), 0700) != 0 && errno != EEXIST)
    return sys_fail("create " + quote(made.plan.stage_path));
  Launched launched = TRY(launch_controller(paths_.controller, made.plan, files, run.log_path));
  run.pid = launched.pid;
  run.start_time = launched.start_time;
  (void)save_starting(run, persistent, made.plan);  // now with the controller's pid
  if (scope)
    if (auto placed = place(*scope, launched, run.live.name); !placed) {
      log_warning("userns",
                  "domain " + quote(run.live.name) + " runs without a unit of systemd: " + placed.error().text);
      kill_and_wait(launched.process, 2000);
      return false;
    }
  run.process = std::move(launched.process);
  run.channel = std::make_unique<Channel>(std::move(launched.channel));
  remember_scope(run);
  undo.commit();
  return true;
}

Result<void> Backend::await_start(const RunPtr& run, int timeout_ms) {
  std::unique_lock lock(run->mutex);
  if (!run->changed.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return run->outcome.has_value(); }))
    return fail(VIR_ERR_OPERATION_TIMEOUT, "the domain's controller did not start the domain within " +
                                               std::to_string(timeout_ms / 1000) + " s");
  return *run->outcome;
}

// A start that failed: the controller has cleaned up after itself, or is made to go and cleaned up after.
void Backend::abandon(const RunPtr& run) {
  {
    const std::lock_guard lock(run->mutex);
    run->is_ending = true;
  }
  await_exit(run->process, 2000);
  unwatch(*run);
  if (const auto plan = read_plan(run->uuid))
    if (auto reaped = reap_domain(paths_.controller, *plan, run->log_path, kReapTimeoutMs); !reaped)
      log_error("userns", reaped.error().text);
  remove_run_files(run->uuid);
  forget_scope(run->uuid);
}

Result<void> Backend::start_domain(const Job& job, const Caller& caller, DomainDef def, const std::vector<Fd>& files,
                                   unsigned flags) {
  RunPtr run = TRY(spawn(job, std::move(def), files));
  {
    const Locked domain = job.look();
    domain->run = run;
    domain->autodestroy_by.reset();
    if (flags & VIR_DOMAIN_START_AUTODESTROY) domain->autodestroy_by = caller.connection_id;
  }
  watch(run);
  auto started = await_start(run, kStartTimeoutMs);
  append_to_log(run->log_path,
                started ? "started, controller " + std::to_string(run->pid) : "not started: " + started.error().text);
  if (started) return {};
  abandon(run);
  const Locked domain = job.look();
  if (domain->run == run) domain->run.reset();
  domain->set_state(VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_FAILED);
  return started;
}

Result<DomainRef> Backend::create(const Caller& caller, const Uuid& uuid, std::vector<Fd> files, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_START_AUTODESTROY, "virDomainCreateWithFlags"));
  const Job job = TRY(take_job(uuid));
  DomainDef def;
  {
    const Locked domain = job.look();
    if (domain->is_active()) return fail(VIR_ERR_OPERATION_INVALID, "Domain is already running");
    def = domain->def;
  }
  TRY(start_domain(job, caller, std::move(def), files, flags));
  return ref_of(*job.look());
}

Result<DomainRef> Backend::create_transient(const Caller& caller, DomainDef def, std::vector<Fd> files,
                                            unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_START_AUTODESTROY | VIR_DOMAIN_START_VALIDATE, "virDomainCreateXML"));
  TRY(prepare(def));
  const Job job = TRY(claim(def.name, def.uuid));
  bool had_def = false;
  DomainDef old;
  {
    const Locked domain = job.look();
    had_def = domain->persistent;
    old = domain->config_def();
  }
  const auto start = [&]() -> Result<void> {
    TRY(broker_.claim(def));
    {
      const Locked domain = job.look();
      TRY(assign_transient_def(*domain, def));
    }
    auto started = start_domain(job, caller, def, files, flags);
    if (!started) (void)end_running(*job.look(), VIR_DOMAIN_SHUTOFF_FAILED);
    return started;
  };
  if (auto started = start(); !started) {
    if (had_def) broker_.restore(old);
    forget_if_empty(job.domain);
    return started.error();
  }
  return ref_of(*job.look());
}

// ---- end --------------------------------------------------------------------------------------------------------

Result<RunPtr> Backend::active_run(const Job& job) const {
  const Locked domain = job.look();
  TRY(require_active(*domain));
  return domain->run;
}

Result<void> Backend::destroy_run(const RunPtr& run) {
  const auto answer = run->channel->request(controller::DestroyRequest{}, kRequestTimeoutMs);
  // Gone before it answered: whoever noticed that is cleaning up.
  const bool hangs = !answer && answer.error().code == VIR_ERR_OPERATION_TIMEOUT;
  if (wait_ended(*run, hangs ? 0 : kReapTimeoutMs)) return {};
  // It is stopped, hangs, or is dead: its container dies with it, and its clean-up is done for it.
  log_warning("userns", "the controller of domain " + format_uuid(run->uuid) + " does not end it and is killed");
  kill_and_wait(run->process, 2000);
  if (const auto plan = read_plan(run->uuid))
    if (auto reaped = reap_domain(paths_.controller, *plan, run->log_path, kReapTimeoutMs); !reaped) return reaped;
  end_run(run, VIR_DOMAIN_SHUTOFF_DESTROYED, VIR_DOMAIN_EVENT_STOPPED_DESTROYED);
  (void)wait_ended(*run, kRequestTimeoutMs);
  return {};
}

Result<void> Backend::end_by_destroy(const Job& job) { return destroy_run(TRY(active_run(job))); }

Result<void> Backend::destroy(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_DESTROY_GRACEFUL, "virDomainDestroyFlags"));
  return end_by_destroy(TRY(take_job(uuid)));
}

Result<void> Backend::ask(const Uuid& uuid, const controller::ShutdownRequest& request) {
  const Job job = TRY(take_job(uuid));
  const RunPtr run = TRY(active_run(job));
  (void)TRY(run->channel->request(request, kRequestTimeoutMs));
  return {};
}

Result<void> Backend::shutdown(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_SHUTDOWN_INITCTL | VIR_DOMAIN_SHUTDOWN_SIGNAL,
                           "virDomainShutdownFlags"));
  using enum controller::ShutdownWay;
  return ask(uuid, {false, flags == VIR_DOMAIN_SHUTDOWN_INITCTL  ? kInitctl
                           : flags == VIR_DOMAIN_SHUTDOWN_SIGNAL ? kSignal
                                                                 : kAny});
}

Result<void> Backend::reboot(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_REBOOT_INITCTL | VIR_DOMAIN_REBOOT_SIGNAL, "virDomainReboot"));
  using enum controller::ShutdownWay;
  return ask(uuid, {true, flags == VIR_DOMAIN_REBOOT_INITCTL  ? kInitctl
                          : flags == VIR_DOMAIN_REBOOT_SIGNAL ? kSignal
                                                              : kAny});
}

Result<void> Backend::reset(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainReset"));
  const Job job = TRY(take_job(uuid));
  (void)TRY(TRY(active_run(job))->channel->request(controller::ResetRequest{}, kStartTimeoutMs));
  return {};
}

// ---- pause ------------------------------------------------------------------------------------------------------

Result<void> Backend::suspend(const Caller&, const Uuid& uuid) {
  const Job job = TRY(take_job(uuid));
  const RunPtr run = TRY(active_run(job));
  if (job.look()->state == VIR_DOMAIN_PAUSED) return {};
  (void)TRY(run->channel->request(controller::FreezeRequest{true}, kFreezeTimeoutMs));
  {
    const Locked domain = job.look();
    TRY(require_active(*domain));
    domain->set_state(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_USER);
    emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_PAUSED);
  }
  save_status(job.domain);
  return {};
}

Result<void> Backend::resume(const Caller&, const Uuid& uuid) {
  const Job job = TRY(take_job(uuid));
  const RunPtr run = TRY(active_run(job));
  if (job.look()->state != VIR_DOMAIN_PAUSED) return fail(VIR_ERR_OPERATION_INVALID, "domain is already running");
  (void)TRY(run->channel->request(controller::FreezeRequest{false}, kFreezeTimeoutMs));
  {
    const Locked domain = job.look();
    TRY(require_active(*domain));
    domain->set_state(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_UNPAUSED);
    emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_RESUMED, VIR_DOMAIN_EVENT_RESUMED_UNPAUSED);
  }
  save_status(job.domain);
  return {};
}

Result<void> Backend::send_process_signal(const Caller&, const Uuid& uuid, std::int64_t pid, unsigned signal,
                                          unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainSendProcessSignal"));
  if (signal > VIR_DOMAIN_PROCESS_SIGNAL_RT32)
    return fail(VIR_ERR_INVALID_ARG, "signum value " + std::to_string(signal) + " is out of range");
  if (pid < 1 || pid > 0x7fffffff) return fail(VIR_ERR_INVALID_ARG, "there is no process " + std::to_string(pid));
  const Job job = TRY(take_job(uuid));
  const RunPtr run = TRY(active_run(job));
  // libvirt numbers signals as Linux does up to 31, and real-time ones from 32 (RT0).
  (void)TRY(run->channel->request(
      controller::SignalRequest{static_cast<std::int32_t>(pid), static_cast<std::int32_t>(signal)},
      kRequestTimeoutMs));
  return {};
}

}  // namespace virtuserns::userns
