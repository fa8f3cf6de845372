// The capabilities that <features><capabilities> may name: all of Linux 6.x (linux/capability.h), in lower case.
#pragma once

#include <linux/capability.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>

namespace virtuserns {

// First libvirt's 37 in libvirt's order, which is the order of printing; then those it does not know.
inline constexpr std::string_view kCapabilityNames[] = {"audit_control",
                                                        "audit_write",
                                                        "block_suspend",
                                                        "chown",
                                                        "dac_override",
                                                        "dac_read_search",
                                                        "fowner",
                                                        "fsetid",
                                                        "ipc_lock",
                                                        "ipc_owner",
                                                        "kill",
                                                        "lease",
                                                        "linux_immutable",
                                                        "mac_admin",
                                                        "mac_override",
                                                        "mknod",
                                                        "net_admin",
                                                        "net_bind_service",
                                                        "net_broadcast",
                                                        "net_raw",
                                                        "setgid",
                                                        "setfcap",
                                                        "setpcap",
                                                        "setuid",
                                                        "sys_admin",
                                                        "sys_boot",
                                                        "sys_chroot",
                                                        "sys_module",
                                                        "sys_nice",
                                                        "sys_pacct",
                                                        "sys_ptrace",
                                                        "sys_rawio",
                                                        "sys_resource",
                                                        "sys_time",
                                                        "sys_tty_config",
                                                        "syslog",
                                                        "wake_alarm",
                                                        "audit_read",
                                                        "bpf",
                                                        "checkpoint_restore",
                                                        "perfmon"};

// The same by number.
inline constexpr std::array<std::string_view, 41> kCapabilitiesByNumber = {"chown",
                                                                           "dac_override",
                                                                           "dac_read_search",
                                                                           "fowner",
                                                                           "fsetid",
                                                                           "kill",
                                                                           "setgid",
                                                                           "setuid",
                                                                           "setpcap",
                                                                           "linux_immutable",
                                                                           "net_bind_service",
                                                                           "net_broadcast",
                                                                           "net_admin",
                                                                           "net_raw",
                                                                           "ipc_lock",
                                                                           "ipc_owner",
                                                                           "sys_module",
                                                                           "sys_rawio",
                                                                           "sys_chroot",
                                                                           "sys_ptrace",
                                                                           "sys_pacct",
                                                                           "sys_admin",
                                                                           "sys_boot",
                                                                           "sys_nice",
                                                                           "sys_resource",
                                                                           "sys_time",
                                                                           "sys_tty_config",
                                                                           "mknod",
                                                                           "lease",
                                                                           "audit_write",
                                                                           "audit_control",
                                                                           "setfcap",
                                                                           "mac_override",
                                                                           "mac_admin",
                                                                           "syslog",
                                                                           "wake_alarm",
                                                                           "block_suspend",
                                                                           "audit_read",
                                                                           "perfmon",
                                                                           "bpf",
                                                                           "checkpoint_restore"};
static_assert(kCapabilitiesByNumber.size() == CAP_LAST_CAP + 1 && std::size(kCapabilityNames) == CAP_LAST_CAP + 1);

[[nodiscard]] inline bool is_capability_name(std::string_view name) {
  return std::find(std::begin(kCapabilityNames), std::end(kCapabilityNames), name) != std::end(kCapabilityNames);
}

}  // namespace virtuserns
