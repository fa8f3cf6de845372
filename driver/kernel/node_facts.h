// Processors, memory and NUMA cells of this machine, as virNodeInfo and <capabilities> want them.
#pragma once

#include <string>
#include <string_view>

#include "conf/capabilities.h"

namespace virtuserns::kernel {

// What cannot be read keeps its default: a machine without NUMA directories has one cell.
[[nodiscard]] NodeFacts read_node_facts(const std::string& proc, const std::string& sys);

// "MemTotal:  123 kB" of /proc/meminfo, "Node 0 MemTotal: 123 kB" of a node's; 0 when there is none.
[[nodiscard]] std::uint64_t parse_meminfo(std::string_view text, std::string_view key);
// The first "cpu MHz" of /proc/cpuinfo, rounded down.
[[nodiscard]] std::uint32_t parse_mhz(std::string_view cpuinfo);

}  // namespace virtuserns::kernel
