#include "tools/convert/cutover.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <thread>

#include "conf/base/loop.h"
#include "conf/base/text.h"
#include "tools/convert/announce.h"
#include "tools/convert/domains.h"
#include "tools/convert/planned.h"
#include "tools/convert/port.h"
#include "tools/convert/rollback.h"
#include "tools/convert/running.h"
#include "tools/convert/target.h"

namespace virtuserns::convert {
namespace {

// A guest that was not frozen writes data of a file out later than the inode that says when it was written: on the disk as it
// was, such a file has its new times and its old bytes. Linux keeps data back for half a minute, and longer when there is much of it.
constexpr time_t kKeptBackS = 3600;
constexpr std::uint32_t kPortLimitMs = 60'000, kAddressLimitMs = 10'000;
constexpr std::chrono::milliseconds kLookAgain{20};

std::string folder_of(const std::string& path) { return path.substr(0, std::max<std::size_t>(path.rfind('/'), 1)); }

// What is written to from now on: beside the disk, where qemu may write already, unless a person has another place.
Result<LiveDisk> plan_overlay(const SourceDisk& disk, const LiveSettings& settings) {
  if (settings.folder.empty() && disk.type != "file")
    return fail(VIR_ERR_INVALID_ARG, "disk " + quote(disk.target) +
                                         " is no file, beside which an overlay could be; " +
                                         "say where, by --overlay-folder");
  const auto folder = settings.folder.empty() ? folder_of(disk.source) : settings.folder;
  LiveDisk live{disk.target, folder + "/" + disk.source.substr(disk.source.rfind('/') + 1) + ".cutover"};
  if (::access(live.overlay.c_str(), F_OK) == 0)
    return fail(VIR_ERR_OPERATION_FAILED, quote(live.overlay) +
                                              " is there already; if no machine uses it, remove it, or choose an "
                                              "--overlay-folder");
  return live;
}

Result<LiveMachine> plan_live(const RunningMachine& machine, const Settings& settings) {
  const auto& domain = machine.domain;
  LiveMachine live{settings.source.uri, domain.uuid, domain.name, {}, false, 0};
  const auto now = TRY(read_kvm_domain(machine.live_xml));
  for (const auto& disk : TRY(read_kvm_domain(domain.xml)).disks) {
    if (!is_readable(disk)) continue;
    const bool is_same = std::any_of(now.disks.begin(), now.disks.end(), [&](const SourceDisk& other) {
      return other.target == disk.target && other.source == disk.source;
    });
    if (!is_same)
      return fail(VIR_ERR_OPERATION_INVALID, "machine " + quote(domain.name) + " runs with another disk " +
                                                 quote(disk.target) + " than its definition has; make them the same");
    if (disk.is_readonly) continue;
    auto planned = TRY(plan_overlay(disk, settings.live));
    for (const auto& other : live.disks)
      if (other.overlay == planned.overlay)
        return fail(VIR_ERR_OPERATION_INVALID, "disks " + quote(other.target) + " and " + quote(disk.target) +
                                                   " have one name, and their overlays would be one; choose no "
                                                   "--overlay-folder, or rename a disk");
    live.disks.push_back(std::move(planned));
  }
  return live;
}

// A machine is taken over once: of two jobs each would start it again, or take away what the other lies on.
Result<void> check_is_alone(const std::string& folder, const std::string& name, const std::string& uuid) {
  for (const auto& other : Job::list(folder)) {
    if (other == name) continue;
    const auto state = Job::look(folder, other);
    if (!state || !state->live || state->live->uuid != uuid) continue;
    return fail(VIR_ERR_OPERATION_INVALID, "the machine was taken over by the conversion of " + quote(other) +
                                               " already: 'virt-userns-convert rollback " + other + "' undoes that");
  }
  return {};
}

// A run that was cut short. A report: all was done but to say so. What could not be undone is added to `left`.
Result<std::optional<Report>> clear_way(const std::string& name, const Settings& settings,
                                        std::vector<Finding>& left) {
  if (!Job::exists(settings.folder, name)) return std::optional<Report>();
  auto job = TRY(Job::open(settings.folder, name));
  auto state = job.state();
  if (state.phase != Phase::kConverting && state.phase != Phase::kRollingBack) return say_converted(name);
  const bool is_there = state.live && state.phase == Phase::kConverting && !state.domain_uuid.empty() &&
                        TRY(look_up_domain(state.uri, state.domain_uuid)) == DomainState::kActive;
  if (!is_there) {
    settings.say("undoing what a conversion that was cut short has done");
    left = TRY(undo_job(job, settings));
    return std::optional<Report>();
  }
  if (TRY(runs_machine(*state.live)))
    return fail(VIR_ERR_OPERATION_INVALID, "container " + quote(name) + " and machine " + quote(state.live->name) +
                                               " both run: end one of them; the machine's overlay goes back by "
                                               "'rollback', and the container stays by running this again");
  state.phase = Phase::kConverted;
  TRY(job.save(std::move(state)));
  return std::optional<Report>(
      Report{name,
             {{Severity::kNote, "container '" + name + "'", "runs: all was done by a run that was cut short", ""}},
             "finished"});
}

class TakeOver {
 public:
  TakeOver(const RunningMachine& source, const Settings& settings, const std::string& workplace, Job& job)
      : source_(source), settings_(settings), workplace_(workplace), job_(job) {}

