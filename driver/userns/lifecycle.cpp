// Starting and ending.
#include <libvirt/libvirt.h>
#include <poll.h>
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

constexpr int kSpawnTimeoutMs = 15'000;
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

Result<PlanContext> Backend::context_of(const DomainDef& def, std::size_t passed_files) {
  PlanContext context = TRY(observe(def, host_, config_, paths_));
  context.config.pids_limit = pids_limit_;
  context.passed_files = static_cast<std::uint32_t>(passed_files);
  const bool is_32bit = def.os.arch == "i686" || def.os.arch == "armv7l";
  const auto filter = seccomp_filter({is_32bit ? kernel::Word::k32 : kernel::Word::k64, def.userns.seccomp});
  if (!context.image_prober.empty()) context.image_filter = seccomp_filter({}).program;
  context.seccomp = {filter.program, def.userns.seccomp.is_logged, filter.refusable};
  return context;
}

// A controller that is spawned while the plan is still made: on its own thread, because a spawn lasts until the exec. That
// reads a file, and no file system is to hold whoever waits for longer than kSpawnTimeoutMs.
class Backend::Launch {
 public:
  Launch(TaskThread& spawner, const LaunchRequest& request) {
    is_begun_ = spawner.submit([pending = pending_, request] {
      if (!pending->is_wanted()) return;
      auto launched = launch_controller(request);
      if (!pending->give(launched) && launched) kill_and_wait(launched->process, 1000);
    });
  }
  ~Launch() {
    if (!is_begun_ || is_taken_) return;
    // Nobody wants it any more.
    if (auto launched = pending_->take()) kill_and_wait(launched->process, 1000);
  }
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;
  Result<Launched> get() {
    if (!is_begun_) return fail(VIR_ERR_OPERATION_FAILED, "the daemon is about to end");
    is_taken_ = true;
    return pending_->take();
  }

 private:
  struct Pending {
    std::mutex mutex;
    std::condition_variable given;
    std::optional<Result<Launched>> launched;
    bool is_given_up = false;

    bool is_wanted() {
      const std::lock_guard lock(mutex);
      return !is_given_up;
    }
    // False, and `result` is left: nobody waits any more.
    bool give(Result<Launched>& result) {
      const std::lock_guard lock(mutex);
      if (is_given_up) return false;
      launched = std::move(result);
      given.notify_all();
      return true;
    }
    Result<Launched> take() {
      std::unique_lock lock(mutex);
      is_given_up =
          !given.wait_for(lock, std::chrono::milliseconds(kSpawnTimeoutMs), [&] { return launched.has_value(); });
      if (!is_given_up) return std::move(*launched);
      return fail(VIR_ERR_OPERATION_TIMEOUT, "the domain's controller does not begin within " +
                                                 std::to_string(kSpawnTimeoutMs / 1000) +
                                                 " s: does a file system that it or its log is on not answer?");
    }
  };
  const std::shared_ptr<Pending> pending_ = std::make_shared<Pending>();
  bool is_begun_ = false, is_taken_ = false;
};

// Everything up to a controller that is at work. On failure nothing of it is left.
Result<RunPtr> Backend::spawn(const Job& job, DomainDef def, const FilesPtr& files) {
  TRY(refuse_written_bases(def));
  auto run = std::make_shared<Run>();
  run->domain = job.domain;
  run->uuid = def.uuid;
  run->started_ms = realtime_ms();
  run->log_path = paths_.log + "/" + def.name + ".log";
  const LaunchRequest request{paths_.controller, def.name, run_file(run->uuid, ""), run->log_path, files};
  auto launch = std::make_unique<Launch>(spawner_, request);
  run->maps = TRY(broker_.lease(def));
  PlanContext context = TRY(context_of(def, files->size()));
  run->live = std::move(def);

  const bool persistent = job.look()->persistent;
  if (const auto scope = scope_of(*run)) {
    PlanContext scoped = context;
    run->scope_group = scoped.scope_group = scope->group();
    if (paths_.is_session) scoped.host.hierarchies = hierarchies_below(scope->root);
    const MadePlan made = TRY(make_plan(run->live, run->maps, scoped));
    if (TRY(begin(*run, made, persistent, *launch, &*scope))) return run;
    // systemd does not do it: as on a host without it.
    run->scope_group = "";
    launch = std::make_unique<Launch>(spawner_, request);
  }
  const MadePlan made = TRY(make_plan(run->live, run->maps, context));
  (void)TRY(begin(*run, made, persistent, *launch, nullptr));
  return run;
}

