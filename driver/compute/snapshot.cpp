// What an instance has on its disk, as an image.
#include <sys/eventfd.h>

#include "conf/base/log.h"
#include "conf/base/undo.h"
#include "driver/compute/compute.h"

namespace virtuserns::compute {

// After a snapshot, or the death of whoever made one.
Result<void> Compute::run_on(Held& held) {
  auto record = *held.record();
  if (!record.is_paused_here) return {};
  if (TRY(hypervisor_.facts(record.spec.uuid)).state == PowerState::kPaused)
    TRY(hypervisor_.ensure_resumed(record.spec.uuid));
  record.is_paused_here = false;
  return save(held, std::move(record));
}

Result<Packed> Compute::snapshot(const std::string& uuid, const Fd& output) {
  auto held = TRY(hold_ready(uuid));
  const auto record = *held.record();
  if (!record.image)
    return fail(VIR_ERR_OPERATION_UNSUPPORTED, "the root of the instance is a volume: snapshot that");
  const bool is_running = TRY(hypervisor_.facts(uuid)).state == PowerState::kRunning;
  const auto& disk = held.disk();
  const bool was_mounted = TRY(disk.is_mounted());
  const Fd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop) return sys_fail("make an event");
  Undo undo;  // which ends before `stop` does
  {
    const std::lock_guard lock(mutex_);
    TRY(check_not_doomed_locked(uuid));
    packed_[uuid] = &stop;
  }
  undo.add([&] {
    const std::lock_guard lock(mutex_);
    packed_.erase(uuid);
  });
  TRY(disk.mount());
  if (!was_mounted) undo.add([&] { (void)disk.unmount(); });
  // So that it is of one moment. One that is quiesced is; and who waits for its disk cannot be stopped.
  if (is_running && !thaws_.is_expected(uuid)) {
    undo.add([&] {
      if (const auto resumed = run_on(held); !resumed)
        log_error("compute", "instance " + uuid + " stays paused: " + resumed.error().text);
    });
    auto paused = record;
    paused.is_paused_here = true;
    TRY(save(held, std::move(paused)));
    TRY(hypervisor_.ensure_paused(uuid));
  }
  return guests_.pack(held.instance(), output, stop);
}

}  // namespace virtuserns::compute
