// What is attached to an instance.
#include "driver/compute/handlers.h"

namespace virtuserns::compute {
namespace {

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

}  // namespace

std::span<const Method> device_methods() {
  static const std::vector<Method> all = {
      {"instance.extend_volume", instance_extend_volume, {"uuid", "volume"}, "extend_volume"},
      {"instance.attach_interface", instance_attach_interface, {"uuid", "vif"}, "attach_interface"},
      {"instance.detach_interface", instance_detach_interface, {"uuid", "vif"}, "attach_interface"},
      {"instance.attach_volume", instance_attach_volume, {"uuid", "volume"}, "attach_volume"},
      {"instance.detach_volume", instance_detach_volume, {"uuid", "volume"}, "attach_volume"},
      {"instance.swap_volume", instance_swap_volume, {"uuid", "volume", "next"}, "swap_volume"},
  };
  return all;
}

}  // namespace virtuserns::compute