// False: systemd made no scope, and nothing is left.
Result<bool> Backend::begin(Run& run, const MadePlan& made, bool persistent, Launch& launch, const Scope* scope) {
  run.messages = made.messages;
  Undo undo;
  undo.add([this, uuid = run.uuid] { remove_run_files(uuid); });
  ::unlink(run_file(run.uuid, ".exit").c_str());  // of an earlier life: must not speak for this one
  const auto plan = encode_plan(made.plan);
  TRY(save_starting(run, persistent, plan));
  if (::mkdir(made.plan.stage_path.c_str(), 0700) != 0 && errno != EEXIST)
    return sys_fail("create " + quote(made.plan.stage_path));
  Launched launched = TRY(launch.get());
  Undo end;
  end.add([&process = launched.process] { kill_and_wait(process, 2000); });
  TRY(hand_over_plan(launched, plan));
  if (scope)
    if (auto placed = place(*scope, launched, run.live.name); !placed) {
      log_warning("userns",
                  "domain " + quote(run.live.name) + " runs without a unit of systemd: " + placed.error().text);
      return false;
    }
  end.commit();
  run.pid = launched.pid;
  run.start_time = launched.start_time;
  run.process = std::move(launched.process);
  run.channel = std::make_unique<Channel>(std::move(launched.channel));
  remember_scope(run);
  undo.commit();
  return true;
}

// What a controller says while somebody waits for nothing else is read by whoever waits: the way through the reactor's
// thread costs a start and a destroy as much as a fork.
Backend::Heard Backend::listen(const RunPtr& run, int timeout_ms, bool (*is_enough)(const Run&)) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
  for (bool is_open = true;;) {
    {
      const std::lock_guard lock(run->mutex);
      if (is_enough(*run)) return Heard::kEnough;
    }
    if (!is_open) return Heard::kEnd;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    const auto socket = run->channel->socket();
    pollfd readable{socket->get(), POLLIN, 0};
    if (left <= 0 || ::poll(&readable, 1, static_cast<int>(left)) == 0) return Heard::kNothing;
    is_open = run->channel->read_available([&](controller::Note note) { on_note(run, std::move(note)); });
  }
}

Result<void> Backend::await_start(const RunPtr& run, int timeout_ms) {
  switch (listen(run, timeout_ms, [](const Run& r) { return r.outcome.has_value(); })) {
    case Heard::kEnough:
      break;
    case Heard::kNothing:
      return fail(VIR_ERR_OPERATION_TIMEOUT, "the domain's controller did not start the domain within " +
                                                 std::to_string(timeout_ms / 1000) + " s");
    case Heard::kEnd:
      return fail(VIR_ERR_INTERNAL_ERROR,
                  "the domain's controller died while it started the domain; see " + quote(run->log_path));
  }
  const std::lock_guard lock(run->mutex);
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

Result<void> Backend::start_domain(const Job& job, const Caller& caller, DomainDef def, std::vector<Fd> files,
                                   unsigned flags) {
  const Uuid uuid = def.uuid;
  auto spawned = spawn(job, std::move(def), std::make_shared<const std::vector<Fd>>(std::move(files)));
  if (!spawned) {
    broker_.ended(uuid);
    return spawned.error();
  }
  RunPtr run = std::move(*spawned);
  {
    const Locked domain = job.look();
    domain->run = run;
    domain->dump_pause = DumpPause::kNone;
    domain->autodestroy_by.reset();
    if (flags & VIR_DOMAIN_START_AUTODESTROY) domain->autodestroy_by = caller.connection_id;
  }
  auto started = await_start(run, kStartTimeoutMs);
  if (started) watch(run);
  append_to_log(run->log_path,
                started ? "started, controller " + std::to_string(run->pid) : "not started: " + started.error().text);
  if (started) return {};
  abandon(run);
  broker_.ended(uuid);
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
  TRY(start_domain(job, caller, std::move(def), std::move(files), flags));
  return ref_of(*job.look());
}

Result<DomainRef> Backend::create_transient(const Caller& caller, DomainDef def, std::vector<Fd> files,
                                            unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_START_AUTODESTROY | VIR_DOMAIN_START_VALIDATE, "virDomainCreateXML"));
  TRY(prepare(def));
  TRY(admit_definition(caller, def));
  const Job job = TRY(claim_for(caller, def));
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
    auto started = start_domain(job, caller, def, std::move(files), flags);
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

