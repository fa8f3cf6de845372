// What controllers say, and what the daemon writes down about it. on_* run on the reactor's thread, or on that of a start or
// a destroy that listens itself (Backend::listen).
#include <libvirt/libvirt.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/domain_devices.h"
#include "driver/kernel/apparmor.h"
#include "driver/userns/backend.h"

namespace virtuserns::userns {

namespace {

const char* word_of(int shutoff_reason) {
  switch (shutoff_reason) {
    case VIR_DOMAIN_SHUTOFF_SHUTDOWN:
      return "shut down";
    case VIR_DOMAIN_SHUTOFF_DESTROYED:
      return "destroyed";
    case VIR_DOMAIN_SHUTOFF_CRASHED:
      return "crashed";
    default:
      return "failed";
  }
}

// One whose end on the host has a name that the controller tells.
bool has_veth(const InterfaceDef& interface) {
  return interface.type != InterfaceType::kDirect && interface.type != InterfaceType::kUser;
}

void fill_live_values(DomainDef& def, const IdMaps& maps, const controller::BootRecord& boot, const Paths& paths) {
  assign_aliases(def);
  for (auto& console : def.consoles) console.source_path = console.tty = terminal_path(paths, def.uuid, console);
  std::size_t link = 0;
  for (auto& interface : def.interfaces) {
    if (!has_veth(interface)) continue;
    if (link < boot.host_links.size()) interface.target_dev = boot.host_links[link];
    ++link;
  }
  const auto entries = [](const IdMapLines& lines) {
    std::vector<IdMapEntry> map;
    for (const auto& line : lines) map.push_back({line.inside, line.outside, line.count});
    return map;
  };
  def.idmap = {entries(maps.uid), entries(maps.gid)};
}

// As libvirt shows a label that it chose; one that the definition names is there already.
void set_live_label(DomainDef& def, const std::optional<kernel::ApparmorLabel>& label) {
  if (!label || label->profile == "unconfined") return;
  const auto is_apparmor = [](const SeclabelDef& known) { return known.model.empty() || known.model == "apparmor"; };
  const auto known = std::find_if(def.seclabels.begin(), def.seclabels.end(), is_apparmor);
  SeclabelDef& live = known == def.seclabels.end() ? def.seclabels.emplace_back() : *known;
  if (live.type.empty()) live.type = "dynamic";
  if (live.type == "none") return;
  live.model = "apparmor";
  if (live.relabel.empty()) live.relabel = "yes";
  live.label = label->profile;
}

}  // namespace

EndReason end_reason_of(controller::ExitCause cause) {
  using enum controller::ExitCause;
  switch (cause) {
    case kPoweroff:
    case kReboot:
    case kExited:
      return {VIR_DOMAIN_SHUTOFF_SHUTDOWN, VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN};
    case kKilled:
      return {VIR_DOMAIN_SHUTOFF_CRASHED, VIR_DOMAIN_EVENT_STOPPED_CRASHED};
    case kDestroyed:
      return {VIR_DOMAIN_SHUTOFF_DESTROYED, VIR_DOMAIN_EVENT_STOPPED_DESTROYED};
    case kRebootFailed:
      break;
  }
  return {VIR_DOMAIN_SHUTOFF_FAILED, VIR_DOMAIN_EVENT_STOPPED_FAILED};
}

std::string Backend::run_file(const Uuid& uuid, const char* suffix) const {
  return paths_.driver_run + "/" + format_uuid(uuid) + suffix;
}

void Backend::remove_run_files(const Uuid& uuid) const {
  // The status last: while it is there, the next daemon looks for the rest. A directory in place of a file, which would
  // be in the way of the next start, goes too.
  for (const char* suffix : {".exit", ".exit.new", ".plan", ".plug", ".sock", ".stage", ".tty", ".status"}) {
    const std::string path = run_file(uuid, suffix);
    if (::unlink(path.c_str()) != 0 && errno == EISDIR) ::rmdir(path.c_str());
  }
}

// How it ended, if it had the time to write that down.
std::optional<controller::ExitRecord> Backend::read_exit_record(const Uuid& uuid) const {
  const auto bytes = read_file(run_file(uuid, ".exit"), 64 * 1024);
  if (!bytes) return std::nullopt;
  auto record = xdr::decode_exact<controller::ExitRecord>(
      std::span(reinterpret_cast<const std::uint8_t*>(bytes->data()), bytes->size()));
  return record ? std::optional(std::move(*record)) : std::nullopt;
}

Result<LaunchPlan> Backend::read_plan(const Uuid& uuid) const {
  const std::string bytes = TRY(read_file(run_file(uuid, ".plan")));
  auto plan = decode_plan(std::span(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()));
  // Of another version of this program, say.
  if (!plan)
    log_error("userns", "domain " + format_uuid(uuid) + ": " + plan.error().text +
                            ": what its controller leaves behind (groups named virtuserns-" + format_uuid(uuid) +
                            ") stays until its next start");
  return plan;
}

// Before there is a controller: the status names ourselves, as one without a controller is none (xml/status.h), and the
// phase says so.
Result<void> Backend::save_starting(const Run& run, bool persistent, const std::vector<std::uint8_t>& plan) {
  xml::DomainStatus status;
  status.live = run.live;
  status.live.id = -1;
  status.persistent = persistent;
  status.maps = run.maps;
  status.started_ms = run.started_ms;
  status.controller_pid = ::getpid();
  status.facts["phase"] = "spawning";
  if (!run.scope_group.empty()) status.facts["scope"] = run.scope_group;
  TRY(write_atomic_volatile(run_file(run.uuid, ".plan"),
                            std::string_view(reinterpret_cast<const char*>(plan.data()), plan.size())));
  return write_atomic_volatile(run_file(run.uuid, ".status"), xml::format_status(status));
}

void Backend::save_status(const Object& domain) {
  const std::lock_guard one_writer(domain->status_mutex);
  xml::DomainStatus status;
  Uuid uuid;
  {
    const Locked locked = lock(domain);
    if (!locked->is_active() || !locked->run) return;
    const Run& run = *locked->run;
    uuid = run.uuid;
    status.live = locked->def;
    status.state = locked->state;
    status.reason = locked->reason;
    status.controller_pid = run.pid;
    status.controller_start_time = run.start_time;
    status.init_pid = locked->boot.init_pid;
    status.init_start_time = locked->boot.init_start_time;
    status.started_ms = run.started_ms;
    status.persistent = locked->persistent;
    status.autodestroy = locked->autodestroy_by.has_value();
    status.maps = run.maps;
    status.cgroup = run.scope_group.empty() ? group_path(locked->def, config_) : run.scope_group;
    status.facts["phase"] = "running";
    if (!run.scope_group.empty()) status.facts["scope"] = run.scope_group;
    if (locked->dump_pause != DumpPause::kNone) status.facts["dump-pause"] = "yes";
    status.facts["boots"] = std::to_string(locked->boot.boots);
    for (std::size_t i = 0; i < run.messages.size(); ++i)
      status.facts["message" + std::to_string(i)] = run.messages[i];
  }
  if (auto saved = write_atomic_volatile(run_file(uuid, ".status"), xml::format_status(status)); !saved)
    log_warning("userns", "status of domain " + quote(status.live.name) + ": " + saved.error().text);
}

// ---- watching ---------------------------------------------------------------------------------------------------

void Backend::watch(const RunPtr& run) {
  watch_channel(run);
  run->process_watch = reactor_.add(run->process, [this, run] { on_controller_exit(run); });
}

void Backend::unwatch(Run& run) {
  // The handlers hold the run: without this it would live for ever.
  reactor_.remove(run.channel_watch);
  reactor_.remove(run.process_watch);
}

void Backend::on_note(const RunPtr& run, controller::Note note) {
  if (const auto* started = std::get_if<controller::StartedNote>(&note))
    return on_started(run, started->boot, VIR_DOMAIN_RUNNING_BOOTED);
  if (const auto* rebooted = std::get_if<controller::RebootedNote>(&note)) return on_rebooted(run, *rebooted);
  if (const auto* ended = std::get_if<controller::EndedNote>(&note)) return on_ended(run, ended->record);
  const auto& failed = std::get<controller::FailedNote>(note);
  const std::lock_guard lock(run->mutex);
  if (!run->outcome) run->outcome = Error{failed.error.code, failed.error.sys_errno, failed.error.text};
  run->changed.notify_all();
}

void Backend::on_started(const RunPtr& run, const controller::BootRecord& boot, int running_reason) {
  const auto domain = run->domain.lock();
  if (!domain) return;
  {
    const Locked locked = lock(domain);
    if (locked->run != run || locked->is_active()) return;
    DomainDef live = run->live;
    fill_live_values(live, run->maps, boot, paths_);
    set_live_label(live, kernel::read_apparmor_label(paths_.proc, boot.init_pid));
    begin_running(*locked, run->pid, running_reason);
    live.id = run->pid;
    locked->def = std::move(live);
    locked->boot = boot;
    emit_lifecycle_locked(*locked, VIR_DOMAIN_EVENT_STARTED, VIR_DOMAIN_EVENT_STARTED_BOOTED);
  }
  save_status(domain);
  list_machine(run);
  const std::lock_guard lock(run->mutex);
  run->live = {};
  if (!run->outcome) run->outcome = Result<void>();
  run->changed.notify_all();
}

void Backend::on_rebooted(const RunPtr& run, const controller::RebootedNote& note) {
  const auto domain = run->domain.lock();
  if (!domain) return;
  {
    const std::lock_guard lock(run->mutex);
    if (note.sequence <= run->last_sequence) return;
    run->last_sequence = note.sequence;
  }
  {
    const Locked locked = lock(domain);
    if (locked->run != run || !locked->is_active()) return;
    locked->boot = note.boot;
    std::size_t link = 0;
    for (auto& interface : locked->def.interfaces)
      if (has_veth(interface) && link < note.boot.host_links.size())
        interface.target_dev = note.boot.host_links[link++];
    locked->set_state(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_BOOTED);
    emit_locked(*locked, RebootEvent{});
  }
  append_to_log(run->log_path, "rebooted");
  save_status(domain);
  list_machine(run);  // its leader is another
  acknowledge(run, note.sequence);
}

// After the event went out: a daemon that dies before this hears the note again.
void Backend::acknowledge(const RunPtr& run, std::uint64_t sequence) {
  housekeeper_.submit([run, sequence] { (void)run->channel->request(controller::AckRequest{sequence}, 2000); });
}

void Backend::on_ended(const RunPtr& run, const controller::ExitRecord& record) {
  if (!record.error.empty()) log_warning("userns", "domain " + format_uuid(run->uuid) + " ended: " + record.error);
  if (!record.error.empty()) append_to_log(run->log_path, record.error);
  const auto reason = end_reason_of(record.cause);
  end_run(run, reason.shutoff, reason.stopped);
}

void Backend::on_controller_exit(const RunPtr& run) {
  reactor_.remove(run->process_watch);
  // What it said before it died counts.
  (void)run->channel->read_available([&](controller::Note note) { on_note(run, std::move(note)); });
  run->channel->close();
  reactor_.remove(run->channel_watch);
  reap_zombie(run->process);
  {
    const std::lock_guard lock(run->mutex);
    // Without an outcome: whoever waits for it cleans up.
    if (!run->outcome || !*run->outcome || run->is_ending) return;
  }
  housekeeper_.submit([this, run] { after_dead_controller(run); });
}

bool Backend::claim_clean_up(Run& run) {
  const std::lock_guard lock(run.mutex);
  return !run.is_ending && !std::exchange(run.is_cleaned_up, true);
}

void Backend::after_dead_controller(const RunPtr& run) {
  // Asked now and not when it was handed in: meanwhile a destroy may have done it, and the plan on disk be of a new start.
  if (!claim_clean_up(*run)) return;
  const auto record = read_exit_record(run->uuid);
  if (!record)
    log_warning("userns",
                "the controller of domain " + format_uuid(run->uuid) + " is dead: its container died with it");
  if (const auto plan = read_plan(run->uuid)) {
    if (auto reaped = reap_domain(paths_.controller, *plan, run->log_path, kReapTimeoutMs); !reaped)
      log_error("userns", reaped.error().text);
  }
  // It may have ended well while it could not tell us.
  if (record) return on_ended(run, *record);
  end_run(run, VIR_DOMAIN_SHUTOFF_CRASHED, VIR_DOMAIN_EVENT_STOPPED_CRASHED);
}

void Backend::end_run(const RunPtr& run, int shutoff_reason, int stopped_detail) {
  const auto domain = run->domain.lock();
  {
    const std::lock_guard lock(run->mutex);
    if (run->is_ending) return;
    run->is_ending = true;
  }
  append_to_log(run->log_path, std::string("ended: ") + word_of(shutoff_reason));
  bool is_kept = true;
  if (domain) {
    // Before it counts as off: a new start writes files of the same names.
    {
      const std::lock_guard one_writer(domain->status_mutex);
      remove_run_files(run->uuid);
      forget_scope(run->uuid);
      const Locked locked = lock(domain);
      if (locked->run == run) {
        locked->autodestroy_by.reset();
        is_kept = end_running(*locked, shutoff_reason);
        locked->run.reset();
        emit_lifecycle_locked(*locked, VIR_DOMAIN_EVENT_STOPPED, stopped_detail);
        if (!is_kept) domains_.remove_locked(*locked);
      }
    }
    if (is_kept)
      broker_.ended(run->uuid);
    else
      broker_.release(run->uuid);
  }
  {
    const std::lock_guard lock(run->mutex);
    run->has_ended = true;
    run->changed.notify_all();
  }
  unwatch(*run);
  unlist_machine(*run);
  // Nobody reads it any more: whoever still waits for a reply that comes after the last note waits in vain.
  if (run->channel) run->channel->close();
  // The controller ends by itself now; if it is our child somebody has to take its exit status.
  housekeeper_.submit([run] { await_exit(run->process, 5000); });
}

bool Backend::wait_ended(Run& run, int timeout_ms) {
  std::unique_lock lock(run.mutex);
  return run.changed.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return run.has_ended; });
}

}  // namespace virtuserns::userns
