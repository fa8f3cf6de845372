// Devices come to the domain of an instance and leave it: to what runs, and to the definition. Each may be asked for again.
#pragma once

#include <functional>
#include <string>

#include "conf/domain.h"
#include "driver/compute/hypervisor.h"

namespace virtuserns::compute {

[[nodiscard]] bool is_up(const DomainFacts& facts);
// VIR_DOMAIN_AFFECT_...: the definition, and what runs if it does.
[[nodiscard]] unsigned flags_for(const DomainFacts& facts);

// A device that an earlier attempt has attached, whose answer was lost or who died, is none that is missing: `is_there` tells.
[[nodiscard]] Result<void> attach_once(Hypervisor& hypervisor, const std::string& uuid, const std::string& device,
                                       unsigned flags, const std::function<bool(const DomainDef&)>& is_there);
// What one of both has no more is taken from the other.
[[nodiscard]] Result<void> detach_once(Hypervisor& hypervisor, const std::string& uuid, const std::string& device,
                                       unsigned flags);

}  // namespace virtuserns::compute
