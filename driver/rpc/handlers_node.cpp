#include <algorithm>

#include "driver/rpc/convert.h"
#include "driver/rpc/handlers.h"

namespace virtuserns::rpc {
namespace {

wire::NodeStatsReply counted_stats(const std::vector<NodeStat>& stats, std::int32_t room) {
  wire::NodeStatsReply reply;
  reply.count = static_cast<std::int32_t>(stats.size());
  if (room <= 0) return reply;
  for (const NodeStat& stat : stats)
    if (reply.stats.size() < static_cast<std::size_t>(room)) reply.stats.push_back({stat.field, stat.value});
  reply.count = static_cast<std::int32_t>(reply.stats.size());
  return reply;
}

}  // namespace

Result<wire::NodeInfoReply> node_get_info(Call& call) {
  const NodeFacts facts = TRY(call.driver->node_facts());
  const auto number = [](std::uint32_t value) { return static_cast<std::int32_t>(value); };
  return wire::NodeInfoReply{{facts.cpu_model},   facts.memory_kib,      number(facts.cpus),  number(facts.mhz),
                             number(facts.nodes), number(facts.sockets), number(facts.cores), number(facts.threads)};
}

Result<wire::U64ListReply> node_get_cells_free_memory(Call& call, const wire::CellsArgs& args) {
  if (args.start < 0 || args.max <= 0 || args.max > 1024)
    return fail(VIR_ERR_INVALID_ARG, "start or number of cells out of range");
  wire::U64ListReply reply{TRY(call.driver->node_cells_free_memory_bytes(args.start, args.max))};
  reply.values.resize(std::min(reply.values.size(), static_cast<std::size_t>(args.max)));
  return reply;
}

Result<wire::U64Reply> node_get_free_memory(Call& call) {
  return wire::U64Reply{TRY(call.driver->node_free_memory_bytes())};
}

Result<wire::SecurityModelReply> node_get_security_model(Call& call) {
  const SecurityModel model = TRY(call.driver->security_model());
  return wire::SecurityModelReply{char_ints(model.model, 257), char_ints(model.doi, 257)};
}

// The fields stand the other way round in the two requests.
Result<wire::NodeStatsReply> node_get_cpu_stats(Call& call, const wire::NodeStatsArgs& args) {
  const std::int32_t cpu = args.first, room = args.second;
  return counted_stats(TRY(call.driver->node_cpu_stats(cpu, args.flags)), room);
}

Result<wire::NodeStatsReply> node_get_memory_stats(Call& call, const wire::NodeStatsArgs& args) {
  const std::int32_t room = args.first, cell = args.second;
  return counted_stats(TRY(call.driver->node_memory_stats(cell, args.flags)), room);
}

Result<wire::CpuMapReply> node_get_cpu_map(Call& call, const wire::CpuMapArgs& args) {
  TRY(refuse_unknown_flags(args.flags, 0, "virNodeGetCPUMap"));
  const NodeFacts facts = TRY(call.driver->node_facts());
  wire::CpuMapReply reply;
  reply.cpus = static_cast<std::int32_t>(facts.present_cpus.size());
  if (args.need_online != 0)
    reply.online = static_cast<std::uint32_t>(std::count(facts.online_cpus.begin(), facts.online_cpus.end(), true));
  if (args.need_map != 0) {
    reply.map.resize((facts.present_cpus.size() + 7) / 8);
    put_cpu_map(reply.map.data(), reply.map.size(), facts.online_cpus);
  }
  return reply;
}

Result<wire::U64ListReply> node_get_free_pages(Call& call, const wire::FreePagesArgs& args) {
  const std::size_t room = args.page_sizes_kib.size() * static_cast<std::size_t>(args.cells);
  if (room == 0 || room > 1024) return fail(VIR_ERR_INVALID_ARG, "number of pages or cells out of range");
  wire::U64ListReply reply{
      TRY(call.driver->node_free_pages(args.page_sizes_kib, args.start_cell, args.cells, args.flags))};
  reply.values.resize(std::min(reply.values.size(), room));
  return reply;
}

}  // namespace virtuserns::rpc
