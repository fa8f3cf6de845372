// What is seen of an instance, and done inside it.
#include "conf/base/text.h"
#include "driver/compute/handlers.h"

namespace virtuserns::compute {
namespace {

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

}  // namespace

std::span<const Method> watch_methods() {
  static const std::vector<Method> all = {
      {"instance.console_output", instance_console_output, {"uuid", "bytes"}, "console_output"},
      {"instance.serial_console", instance_serial_console, {"uuid"}, "serial_console"},
      {"instance.diagnostics", instance_diagnostics, {"uuid"}},
      {"instance.set_password", instance_set_password, {"uuid", "user", "password"}, "set_password"},
      {"instance.crash_dump", instance_crash_dump, {"uuid"}, "crash_dump"},
      {"instance.quiesce", instance_quiesce, {"uuid"}, "quiesce"},
      {"instance.unquiesce", instance_unquiesce, {"uuid"}, "quiesce"},
  };
  return all;
}

}  // namespace virtuserns::compute
