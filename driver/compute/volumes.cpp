// Volumes come and go, grow, and are changed for others while an instance has them.
#include <algorithm>
#include <chrono>
#include <thread>

#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/compute/blocks.h"
#include "driver/compute/compute.h"
#include "driver/compute/plugging.h"
#include "driver/compute/users.h"

namespace virtuserns::compute {
namespace {

constexpr auto kPatience = std::chrono::seconds(20);
constexpr auto kPause = std::chrono::milliseconds(50);

auto find_volume(std::vector<VolumeRef>& volumes, const VolumeRef& volume) {
  return std::find_if(volumes.begin(), volumes.end(),
                      [&](const VolumeRef& each) { return each.device == volume.device; });
}

// A path is another volume's by and by, when it is written down for an instance that is off.
bool is_same(const VolumeRef& one, const VolumeRef& other) {
  if (!one.serial.empty() && !other.serial.empty()) return one.serial == other.serial;
  return one.path == other.path;
}

HasDevice that_has(const VolumeRef& volume) {
  return [&volume](const xml::Node& devices) { return has_volume(devices, volume); };
}

// Only where it is: another volume may have the same device.
Result<void> unplug(Hypervisor& hypervisor, const Guests& guests, const std::string& uuid, const VolumeRef& volume,
                    unsigned flags) {
  unsigned places = 0;
  for (const unsigned flag : {VIR_DOMAIN_AFFECT_LIVE, VIR_DOMAIN_AFFECT_CONFIG})
    if ((flags & flag) != 0 && TRY(is_there(hypervisor, uuid, flag, that_has(volume)))) places |= flag;
  return places == 0 ? Result<void>() : detach_once(hypervisor, uuid, guests.volume_xml(volume), places);
}

Result<void> plug(Hypervisor& hypervisor, const Guests& guests, const std::string& uuid, const VolumeRef& volume,
                  unsigned flags) {
  return attach_once(hypervisor, uuid, guests.volume_xml(volume), flags, that_has(volume));
}

// A machine is asked, and lets go when it likes.
Result<void> await_gone(Hypervisor& hypervisor, const std::string& uuid, const VolumeRef& volume) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (TRY(is_there(hypervisor, uuid, VIR_DOMAIN_AFFECT_LIVE, that_has(volume)))) {
    if (std::chrono::steady_clock::now() > deadline)
      return fail(VIR_ERR_RESOURCE_BUSY, "the instance does not let go of the volume at " + quote(volume.device) +
                                             ": try again; the volume stays attached");
    std::this_thread::sleep_for(kPause);
  }
  return {};
}

// The kernel lets whoever has opened a device go on with it, wherever its node is: so it stays until nobody has.
Result<void> check_unused(const Record& record, const VolumeRef& volume) {
  if (!record.spec.ids) return {};
  const auto user = TRY(find_user(volume.path, *record.spec.ids));
  if (!user) return {};
  return fail(VIR_ERR_RESOURCE_BUSY, "the volume at " + quote(volume.device) +
                                         " is in use in the instance, by process " + std::to_string(user->pid) +
                                         " of this host (" + quote(user->name) +
                                         "): end what uses it there, and try again; the volume stays attached");
}

}  // namespace

// Instances of one project may share a volume when all of them say so; nobody else has one that somebody has.
Result<void> Compute::check_sharing(const InstanceSpec& spec, const std::vector<VolumeRef>& volumes) {
  const std::lock_guard lock(mutex_);
  for (const auto& [uuid, slot] : slots_) {
    if (uuid == spec.uuid || !slot->record || slot->record->phase != Phase::kReady) continue;
    const auto& other = *slot->record;
    auto all_theirs = other.volumes;
    if (other.arriving) all_theirs.push_back(*other.arriving);
    for (const auto& volume : volumes)
      for (const auto& theirs : all_theirs) {
        if (!is_same(volume, theirs)) continue;
        if (other.spec.project != spec.project)
          return fail(VIR_ERR_INVALID_ARG,
                      "the volume at " + quote(volume.device) + " is one of an instance of another project here");
        if (!volume.is_shared || !theirs.is_shared || volume.is_root || theirs.is_root)
          return fail(VIR_ERR_INVALID_ARG, "the volume at " + quote(volume.device) + " is attached to instance " +
                                               uuid +
                                               " here: detach it there, or make it one that is shared, and no root");
      }
  }
  return {};
}

// What an attach that died has brought, and nobody has said to be the instance's, is none of it: its device may be another's soon.
Result<void> Compute::drop_arriving(Held& held) {
  auto record = *held.record();
  if (!record.arriving) return {};
  const auto& uuid = record.spec.uuid;
  const auto flags = flags_for(TRY(hypervisor_.facts(uuid)));
  TRY(unplug(hypervisor_, guests_, uuid, *record.arriving, flags));
  // Of a swap: what it was to take the place of.
  if (const auto before = find_volume(record.volumes, *record.arriving); before != record.volumes.end())
    TRY(plug(hypervisor_, guests_, uuid, *before, flags));
  record.arriving.reset();
  return save(held, std::move(record));
}

