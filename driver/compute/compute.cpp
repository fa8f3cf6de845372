#include "driver/compute/compute.h"

#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "conf/base/file.h"
#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/uuid.h"
#include "driver/compute/disk.h"
#include "driver/compute/kinds.h"
#include "driver/compute/plugging.h"

namespace virtuserns::compute {
namespace {

constexpr const char* kJournal = "/instance.json";
constexpr std::size_t kMaxJournal = 4 * 1024 * 1024;

std::string state_name(const Record& record, PowerState state) {
  switch (state) {
    case PowerState::kRunning:
      return "running";
    case PowerState::kPaused:
      return record.is_suspended ? "suspended" : "paused";
    case PowerState::kShutdown:
      return "shutdown";
    case PowerState::kCrashed:
      return "crashed";
    case PowerState::kNone:
      break;
  }
  return "nostate";
}

}  // namespace

Compute::Compute(Settings settings, Hypervisor& hypervisor, const Guests& guests, Bases& images)
    : settings_(std::move(settings)),
      hypervisor_(hypervisor),
      guests_(guests),
      images_(images),
      consoles_(hypervisor),
      thaws_([this](const std::string& uuid) { thaw_overdue(uuid); }) {}

std::string Compute::folder_of(const std::string& uuid) const { return settings_.state + "/instances/" + uuid; }

Compute::Held Compute::hold(const std::string& uuid) {
  std::shared_ptr<Slot> slot;
  {
    const std::lock_guard lock(mutex_);
    auto& known = slots_[uuid];
    if (!known) known = std::make_shared<Slot>();
    slot = known;
  }
  std::unique_lock job(slot->job);
  return {*this, std::move(slot), std::move(job), folder_of(uuid)};
}

Compute::Held::~Held() {
  if (!slot_) return;
  lock_.unlock();
  const std::lock_guard lock(owner_.mutex_);
  // The map's and ours: nobody else has it or waits for it.
  if (!slot_->record && slot_.use_count() == 2) owner_.slots_.erase(folder_.substr(folder_.rfind('/') + 1));
  slot_.reset();
}

Result<Compute::Held> Compute::hold_ready(const std::string& uuid) {
  auto held = hold(uuid);
  if (!held.record() || held.record()->phase == Phase::kCreating)
    return fail(VIR_ERR_NO_DOMAIN, "there is no instance " + uuid + " here");
  if (held.record()->phase == Phase::kMoved)
    return fail(VIR_ERR_NO_DOMAIN, "instance " + uuid + " has moved away from here, and may come back by a revert");
  return held;
}

Result<Compute::Held> Compute::hold_to_start(const std::string& uuid) {
  {
    auto held = hold(uuid);
    if (held.record() && held.record()->phase == Phase::kMoved) {
      log_info("compute", "instance " + uuid + " had moved away and is to run here: it is taken back");
      TRY(take_back(held));
      return held;
    }
  }
  return hold_ready(uuid);
}

Compute::Held Compute::hold_to_destroy(const std::string& uuid) {
  const bool is_dumped = [&] {
    const std::lock_guard lock(mutex_);
    doomed_.insert(uuid);
    if (const auto packed = packed_.find(uuid); packed != packed_.end())
      (void)::eventfd_write(packed->second->get(), 1);
    return dumped_ == uuid;
  }();
  // Whatever comes of that: it is destroyed as soon as the dump has ended.
  if (is_dumped)
    if (const auto ended = hypervisor_.ensure_off(uuid); !ended) log_warning("compute", ended.error().text);
  auto held = hold(uuid);
  const std::lock_guard lock(mutex_);
  doomed_.erase(doomed_.find(uuid));
  return held;
}

Result<void> Compute::check_not_doomed_locked(const std::string& uuid) const {
  if (!doomed_.contains(uuid)) return {};
  return fail(VIR_ERR_NO_DOMAIN, "instance " + uuid + " is being destroyed");
}

std::optional<Compute::Held> Compute::hold_if_free(const std::string& uuid) {
  const std::lock_guard lock(mutex_);
  auto& slot = slots_[uuid];
  if (!slot) slot = std::make_shared<Slot>();
  std::unique_lock job(slot->job, std::try_to_lock);
  if (!job) return std::nullopt;
  return Held(*this, slot, std::move(job), folder_of(uuid));
}

std::optional<Record> Compute::peek(const std::string& uuid) {
  const std::lock_guard lock(mutex_);
  const auto found = slots_.find(uuid);
  return found == slots_.end() ? std::nullopt : found->second->record;
}

Result<void> Compute::save(Held& held, Record record) {
  TRY(make_directories(held.folder(), guests_.folder_mode()));
  TRY(write_atomic(held.folder() + kJournal, format_record(record)), "write the journal of the instance");
  remember(held, std::move(record));
  return {};
}

void Compute::remember(Held& held, Record record) {
  const std::lock_guard lock(mutex_);
  held.record() = std::move(record);
}

Result<void> Compute::load() {
  const auto folder = settings_.state + "/instances";
  TRY(make_directories(folder, guests_.folder_mode()));
  for (const auto& name : TRY(list_directory(folder))) {
    const auto uuid = parse_uuid(name);
    if (!uuid || format_uuid(*uuid) != name) {
      log_warning("compute", quote(folder + "/" + name) + " is not of this program's making, and left alone");
      continue;
    }
    auto held = hold(name);
    const auto text = read_file(held.folder() + kJournal, kMaxJournal);
    // A folder without a journal is one that was being made or removed.
    const bool is_remnant = !text && text.error().sys_errno == ENOENT;
    auto record = is_remnant ? Result<Record>(Record()) : text ? parse_record(*text) : Result<Record>(text.error());
    if (record && record->phase != Phase::kCreating && record->spec.uuid != name)
      record = fail(VIR_ERR_INVALID_ARG, "it is of another instance");
    if (!record) {
      log_error("compute", "instance " + name + " is not served, its journal cannot be read: " + record.error().text);
      continue;
    }
    if (record->phase != Phase::kCreating) {
      held.record() = *std::move(record);
      // One that has a swapped volume half does not run on with it.
      auto resumed = drop_arriving(held);
      if (resumed) resumed = run_on(held);
      if (!resumed) log_error("compute", "instance " + name + " stays as it is: " + resumed.error().text);
      // Whoever wanted it frozen has lost us, or we him.
      if (const auto thawed = thaw(held); !thawed)
        log_error("compute", "instance " + name + " may stand still: " + thawed.error().text);
      continue;
    }
    log_info("compute", "instance " + name + " was being made or removed when this program ended: it is removed");
    record->spec.uuid = name;
    held.record() = *std::move(record);
    if (const auto removed = remove(held); !removed)
      log_error("compute", "instance " + name + " cannot be removed: " + removed.error().text);
  }
  return {};
}

Result<std::vector<std::string>> Compute::remains() {
  std::set<std::string> listed;
  for (const auto& domain : TRY(hypervisor_.list())) listed.insert(domain.uuid);
  const std::lock_guard lock(mutex_);
  std::vector<std::string> all;
  for (const auto& [uuid, slot] : slots_) {
    if (!slot->record || slot->record->phase == Phase::kCreating) continue;
    if (slot->record->phase == Phase::kMoved || !listed.contains(uuid)) all.push_back(uuid);
  }
  return all;
}

bool Compute::knows(const std::string& uuid) {
  const auto record = peek(uuid);
  return record && record->phase == Phase::kReady;
}

Result<std::vector<ListedInstance>> Compute::list() {
  std::vector<ListedInstance> all;
  for (const auto& domain : TRY(hypervisor_.list()))
    if (const auto record = peek(domain.uuid); record && record->phase == Phase::kReady)
      all.push_back({domain.uuid, domain.name, state_name(*record, domain.state)});
  return all;
}

Result<InstanceFacts> Compute::info(const std::string& uuid) {
  const auto record = peek(uuid);
  if (!record || record->phase != Phase::kReady)
    return fail(VIR_ERR_NO_DOMAIN, "there is no instance " + uuid + " here");
  const auto domain = TRY(hypervisor_.facts(uuid));
  return InstanceFacts{state_name(*record, domain.state), domain, record->spec.ids};
}

Compute::Claimed Compute::claimed() {
  const std::lock_guard lock(mutex_);
  Claimed sum;
  for (const auto& [uuid, slot] : slots_) {
    if (!slot->record || slot->record->phase != Phase::kReady) continue;
    const auto& flavor = slot->record->spec.flavor;
    sum.vcpus += flavor.vcpus;
    sum.memory_mb += flavor.memory_mb;
    sum.disk_gb += flavor.root_gb;
    ++sum.instances;
  }
  return sum;
}

std::uint64_t Compute::disk_bytes(const Flavor& flavor) const {
  return (flavor.root_gb == 0 ? settings_.default_disk_gb : flavor.root_gb) << 30;
}

std::uint64_t Compute::image_bytes(const Flavor& flavor) const {
  return (flavor.root_gb == 0 ? settings_.image_limit_gb : flavor.root_gb) << 30;
}

Result<void> Compute::make_disk(const Held& held) {
  const auto instance = held.instance();
  return guests_.make_disk(instance, disk_bytes(instance.record.spec.flavor));
}

Result<void> Compute::prepare(Held& held) {
  TRY(make_disk(held));
  return hypervisor_.define(TRY(guests_.definition(held.instance())));
}

Result<void> Compute::start(Held& held) {
  TRY(drop_arriving(held));
  TRY(prepare(held));
  if (!is_up(TRY(hypervisor_.facts(held.record()->spec.uuid)))) TRY(guests_.check_start(held.instance()));
  TRY(hypervisor_.ensure_running(held.record()->spec.uuid));
  (void)TRY(note_ids(held));
  return {};
}

// What the hypervisor chose is the instance's from now on.
Result<std::optional<IdRange>> Compute::note_ids(Held& held) {
  auto record = *held.record();
  if (record.spec.ids) return record.spec.ids;
  const auto chosen = TRY(guests_.read_ids(TRY(hypervisor_.xml(record.spec.uuid, 0))));
  if (!chosen) return chosen;
  record.spec.ids = chosen;
  // Of one that is being made the journal is written at the end.
  if (record.phase == Phase::kCreating)
    remember(held, std::move(record));
  else
    TRY(save(held, std::move(record)));
  return chosen;
}

Result<void> Compute::stop(Held& held, std::chrono::seconds timeout) {
  // Whoever waits for a frozen disk cannot be ended.
  TRY(thaw(held));
  TRY(hypervisor_.shut_down(held.record()->spec.uuid, timeout));
  TRY(held.disk().unmount());
  return end_suspension(held);
}

// One that has ended is not suspended any more.
Result<void> Compute::end_suspension(Held& held) {
  auto record = *held.record();
  if (!record.is_suspended) return {};
  record.is_suspended = false;
  return save(held, std::move(record));
}

Result<void> Compute::empty(Held& held) {
  auto record = *held.record();
  const auto uuid = record.spec.uuid;
  // Whoever finds it half removed removes the rest: it is none that could be started with an empty disk.
  if (record.phase != Phase::kCreating) {
    record.phase = Phase::kCreating;
    TRY(save(held, std::move(record)));
  }
  (void)thaw(held);
  TRY(hypervisor_.ensure_off(uuid));
  TRY(held.disk().remove(), "remove the disk of the instance");
  // Before the folder, by which the next run would know of it.
  TRY(images_.release_all(uuid));
  for (const auto& name : TRY(list_directory(held.folder())))
    if ("/" + name != kJournal) TRY(remove_tree(held.folder() + "/" + name));
  return {};
}

Result<void> Compute::remove(Held& held) {
  const auto uuid = held.record()->spec.uuid;
  TRY(empty(held));
  TRY(hypervisor_.ensure_undefined(uuid));
  // The journal last of what says that there is an instance; without it the folder is a remnant.
  TRY(remove_tree(held.folder()));
  const std::lock_guard lock(mutex_);
  held.record().reset();
  return {};
}

Result<void> Compute::take_wiring(Held& held, Wiring wiring) {
  auto record = *held.record();
  record.network = std::move(wiring.network);
  record.volumes = std::move(wiring.volumes);
  TRY(check_sharing(record.spec, record.volumes));
  if (record == *held.record()) return {};
  return save(held, std::move(record));
}

}  // namespace virtuserns::compute
