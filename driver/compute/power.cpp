// Instances that are there are switched on and off.
#include "conf/base/log.h"
#include "driver/compute/compute.h"

namespace virtuserns::compute {
namespace {

Error not_now(const std::string& what, const std::string& state) {
  return fail(VIR_ERR_OPERATION_INVALID, "the instance cannot be " + what + ": it is " + state);
}

}  // namespace

Result<void> Compute::power_off(const std::string& uuid, std::chrono::seconds timeout) {
  auto held = TRY(hold_ready(uuid));
  return stop(held, timeout);
}

Result<void> Compute::power_on(const std::string& uuid, Wiring wiring) {
  auto held = TRY(hold_to_start(uuid));
  const auto state = TRY(hypervisor_.facts(uuid)).state;
  if (state == PowerState::kRunning) return {};
  if (state == PowerState::kPaused) return not_now("started", "paused");
  TRY(end_suspension(held));
  TRY(take_wiring(held, std::move(wiring)));
  return start(held);
}

Result<void> Compute::reboot_soft(const std::string& uuid, Wiring wiring) {
  auto held = TRY(hold_to_start(uuid));
  const auto state = TRY(hypervisor_.facts(uuid)).state;
  if (state == PowerState::kRunning) {
    const auto rebooted = TRY(hypervisor_.reboot(uuid, std::chrono::seconds(settings_.soft_reboot_timeout_s)));
    if (rebooted) return {};
    log_info("compute", "instance " + uuid + " did not reboot by itself: it is ended and started");
  }
  TRY(take_wiring(held, std::move(wiring)));
  TRY(stop(held, std::chrono::seconds(0)));
  return start(held);
}

Result<void> Compute::reboot_hard(const std::string& uuid, Wiring wiring) {
  auto held = TRY(hold_to_start(uuid));
  TRY(take_wiring(held, std::move(wiring)));
  TRY(stop(held, std::chrono::seconds(0)));
  // No scheduler reboots one that it takes for rescued: that it is so still is what was left of an unrescue.
  TRY(end_rescue(held));
  return start(held);
}

Result<void> Compute::pause(const std::string& uuid) {
  auto held = TRY(hold_ready(uuid));
  return hypervisor_.ensure_paused(uuid);
}

Result<void> Compute::unpause(const std::string& uuid) {
  auto held = TRY(hold_ready(uuid));
  if (held.record()->is_suspended) return not_now("unpaused", "suspended");
  return hypervisor_.ensure_resumed(uuid);
}

// The hypervisor freezes it, and that it is a suspension is in the journal first: whoever is asked in between calls a running one running.
Result<void> Compute::suspend(const std::string& uuid) {
  auto held = TRY(hold_ready(uuid));
  const auto state = TRY(hypervisor_.facts(uuid)).state;
  if (state != PowerState::kRunning && state != PowerState::kPaused) return not_now("suspended", "not running");
  auto record = *held.record();
  record.is_suspended = true;
  TRY(save(held, record));
  if (const auto paused = hypervisor_.ensure_paused(uuid); !paused) {
    record.is_suspended = false;
    (void)save(held, std::move(record));
    return paused.error();
  }
  return {};
}

Result<void> Compute::resume(const std::string& uuid, Wiring wiring) {
  auto held = TRY(hold_ready(uuid));
  const auto state = TRY(hypervisor_.facts(uuid)).state;
  // After the machine's reboot there is nothing left to thaw.
  if (state == PowerState::kPaused) {
    TRY(hypervisor_.ensure_resumed(uuid));
  } else if (state != PowerState::kRunning) {
    TRY(take_wiring(held, std::move(wiring)));
    TRY(start(held));
  }
  return end_suspension(held);
}

}  // namespace virtuserns::compute