  // While the machine runs. False: it cannot be a container.
  Result<bool> prepare() {
    const auto moved_at = std::time(nullptr);
    settings_.say("moving machine " + quote(source_.domain.name) + " onto an overlay");
    is_frozen_ = TRY(move_to_overlays(*job_.state().live));
    settings_.say("looking at its disks");
    auto vm = TRY(read_definition(source_.domain.xml, source_.domain.autostart, settings_.source));
    planned_ = TRY(make_plan(std::move(vm), settings_, workplace_));
    if (worst(planned_.report.findings) == Severity::kBlock && !settings_.is_forced) return false;
    auto state = first_state(planned_, settings_);
    state.live = job_.state().live;
    TRY(job_.save(std::move(state)));
    bulk_ = TRY(copy_bulk(planned_.machine, settings_, workplace_, job_, moved_at));
    // Whichever clock is behind: to copy a file too many does no harm.
    doubtful_since_ = {std::min(moved_at, bulk_.newest_change.tv_sec) - kKeptBackS, 0};
    return true;
  }

  // From the last moment of the machine to the first of the container.
  Result<void> change_over() {
    TRY(stop());
    downtime_.machine_off_ms = elapsed();
    TRY(take_final_disks());
    // One that was not shut down in order has maybe written what its inodes do not tell of.
    if (!is_orderly_) doubtful_since_ = {};
    (void)TRY(copy_delta(planned_.machine, settings_, workplace_, job_, doubtful_since_),
              "what was written meanwhile");
    set_done(planned_, TRY(finish_tree(planned_.machine, settings_, job_)));
    settings_.say("starting the container");
    // Not started with the host before it is written down as done: the machine would be, too.
    TRY(define_container(planned_, job_, false));
    TRY(start_domain(settings_.uri, job_.state().domain_uuid), "the container does not start");
    downtime_.init_runs_ms = elapsed();
    auto state = job_.state();
    state.phase = Phase::kConverted;
    // It runs, whatever can be written down of it.
    if (auto saved = job_.save(std::move(state)); !saved)
      planned_.report.findings.push_back({Severity::kLoss, "conversion '" + job_.name() + "'",
                                          "is not written down as done: " + saved.error().text,
                                          "make room, and run this command again while the container runs"});
    else if (auto set = set_autostart(settings_.uri, job_.state().domain_uuid,
                                      planned_.machine.vm.autostart.value_or(false));
             !set)
      planned_.report.findings.push_back(
          {Severity::kLoss, "container", "does not start with the host: " + set.error().text, ""});
    return {};
  }

  Report blocked() { return std::move(planned_.report); }

  // Nothing of this fails: the container runs.
  Report finish() {
    auto& report = planned_.report;
    tell_neighbours(report);
    wait_for_port_if_wanted(report);
    report.downtime = downtime_;
    report.findings.insert(report.findings.end(), bulk_.findings.begin(), bulk_.findings.end());
    const std::string machine = "machine '" + source_.domain.name + "'";
    report.findings.push_back({Severity::kNote, machine,
                               is_frozen_ ? "was frozen by its agent for the bulk" : "was not frozen for the bulk",
                               ""});
    for (const auto& disk : job_.state().live->disks)
      report.findings.push_back(
          {Severity::kChange, machine,
           "is off, and is the way back; its disk '" + disk.target + "' is the overlay " + quote(disk.overlay), ""});
    if (source_.domain.autostart.value_or(false))
      report.findings.push_back({Severity::kLoss, machine, "would start with the host, beside its container",
                                 "virsh autostart --disable " + source_.domain.name});
    return std::move(report);
  }

 private:
  [[nodiscard]] std::uint64_t elapsed() const { return Loop::now_ms() - began_ms_; }

