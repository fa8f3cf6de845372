// What an instance uses, and how it is told what it cannot be told from outside.
#include <algorithm>
#include <vector>

#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/compute/blocks.h"
#include "driver/compute/compute.h"

namespace virtuserns::compute {
namespace {

using client::last_error;

constexpr auto kPauseAfterFailure = std::chrono::minutes(1);  // of a thaw

// Of one that runs off it: a rescue runs off a disk of its own.
std::optional<VolumeRef> root_volume_of(const Record& record) {
  const auto root =
      std::find_if(record.volumes.begin(), record.volumes.end(), [](const VolumeRef& each) { return each.is_root; });
  return root == record.volumes.end() || record.rescue ? std::nullopt : std::optional(*root);
}

}  // namespace

Result<Diagnostics> Compute::diagnostics(const std::string& uuid) {
  auto held = TRY(hold_ready(uuid));
  const auto& record = *held.record();
  Diagnostics found;
  found.facts = TRY(info(uuid));
  found.has_config_drive = record.has_config_drive;
  found.disks = TRY(guests_.disk_counters(held.instance()));
  for (const auto& vif : record.network) {
    // Of one that is off there are none.
    auto stats = hypervisor_.run_on(uuid, [&](client::Domain domain) -> Result<virDomainInterfaceStatsStruct> {
      virDomainInterfaceStatsStruct counters{};
      if (::virDomainInterfaceStats(domain.get(), vif.device.c_str(), &counters, sizeof counters) != 0)
        return last_error("ask for the counters of an interface");
      return counters;
    });
    found.nics.push_back({vif.mac, stats ? std::optional(*stats) : std::nullopt});
  }
  return found;
}

Result<void> Compute::set_password(const std::string& uuid, const std::string& user, const std::string& password) {
  auto held = TRY(hold_ready(uuid));
  const auto state = TRY(hypervisor_.facts(uuid)).state;
  if (state != PowerState::kShutdown && state != PowerState::kCrashed)
    return hypervisor_.run_on(uuid, [&](client::Domain domain) -> Result<void> {
      if (::virDomainSetUserPassword(domain.get(), user.c_str(), password.c_str(), 0) != 0)
        return last_error("set the password");
      return {};
    });
  return guests_.set_password(held.instance(), user, password);
}

// What is written in the instance from now on waits; what was written is on its disk.
Result<void> Compute::quiesce(const std::string& uuid) {
  auto held = TRY(hold_ready(uuid));
  const auto state = TRY(hypervisor_.facts(uuid)).state;
  if (state != PowerState::kRunning && state != PowerState::kPaused)
    return fail(VIR_ERR_OPERATION_INVALID, "the instance does not run: it writes nothing that could wait");
  const auto root = root_volume_of(*held.record());
  if (!root && !TRY(held.disk().is_mounted()))
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the instance has no disk of its own in use");
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(settings_.quiesce_limit_s);
  if (thaws_.is_expected(uuid)) {
    thaws_.expect(uuid, until);
    return {};
  }
  // A file system is frozen when the last write has ended, and until then whoever freezes it cannot be killed. A write lasts as long as
  // its writer likes (splice(2) of an empty pipe): one whose writers are frozen has none.
  Undo undo;
  auto record = *held.record();
  if (state == PowerState::kRunning) {
    undo.add([&] {
      if (const auto resumed = run_on(held); !resumed)
        log_error("compute", "instance " + uuid + " stays paused: " + resumed.error().text);
    });
    record.is_paused_here = true;
    TRY(save(held, record));
    TRY(hypervisor_.ensure_paused(uuid));
  }
  // Before, so that nothing stays frozen that nobody is to thaw.
  thaws_.expect(uuid, until);
  undo.add([&] {
    if (const auto thawed = thaw(held); !thawed) log_error("compute", thawed.error().text);
  });
  if (root) {
    record.is_frozen = true;
    TRY(save(held, std::move(record)));
  }
  TRY(root ? freeze_filesystem(root->path) : held.disk().freeze());
  TRY(run_on(held));
  undo.commit();
  return {};
}

Result<void> Compute::unquiesce(const std::string& uuid) {
  auto held = TRY(hold_ready(uuid));
  return thaw(held);
}

void Compute::thaw_overdue(const std::string& uuid) {
  auto held = hold_if_free(uuid);
  if (!held || !thaws_.is_overdue(uuid)) return;  // and asked again
  if (!held->record() || held->record()->phase != Phase::kReady) return thaws_.forget(uuid);
  log_warning("compute", "instance " + uuid + " stood still for too long, and is thawed");
  if (const auto thawed = thaw(*held); !thawed) {
    log_error("compute", thawed.error().text);
    thaws_.expect(uuid, std::chrono::steady_clock::now() + kPauseAfterFailure);
  }
}

Result<void> Compute::thaw(Held& held) {
  auto record = *held.record();
  TRY(held.disk().thaw());
  if (record.is_frozen) {
    if (const auto root = root_volume_of(record)) TRY(thaw_filesystem(root->path), "thaw the root of the instance");
    record.is_frozen = false;
    TRY(save(held, record));
  }
  thaws_.forget(record.spec.uuid);  // the last: a thaw that fails is tried again
  return {};
}

}  // namespace virtuserns::compute
