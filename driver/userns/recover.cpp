// The first second of a daemon: definitions, leases, and the domains that ran on while nobody watched.
//
// Every step of a start left enough behind (see backend.h): a status and a plan before the controller has one, a socket of
// a name that follows from the uuid. So each status file ends in one of three ways: its controller answers and is taken over;
// it has ended and left an exit record; or it is dead, and what it left is cleaned up.
#include <libvirt/libvirt.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "driver/userns/backend.h"

namespace virtuserns::userns {

namespace {

constexpr std::chrono::milliseconds kSecondLook{300};
constexpr int kStatusTimeoutMs = 2'000;
constexpr std::size_t kRecoverers = 8;
constexpr std::size_t kMaxStatusBytes = 8 * 1024 * 1024;

// The uuid of "<uuid><suffix>".
std::optional<Uuid> uuid_of(const std::string& file) {
  if (file.size() < 36) return std::nullopt;
  const auto uuid = parse_uuid(file.substr(0, 36));
  return uuid && format_uuid(*uuid) == file.substr(0, 36) ? uuid : std::nullopt;
}

// "spawning": the controller may or may not exist; "running".
std::string phase_of(const xml::DomainStatus& status) {
  const auto phase = status.facts.find("phase");
  return phase == status.facts.end() ? "running" : phase->second;
}

}  // namespace

pid_t peer_pid(const SocketFd& socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
}

Backend::Backend(const DaemonConfig& config, const Paths& paths, EventHub& events)
    : TypedDomainDriver(events),
      config_(config),
      allow_enter_namespace_(config.allow_enter_namespace),
      pids_limit_(config.pids_limit),
      paths_(paths),
      store_(paths.definitions, ".xml"),
      broker_(config, paths) {}

void Backend::reload(const DaemonConfig& config) {
  allow_enter_namespace_ = config.allow_enter_namespace;
  pids_limit_ = config.pids_limit;
}

Result<void> Backend::start() {
  TRY(make_directories(paths_.driver_run, 0700));
  TRY(make_directories(paths_.state, 0700));
  TRY(make_directories(paths_.log, 0700));
  host_ = TRY(read_host_facts(paths_.proc, paths_.sys), "facts about this host");
  Statuses statuses = TRY(read_statuses());
  TRY(refuse_newer(statuses));
  std::vector<Uuid> live;
  for (const auto& found : statuses) live.push_back(found.uuid);
  for (const auto& problem : TRY(broker_.open(live, !host_.is_initial_user_namespace))) log_error("userns", problem);
  TRY(reactor_.start());
  housekeeper_.start();
  spawner_.start();
  if (is_systemd_here()) machines_.start();
  load_definitions();
  recover_all(std::move(statuses));
  std::vector<Uuid> known;
  for (auto& object : domains_.all()) known.push_back(lock_domain(std::move(object))->def.uuid);
  broker_.collect(known);
  return {};
}

void Backend::stop() {
  reactor_.stop();
  spawner_.stop();
  housekeeper_.stop();
  machines_.stop();
  // Handlers hold runs, runs hold domains: let go of them.
  for (auto& object : domains_.all()) {
    const Locked domain = lock(typed(std::move(object)));
    if (domain->run) unwatch(*domain->run);
  }
}

Result<Backend::Statuses> Backend::read_statuses() const {
  Statuses statuses;
  for (const auto& file : TRY(list_directory(paths_.driver_run))) {
    const auto uuid = uuid_of(file);
    if (!uuid || !file.ends_with(".status") || file.size() != 43) continue;
    const auto text = read_file(paths_.driver_run + "/" + file, kMaxStatusBytes);
    auto status = text ? xml::parse_status(*text) : Result<xml::DomainStatus>(text.error());
    if (status && status->live.uuid != *uuid) status = fail(VIR_ERR_INTERNAL_ERROR, "status of another domain");
    if (!status) log_error("userns", "status " + quote(file) + ": " + status.error().text);
    const bool is_newer = !status && text && xml::is_newer_status(*text);
    statuses.push_back({*uuid, std::move(status), is_newer});
  }
  return statuses;
}

// After a downgrade. To guess what a newer program meant could end a domain that runs well, to leave it alone would show
// it as shut off while it runs. So this program does not begin: everything runs on, and the newer one finds it.
Result<void> Backend::refuse_newer(const Statuses& statuses) const {
  for (const auto& [uuid, status, is_newer] : statuses) {
    if (!is_newer) continue;
    const auto controller = Channel::connect(run_file(uuid, ".sock"));
    if (!controller) continue;  // it has ended: nothing is lost with its status
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "running domain " + format_uuid(uuid) + ": " + status.error().text +
                                                ": start the newer virtusernsd again, or end process " +
                                                std::to_string(peer_pid(*controller)) +
                                                ", the domain's controller, first");
  }
  return {};
}