  Result<void> stop() {
    auto state = job_.state();
    state.live->is_stopped = true;
    state.live->limit_s = settings_.live.limit_s;
    TRY(job_.save(state));
    settings_.say("shutting the machine down");
    began_ms_ = Loop::now_ms();
    const auto on_timeout = settings_.live.is_destroyed ? OnTimeout::kDestroy : OnTimeout::kGiveUp;
    const auto off = shut_down(*state.live, settings_.live.limit_s, on_timeout);
    if (off) {
      is_orderly_ = *off;
      return {};
    }
    // Waited for long enough: not once more. After another error it may still be on its way.
    if (off.error().code == VIR_ERR_OPERATION_TIMEOUT) {
      state.live->limit_s = 0;
      (void)job_.save(std::move(state));
    }
    return off.error();
  }

  // Nobody writes to them any more: the overlays, and all that they lie on.
  Result<void> take_final_disks() {
    auto state = job_.state();
    state.live->limit_s = 0;
    auto folders = settings_.source.folders;
    for (const auto& disk : state.disks)
      for (const auto& image : disk.chain) folders.push_back(folder_of(image.path));
    for (auto& disk : state.disks)
      for (const auto& live : state.live->disks)
        if (live.target == disk.target) disk.chain = TRY(read_chain(live.overlay, "qcow2", folders));
    return job_.save(std::move(state));
  }

  // Bridges and switches send to where the machine was until they see a frame from where the container is. Its guest gives
  // itself addresses when it has come so far; one that never does has none to tell of.
  void tell_neighbours(Report& report) {
    Result<unsigned> told = 0U;
    bool has_links = true;
    const auto deadline = Loop::now_ms() + kAddressLimitMs;
    while (told && *told == 0 && has_links && Loop::now_ms() < deadline) {
      const auto links = list_links(settings_.uri, job_.state().domain_uuid);
      has_links = !links || !links->empty();
      told = links ? announce(*links) : links.error();
      std::this_thread::sleep_for(kLookAgain);
    }
    if (!has_links) return;
    const std::string text = !told ? told.error().text
                             : *told > 0
                                 ? "were told of the container's addresses (" + std::to_string(*told) + ")"
                                 : "were not told: its guest has given itself no address that they could know";
    report.findings.push_back({Severity::kNote, "neighbours", text, ""});
  }

  void wait_for_port_if_wanted(Report& report) {
    downtime_.port = settings_.live.port;
    if (downtime_.port == 0) return;
    const std::string object = "port " + std::to_string(downtime_.port);
    settings_.say("waiting for " + object);
    const auto answers = wait_for_port(settings_.uri, job_.state().domain_uuid, downtime_.port, kPortLimitMs);
    if (answers && *answers) {
      downtime_.port_answers_ms = elapsed();
      return;
    }
    report.findings.push_back({Severity::kLoss, object,
                               answers ? "of the container did not answer from here" : answers.error().text,
                               "look at the container's services and addresses"});
  }

  const RunningMachine& source_;
  const Settings& settings_;
  const std::string& workplace_;
  Job& job_;
  bool is_frozen_ = false, is_orderly_ = false;
  Planned planned_;
  Copied bulk_;
  timespec doubtful_since_{};
  std::uint64_t began_ms_ = 0;
  Downtime downtime_;
};

// The error, with what became of the machine.
Error give_up(Job& job, const Settings& settings, Error error) {
  const auto undone = undo_job(job, settings);
  if (!undone)
    return fail(error.code,
                error.text + "; and it could not be undone, which the next run tries again: " + undone.error().text);
  for (const auto& finding : *undone) error.text += "; " + finding.object + " " + finding.text;
  return error;
}

}  // namespace

Result<Report> take_over(const std::string& word, const Settings& settings, const std::string& workplace) {
  const auto name = settings.name.empty() ? TRY(read_domain(settings.source.uri, word)).name : settings.name;
  TRY(check_job_name(name));
  std::vector<Finding> left;
  if (auto finished = TRY(clear_way(name, settings, left))) return std::move(*finished);
  const auto source = TRY(read_running(settings.source.uri, word));
  TRY(check_is_alone(settings.folder, name, source.domain.uuid));
  TRY(check_is_free(settings.uri, name, source.domain.uuid));
  JobState state;
  state.mode = settings.mode;
  state.uri = settings.uri;
  state.live = TRY(plan_live(source, settings));
  state.source_xml = source.domain.xml;
  // The overlays are named on the disk before there is one.
  auto job = TRY(Job::create(settings.folder, name, state));
  TakeOver taken(source, settings, workplace, job);
  const auto can_be = taken.prepare();
  if (!can_be) return give_up(job, settings, can_be.error());
  if (!*can_be) {
    auto report = taken.blocked();
    for (auto& finding : TRY(undo_job(job, settings))) report.findings.push_back(std::move(finding));
    return report;
  }
  if (auto changed = taken.change_over(); !changed) return give_up(job, settings, changed.error());
  auto report = taken.finish();
  report.findings.insert(report.findings.end(), left.begin(), left.end());
  return report;
}

}  // namespace virtuserns::convert
