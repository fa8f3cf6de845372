// A controller that lives but has closed its channel, because it could not send, or had to make room for others of root:
// the daemon connects again, and hears what it has missed. The next request does it, or the housekeeper does.
#include <libvirt/libvirt.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "conf/base/log.h"
#include "driver/userns/backend.h"

namespace virtuserns::userns {

namespace {

constexpr int kTellTimeoutMs = 2'000;
constexpr std::chrono::milliseconds kLongestPause{30'000};

}  // namespace

void Backend::watch_channel(const RunPtr& run) {
  run->channel_watch = reactor_.add(*run->channel->socket(), [this, run] {
    if (!run->channel->read_available([&](controller::Note note) { on_note(run, std::move(note)); })) on_hang_up(run);
  });
}

// It mostly ends then, which its process tells soon, so that nobody connects in vain.
void Backend::on_hang_up(const RunPtr& run) {
  const std::lock_guard lock(run->mutex);
  if (!run->channel->is_closed()) return;  // somebody has connected again meanwhile
  reactor_.remove(run->channel_watch);
  connect_later_locked(run);
}

void Backend::connect_later_locked(const RunPtr& run) {
  // Requests that fail meanwhile, however many, make it no more often.
  if (run->is_ending || std::exchange(run->is_to_connect, true)) return;
  housekeeper_.submit_later(run->pause, [this, run] {
    {
      const std::lock_guard lock(run->mutex);
      run->is_to_connect = false;
    }
    connect_again(run);
  });
  run->pause = std::min(run->pause * 2, kLongestPause);
}

void Backend::connect_again(const RunPtr& run) {
  const std::lock_guard one_at_a_time(run->connecting);
  {
    const std::lock_guard lock(run->mutex);
    if (run->is_ending || !run->outcome || !*run->outcome) return;
  }
  if (!run->channel->is_closed()) return;
  auto socket = Channel::connect(run_file(run->uuid, ".sock"));
  const bool is_there = socket && peer_pid(*socket) == run->pid;
  if (is_there) run->channel->reopen(std::move(*socket));
  {
    const std::lock_guard lock(run->mutex);
    if (!is_there) return connect_later_locked(run);
    // Whoever ends it unwatches what is watched until it says so.
    if (run->is_ending) return run->channel->close();
    reactor_.remove(run->channel_watch);
    watch_channel(run);
  }
  log_warning("userns", "the controller of domain " + format_uuid(run->uuid) + " had hung up: connected again");
  ask_status(run);
}

void Backend::ask_status(const RunPtr& run) {
  (void)run->channel->tell(controller::StatusRequest{}, kTellTimeoutMs,
                           [this, weak = std::weak_ptr(run)](const ReplyBody& body) {
                             const auto* status = std::get_if<controller::StatusReply>(&body);
                             if (const auto alive = weak.lock(); alive && status) on_status(alive, *status);
                           });
}

void Backend::on_status(const RunPtr& run, const controller::StatusReply& reply) {
  for (const auto& note : reply.unacknowledged) on_note(run, note);
  const auto domain = run->domain.lock();
  if (!domain) return;
  {
    const Locked locked = lock(domain);
    if (locked->run != run || !locked->is_active()) return;
    locked->boot = reply.boot;
    const bool is_paused = locked->state == VIR_DOMAIN_PAUSED;
    if (reply.is_frozen && !is_paused) {
      locked->set_state(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_UNKNOWN);
      emit_lifecycle_locked(*locked, VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_PAUSED);
    } else if (!reply.is_frozen && is_paused) {
      locked->set_state(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_UNPAUSED);
      emit_lifecycle_locked(*locked, VIR_DOMAIN_EVENT_RESUMED, VIR_DOMAIN_EVENT_RESUMED_UNPAUSED);
    }
    if (reply.is_frozen && locked->dump_pause == DumpPause::kLeft) resume_after_dump_later(run);
  }
  save_status(domain);
  std::uint64_t seen = 0;
  {
    const std::lock_guard lock(run->mutex);
    run->pause = kFirstPause;
    seen = run->last_sequence;
  }
  // Also those that were heard before, and whose acknowledgement was lost.
  if (!reply.unacknowledged.empty()) acknowledge(run, seen);
}

}  // namespace virtuserns::userns
