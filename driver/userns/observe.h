// Reads from the host what make_plan wants to know of one definition. Nothing is changed.
#pragma once

#include <sys/stat.h>

#include <optional>

#include "driver/userns/make_plan.h"

namespace virtuserns::userns {

// VIR_ERR_CONFIG_UNSUPPORTED or the error of the system call, naming the source that cannot be used.
[[nodiscard]] Result<PlanContext> observe(const DomainDef& def, const HostFacts& host, const DaemonConfig& config,
                                          const Paths& paths);
// Whose the directory is that is the root, where it is one: of an overlay what the domain has written, or else what is below.
[[nodiscard]] std::optional<struct stat> stat_root_tree(const DomainDef& def);
// cgroup.controllers of a group of v2: what can be switched on below it.
[[nodiscard]] std::vector<std::string> read_controllers(const std::string& group);
// What a path is: a device node, or nothing of the kind.
[[nodiscard]] std::optional<DeviceNumber> device_number(const std::string& path);
// <sysinfo type='smbios'> from below `sys`; VIR_ERR_CONFIG_UNSUPPORTED where the firmware tells nothing.
[[nodiscard]] Result<std::string> format_sysinfo(const std::string& sys);
// The bridge of an active libvirt network, from virtnetworkd's state; empty when there is none.
[[nodiscard]] std::string bridge_of_network(const std::string& network);

}  // namespace virtuserns::userns