void Backend::recover_all(Statuses statuses) {
  std::set<std::string> known;
  std::vector<std::function<void()>> work;
  for (auto& [uuid, status, is_newer] : statuses) {
    known.insert(format_uuid(uuid));
    if (status)
      work.push_back([this, uuid = uuid, status = std::move(*status)] { recover(uuid, status); });
    else
      work.push_back([this, uuid = uuid] { bury(uuid, nullptr); });
  }
  clean_leftovers(known);
  // A controller that hangs must not make the others wait.
  std::atomic<std::size_t> next{0};
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < std::min(kRecoverers, work.size()); ++i)
    threads.emplace_back([&] {
      for (std::size_t mine; (mine = next++) < work.size();) work[mine]();
    });
  threads.clear();
}

void Backend::recover(const Uuid& uuid, xml::DomainStatus status) {
  if (phase_of(status) == "spawning") status.controller_pid = 0;
  const auto job = claim(status.live.name, uuid);
  if (!job) {
    log_error("userns", "domain " + quote(status.live.name) + " that was running: " + job.error().text);
    return bury(uuid, &status);
  }
  const Object domain = job->domain;
  auto run = std::make_shared<Run>();
  run->domain = domain;
  run->uuid = uuid;
  run->pid = status.controller_pid;
  run->start_time = status.controller_start_time;
  run->live = status.live;
  run->maps = status.maps;
  run->started_ms = status.started_ms;
  run->log_path = paths_.log + "/" + status.live.name + ".log";
  if (const auto scope = status.facts.find("scope"); scope != status.facts.end()) run->scope_group = scope->second;
  remember_scope(*run);
  for (std::size_t i = 0; status.facts.count("message" + std::to_string(i)); ++i)
    run->messages.push_back(status.facts["message" + std::to_string(i)]);
  {
    const Locked locked = lock(domain);
    locked->run = run;
    // A definition that was not loaded (set aside) is gone: the domain runs on as a transient one.
    if (!locked->persistent) locked->def = status.live, locked->def.id = -1;
  }
  broker_.adopt(status.live, status.maps);
  if (reconnect(run, status)) return;
  {
    const Locked locked = lock(domain);
    locked->run.reset();
  }
  forget_scope(uuid);
  bury(uuid, &status);
  forget_if_empty(domain);
}

