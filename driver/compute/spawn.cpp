// Instances come and go.
#include "conf/base/log.h"
#include "conf/base/undo.h"
#include "driver/compute/compute.h"
#include "driver/compute/kinds.h"

namespace virtuserns::compute {
namespace {

Record record_of(const SpawnRequest& request) {
  Record record;
  record.spec = request.spec;
  record.image = request.image;
  record.network = request.network;
  record.volumes = request.volumes;
  record.has_config_drive = !request.config_drive.empty();
  return record;
}

bool is_made_by(const Record& record, const SpawnRequest& request) {
  auto made = record_of(request);
  // The hypervisor chose them; who asked may have heard of it or not.
  if (!made.spec.ids) made.spec.ids = record.spec.ids;
  made.phase = Phase::kReady;
  return made == record;
}

Result<void> check_root(const SpawnRequest& request) {
  bool has_root_volume = false;
  for (const auto& volume : request.volumes) has_root_volume = has_root_volume || volume.is_root;
  if (has_root_volume == request.image.has_value())
    return fail(VIR_ERR_INVALID_ARG,
                has_root_volume
                    ? "params.image: there is a volume with boot_index 0 already: leave one of both out"
                    : "params.image: the instance has no root: name an image, or a volume with boot_index 0");
  if (has_root_volume && !request.files.empty())
    return fail(VIR_ERR_OPERATION_UNSUPPORTED,
                "files cannot be written to a root that is a volume: give them by the config drive");
  return {};
}

}  // namespace

Result<std::optional<IdRange>> Compute::spawn(const SpawnRequest& request) {
  const auto& uuid = request.spec.uuid;
  TRY(check_root(request));
  if (!request.files.empty()) TRY(guests_.check("files"));
  if (!request.config_drive.empty()) TRY(guests_.check("config_drive"));
  TRY(check_sharing(request.spec, request.volumes));
  auto held = hold(uuid);
  if (held.record() && held.record()->phase == Phase::kReady && is_made_by(*held.record(), request)) {
    // Its answer was lost.
    if (request.power) TRY(start(held));
    return note_ids(held);
  }
  if (held.record() && held.record()->phase != Phase::kCreating)
    return fail(VIR_ERR_DOM_EXIST, "there is an instance " + uuid + " already");
  // One that is rebuilt of the image that it had has nothing left but that: it was let in when it was made.
  const bool has_been_let_in = held.record() && held.record()->image && held.record()->image == request.image;
  if (held.record()) TRY(empty(held), "remove what an earlier attempt left");
  // Before anything is made: whoever asks may have to bring the image first.
  if (request.image) {
    const auto limit = request.image_limit_bytes.value_or(image_bytes(request.spec.flavor));
    TRY(guests_.find_image(request.image->key, has_been_let_in ? 0 : limit));
  }

  TRY(save(held, record_of(request)));
  Undo undo;
  undo.add([&] {
    if (const auto removed = remove(held); !removed)
      log_error("compute", "instance " + uuid + " could not be made, nor be removed: " + removed.error().text);
  });
  if (request.image) TRY(guests_.hold_image(request.image->key, uuid));
  TRY(make_disk(held));
  if (request.image) TRY(guests_.write_files(held.instance(), request.files, request.password));
  if (!request.config_drive.empty()) TRY(guests_.write_config_drive(held.instance(), request.config_drive));
  if (request.power) {
    TRY(start(held));
  } else {
    TRY(prepare(held));
    TRY(held.disk().unmount());
  }
  const auto ids = TRY(note_ids(held));
  auto record = *held.record();
  record.phase = Phase::kReady;
  TRY(save(held, std::move(record)));
  undo.commit();
  return ids;
}

Result<void> Compute::destroy(const std::string& uuid, bool has_disks_removed, std::optional<bool> reverts) {
  auto held = hold_to_destroy(uuid);
  if (!held.record()) return {};
  // Of a resize on one host the scheduler has the new one destroyed in order to go back to the old one. Asked twice it is that already.
  if (reverts.value_or(true) && held.record()->before_resize) return undo_resize(held);
  if (reverts.value_or(false) && held.record()->phase == Phase::kMoved) return {};
  if (has_disks_removed) return remove(held);
  if (held.record()->before_resize) TRY(forget_before_resize(held));
  TRY(hypervisor_.ensure_off(uuid));
  TRY(hypervisor_.ensure_undefined(uuid));
  TRY(held.disk().unmount());
  auto record = *held.record();
  record.phase = Phase::kMoved;
  record.is_suspended = false;
  return save(held, std::move(record));
}

Result<void> Compute::destroy_for_rebuild(const std::string& uuid) {
  auto held = hold_to_destroy(uuid);
  if (!held.record()) return {};
  return held.record()->phase == Phase::kReady ? empty(held) : remove(held);
}

}  // namespace virtuserns::compute
