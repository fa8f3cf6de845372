// Devices as members of a definition: find, attach, detach, update, name. Pure.
//
// A device is the same device when it has the same disk target, filesystem target, MAC address (or alias) or host
// device source: the keys libvirt uses. Codes and words are libvirt's.
#pragma once

#include <string>

#include "conf/base/result.h"
#include "conf/domain.h"

namespace virtuserns {

// Disks, filesystems, interfaces and host devices. VIR_ERR_INVALID_ARG or VIR_ERR_OPERATION_FAILED when the place is
// taken, VIR_ERR_CONFIG_UNSUPPORTED for a kind that cannot be attached (console).
[[nodiscard]] Result<void> attach_to(DomainDef& def, DeviceDef device);
// Takes the matching device out and returns it, with its alias. VIR_ERR_DEVICE_MISSING or VIR_ERR_INVALID_ARG when
// there is none, VIR_ERR_OPERATION_FAILED when the description fits several.
[[nodiscard]] Result<DeviceDef> detach_from(DomainDef& def, const DeviceDef& device);
// Interfaces only: link state, address filter and such of the one with this MAC; its alias and host name stay.
[[nodiscard]] Result<void> update_in(DomainDef& def, DeviceDef device);

// console0, net0, fs0, disk0, hostdev0 ... for every device without one; never the same twice.
void assign_aliases(DomainDef& def);
[[nodiscard]] std::string alias_of(const DeviceDef& device);  // "": none
[[nodiscard]] std::string format_mac(const MacAddress& mac);  // lower case, colons

}  // namespace virtuserns
