// What a running domain is asked for: to go down, to boot again, to stand still.
#include <libvirt/libvirt.h>
#include <time.h>
#include <unistd.h>

#include <chrono>

#include "driver/userns/backend.h"

namespace virtuserns::userns {

namespace {

constexpr int kFreezeTimeoutMs = 15'000;
// An init that is younger than this may not have come to say which signals it handles.
constexpr std::int64_t kYouthMs = 2'000;

// Since its clone. `start_time` is field 22 of /proc/PID/stat.
std::int64_t age_ms(std::uint64_t start_time) {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000 -
         static_cast<std::int64_t>(start_time * 1000 / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK)));
}

}  // namespace

Result<void> Backend::ask(const Uuid& uuid, const controller::ShutdownRequest& request) {
  const Job job = TRY(take_job(uuid));
  const RunPtr run = TRY(active_run(job));
  for (auto pause = std::chrono::milliseconds(10);; pause *= 2) {
    auto done = run->channel->request(request, kRequestTimeoutMs);
    if (done) return {};
    // Of the init that there is now: it may have booted again meanwhile.
    const bool may_come =
        request.way != controller::ShutdownWay::kInitctl && age_ms(job.look()->boot.init_start_time) < kYouthMs;
    if (done.error().code != VIR_ERR_OPERATION_FAILED || !may_come) return std::move(done).error();
    std::unique_lock lock(run->mutex);
    if (run->changed.wait_for(lock, pause, [&] { return run->has_ended; })) return std::move(done).error();
  }
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

// Recorded as the answer is read: a reboot that follows thaws the domain, and is told right after it.
Result<void> Backend::freeze(const Job& job, const RunPtr& run, bool is_frozen) {
  const auto record = [this, run, object = job.domain, is_frozen](const ReplyBody&) {
    const Locked domain = lock(object);
    if (domain->run != run || !domain->is_active()) return;
    if (is_frozen) {
      const bool is_dumped = domain->dump_pause == DumpPause::kOurs;
      domain->set_state(VIR_DOMAIN_PAUSED, is_dumped ? VIR_DOMAIN_PAUSED_DUMP : VIR_DOMAIN_PAUSED_USER);
      emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_PAUSED);
    } else {
      domain->set_state(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_UNPAUSED);
      domain->dump_pause = DumpPause::kNone;
      emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_RESUMED, VIR_DOMAIN_EVENT_RESUMED_UNPAUSED);
    }
  };
  (void)TRY(run->channel->request(controller::FreezeRequest{is_frozen}, kFreezeTimeoutMs, {}, record));
  TRY(require_active(*job.look()));
  save_status(job.domain);
  return {};
}

Result<void> Backend::suspend(const Caller&, const Uuid& uuid) {
  const Job job = TRY(take_job(uuid));
  const RunPtr run = TRY(active_run(job));
  bool is_paused = false;
  {
    const Locked domain = job.look();
    is_paused = domain->state == VIR_DOMAIN_PAUSED;
    // What a dump has left paused stays so now.
    if (is_paused && domain->dump_pause != DumpPause::kNone)
      domain->set_state(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_USER);
    domain->dump_pause = DumpPause::kNone;
  }
  if (!is_paused) return freeze(job, run, true);
  save_status(job.domain);
  return {};
}

Result<void> Backend::resume(const Caller&, const Uuid& uuid) {
  const Job job = TRY(take_job(uuid));
  const RunPtr run = TRY(active_run(job));
  if (job.look()->state != VIR_DOMAIN_PAUSED) return fail(VIR_ERR_OPERATION_INVALID, "domain is already running");
  return freeze(job, run, false);
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
