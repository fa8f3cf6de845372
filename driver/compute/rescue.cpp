// An instance is run off another image, to repair its own files, which are at /mnt.
#include "conf/base/log.h"
#include "conf/base/undo.h"
#include "driver/compute/compute.h"

namespace virtuserns::compute {

Result<void> Compute::rescue(const RescueRequest& request) {
  const auto& uuid = request.uuid;
  auto held = TRY(hold_ready(uuid));
  const auto before = *held.record();
  if (before.rescue) {
    // An answer that was lost; or the attempt that died, which is made again.
    if (*before.rescue != request.image)
      return fail(VIR_ERR_OPERATION_INVALID, "the instance is being rescued already, by another image");
  }
  TRY(check_sharing(before.spec, request.volumes));
  // What it has already may be larger than its flavor says by now.
  const bool is_own = before.image && *before.image == request.image;
  TRY(guests_.find_image(request.image.key, is_own ? 0 : image_bytes(before.spec.flavor)));
  const auto state = TRY(hypervisor_.facts(uuid)).state;
  if (before.rescue && state == PowerState::kRunning) return {};
  TRY(guests_.hold_image(request.image.key, uuid));
  TRY(stop(held, std::chrono::seconds(0)));

  auto record = before;
  record.rescue = request.image;
  record.network = request.network;
  record.volumes = request.volumes;
  record.has_config_drive = before.has_config_drive || !request.config_drive.empty();
  record.is_suspended = false;
  TRY(save(held, std::move(record)));
  Undo undo;
  undo.add([&] {
    // As it was, and off, as it was found by whoever asks: what is wrong is in the error.
    (void)hypervisor_.ensure_off(uuid);
    auto restored = before;
    restored.is_suspended = false;
    if (const auto saved = save(held, std::move(restored)); !saved) log_error("compute", saved.error().text);
    (void)guests_.remove_rescue(held.instance());
    (void)prepare(held);
    (void)held.disk().unmount();
    if (!is_own) images_.release(request.image.key, uuid);
  });
  TRY(make_disk(held));
  TRY(guests_.write_files(held.instance(), request.files, request.password));
  if (!request.config_drive.empty()) TRY(guests_.write_config_drive(held.instance(), request.config_drive));
  TRY(start(held));
  undo.commit();
  return {};
}

Result<void> Compute::end_rescue(Held& held) {
  auto record = *held.record();
  if (!record.rescue) return {};
  // Its files go while the journal still says what they are.
  TRY(make_disk(held));
  TRY(guests_.remove_rescue(held.instance()));
  const auto image = *record.rescue;
  record.rescue.reset();
  const bool is_own = record.image && *record.image == image;
  const auto uuid = record.spec.uuid;
  TRY(save(held, std::move(record)));
  if (!is_own) images_.release(image.key, uuid);
  return {};
}

Result<void> Compute::unrescue(const std::string& uuid) {
  auto held = TRY(hold_ready(uuid));
  // The same request again, after the journal had said so: what was left to do is its start.
  if (!held.record()->rescue) return start(held);
  TRY(stop(held, std::chrono::seconds(0)));
  TRY(end_rescue(held));
  return start(held);
}

}  // namespace virtuserns::compute
