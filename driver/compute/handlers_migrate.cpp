// To another host, and back.
#include <chrono>

#include "driver/compute/handlers.h"

namespace virtuserns::compute {
namespace {

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

}  // namespace

std::span<const Method> migrate_methods() {
  static const std::vector<Method> all = {
      {"instance.migrate_out", instance_migrate_out, {"uuid", "destination", "timeout", "retry_interval"}, "migrate"},
      {"instance.migrate_open", instance_migrate_open, {"uuid", "token"}, "migrate"},
      {"instance.migrate_in",
       instance_migrate_in,
       {"instance", "ticket", "network", "volumes", "resize", "power"},
       "migrate"},
      {"instance.migrate_confirm", instance_migrate_confirm, {"uuid"}, "migrate"},
      {"instance.migrate_revert", instance_migrate_revert, {"uuid", "network", "volumes", "power"}, "migrate"},
  };
  return all;
}

}  // namespace virtuserns::compute