// Written down first, and looked at then: of two that want the same at one time at least one sees the other.
Result<void> Compute::announce(Held& held, Record& record, const VolumeRef& volume) {
  record.arriving = volume;
  TRY(save(held, record));
  const auto allowed = check_sharing(record.spec, {volume});
  if (allowed) return {};
  record.arriving.reset();
  TRY(save(held, record));
  return allowed;
}

Result<void> Compute::attach_volume(const std::string& uuid, const VolumeRef& volume) {
  auto held = TRY(hold_ready(uuid));
  TRY(drop_arriving(held));
  auto record = *held.record();
  if (const auto found = find_volume(record.volumes, volume); found != record.volumes.end()) {
    if (*found == volume) return {};
    return fail(VIR_ERR_INVALID_ARG, "the instance has another volume at " + quote(volume.device) + " already");
  }
  if (volume.is_root) return fail(VIR_ERR_OPERATION_INVALID, "the root of the instance cannot be attached later");
  const auto facts = TRY(hypervisor_.facts(uuid));
  TRY(announce(held, record, volume));
  if (const auto plugged = plug(hypervisor_, guests_, uuid, volume, flags_for(facts)); !plugged) {
    if (const auto dropped = drop_arriving(held); !dropped) log_error("compute", dropped.error().text);
    return plugged;
  }
  record.arriving.reset();
  record.volumes.push_back(volume);
  return save(held, std::move(record));
}

Result<void> Compute::detach_volume(const std::string& uuid, const VolumeRef& volume) {
  auto held = TRY(hold_ready(uuid));
  TRY(drop_arriving(held));
  auto record = *held.record();
  const auto found = find_volume(record.volumes, volume);
  if (found == record.volumes.end())
    return fail(VIR_ERR_DEVICE_MISSING, "the instance has no volume at " + quote(volume.device));
  if (found->is_root) return fail(VIR_ERR_OPERATION_INVALID, "the root of the instance cannot be detached");
  const auto facts = TRY(hypervisor_.facts(uuid));
  if (is_up(facts)) TRY(check_unused(record, *found));
  TRY(unplug(hypervisor_, guests_, uuid, *found, flags_for(facts)));
  if (is_up(facts)) TRY(await_gone(hypervisor_, uuid, *found));
  // Once more, now that nobody can open it: whoever has done so meanwhile would keep it.
  if (const auto unused = is_up(facts) ? check_unused(record, *found) : Result<void>(); !unused) {
    TRY(plug(hypervisor_, guests_, uuid, *found, flags_for(facts)), "put the volume back, which is in use");
    return unused;
  }
  record.volumes.erase(found);
  return save(held, std::move(record));
}

// The instance sees the device itself, which its kernel driver has grown.
Result<void> Compute::extend_volume(const std::string& uuid, const VolumeRef& volume) {
  auto held = TRY(hold_ready(uuid));
  for (const auto& each : held.record()->volumes)
    if (is_same(each, volume) || each.path == volume.path) return notice_size(each.path);
  return fail(VIR_ERR_DEVICE_MISSING,
              "the instance has no volume " + quote(volume.serial.empty() ? volume.path : volume.serial));
}

// While the copy is made the instance is paused, and has neither of both.
Result<void> Compute::swap_volume(const std::string& uuid, const VolumeRef& volume, const VolumeRef& next) {
  auto held = TRY(hold_ready(uuid));
  auto record = *held.record();
  const auto found = find_volume(record.volumes, volume);
  if (found == record.volumes.end())
    return fail(VIR_ERR_DEVICE_MISSING, "the instance has no volume at " + quote(volume.device));
  if (*found == next) return {};  // an answer that was lost
  if (next.device != found->device || next.is_root || found->is_root)
    return fail(VIR_ERR_OPERATION_INVALID, "a volume is swapped for another at the same device, and not the root");
  const auto state = TRY(hypervisor_.facts(uuid));
  Undo undo;
  undo.add([&] {
    if (const auto dropped = drop_arriving(held); !dropped) log_error("compute", dropped.error().text);
    if (const auto resumed = run_on(held); !resumed)
      log_error("compute", "instance " + uuid + " stays paused: " + resumed.error().text);
  });
  if (state.state == PowerState::kRunning) {
    record.is_paused_here = true;
    TRY(save(held, record));
    TRY(hypervisor_.ensure_paused(uuid));
  }
  if (is_up(state)) TRY(check_unused(record, *found));
  TRY(announce(held, record, next));
  const auto flags = flags_for(state);
  TRY(unplug(hypervisor_, guests_, uuid, *found, flags));
  TRY(copy_blocks(found->path, next.path), "copy the volume");
  TRY(plug(hypervisor_, guests_, uuid, next, flags));
  *found = next;
  record.arriving.reset();
  TRY(save(held, record));
  undo.commit();
  return run_on(held);
}

}  // namespace virtuserns::compute
