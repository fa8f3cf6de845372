// The machine the domains run on.
#include <libvirt/libvirt.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/apparmor.h"
#include "driver/userns/backend.h"
#include "driver/userns/observe.h"
#include "xml/writer.h"

namespace virtuserns::userns {

namespace {

constexpr std::uint64_t kNsPerTick = 10'000'000;

std::uint64_t meminfo_kib(const std::string& text, std::string_view key) {
  for (const auto line : split(text, '\n')) {
    const auto fields = split_blanks(line);
    // "MemFree: 1 kB", and of a node "Node 0 MemFree: 1 kB".
    for (std::size_t i = 0; i + 1 < fields.size(); ++i)
      if (fields[i].size() == key.size() + 1 && fields[i].starts_with(key) && fields[i].back() == ':')
        return parse_number<std::uint64_t>(fields[i + 1]).value_or(0);
  }
  return 0;
}

}  // namespace

// The kernel's version, as libvirt's LXC driver says: it is what makes the containers.
Result<std::uint64_t> Backend::hypervisor_version() {
  utsname name{};
  if (::uname(&name) != 0) return sys_fail("uname");
  std::uint64_t parts[3] = {};
  std::string_view rest = name.release;
  for (auto& part : parts) {
    const auto end = rest.find_first_not_of("0123456789");
    part = parse_number<std::uint64_t>(rest.substr(0, end)).value_or(0);
    rest.remove_prefix(std::min(rest.size(), end == std::string_view::npos ? rest.size() : end + 1));
  }
  return parts[0] * 1'000'000 + parts[1] * 1'000 + parts[2];
}

Result<NodeFacts> Backend::node_facts() {
  NodeFacts facts = host_.node;
  if (!config_.host_uuid.empty())
    if (const auto uuid = parse_uuid(config_.host_uuid)) facts.host_uuid = *uuid;
  return facts;
}

Result<Capabilities> Backend::capabilities() {
  Capabilities caps;
  caps.node = TRY(node_facts());
  caps.guests.push_back({caps.node.arch, 64, paths_.controller});
  if (caps.node.arch == "x86_64") caps.guests.push_back({"i686", 32, paths_.controller});
  caps.secmodels = {TRY(security_model()).model};
  return caps;
}

Result<DomainCapabilities> Backend::domain_capabilities(const std::string& emulator, const std::string& arch,
                                                        const std::string& machine, const std::string& virt_type) {
  if (!virt_type.empty() && virt_type != "lxc") return fail(VIR_ERR_INVALID_ARG, "unknown virttype: " + virt_type);
  const bool is_known = arch.empty() || arch == host_.node.arch || (host_.node.arch == "x86_64" && arch == "i686");
  if (!is_known) return fail(VIR_ERR_INVALID_ARG, "unknown architecture: " + arch);
  DomainCapabilities caps;
  caps.path = emulator.empty() ? paths_.controller : emulator;
  caps.arch = arch.empty() ? host_.node.arch : arch;
  caps.machine = machine;
  caps.max_vcpus = static_cast<std::uint32_t>(TRY(max_vcpus("lxc")));
  caps.filesystem_driver_types = {"path", "loop", "nbd"};
  return caps;
}

Result<int> Backend::max_vcpus(const std::string&) {
  return static_cast<int>(std::max<std::uint32_t>(1, host_.node.cpus));
}

Result<std::vector<NodeStat>> Backend::node_cpu_stats(int cpu, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virNodeGetCPUStats"));
  const std::string text = TRY(read_kernel_file(paths_.proc + "/stat", 1024 * 1024));
  const std::string wanted = cpu == VIR_NODE_CPU_STATS_ALL_CPUS ? "cpu" : "cpu" + std::to_string(cpu);
  for (const auto line : split(text, '\n')) {
    const auto fields = split_blanks(line);
    if (fields.size() < 8 || fields[0] != wanted) continue;
    const auto ticks = [&](std::size_t i) { return parse_number<std::uint64_t>(fields[i]).value_or(0); };
    return std::vector<NodeStat>{{VIR_NODE_CPU_STATS_KERNEL, (ticks(3) + ticks(6) + ticks(7)) * kNsPerTick},
                                 {VIR_NODE_CPU_STATS_USER, (ticks(1) + ticks(2)) * kNsPerTick},
                                 {VIR_NODE_CPU_STATS_IDLE, ticks(4) * kNsPerTick},
                                 {VIR_NODE_CPU_STATS_IOWAIT, ticks(5) * kNsPerTick}};
  }
  return fail(VIR_ERR_INVALID_ARG, "invalid cpuNum in virNodeGetCPUStats");
}

Result<std::vector<NodeStat>> Backend::node_memory_stats(int cell, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virNodeGetMemoryStats"));
  const bool is_whole = cell == VIR_NODE_MEMORY_STATS_ALL_CELLS;
  const auto text =
      read_kernel_file(is_whole ? paths_.proc + "/meminfo"
                                : paths_.sys + "/devices/system/node/node" + std::to_string(cell) + "/meminfo",
                       64 * 1024);
  if (!text && !is_whole)
    return fail(VIR_ERR_INVALID_ARG, "cellNum in virNodeGetMemoryStats must be less than or equal to " +
                                         std::to_string(std::max<std::uint32_t>(1, host_.node.nodes) - 1));
  if (!text) return text.error();
  std::vector<NodeStat> stats = {{VIR_NODE_MEMORY_STATS_TOTAL, meminfo_kib(*text, "MemTotal")},
                                 {VIR_NODE_MEMORY_STATS_FREE, meminfo_kib(*text, "MemFree")}};
  if (is_whole) {
    stats.push_back({VIR_NODE_MEMORY_STATS_BUFFERS, meminfo_kib(*text, "Buffers")});
    stats.push_back({VIR_NODE_MEMORY_STATS_CACHED, meminfo_kib(*text, "Cached")});
  }
  return stats;
}

Result<std::uint64_t> Backend::node_free_memory_bytes() {
  return meminfo_kib(TRY(read_kernel_file(paths_.proc + "/meminfo", 64 * 1024)), "MemFree") * 1024;
}

Result<std::vector<std::uint64_t>> Backend::node_cells_free_memory_bytes(int start, int max) {
  const int cells = static_cast<int>(std::max<std::size_t>(1, host_.node.cells.size()));
  if (start < 0 || start >= cells)
    return fail(VIR_ERR_INVALID_ARG,
                "start cell " + std::to_string(start) + " out of range (0-" + std::to_string(cells - 1) + ")");
  std::vector<std::uint64_t> free;
  for (int cell = start; cell < cells && cell - start < max; ++cell) {
    const auto stats = node_memory_stats(cell, 0);
    free.push_back(stats ? (*stats)[1].value * 1024 : TRY(node_free_memory_bytes()));
  }
  return free;
}

Result<std::vector<std::uint64_t>> Backend::node_free_pages(const std::vector<std::uint32_t>& page_sizes_kib,
                                                            int start_cell, unsigned cell_count, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virNodeGetFreePages"));
  const int last = static_cast<int>(std::max<std::size_t>(1, host_.node.cells.size())) - 1;
  if (start_cell < -1 || start_cell > last)
    return fail(VIR_ERR_INTERNAL_ERROR,
                "start cell " + std::to_string(start_cell) + " out of range (0-" + std::to_string(last) + ")");
  // -1 is the whole machine, which is one cell.
  const int end =
      start_cell < 0 ? 0 : static_cast<int>(std::min<std::int64_t>(last + 1, std::int64_t{start_cell} + cell_count));
  const auto own_kib = static_cast<std::uint32_t>(::sysconf(_SC_PAGESIZE) / 1024);
  std::vector<std::uint64_t> counts;
  for (int cell = start_cell; cell < end; ++cell) {
    // A machine without NUMA has one cell and no directory for it.
    const std::string node = paths_.sys + "/devices/system/node/node" + std::to_string(cell);
    const bool is_whole = cell < 0 || ::access(node.c_str(), F_OK) != 0;
    const std::string base = is_whole ? paths_.sys + "/kernel/mm" : node;
    for (const std::uint32_t size_kib : page_sizes_kib) {
      if (size_kib == own_kib) {
        const auto free = TRY(node_memory_stats(is_whole ? VIR_NODE_MEMORY_STATS_ALL_CELLS : cell, 0));
        counts.push_back(free.at(1).value / own_kib);
        continue;
      }
      const auto text =
          read_kernel_file(base + "/hugepages/hugepages-" + std::to_string(size_kib) + "kB/free_hugepages", 64);
      const auto count = text ? parse_number<std::uint64_t>(trim(*text)) : std::nullopt;
      if (!count)
        return fail(VIR_ERR_OPERATION_FAILED,
                    "page size " + std::to_string(size_kib) + " is not available on node " + std::to_string(cell));
      counts.push_back(*count);
    }
  }
  return counts;
}

Result<std::string> Backend::sysinfo(unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virConnectGetSysinfo"));
  return format_sysinfo(paths_.sys);
}

// What dmidecode would tell libvirt, as far as the kernel tells it by itself; in libvirt's order and names.
Result<std::string> format_sysinfo(const std::string& sys) {
  using Entries = std::initializer_list<std::pair<const char*, const char*>>;
  xml::Element root("sysinfo");
  root.attribute("type", "smbios");
  bool is_known = false;
  const auto add = [&](const char* name, Entries entries) {
    xml::Element element(name);
    for (const auto& [entry, file] : entries) {
      const auto text = read_kernel_file(sys + "/class/dmi/id/" + file, 4096);
      if (!text || trim(*text).empty()) continue;
      xml::Element value("entry");
      value.attribute("name", entry).text(trim(*text));
      element.child(std::move(value));
      is_known = true;
    }
    root.child_if(std::move(element));
  };
  add("bios",
      {{"vendor", "bios_vendor"}, {"version", "bios_version"}, {"date", "bios_date"}, {"release", "bios_release"}});
  add("system", {{"manufacturer", "sys_vendor"},
                 {"product", "product_name"},
                 {"version", "product_version"},
                 {"serial", "product_serial"},
                 {"uuid", "product_uuid"},
                 {"sku", "product_sku"},
                 {"family", "product_family"}});
  add("baseBoard", {{"manufacturer", "board_vendor"},
                    {"product", "board_name"},
                    {"version", "board_version"},
                    {"serial", "board_serial"},
                    {"asset", "board_asset_tag"}});
  add("chassis", {{"manufacturer", "chassis_vendor"},
                  {"version", "chassis_version"},
                  {"serial", "chassis_serial"},
                  {"asset", "chassis_asset_tag"}});
  if (!is_known) return fail(VIR_ERR_CONFIG_UNSUPPORTED, "Host SMBIOS information is not available");
  return root.to_string();
}

// AppArmor is what confines domains here when the profile for them is loaded, not when the kernel merely has it.
Result<SecurityModel> Backend::security_model() {
  return SecurityModel{kernel::read_apparmor_profiles(paths_.sys).count(kApparmorProfile) == 0 ? "none" : "apparmor",
                       "0"};
}

// What the kernel says of init now. Empty: it is not confined, or does not run.
Result<SecurityLabel> Backend::security_label(const Uuid& uuid) {
  pid_t init = 0;
  {
    const Locked domain = TRY(find(uuid));
    if (domain->is_active()) init = domain->boot.init_pid;
  }
  const auto label = init != 0 ? kernel::read_apparmor_label(paths_.proc, init) : std::nullopt;
  if (!label || label->profile == "unconfined") return SecurityLabel{};
  return SecurityLabel{label->profile, label->is_enforced};
}

}  // namespace virtuserns::userns
