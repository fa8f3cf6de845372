// From an instance's spawn to its end, and what it is meanwhile.
#include <chrono>

#include "driver/compute/handlers.h"

namespace virtuserns::compute {
namespace {

Result<Json> instance_list(const Call& call) {
  Json all = Json::array();
  for (const auto& instance : TRY(call.compute().list()))
    all.push_back({{"uuid", instance.uuid}, {"name", instance.name}, {"state", instance.state}});
  return all;
}

Result<Json> instance_remains(const Call& call) {
  Json all = Json::array();
  for (const auto& uuid : TRY(call.compute().remains())) all.push_back({{"uuid", uuid}});
  return all;
}

Result<Json> instance_info(const Call& call) {
  const auto facts = TRY(call.compute().info(TRY(call.uuid())));
  Json json = {{"state", facts.state},
               {"memory_kb", facts.domain.memory_kib},
               {"max_memory_kb", facts.domain.max_memory_kib},
               {"vcpus", facts.domain.vcpus},
               {"cpu_time_ns", facts.domain.cpu_time_ns},
               {"id", facts.domain.id},
               {"ids", nullptr}};
  if (facts.ids) json["ids"] = to_json(*facts.ids);
  return json;
}

Result<Json> instance_spawn(const Call& call) {
  SpawnRequest request;
  request.spec = TRY(read_instance(TRY(call.params.object("instance"))));
  request.image = TRY(read_image(call.params));
  request.network = TRY(read_network(call.params));
  request.volumes = TRY(read_volumes(call.params));
  request.files = TRY(read_files(call.params, "files"));
  request.config_drive = TRY(read_files(call.params, "config_drive"));
  request.password = TRY(call.params.text_or("password", "", 1024));
  request.power = TRY(call.params.flag_or("power", true));
  request.image_limit_bytes = TRY(call.limit_bytes());
  return ids_of(TRY(call.compute().spawn(request)));
}

Result<Json> instance_destroy(const Call& call) {
  const auto uuid = TRY(call.uuid());
  std::optional<bool> reverts;
  if (call.params.has("revert")) reverts = TRY(call.params.flag_or("revert", false));
  if (TRY(call.params.flag_or("rebuild", false)))
    TRY(call.compute().destroy_for_rebuild(uuid));
  else
    TRY(call.compute().destroy(uuid, TRY(call.params.flag_or("disks", true)), reverts));
  return nothing();
}

Result<Json> instance_power_off(const Call& call) {
  const std::chrono::seconds timeout(TRY(call.params.number_or("timeout", 0, 0, kMaxSeconds)));
  TRY(call.compute().power_off(TRY(call.uuid()), timeout));
  return nothing();
}

Result<Json> instance_power_on(const Call& call) {
  TRY(call.compute().power_on(TRY(call.uuid()), TRY(call.wiring())));
  return nothing();
}

Result<Json> instance_reboot(const Call& call) {
  const auto type = TRY(call.params.text("type", 16));
  if (type != "soft" && type != "hard") return fail(VIR_ERR_INVALID_ARG, "params.type: needs 'soft' or 'hard'");
  const auto uuid = TRY(call.uuid());
  TRY(type == "soft" ? call.compute().reboot_soft(uuid, TRY(call.wiring()))
                     : call.compute().reboot_hard(uuid, TRY(call.wiring())));
  return nothing();
}

Result<Json> instance_pause(const Call& call) {
  TRY(call.compute().pause(TRY(call.uuid())));
  return nothing();
}
Result<Json> instance_unpause(const Call& call) {
  TRY(call.compute().unpause(TRY(call.uuid())));
  return nothing();
}
Result<Json> instance_suspend(const Call& call) {
  TRY(call.compute().suspend(TRY(call.uuid())));
  return nothing();
}
Result<Json> instance_resume(const Call& call) {
  TRY(call.compute().resume(TRY(call.uuid()), TRY(call.wiring())));
  return nothing();
}

Result<Json> instance_rescue(const Call& call) {
  RescueRequest request;
  request.uuid = TRY(call.uuid());
  request.image = TRY(read_image_ref(TRY(call.params.object("image"))));
  request.network = TRY(read_network(call.params));
  request.volumes = TRY(read_volumes(call.params));
  request.files = TRY(read_files(call.params, "files"));
  request.config_drive = TRY(read_files(call.params, "config_drive"));
  request.password = TRY(call.params.text_or("password", "", 1024));
  TRY(call.compute().rescue(request));
  return nothing();
}
Result<Json> instance_unrescue(const Call& call) {
  TRY(call.compute().unrescue(TRY(call.uuid())));
  return nothing();
}

Result<Json> instance_resize(const Call& call) {
  TRY(call.compute().resize(TRY(call.uuid()), TRY(read_flavor(TRY(call.params.object("flavor"))))));
  return nothing();
}

}  // namespace

std::span<const Method> life_methods() {
  static const std::vector<Method> all = {
      {"instance.list", instance_list, {}},
      {"instance.remains", instance_remains, {}},
      {"instance.info", instance_info, {"uuid"}},
      {"instance.spawn",
       instance_spawn,
       {"instance", "image", "network", "volumes", "files", "config_drive", "password", "power", "max_mb"}},
      {"instance.destroy", instance_destroy, {"uuid", "disks", "rebuild", "revert"}},
      {"instance.power_off", instance_power_off, {"uuid", "timeout", "retry_interval"}},
      {"instance.power_on", instance_power_on, {"uuid", "network", "volumes"}},
      {"instance.reboot", instance_reboot, {"uuid", "type", "network", "volumes"}},
      {"instance.pause", instance_pause, {"uuid"}},
      {"instance.unpause", instance_unpause, {"uuid"}},
      {"instance.suspend", instance_suspend, {"uuid"}, "suspend"},
      {"instance.resume", instance_resume, {"uuid", "network", "volumes"}},
      {"instance.rescue",
       instance_rescue,
       {"uuid", "image", "network", "volumes", "files", "config_drive", "password"},
       "rescue"},
      {"instance.unrescue", instance_unrescue, {"uuid"}, "rescue"},
      {"instance.resize", instance_resize, {"uuid", "flavor"}, "resize"},
  };
  return all;
}

}  // namespace virtuserns::compute
