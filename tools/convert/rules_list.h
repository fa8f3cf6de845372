// The rules, one function each: for rules.cpp.
#pragma once

#include "tools/convert/guest.h"

namespace virtuserns::convert {

// rules_system.cpp
void apply_system(Guest& guest);
void apply_machine_id(Guest& guest);
void apply_labels(Guest& guest);
void apply_boot_packages(Guest& guest);
// rules_mounts.cpp
void apply_fstab(Guest& guest);
void apply_mount_units(Guest& guest);
void apply_crypttab(Guest& guest);
// rules_network.cpp
void apply_network(Guest& guest);
// rules_kernel.cpp
void apply_modules(Guest& guest);
void apply_sysctl(Guest& guest);
// rules_services.cpp
void apply_services(Guest& guest);
// rules_console.cpp
void apply_consoles(Guest& guest);
void apply_logs(Guest& guest);
// rules_cloud.cpp
void apply_cloud_init(Guest& guest);

}  // namespace virtuserns::convert