bool Backend::reconnect(const RunPtr& run, const xml::DomainStatus& status) {
  const bool was_starting = phase_of(status) != "running";
  auto socket = Channel::connect(run_file(run->uuid, ".sock"));
  // The daemon died while the domain started. Its controller, if there is one, listens soon.
  if (!socket && was_starting) {
    if (const auto plan = read_plan(run->uuid); plan && run->pid == 0) run->pid = find_controller(paths_.proc, *plan);
    for (int i = 0; !socket && run->pid != 0 && i < 500 && read_start_time(paths_.proc, run->pid); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      socket = Channel::connect(run_file(run->uuid, ".sock"));
    }
  }
  if (!socket) return false;
  if (run->pid == 0) run->pid = peer_pid(*socket);
  auto process = open_pidfd(run->pid);
  const auto start_time = read_start_time(paths_.proc, run->pid);
  if (!process || !start_time || (run->start_time != 0 && *start_time != run->start_time)) return false;
  run->start_time = *start_time;
  run->process = std::move(process).value();
  run->channel = std::make_unique<Channel>(std::move(socket).value());
  watch(run);
  // By whoever reads it, so that notes that come after it are recorded after it.
  const auto on_reply = [this, weak = std::weak_ptr(run), status](const ReplyBody& body) {
    const auto* reply = std::get_if<controller::StatusReply>(&body);
    if (const auto alive = weak.lock(); alive && reply) take_over(alive, status, *reply);
  };
  const auto answer =
      run->channel->request(controller::StatusRequest{}, was_starting ? 10'000 : kStatusTimeoutMs, {}, on_reply);
  if (!answer && answer.error().code == VIR_ERR_OPERATION_TIMEOUT && !was_starting) {
    // It is there and silent (stopped, say): what the status says is the best there is.
    controller::StatusReply reply;
    reply.boot.init_pid = status.init_pid;
    reply.is_frozen = status.state == VIR_DOMAIN_PAUSED;
    take_over(run, status, reply);
    (void)run->channel->tell(controller::StatusRequest{}, kStatusTimeoutMs, on_reply);
  } else if (!answer || !std::holds_alternative<controller::StatusReply>(answer->body)) {
    unwatch(*run);
    const std::lock_guard lock(run->mutex);
    // It is watched already, and the last thing it said may be its end: then that is recorded, once.
    return run->is_ending;
  }
  // Once more: what the former daemon had asked for may be done only now, by a controller that did not see it die because a
  // child of it still had its connection.
  housekeeper_.submit_later(kSecondLook, [this, weak = std::weak_ptr(run)] {
    if (const auto alive = weak.lock()) ask_status(alive);
  });
  settle_later(run);
  // The client that asked for it went with the daemon that served it.
  if (status.autodestroy) housekeeper_.submit([this, uuid = run->uuid] { (void)end_by_destroy(uuid); });
  return true;
}

void Backend::take_over(const RunPtr& run, const xml::DomainStatus& status, const controller::StatusReply& reply) {
  if (phase_of(status) != "running") {
    on_started(run, reply.boot, VIR_DOMAIN_RUNNING_BOOTED);
    return on_status(run, reply);
  }
  const auto domain = run->domain.lock();
  if (!domain) return;
  if (const Locked locked = lock(domain); locked->run == run && !locked->is_active()) {
    begin_running(*locked, run->pid, VIR_DOMAIN_RUNNING_UNKNOWN);
    locked->def = status.live;
    locked->def.id = run->pid;
    locked->boot = reply.boot;
    if (status.facts.count("dump-pause")) locked->dump_pause = DumpPause::kLeft;
    if (reply.is_frozen)
      locked->set_state(VIR_DOMAIN_PAUSED,
                        status.state == VIR_DOMAIN_PAUSED ? status.reason : VIR_DOMAIN_PAUSED_UNKNOWN);
    else if (status.state == VIR_DOMAIN_PAUSED)
      locked->set_state(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_UNPAUSED);
    else
      locked->set_state(VIR_DOMAIN_RUNNING, status.reason);
    const std::lock_guard run_lock(run->mutex);
    run->outcome = Result<void>();
  }
  list_machine(run);
  on_status(run, reply);
}

// A status without a live controller: says how it ended, and cleans up.
void Backend::bury(const Uuid& uuid, const xml::DomainStatus* status) {
  int shutoff = VIR_DOMAIN_SHUTOFF_CRASHED, stopped = VIR_DOMAIN_EVENT_STOPPED_CRASHED;
  bool has_ended_itself = false;
  if (const auto record = read_exit_record(uuid)) {
    const auto [reason, detail] = end_reason_of(record->cause);
    shutoff = reason, stopped = detail;
    has_ended_itself = true;
    if (!record->error.empty()) log_warning("userns", "domain " + format_uuid(uuid) + " ended: " + record->error);
  }
  if (const auto plan = read_plan(uuid)) {
    // One that lives but does not answer: it hangs, or what it runs can be described to nobody. One that has just
    // written its exit record ends by itself.
    for (int i = 0; i < 5; ++i) {
      const pid_t pid = find_controller(paths_.proc, *plan);
      const auto process = pid != 0 ? open_pidfd(pid) : Result<PidFd>(Error{});
      if (!process) break;
      if (has_ended_itself)
        await_exit(*process, 2000);
      else
        kill_and_wait(*process, 2000);
    }
    if (auto reaped = reap_domain(paths_.controller, *plan, paths_.log + "/" + plan->name + ".log", kReapTimeoutMs);
        !reaped)
      log_error("userns", reaped.error().text);
  }
  remove_run_files(uuid);
  if (auto domain = domains_.find_object(uuid)) {
    const auto locked = lock_domain(*domain);
    locked->set_state(VIR_DOMAIN_SHUTOFF, shutoff);
    const bool was_running = status && phase_of(*status) == "running";
    if (was_running) emit_lifecycle_locked(*locked, VIR_DOMAIN_EVENT_STOPPED, stopped);
  }
  broker_.ended(uuid);
}

// Files of starts that got no further than these, and of ends that were cut short.
void Backend::clean_leftovers(const std::set<std::string>& known) {
  const auto files = list_directory(paths_.driver_run);
  if (!files) return;
  for (const auto& file : *files) {
    const auto uuid = uuid_of(file);
    if (!uuid) continue;
    // What a killed daemon left half written; the next names of living domains come from us.
    const bool is_half =
        file.find(".status.new.") != std::string::npos || file.find(".plan.new.") != std::string::npos;
    const bool is_known = known.count(format_uuid(*uuid)) != 0;
    if (is_known && !is_half) continue;
    if (!is_known) remove_run_files(*uuid);
    ::unlink((paths_.driver_run + "/" + file).c_str());
  }
}

}  // namespace virtuserns::userns
