#include "driver/compute/record.h"

namespace virtuserns::compute {
namespace {

constexpr std::pair<Phase, const char*> kPhases[] = {
    {Phase::kCreating, "creating"}, {Phase::kReady, "ready"}, {Phase::kMoved, "moved"}};

Result<Phase> read_phase(const Object& object) {
  const auto said = TRY(object.text("phase", 32));
  for (const auto& [phase, name] : kPhases)
    if (said == name) return phase;
  return fail(VIR_ERR_INVALID_ARG, object.path() + ".phase: is no phase");
}

const char* name_of(Phase phase) {
  for (const auto& [known, name] : kPhases)
    if (known == phase) return name;
  return "";
}

}  // namespace

std::string format_record(const Record& record) {
  Json json = {{"version", kRecordVersion},
               {"phase", name_of(record.phase)},
               {"instance", to_json(record.spec)},
               {"network", to_json(record.network)},
               {"volumes", to_json(record.volumes)},
               {"config_drive", record.has_config_drive},
               {"suspended", record.is_suspended},
               {"frozen", record.is_frozen},
               {"paused_here", record.is_paused_here},
               {"token", record.token}};
  if (record.image) json["image"] = to_json(*record.image);
  if (record.rescue) json["rescue"] = to_json(*record.rescue);
  if (record.arriving) json["arriving"] = to_json(*record.arriving);
  if (record.before_resize) json["before_resize"] = to_json(*record.before_resize);
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Record> parse_record(std::string_view text) {
  const auto json = TRY(parse_json(text));
  const auto object = TRY(Object::of(json, "instance.json"));
  TRY(object.number("version", kRecordVersion, kRecordVersion));
  Record record;
  record.phase = TRY(read_phase(object));
  record.spec = TRY(read_instance(TRY(object.object("instance"))));
  record.image = TRY(read_image(object));
  record.network = TRY(read_network(object));
  record.volumes = TRY(read_volumes(object));
  record.has_config_drive = TRY(object.flag("config_drive"));
  record.is_suspended = TRY(object.flag("suspended"));
  record.is_frozen = TRY(object.flag_or("frozen", false));
  record.is_paused_here = TRY(object.flag_or("paused_here", false));
  record.token = TRY(object.text_or("token", "", 128));
  record.rescue = TRY(read_image(object, "rescue"));
  if (const auto arriving = TRY(object.object_or_none("arriving"))) record.arriving = TRY(read_volume(*arriving));
  if (const auto before = TRY(object.object_or_none("before_resize")))
    record.before_resize = TRY(read_instance(*before));
  return record;
}

}  // namespace virtuserns::compute
