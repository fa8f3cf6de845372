#include "driver/compute/methods.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <span>

#include "conf/base/log.h"
#include "conf/base/text.h"
#include "driver/compute/kinds.h"
#include "virtuserns_build.h"

namespace virtuserns::compute {
namespace {

// JSON-RPC 2.0, section 5.1; -32000 is the first of those that are ours.
constexpr int kParseError = -32700, kInvalidRequest = -32600, kMethodNotFound = -32601, kInvalidParams = -32602,
              kRefused = -32000;
constexpr std::uint64_t kMaxSeconds = 86400, kMaxMegabytes = std::uint64_t{1} << 40;

struct Call {
  const Service& service;
  const Peer& peer;
  const Object& params;
  Fd& passed;  // of the answer
  [[nodiscard]] Compute& compute() const { return service.compute; }
  [[nodiscard]] Result<std::string> uuid() const { return read_uuid(params); }
  [[nodiscard]] Result<Wiring> wiring() const {
    Wiring wiring;
    wiring.network = TRY(read_network(params));
    wiring.volumes = TRY(read_volumes(params));
    return wiring;
  }
};
// No TRY stands in braces that have something before it: that would be lost when it returns (a fault of the compilers).
using Handler = Result<Json> (*)(const Call&);

Json nothing() { return Json::object(); }

Json ids_of(const std::optional<IdRange>& ids) { return {{"ids", ids ? to_json(*ids) : Json()}}; }

// A file of the client's: it may name only what is its own, and no link, FIFO or device.
Result<Fd> open_of_peer(const Call& call, int flags) {
  const auto path = TRY(call.params.text("path"));
  if (!path.starts_with('/')) return fail(VIR_ERR_INVALID_ARG, "params.path: needs an absolute path");
  const auto not_opened = [&] {
    auto error = sys_fail("open " + quote(path));
    error.code = VIR_ERR_INVALID_ARG;
    return error;
  };
  // Looked at before it is opened: opening alone starts a watchdog.
  const Fd place(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!place) return not_opened();
  struct stat found {};
  if (::fstat(place.get(), &found) != 0) return sys_fail("look at " + quote(path));
  if (!S_ISREG(found.st_mode) || (found.st_uid != call.peer.uid && call.peer.uid != 0))
    return fail(VIR_ERR_INVALID_ARG, quote(path) + " is no regular file of the caller's own");
  Fd file(
      ::open(("/proc/self/fd/" + std::to_string(place.get())).c_str(), flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file) return not_opened();
  return file;
}

Result<Json> api_version(const Call&) {
  return Json{{"version", std::string(kApiVersion)}, {"program", "virtuserns-compute " VIRTUSERNS_VERSION}};
}

Result<Json> host_describe(const Call& call) { return call.service.host.describe(); }
Result<Json> host_resources(const Call& call) { return call.service.host.resources(); }
Result<Json> host_inventory(const Call& call) { return call.service.host.inventory(); }
Result<Json> host_uptime(const Call& call) { return call.service.host.uptime(); }
Result<Json> host_cpu_stats(const Call& call) { return call.service.host.cpu_stats(); }

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
  return ids_of(TRY(call.compute().spawn(request)));
}

Result<Json> instance_destroy(const Call& call) {
  const auto uuid = TRY(call.uuid());
  if (TRY(call.params.flag_or("rebuild", false)))
    TRY(call.compute().destroy_for_rebuild(uuid));
  else
    TRY(call.compute().destroy(uuid, TRY(call.params.flag_or("disks", true))));
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

Result<Json> instance_snapshot(const Call& call) {
  const auto output = TRY(open_of_peer(call, O_WRONLY));
  const auto packed = TRY(call.compute().snapshot(TRY(call.uuid()), output));
  return Json{{"format", std::string(packed.format)}, {"bytes", packed.bytes}};
}

Result<Json> instance_resize(const Call& call) {
  TRY(call.compute().resize(TRY(call.uuid()), TRY(read_flavor(TRY(call.params.object("flavor"))))));
  return nothing();
}

Json to_json(const Ticket& ticket) {
  return {{"host", ticket.host},
          {"address", ticket.address},
          {"token", ticket.token},
          {"image", ticket.image ? to_json(*ticket.image) : Json()},
          {"ids", ticket.ids ? to_json(*ticket.ids) : Json()}};
}

Result<Ticket> read_ticket(const Object& object) {
  Ticket ticket;
  ticket.host = TRY(object.text("host", 255));
  ticket.address = TRY(object.text("address", 255));
  ticket.token = TRY(object.text("token", 128));
  ticket.image = TRY(read_image(object));
  ticket.ids = TRY(read_ids(object));
  // They become words of a command.
  for (const auto* word : {&ticket.host, &ticket.address, &ticket.token})
    if (word->empty() || word->front() == '-' || word->find_first_of(" \t\n{}") != std::string::npos)
      return fail(VIR_ERR_INVALID_ARG, object.path() + ": is no ticket of instance.migrate_out");
  return ticket;
}

Result<Json> instance_migrate_out(const Call& call) {
  const std::chrono::seconds timeout(TRY(call.params.number_or("timeout", 0, 0, kMaxSeconds)));
  const auto ticket = TRY(call.compute().migrate_out(TRY(call.uuid()), timeout));
  return Json{{"ticket", to_json(ticket)}};
}
// What `virtuserns-compute send` asks for, with the disk.
Result<Json> instance_migrate_open(const Call& call) {
  auto [disk, luggage] = TRY(call.compute().open_moved(TRY(call.uuid()), TRY(call.params.text("token", 128))));
  call.passed = std::move(disk);
  return to_json(luggage);
}
Result<Json> instance_migrate_in(const Call& call) {
  ArrivalRequest request;
  request.spec = TRY(read_instance(TRY(call.params.object("instance"))));
  request.ticket = TRY(read_ticket(TRY(call.params.object("ticket"))));
  request.network = TRY(read_network(call.params));
  request.volumes = TRY(read_volumes(call.params));
  request.power = TRY(call.params.flag_or("power", true));
  return ids_of(TRY(call.compute().migrate_in(request)));
}
Result<Json> instance_migrate_confirm(const Call& call) {
  TRY(call.compute().migrate_confirm(TRY(call.uuid())));
  return nothing();
}
Result<Json> instance_migrate_revert(const Call& call) {
  TRY(call.compute().migrate_revert(TRY(call.uuid()), TRY(call.wiring()), TRY(call.params.flag_or("power", true))));
  return nothing();
}

Result<Json> instance_console_output(const Call& call) {
  const auto bytes = TRY(call.params.number_or("bytes", 100 * 1024, 1, 8 * 1024 * 1024));
  const auto output = TRY(call.compute().console_output(TRY(call.uuid()), bytes));
  return Json{{"data", encode_base64(output)}};
}

Result<Json> instance_serial_console(const Call& call) {
  const auto port = TRY(call.compute().serial_console(TRY(call.uuid())));
  return Json{{"host", call.compute().settings().console_address}, {"port", port}};
}

Json to_json(const NicCounters& nic) {
  Json json = {{"mac", nic.mac}};
  if (!nic.counters) return json;
  const auto& c = *nic.counters;
  const std::pair<const char*, long long> all[] = {
      {"rx_octets", c.rx_bytes}, {"rx_packets", c.rx_packets}, {"rx_drop", c.rx_drop}, {"rx_errors", c.rx_errs},
      {"tx_octets", c.tx_bytes}, {"tx_packets", c.tx_packets}, {"tx_drop", c.tx_drop}, {"tx_errors", c.tx_errs}};
  // -1: the hypervisor does not know it.
  for (const auto& [name, value] : all)
    if (value >= 0) json[name] = value;
  return json;
}

Result<Json> instance_diagnostics(const Call& call) {
  const auto found = TRY(call.compute().diagnostics(TRY(call.uuid())));
  const auto hypervisor = TRY(call.service.host.hypervisor_type());
  const auto& domain = found.facts.domain;
  Json nics = Json::array(), disks = Json::array(), cpus = Json::array();
  for (const auto& nic : found.nics) nics.push_back(to_json(nic));
  for (const auto& disk : found.disks)
    disks.push_back({{"read_bytes", disk.read_bytes},
                     {"read_requests", disk.read_requests},
                     {"write_bytes", disk.write_bytes},
                     {"write_requests", disk.write_requests}});
  // The time is that of all its processors together, which are the host's.
  cpus.push_back({{"id", 0}, {"time_ns", domain.cpu_time_ns}, {"utilisation", nullptr}});
  return Json{{"state", found.facts.state},
              {"uptime_s", nullptr},
              {"memory", {{"maximum_mb", domain.max_memory_kib / 1024}, {"used_mb", domain.memory_kib / 1024}}},
              {"cpus", cpus},
              {"nics", nics},
              {"disks", disks},
              {"driver", "virtuserns-compute"},
              {"hypervisor", hypervisor},
              {"hypervisor_os", "linux"},
              {"config_drive", found.has_config_drive}};
}

Result<Json> instance_set_password(const Call& call) {
  const auto user = TRY(call.params.text("user", 255)), password = TRY(call.params.text("password", 1024));
  if (user.empty() || user.find_first_of(":\n/") != std::string::npos)
    return fail(VIR_ERR_INVALID_ARG, "params.user: " + quote(user) + " is no name of a user");
  TRY(call.compute().set_password(TRY(call.uuid()), user, password));
  return nothing();
}

Result<Json> instance_crash_dump(const Call& call) {
  const auto path = TRY(call.compute().crash_dump(TRY(call.uuid())));
  return Json{{"path", path}};
}

Result<Json> instance_quiesce(const Call& call) {
  TRY(call.compute().quiesce(TRY(call.uuid())));
  return nothing();
}
Result<Json> instance_unquiesce(const Call& call) {
  TRY(call.compute().unquiesce(TRY(call.uuid())));
  return nothing();
}
Result<Json> instance_extend_volume(const Call& call) {
  TRY(call.compute().extend_volume(TRY(call.uuid()), TRY(read_known_volume(TRY(call.params.object("volume"))))));
  return nothing();
}
Result<Json> instance_swap_volume(const Call& call) {
  const auto volume = TRY(read_volume(TRY(call.params.object("volume"))));
  const auto next = TRY(read_volume(TRY(call.params.object("next"))));
  TRY(call.compute().swap_volume(TRY(call.uuid()), volume, next));
  return nothing();
}

Result<Json> instance_attach_interface(const Call& call) {
  TRY(call.compute().attach_interface(TRY(call.uuid()), TRY(read_vif(TRY(call.params.object("vif"))))));
  return nothing();
}
Result<Json> instance_detach_interface(const Call& call) {
  TRY(call.compute().detach_interface(TRY(call.uuid()), TRY(read_vif(TRY(call.params.object("vif"))))));
  return nothing();
}
Result<Json> instance_attach_volume(const Call& call) {
  TRY(call.compute().attach_volume(TRY(call.uuid()), TRY(read_volume(TRY(call.params.object("volume"))))));
  return nothing();
}
Result<Json> instance_detach_volume(const Call& call) {
  TRY(call.compute().detach_volume(TRY(call.uuid()), TRY(read_volume(TRY(call.params.object("volume"))))));
  return nothing();
}

Result<std::string> image_key(const Call& call) {
  // Checked as part of an image; any format does for that.
  const auto key = TRY(call.params.text("key", 200));
  const Json named = {{"key", key}, {"format", "raw"}};
  return TRY(read_image_ref(TRY(Object::of(named, "params")))).key;
}

Result<Json> image_has(const Call& call) {
  const auto found = call.compute().guests().find_image(TRY(image_key(call)));
  if (!found && found.error().code != kImageMissing) return found.error();
  return Json{{"present", static_cast<bool>(found)}};
}

Result<Json> image_add(const Call& call) {
  const auto image = TRY(read_image_ref(call.params));
  const auto file = TRY(open_of_peer(call, O_RDONLY));
  const auto bytes = TRY(call.compute().images().add(image.key, file, image.format));
  return Json{{"bytes", bytes}};
}

Result<Json> image_list(const Call& call) {
  Json all = Json::array();
  for (const auto& base : TRY(call.compute().images().list())) {
    Json holders = Json::array();
    for (const auto& holder : base.holders) holders.push_back(format_uuid(holder));
    all.push_back({{"key", base.key}, {"bytes", base.bytes}, {"last_used", base.used_at}, {"holders", holders}});
  }
  return all;
}

Result<Json> image_sweep(const Call& call) {
  SweepLimits limits;
  if (call.params.has("max_mb")) limits.max_bytes = TRY(call.params.number("max_mb", 0, kMaxMegabytes)) << 20;
  if (call.params.has("max_age_s"))
    limits.max_age = std::chrono::seconds(TRY(call.params.number("max_age_s", 0, kMaxSeconds * 3650)));
  limits.keep_unused_for =
      std::chrono::seconds(TRY(call.params.number_or("keep_unused_for_s", 0, 0, kMaxSeconds * 3650)));
  const auto removed = TRY(call.compute().images().sweep(limits));
  return Json{{"removed", removed}};
}

Result<Json> events_subscribe(const Call&) { return nothing(); }

struct Method {
  std::string_view name;
  Handler handler;
  std::vector<std::string_view> params;
  std::string_view feature = {};  // without which it is refused
};

std::span<const Method> methods() {
  static const std::vector<Method> all = {
      {"api.version", api_version, {}},
      {"host.describe", host_describe, {}},
      {"host.resources", host_resources, {}},
      {"host.inventory", host_inventory, {}},
      {"host.uptime", host_uptime, {}},
      {"host.cpu_stats", host_cpu_stats, {}},
      {"instance.list", instance_list, {}},
      {"instance.remains", instance_remains, {}},
      {"instance.info", instance_info, {"uuid"}},
      {"instance.spawn",
       instance_spawn,
       {"instance", "image", "network", "volumes", "files", "config_drive", "password", "power"}},
      {"instance.destroy", instance_destroy, {"uuid", "disks", "rebuild"}},
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
      {"instance.snapshot", instance_snapshot, {"uuid", "path"}, "snapshot"},
      {"instance.resize", instance_resize, {"uuid", "flavor"}, "resize"},
      {"instance.migrate_out", instance_migrate_out, {"uuid", "destination", "timeout", "retry_interval"}, "migrate"},
      {"instance.migrate_open", instance_migrate_open, {"uuid", "token"}, "migrate"},
      {"instance.migrate_in",
       instance_migrate_in,
       {"instance", "ticket", "network", "volumes", "resize", "power"},
       "migrate"},
      {"instance.migrate_confirm", instance_migrate_confirm, {"uuid"}, "migrate"},
      {"instance.migrate_revert", instance_migrate_revert, {"uuid", "network", "volumes", "power"}, "migrate"},
      {"instance.console_output", instance_console_output, {"uuid", "bytes"}, "console_output"},
      {"instance.serial_console", instance_serial_console, {"uuid"}, "serial_console"},
      {"instance.diagnostics", instance_diagnostics, {"uuid"}},
      {"instance.set_password", instance_set_password, {"uuid", "user", "password"}, "set_password"},
      {"instance.crash_dump", instance_crash_dump, {"uuid"}, "crash_dump"},
      {"instance.quiesce", instance_quiesce, {"uuid"}, "quiesce"},
      {"instance.unquiesce", instance_unquiesce, {"uuid"}, "quiesce"},
      {"instance.extend_volume", instance_extend_volume, {"uuid", "volume"}, "extend_volume"},
      {"instance.attach_interface", instance_attach_interface, {"uuid", "vif"}, "attach_interface"},
      {"instance.detach_interface", instance_detach_interface, {"uuid", "vif"}, "attach_interface"},
      {"instance.attach_volume", instance_attach_volume, {"uuid", "volume"}, "attach_volume"},
      {"instance.detach_volume", instance_detach_volume, {"uuid", "volume"}, "attach_volume"},
      {"instance.swap_volume", instance_swap_volume, {"uuid", "volume", "next"}, "swap_volume"},
      {"image.has", image_has, {"key"}},
      {"image.add", image_add, {"key", "format", "path"}, "images"},
      {"image.list", image_list, {}},
      {"image.sweep", image_sweep, {"max_mb", "max_age_s", "keep_unused_for_s"}},
      {"events.subscribe", events_subscribe, {}},
  };
  return all;
}

// ---- JSON-RPC -----------------------------------------------------------------------------------------------------

std::string refusal(const Json& id, int code, const std::string& text, const Json& data = nullptr) {
  Json error = {{"code", code}, {"message", text}};
  if (!data.is_null()) error["data"] = data;
  return format_json({{"jsonrpc", "2.0"}, {"id", id}, {"error", error}});
}

std::string refusal(const Json& id, const Error& error) {
  const auto kind = kind_of(error);
  return refusal(id, kRefused, error.text, Json{{"kind", std::string(kind.name)}, {"retryable", kind.is_retryable}});
}

const Method* find_method(const std::string& name) {
  for (const auto& method : methods())
    if (method.name == name) return &method;
  return nullptr;
}

std::string unknown_param(const Method& method, const Object& params) {
  for (const auto& key : params.keys())
    if (std::find(method.params.begin(), method.params.end(), key) == method.params.end()) return key;
  return "";
}

}  // namespace

Answer answer(const Service& service, const Peer& peer, std::string_view text) {
  const auto parsed = parse_json(text);
  if (!parsed) return {refusal(nullptr, kParseError, parsed.error().text)};
  const auto request = Object::of(*parsed, "the request");
  if (!request) return {refusal(nullptr, kInvalidRequest, request.error().text + "; batches are refused")};
  const auto found_id = parsed->find("id");
  const Json id =
      found_id != parsed->end() && (found_id->is_number_integer() || found_id->is_string()) ? *found_id : Json();
  const auto name = request->text("method", 128);
  const auto version = request->text("jsonrpc", 8);
  if (!name || !version || *version != "2.0" || id.is_null())
    return {refusal(id, kInvalidRequest,
                    "a request needs \"jsonrpc\": \"2.0\", an id that is a number or a string, and a method")};
  const auto* method = find_method(*name);
  if (!method) return {refusal(id, kMethodNotFound, "there is no method " + quote(*name))};
  static const Json kNoParams = Json::object();
  const auto found_params = parsed->find("params");
  const auto params = Object::of(found_params == parsed->end() ? kNoParams : *found_params, "params");
  if (!params) return {refusal(id, kInvalidParams, params.error().text)};
  if (const auto unknown = unknown_param(*method, *params); !unknown.empty())
    return {refusal(id, kInvalidParams, *name + " has no parameter " + quote(unknown))};
  log_debug("compute.api", *name);
  Fd passed;
  const auto offered = service.compute.guests().check(method->feature);
  const auto result = offered ? method->handler({service, peer, *params, passed}) : Result<Json>(offered.error());
  if (!result) {
    log_info("compute.api", *name + ": " + result.error().text);
    return {refusal(id, result.error())};
  }
  return {format_json({{"jsonrpc", "2.0"}, {"id", id}, {"result", *result}}), *name == "events.subscribe",
          std::move(passed)};
}

std::string format_event(const DomainEvent& event, std::int64_t at) {
  return format_json({{"jsonrpc", "2.0"},
                      {"method", "event"},
                      {"params", {{"uuid", event.uuid}, {"event", std::string(event.name)}, {"at", at}}}});
}

}  // namespace virtuserns::compute
