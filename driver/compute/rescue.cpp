// An instance is run off another image, to repair its own files, which are at /mnt.
#include "conf/base/log.h"
#include "conf/base/undo.h"
#include "driver/compute/compute.h"
#include "driver/compute/tree.h"

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
  const auto base = TRY(images_.find(request.image.key));
  const auto state = TRY(hypervisor_.facts(uuid)).state;
  if (before.rescue && state == PowerState::kRunning) return {};
  TRY(images_.hold(request.image.key, uuid));
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
    (void)remove_tree(held.disk().rescue());
    (void)prepare(held);
    (void)held.disk().unmount();
    if (!before.image || *before.image != request.image) images_.release(request.image.key, uuid);
  });
  TRY(make_disk(held, *held.record()));
  if (!request.files.empty() || !request.password.empty()) {
    const auto tree = TRY(open_tree_of(held.disk().rescue(), base), "open the files of the rescue image");
    TRY(write_files(tree, request.files));
    if (!request.password.empty())
      if (const auto set = set_password_in(tree, "root", request.password); !set)
        log_info("compute", set.error().text);
  }
  if (!request.config_drive.empty()) TRY(make_config_drive(held.folder() + "/config-2", request.config_drive));
  TRY(start(held));
  undo.commit();
  return {};
}

Result<void> Compute::unrescue(const std::string& uuid) {
  auto held = TRY(hold_ready(uuid));
  auto record = *held.record();
  // The same request again, after the journal had said so: what was left to do is its start.
  if (!record.rescue) return start(held);
  TRY(stop(held, std::chrono::seconds(0)));
  // Its files go while the journal still says what they are.
  TRY(make_disk(held, record));
  TRY(remove_tree(held.disk().rescue()));
  const auto image = *record.rescue;
  record.rescue.reset();
  TRY(save(held, record));
  if (!record.image || *record.image != image) images_.release(image.key, uuid);
  return start(held);
}

}  // namespace virtuserns::compute
