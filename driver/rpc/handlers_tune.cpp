#include <libvirt/libvirt.h>

#include "driver/rpc/convert.h"
#include "driver/rpc/handlers.h"

namespace virtuserns::rpc {
namespace {

// Every driver here may answer with strings; the flag says that the client can take them, which it always can.
unsigned without_string_flag(unsigned flags) { return flags & ~static_cast<unsigned>(VIR_TYPED_PARAM_STRING_OKAY); }

}  // namespace

Result<wire::U64Reply> domain_get_max_memory(Call& call, const wire::DomainArgs& args) {
  return wire::U64Reply{TRY(call.driver->max_memory_kib(args.dom.uuid))};
}

Result<void> domain_set_max_memory(Call& call, const wire::DomainMemoryArgs& args) {
  return call.driver->set_memory(call.caller, args.dom.uuid, args.memory_kib, VIR_DOMAIN_MEM_MAXIMUM);
}

// The call without flags is about the running domain, as in libvirt's drivers.
Result<void> domain_set_memory(Call& call, const wire::DomainMemoryArgs& args) {
  return call.driver->set_memory(call.caller, args.dom.uuid, args.memory_kib, VIR_DOMAIN_AFFECT_LIVE);
}

Result<void> domain_set_memory_flags(Call& call, const wire::DomainMemoryFlagsArgs& args) {
  return call.driver->set_memory(call.caller, args.dom.uuid, args.memory_kib, args.flags);
}

Result<wire::ParamsCountReply> domain_get_memory_parameters(Call& call, const wire::DomainCountFlagsArgs& args) {
  return counted_params(TRY(call.driver->memory_parameters(args.dom.uuid, without_string_flag(args.flags))),
                        args.count);
}

Result<void> domain_set_memory_parameters(Call& call, const wire::DomainParamsFlagsArgs& args) {
  return call.driver->set_memory_parameters(call.caller, args.dom.uuid, args.params, args.flags);
}

Result<wire::SchedulerTypeReply> domain_get_scheduler_type(Call& call, const wire::DomainArgs& args) {
  wire::SchedulerTypeReply reply;
  int count = 0;
  reply.type = TRY(call.driver->scheduler_type(args.dom.uuid, &count));
  reply.count = count;
  return reply;
}

// The count comes from the call above: here 0 means none.
Result<wire::ParamsReply> domain_get_scheduler_parameters(Call& call, const wire::DomainCountArgs& args) {
  return wire::ParamsReply{
      counted_params(TRY(call.driver->scheduler_parameters(args.dom.uuid, 0)), args.count).params};
}

Result<wire::ParamsReply> domain_get_scheduler_parameters_flags(Call& call, const wire::DomainCountFlagsArgs& args) {
  TypedParams params = TRY(call.driver->scheduler_parameters(args.dom.uuid, without_string_flag(args.flags)));
  return wire::ParamsReply{counted_params(std::move(params), args.count).params};
}

Result<void> domain_set_scheduler_parameters(Call& call, const wire::DomainParamsArgs& args) {
  return call.driver->set_scheduler_parameters(call.caller, args.dom.uuid, args.params, 0);
}

Result<void> domain_set_scheduler_parameters_flags(Call& call, const wire::DomainParamsFlagsArgs& args) {
  return call.driver->set_scheduler_parameters(call.caller, args.dom.uuid, args.params, args.flags);
}

Result<wire::ParamsCountReply> domain_get_blkio_parameters(Call& call, const wire::DomainCountFlagsArgs& args) {
  return counted_params(TRY(call.driver->blkio_parameters(args.dom.uuid, without_string_flag(args.flags))),
                        args.count);
}

Result<void> domain_set_blkio_parameters(Call& call, const wire::DomainParamsFlagsArgs& args) {
  return call.driver->set_blkio_parameters(call.caller, args.dom.uuid, args.params, args.flags);
}

Result<void> domain_set_vcpus(Call& call, const wire::DomainVcpusArgs& args) {
  return call.driver->set_vcpus(call.caller, args.dom.uuid, args.vcpus, VIR_DOMAIN_AFFECT_LIVE);
}

Result<void> domain_set_vcpus_flags(Call& call, const wire::DomainVcpusFlagsArgs& args) {
  return call.driver->set_vcpus(call.caller, args.dom.uuid, args.vcpus, args.flags);
}

Result<void> domain_pin_vcpu(Call& call, const wire::PinArgs& args) {
  return call.driver->pin_vcpu(call.caller, args.dom.uuid, args.vcpu, read_cpu_map(args.map), VIR_DOMAIN_AFFECT_LIVE);
}

Result<void> domain_pin_vcpu_flags(Call& call, const wire::PinFlagsArgs& args) {
  return call.driver->pin_vcpu(call.caller, args.dom.uuid, args.vcpu, read_cpu_map(args.map), args.flags);
}

}  // namespace virtuserns::rpc