Result<RunPtr> Backend::active_run(const Job& job) {
  RunPtr run;
  {
    const Locked domain = job.look();
    TRY(require_active(*domain));
    run = domain->run;
  }
  connect_again(run);
  return run;
}

Result<void> Backend::destroy_run(const RunPtr& run) {
  reactor_.remove(run->channel_watch);
  const auto has_ended = [](const Run& r) { return r.has_ended; };
  const auto told = run->channel->tell(controller::DestroyRequest{}, kRequestTimeoutMs);
  const bool hangs = told ? listen(run, kRequestTimeoutMs, has_ended) == Heard::kNothing
                          : told.error().code == VIR_ERR_OPERATION_TIMEOUT;
  if (wait_ended(*run, 0)) return {};
  // Dead before it said that all is: cleaned up here, unless somebody is at it, because to wait for the housekeeper would be
  // to wait for ourselves in an autodestroy. One that has only hung up is as one that hangs.
  pollfd exited{run->process.get(), POLLIN, 0};
  if (!hangs && ::poll(&exited, 1, kRequestTimeoutMs) > 0) {
    (void)run->channel->read_available([&](controller::Note note) { on_note(run, std::move(note)); });
    after_dead_controller(run);
    if (wait_ended(*run, kReapTimeoutMs)) return {};
  }
  // It is stopped, hangs, or is dead: its container dies with it, and its clean-up is done for it. By one alone.
  if (!claim_clean_up(*run)) {
    if (wait_ended(*run, kReapTimeoutMs)) return {};
    return fail(VIR_ERR_OPERATION_TIMEOUT, "clean up after domain " + format_uuid(run->uuid) +
                                               ": not finished in time; see " + quote(run->log_path));
  }
  log_warning("userns", "the controller of domain " + format_uuid(run->uuid) + " does not end it and is killed");
  kill_and_wait(run->process, 2000);
  if (const auto plan = read_plan(run->uuid))
    if (auto reaped = reap_domain(paths_.controller, *plan, run->log_path, kReapTimeoutMs); !reaped) {
      {
        const std::lock_guard lock(run->mutex);
        run->is_cleaned_up = false;
      }
      // Which tries again, and ends it in any case.
      housekeeper_.submit([this, run] { after_dead_controller(run); });
      return reaped;
    }
  end_run(run, VIR_DOMAIN_SHUTOFF_DESTROYED, VIR_DOMAIN_EVENT_STOPPED_DESTROYED);
  (void)wait_ended(*run, kRequestTimeoutMs);
  return {};
}

Result<void> Backend::end_by_destroy(const Uuid& uuid) {
  const auto domain = typed(TRY(domains_.find_object(uuid)));
  ++domain->destroys_waiting;
  auto job = take_job(uuid);
  --domain->destroys_waiting;
  const Job held = TRY(std::move(job));
  return destroy_run(TRY(active_run(held)));
}

Result<void> Backend::destroy(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_DESTROY_GRACEFUL, "virDomainDestroyFlags"));
  return end_by_destroy(uuid);
}

}  // namespace virtuserns::userns
