#include <libvirt/libvirt.h>

#include <algorithm>

#include "driver/rpc/convert.h"
#include "driver/rpc/handlers.h"

namespace virtuserns::rpc {
namespace {

// The client has room for `maps` maps of `bytes` each; it refuses a reply with more.
Result<std::size_t> map_room(std::int32_t maps, std::int32_t bytes) {
  if (maps < 0 || bytes < 0 || static_cast<std::size_t>(maps) > wire::kMaxVcpus ||
      static_cast<std::int64_t>(maps) * bytes > static_cast<std::int64_t>(wire::kMaxCpuMapsBytes))
    return fail(VIR_ERR_INVALID_ARG, "number or size of cpu maps out of range");
  return static_cast<std::size_t>(maps) * static_cast<std::size_t>(bytes);
}

TypedParams block_params(const BlockStats& stats) {
  TypedParams params;
  const auto add = [&](const char* field, std::int64_t value) {
    if (value >= 0) params.push_back({field, value});
  };
  add(VIR_DOMAIN_BLOCK_STATS_READ_BYTES, stats.read_bytes);
  add(VIR_DOMAIN_BLOCK_STATS_READ_REQ, stats.read_requests);
  add(VIR_DOMAIN_BLOCK_STATS_WRITE_BYTES, stats.write_bytes);
  add(VIR_DOMAIN_BLOCK_STATS_WRITE_REQ, stats.write_requests);
  add(VIR_DOMAIN_BLOCK_STATS_ERRS, stats.errors);
  return params;
}

}  // namespace

Result<wire::InfoReply> domain_get_info(Call& call, const wire::DomainArgs& args) {
  const DomainInfo info = TRY(call.driver->info(args.dom.uuid));
  return wire::InfoReply{static_cast<std::uint32_t>(info.state), info.max_memory_kib, info.memory_kib, info.vcpus,
                         info.cpu_time_ns};
}

Result<wire::StateReply> domain_get_state(Call& call, const wire::DomainFlagsArgs& args) {
  const DomainState state = TRY(call.driver->state(args.dom.uuid, args.flags));
  return wire::StateReply{state.state, state.reason};
}

Result<wire::ControlInfoReply> domain_get_control_info(Call& call, const wire::DomainFlagsArgs& args) {
  const ControlInfo info = TRY(call.driver->control_info(args.dom.uuid, args.flags));
  return wire::ControlInfoReply{info.state, info.details, info.state_time_ms};
}

// No driver has jobs that a client could watch: type 0, VIR_DOMAIN_JOB_NONE, of a domain that exists.
Result<wire::JobInfoReply> domain_get_job_info(Call& call, const wire::DomainArgs& args) {
  (void)TRY(call.driver->lookup_by_uuid(args.dom.uuid));
  return wire::JobInfoReply{};
}

Result<wire::VcpusReply> domain_get_vcpus(Call& call, const wire::VcpusArgs& args) {
  const std::size_t room = TRY(map_room(args.max_info, args.map_bytes));
  const auto map_bytes = static_cast<std::size_t>(args.map_bytes);
  wire::VcpusReply reply;
  reply.maps.resize(room);
  for (const VcpuInfo& vcpu : TRY(call.driver->vcpus(args.dom.uuid))) {
    if (reply.vcpus.size() >= static_cast<std::size_t>(args.max_info)) break;
    put_cpu_map(reply.maps.data() + reply.vcpus.size() * map_bytes, map_bytes, vcpu.affinity);
    reply.vcpus.push_back({vcpu.number, vcpu.state, vcpu.cpu_time_ns, vcpu.cpu});
  }
  return reply;
}

Result<wire::PinInfoReply> domain_get_vcpu_pin_info(Call& call, const wire::PinInfoArgs& args) {
  const std::size_t room = TRY(map_room(args.maps, args.map_bytes));
  const auto map_bytes = static_cast<std::size_t>(args.map_bytes);
  wire::PinInfoReply reply;
  reply.maps.resize(room);
  for (const std::vector<bool>& pin : TRY(call.driver->vcpu_pins(args.dom.uuid, args.flags))) {
    if (reply.count >= args.maps) break;
    put_cpu_map(reply.maps.data() + static_cast<std::size_t>(reply.count++) * map_bytes, map_bytes, pin);
  }
  return reply;
}

Result<wire::IntReply> domain_get_max_vcpus(Call& call, const wire::DomainArgs& args) {
  return wire::IntReply{TRY(call.driver->vcpu_count(args.dom.uuid, VIR_DOMAIN_VCPU_MAXIMUM))};
}

Result<wire::IntReply> domain_get_vcpus_flags(Call& call, const wire::DomainFlagsArgs& args) {
  return wire::IntReply{TRY(call.driver->vcpu_count(args.dom.uuid, args.flags))};
}

Result<wire::MemoryStatsReply> domain_memory_stats(Call& call, const wire::MemoryStatsArgs& args) {
  if (args.max > 1024) return fail(VIR_ERR_INVALID_ARG, "too many memory stats requested");
  wire::MemoryStatsReply reply;
  for (const MemoryStat& stat : TRY(call.driver->memory_stats(args.dom.uuid, args.flags)))
    if (reply.stats.size() < args.max) reply.stats.push_back({stat.tag, stat.value});
  return reply;
}

Result<wire::BlockStatsReply> domain_block_stats(Call& call, const wire::DomainNameArgs& args) {
  const BlockStats stats = TRY(call.driver->block_stats(args.dom.uuid, args.name));
  return wire::BlockStatsReply{stats.read_requests, stats.read_bytes, stats.write_requests, stats.write_bytes,
                               stats.errors};
}

Result<wire::ParamsCountReply> domain_block_stats_flags(Call& call, const wire::BlockStatsFlagsArgs& args) {
  TRY(refuse_unknown_flags(args.flags, VIR_TYPED_PARAM_STRING_OKAY, "virDomainBlockStatsFlags"));
  return counted_params(block_params(TRY(call.driver->block_stats(args.dom.uuid, args.path))), args.count);
}

Result<wire::InterfaceStatsReply> domain_interface_stats(Call& call, const wire::DomainNameArgs& args) {
  const InterfaceStats s = TRY(call.driver->interface_stats(args.dom.uuid, args.name));
  return wire::InterfaceStatsReply{s.rx_bytes, s.rx_packets, s.rx_errors, s.rx_dropped,
                                   s.tx_bytes, s.tx_packets, s.tx_errors, s.tx_dropped};
}

Result<wire::AddressesReply> domain_interface_addresses(Call& call, const wire::AddressesArgs& args) {
  wire::AddressesReply reply;
  for (InterfaceAddresses& from : TRY(call.driver->interface_addresses(args.dom.uuid, args.source, args.flags))) {
    wire::InterfaceReply interface {
      std::move(from.name), std::nullopt, {}
    };
    if (!from.hardware_address.empty()) interface.hardware_address = std::move(from.hardware_address);
    for (auto& address : from.addresses)
      if (interface.addresses.size() < 2048)
        interface.addresses.push_back({address.type, std::move(address.address), address.prefix});
    if (reply.interfaces.size() < 2048) reply.interfaces.push_back(std::move(interface));
  }
  return reply;
}

// Three questions in one call: how many cpus (cpus == 0), how many values (params == 0), or the values: of all cpus
// together (start_cpu == -1), or of `cpus` cpus from start_cpu on, one after the other, `count` values each.
Result<wire::ParamsCountReply> domain_get_cpu_stats(Call& call, const wire::CpuStatsArgs& args) {
  if (args.cpus > 128 || args.params > 2048) return fail(VIR_ERR_INVALID_ARG, "too many cpu stats requested");
  if (args.start_cpu == -1 && args.cpus != 1)
    return fail(VIR_ERR_INVALID_ARG, "ncpus must be 1 when start_cpu is -1");
  if (args.start_cpu < -1) return fail(VIR_ERR_INVALID_ARG, "start_cpu must be -1 or a cpu");
  const CpuStats stats = TRY(call.driver->cpu_stats(args.dom.uuid, args.flags & ~VIR_TYPED_PARAM_STRING_OKAY));
  if (args.start_cpu == -1) return counted_params(stats.total, args.params);
  wire::ParamsCountReply reply;
  if (args.cpus == 0) {
    reply.count = static_cast<std::int32_t>(stats.cpus);
    return reply;
  }
  const std::size_t first = static_cast<std::size_t>(args.start_cpu);
  if (first >= stats.per_cpu.size()) return fail(VIR_ERR_INVALID_ARG, "start_cpu is larger than the number of cpus");
  std::size_t each = stats.per_cpu[first].size();
  if (args.params != 0) each = std::min<std::size_t>(each, args.params);
  reply.count = static_cast<std::int32_t>(each);
  if (args.params == 0) return reply;
  for (std::size_t cpu = first; cpu < std::min(first + args.cpus, stats.per_cpu.size()); ++cpu)
    for (std::size_t i = 0; i < each && i < stats.per_cpu[cpu].size(); ++i)
      reply.params.push_back(stats.per_cpu[cpu][i]);
  return reply;
}

Result<wire::TextReply> domain_get_hostname(Call& call, const wire::DomainFlagsArgs& args) {
  return wire::TextReply{TRY(call.driver->domain_hostname(args.dom.uuid, args.flags))};
}

Result<wire::MessagesReply> domain_get_messages(Call& call, const wire::DomainFlagsArgs& args) {
  wire::MessagesReply reply{TRY(call.driver->messages(args.dom.uuid, args.flags))};
  reply.messages.resize(std::min<std::size_t>(reply.messages.size(), 2048));
  return reply;
}

Result<wire::SecurityLabelReply> domain_get_security_label(Call& call, const wire::DomainArgs& args) {
  const SecurityLabel label = TRY(call.driver->security_label(args.dom.uuid));
  return wire::SecurityLabelReply{char_ints(label.label, 4097), label.enforcing ? 1 : 0};
}

}  // namespace virtuserns::rpc
