// The parsers behind read_host_facts. Pure; what they cannot read they leave out.
#pragma once

#include <string_view>
#include <utility>

#include "driver/kernel/facts.h"

namespace virtuserns::kernel {

// The hierarchies of /proc/self/mountinfo, each once. v2's controllers are not there but in cgroup.controllers.
[[nodiscard]] std::vector<CgroupHierarchy> parse_cgroup_mounts(std::string_view mountinfo);
// own_path of each from /proc/self/cgroup.
void set_own_groups(std::string_view own_cgroup, std::vector<CgroupHierarchy>& hierarchies);
// "6.18.44-fc" -> 6, 18; zeros when it is nothing of the kind.
[[nodiscard]] std::pair<std::uint32_t, std::uint32_t> parse_kernel_release(std::string_view text);

}  // namespace virtuserns::kernel
