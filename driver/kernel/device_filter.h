// Device rules of a cgroup: files in v1, a BPF program in v2 (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE).
#pragma once

#include <linux/bpf.h>

#include <vector>

#include "conf/base/result.h"
#include "conf/device_rules.h"
#include "driver/kernel/cgroup.h"

namespace virtuserns::kernel {

// At most this many rules, which keeps the program far below the kernel's limit of instructions.
inline constexpr std::size_t kMaxDeviceRules = 256;

// Pure. Returns 1 for what a rule allows, else 0 (EPERM). At most kMaxDeviceRules rules.
[[nodiscard]] std::vector<bpf_insn> device_program(const std::vector<DeviceRule>& rules);

// From here on only what the rules name can be opened or made by whoever is in the group or below it. v1: a hierarchy with
// the devices controller; v2: takes CAP_BPF and CAP_SYS_ADMIN or CAP_NET_ADMIN, and goes with the group.
// Groups above still have their say. VIR_ERR_CONFIG_UNSUPPORTED: the kernel cannot (CONFIG_CGROUP_BPF).
[[nodiscard]] Result<void> limit_devices(const Cgroup& group, const std::vector<DeviceRule>& rules);
// From the rules that limit_devices or this gave the group to others. What both allow is allowed meanwhile, what neither does is
// not. After an error the former hold. v2: takes CAP_SYS_ADMIN of the machine.
[[nodiscard]] Result<void> change_devices(const Cgroup& group, const std::vector<DeviceRule>& from,
                                          const std::vector<DeviceRule>& to);

}  // namespace virtuserns::kernel
