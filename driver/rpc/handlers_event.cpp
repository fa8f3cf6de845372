#include <libvirt/libvirt.h>

#include "driver/rpc/handlers.h"

namespace virtuserns::rpc {

// The two oldest calls know one event only; their reply says whether a callback is registered afterwards.
Result<wire::IntReply> event_register(Call& call) {
  (void)TRY(call.session.add_registration(VIR_DOMAIN_EVENT_ID_LIFECYCLE, std::nullopt, true));
  return wire::IntReply{1};
}

Result<wire::IntReply> event_deregister(Call& call) {
  TRY(call.session.remove_legacy_registration(VIR_DOMAIN_EVENT_ID_LIFECYCLE));
  return wire::IntReply{0};
}

Result<void> event_register_any(Call& call, const wire::IntArgs& args) {
  (void)TRY(call.session.add_registration(args.value, std::nullopt, true));
  return {};
}

Result<void> event_deregister_any(Call& call, const wire::IntArgs& args) {
  return call.session.remove_legacy_registration(args.value);
}

Result<wire::IntReply> event_callback_register_any(Call& call, const wire::EventRegisterArgs& args) {
  std::optional<Uuid> domain;
  if (args.dom) domain = args.dom->uuid;
  return wire::IntReply{TRY(call.session.add_registration(args.event_id, domain, false))};
}

Result<void> event_callback_deregister_any(Call& call, const wire::IntArgs& args) {
  return call.session.remove_registration(args.value);
}

}  // namespace virtuserns::rpc
