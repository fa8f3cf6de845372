// apply_defaults: the middle stage between parse and validate. Pure but for generated uuids and MAC addresses.
#pragma once

#include "conf/base/result.h"
#include "conf/domain.h"

namespace virtuserns {

struct DefaultsContext {
  std::string arch = "x86_64";
  std::string emulator;  // path of the controller
};

// Fills what libvirt's LXC driver would fill (uuid, vcpu, current memory, init "/sbin/init", emulator, one console of
// type lxc when there is none, MAC addresses, console ports, clock offset, ip families, idmap order) and nothing
// else. Idempotent.
void apply_defaults(DomainDef& def, const DefaultsContext& context);
void apply_device_defaults(DeviceDef& device, const DomainDef& domain);

}  // namespace virtuserns
