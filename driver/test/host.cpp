// The host that test domains live on: always the same one.
#include <libvirt/libvirt.h>

#include <algorithm>

#include "driver/test/driver.h"

namespace virtuserns::test_driver {
namespace {

constexpr std::uint32_t kCells = 2;
constexpr std::uint32_t kCpusPerCell = kHostCpus / kCells;
constexpr std::uint64_t kFreePart = 2;  // half of the memory is free

NumaCell make_cell(int id) {
  NumaCell cell;
  cell.id = id;
  cell.memory_kib = kHostMemoryKib / kCells;
  cell.free_kib = cell.memory_kib / kFreePart;
  for (std::uint32_t i = 0; i < kCpusPerCell; ++i) {
    HostCpu cpu;
    cpu.id = id * static_cast<int>(kCpusPerCell) + static_cast<int>(i);
    cpu.socket_id = id * 2 + static_cast<int>(i) / 4;  // two sockets a cell, two cores a socket, two threads a core
    cpu.core_id = static_cast<int>(i) / 2 % 2;
    const int first_sibling = cpu.id & ~1;
    cpu.siblings = std::to_string(first_sibling) + "-" + std::to_string(first_sibling + 1);
    cell.cpus.push_back(std::move(cpu));
  }
  return cell;
}

Error bad_cell(int start) {
  return fail(VIR_ERR_INVALID_ARG,
              "start cell " + std::to_string(start) + " out of range (0-" + std::to_string(kCells - 1) + ")");
}

}  // namespace

Result<std::uint64_t> TestDriver::hypervisor_version() { return 2; }

Result<NodeFacts> TestDriver::node_facts() {
  NodeFacts facts;
  facts.arch = "x86_64";
  facts.cpu_model = "x86_64";
  facts.memory_kib = kHostMemoryKib;
  facts.cpus = kHostCpus;
  facts.mhz = 1400;
  facts.nodes = kCells;
  facts.sockets = facts.cores = facts.threads = 2;
  for (std::uint32_t cell = 0; cell < kCells; ++cell) facts.cells.push_back(make_cell(static_cast<int>(cell)));
  facts.present_cpus.assign(kHostCpus, true);
  facts.online_cpus.assign(kHostCpus, true);
  facts.page_sizes_kib = {4, 2048};
  facts.host_uuid = *parse_uuid("c0ffee00-0000-4000-8000-000000007e57");
  return facts;
}

Result<Capabilities> TestDriver::capabilities() {
  Capabilities caps;
  caps.node = TRY(node_facts());
  caps.guests = {{"x86_64", 64, "/bin/true"}, {"i686", 32, "/bin/true"}};
  caps.secmodels = {"none"};
  return caps;
}

Result<DomainCapabilities> TestDriver::domain_capabilities(const std::string& emulator, const std::string& arch,
                                                           const std::string& machine, const std::string& virt_type) {
  if (!virt_type.empty() && virt_type != "lxc") {
    return fail(VIR_ERR_INVALID_ARG, "unknown virttype: " + virt_type);
  }
  if (!arch.empty() && arch != "x86_64" && arch != "i686") {
    return fail(VIR_ERR_INVALID_ARG, "unknown architecture: " + arch);
  }
  DomainCapabilities caps;
  caps.path = emulator.empty() ? "/bin/true" : emulator;
  caps.arch = arch.empty() ? "x86_64" : arch;
  caps.machine = machine;
  caps.max_vcpus = kMaxVcpus;
  caps.filesystem_driver_types = {"path"};
  return caps;
}

Result<int> TestDriver::max_vcpus(const std::string&) { return static_cast<int>(kMaxVcpus); }

Result<std::vector<NodeStat>> TestDriver::node_cpu_stats(int cpu, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virNodeGetCPUStats"));
  if (cpu != VIR_NODE_CPU_STATS_ALL_CPUS && (cpu < 0 || cpu >= static_cast<int>(kHostCpus))) {
    return fail(VIR_ERR_INVALID_ARG, "invalid cpuNum in virNodeGetCPUStats");
  }
  const std::uint64_t scale = cpu == VIR_NODE_CPU_STATS_ALL_CPUS ? kHostCpus : 1;
  return std::vector<NodeStat>{{VIR_NODE_CPU_STATS_KERNEL, scale * 8'888'000'000},
                               {VIR_NODE_CPU_STATS_USER, scale * 4'444'000'000},
                               {VIR_NODE_CPU_STATS_IDLE, scale * 99'999'000'000},
                               {VIR_NODE_CPU_STATS_IOWAIT, scale * 1'111'000'000}};
}

Result<std::vector<NodeStat>> TestDriver::node_memory_stats(int cell, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virNodeGetMemoryStats"));
  if (cell != VIR_NODE_MEMORY_STATS_ALL_CELLS && (cell < 0 || cell >= static_cast<int>(kCells))) {
    return fail(VIR_ERR_INVALID_ARG,
                "cellNum in virNodeGetMemoryStats must be less than or equal to " + std::to_string(kCells - 1));
  }
  const std::uint64_t total = cell == VIR_NODE_MEMORY_STATS_ALL_CELLS ? kHostMemoryKib : kHostMemoryKib / kCells;
  std::vector<NodeStat> stats{{VIR_NODE_MEMORY_STATS_TOTAL, total}, {VIR_NODE_MEMORY_STATS_FREE, total / kFreePart}};
  if (cell == VIR_NODE_MEMORY_STATS_ALL_CELLS) {
    stats.push_back({VIR_NODE_MEMORY_STATS_BUFFERS, total / 16});
    stats.push_back({VIR_NODE_MEMORY_STATS_CACHED, total / 8});
  }
  return stats;
}

Result<std::uint64_t> TestDriver::node_free_memory_bytes() { return kHostMemoryKib / kFreePart * 1024; }

Result<std::vector<std::uint64_t>> TestDriver::node_cells_free_memory_bytes(int start, int max) {
  if (start < 0 || start >= static_cast<int>(kCells)) return bad_cell(start);
  const auto count = std::min<std::uint32_t>(static_cast<std::uint32_t>(std::max(max, 0)),
                                             kCells - static_cast<std::uint32_t>(start));
  return std::vector<std::uint64_t>(count, make_cell(start).free_kib * 1024);
}

Result<std::vector<std::uint64_t>> TestDriver::node_free_pages(const std::vector<std::uint32_t>& page_sizes_kib,
                                                               int start_cell, unsigned cell_count, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virNodeGetFreePages"));
  if (start_cell < -1 || start_cell >= static_cast<int>(kCells)) return bad_cell(start_cell);
  const bool is_whole_host = start_cell == -1;
  const unsigned cells = is_whole_host ? 1 : std::min(cell_count, kCells - static_cast<unsigned>(start_cell));
  const std::uint64_t free_kib = (is_whole_host ? kHostMemoryKib : make_cell(0).memory_kib) / kFreePart;
  std::vector<std::uint64_t> counts;
  for (unsigned cell = 0; cell < cells; ++cell) {
    for (const std::uint32_t size_kib : page_sizes_kib) {
      if (size_kib != 4 && size_kib != 2048) {
        return fail(VIR_ERR_OPERATION_FAILED, "page size " + std::to_string(size_kib) + " is not available on node " +
                                                  std::to_string(start_cell + static_cast<int>(cell)));
      }
      counts.push_back(size_kib == 4 ? free_kib / 4 : 0);  // no huge page is set aside
    }
  }
  return counts;
}

Result<SecurityModel> TestDriver::security_model() { return SecurityModel{"none", "0"}; }

}  // namespace virtuserns::test_driver
