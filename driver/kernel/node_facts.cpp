#include "driver/kernel/node_facts.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "conf/base/file.h"
#include "conf/base/text.h"

namespace virtuserns::kernel {

namespace {

constexpr std::size_t kMaxText = 4 * 1024 * 1024;
constexpr std::size_t kMaxCpus = 16384;

std::string read_text(const std::string& path) {
  auto text = read_kernel_file(path, kMaxText);
  return text ? std::string(trim(*text)) : std::string();
}

int read_int(const std::string& path, int fallback) { return parse_number<int>(read_text(path)).value_or(fallback); }

std::vector<bool> read_bitmap(const std::string& path) {
  return parse_bitmap(read_text(path), kMaxCpus).value_or(std::vector<bool>());
}

HostCpu read_cpu(const std::string& system, std::size_t id) {
  const std::string topology = system + "/cpu/cpu" + std::to_string(id) + "/topology";
  HostCpu cpu;
  cpu.id = static_cast<int>(id);
  // -1 is the kernel's word for "unknown" on some architectures and virtual machines.
  cpu.socket_id = std::max(0, read_int(topology + "/physical_package_id", 0));
  cpu.die_id = std::max(0, read_int(topology + "/die_id", 0));
  cpu.core_id = std::max(0, read_int(topology + "/core_id", cpu.id));
  cpu.siblings = read_text(topology + "/thread_siblings_list");
  if (!parse_bitmap(cpu.siblings, kMaxCpus)) cpu.siblings = std::to_string(id);
  return cpu;
}

std::vector<NumaCell> read_cells(const std::string& system, const NodeFacts& facts) {
  std::vector<NumaCell> cells;
  const auto names = list_directory(system + "/node");
  for (const auto& name : names ? *names : std::vector<std::string>()) {
    const auto id = name.starts_with("node") ? parse_number<int>(std::string_view(name).substr(4)) : std::nullopt;
    if (!id || *id < 0) continue;
    const std::string dir = system + "/node/" + name;
    const std::string memory = read_text(dir + "/meminfo");
    NumaCell cell{*id, parse_meminfo(memory, "MemTotal"), parse_meminfo(memory, "MemFree"), {}};
    const auto cpus = read_bitmap(dir + "/cpulist");
    for (std::size_t i = 0; i < cpus.size(); ++i)
      if (cpus[i] && i < facts.online_cpus.size() && facts.online_cpus[i]) cell.cpus.push_back(read_cpu(system, i));
    cells.push_back(std::move(cell));
  }
  std::sort(cells.begin(), cells.end(), [](const NumaCell& a, const NumaCell& b) { return a.id < b.id; });
  if (!cells.empty()) return cells;
  NumaCell all{0, facts.memory_kib, 0, {}};
  for (std::size_t i = 0; i < facts.online_cpus.size(); ++i)
    if (facts.online_cpus[i]) all.cpus.push_back(read_cpu(system, i));
  return {all};
}

// libvirt's numbers: sockets of a node, cores of a socket, threads of a core; the greatest where they differ.
void count_topology(NodeFacts& facts) {
  for (const auto& cell : facts.cells) {
    std::set<int> sockets;
    std::set<std::pair<int, int>> dies_and_cores;
    for (const auto& cpu : cell.cpus) {
      sockets.insert(cpu.socket_id);
      std::set<std::pair<int, int>> cores;
      std::uint32_t threads = 0;
      for (const auto& other : cell.cpus) {
        if (other.socket_id != cpu.socket_id) continue;
        cores.emplace(other.die_id, other.core_id);
        if (other.die_id == cpu.die_id && other.core_id == cpu.core_id) ++threads;
      }
      facts.cores = std::max(facts.cores, static_cast<std::uint32_t>(cores.size()));
      facts.threads = std::max(facts.threads, threads);
      if (cell.cpus.size() > 512) break;  // quadratic: one processor stands for all of a very large cell
    }
    facts.sockets = std::max(facts.sockets, static_cast<std::uint32_t>(sockets.size()));
  }
}

std::vector<std::uint32_t> read_page_sizes(const std::string& sys) {
  std::vector<std::uint32_t> sizes = {static_cast<std::uint32_t>(::sysconf(_SC_PAGESIZE) / 1024)};
  const auto names = list_directory(sys + "/kernel/mm/hugepages");
  for (const std::string& name : names ? *names : std::vector<std::string>()) {
    std::string_view text = name;
    if (!text.starts_with("hugepages-") || !text.ends_with("kB")) continue;
    text = text.substr(10, text.size() - 12);
    if (const auto size = parse_number<std::uint32_t>(text)) sizes.push_back(*size);
  }
  std::sort(sizes.begin(), sizes.end());
  return sizes;
}

}  // namespace

std::uint64_t parse_meminfo(std::string_view text, std::string_view key) {
  for (const auto line : split(text, '\n')) {
    auto words = split_blanks(line);
    if (words.size() > 2 && words[0] == "Node") words.erase(words.begin(), words.begin() + 2);
    if (words.size() >= 2 && words[0].ends_with(':') && words[0].substr(0, words[0].size() - 1) == key)
      return parse_number<std::uint64_t>(words[1]).value_or(0);
  }
  return 0;
}

std::uint32_t parse_mhz(std::string_view cpuinfo) {
  for (const auto line : split(cpuinfo, '\n')) {
    if (!line.starts_with("cpu MHz")) continue;
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const auto value = trim(line.substr(colon + 1));
    return parse_number<std::uint32_t>(value.substr(0, value.find('.'))).value_or(0);
  }
  return 0;
}

NodeFacts read_node_facts(const std::string& proc, const std::string& sys) {
  const std::string system = sys + "/devices/system";
  NodeFacts facts;
  utsname names{};
  if (::uname(&names) == 0) facts.arch = names.machine;
  facts.cpu_model = facts.arch.substr(0, 31);
  facts.memory_kib = parse_meminfo(read_text(proc + "/meminfo"), "MemTotal");
  facts.mhz = parse_mhz(read_text(proc + "/cpuinfo"));
  facts.present_cpus = read_bitmap(system + "/cpu/present");
  facts.online_cpus = read_bitmap(system + "/cpu/online");
  if (facts.online_cpus.empty()) facts.online_cpus = facts.present_cpus;
  facts.cpus = static_cast<std::uint32_t>(std::count(facts.online_cpus.begin(), facts.online_cpus.end(), true));
  facts.cells = read_cells(system, facts);
  facts.nodes = static_cast<std::uint32_t>(facts.cells.size());
  count_topology(facts);
  facts.page_sizes_kib = read_page_sizes(sys);
  if (const auto uuid = parse_uuid(read_text(sys + "/class/dmi/id/product_uuid")); uuid && is_valid_uuid(*uuid))
    facts.host_uuid = *uuid;
  return facts;
}

}  // namespace virtuserns::kernel
