// Devices come to the domain of an instance and leave it: to what runs, and to the definition. Each may be asked for again.
#pragma once

#include <functional>
#include <string>

#include "driver/compute/hypervisor.h"
#include "driver/compute/model.h"
#include "xml/node.h"

namespace virtuserns::compute {

[[nodiscard]] bool is_up(const DomainFacts& facts);
// VIR_DOMAIN_AFFECT_...: the definition, and what runs if it does.
[[nodiscard]] unsigned flags_for(const DomainFacts& facts);

// In a domain's XML, whatever kind it is of.
using HasDevice = std::function<bool(const xml::Node& devices)>;
[[nodiscard]] bool has_interface(const xml::Node& devices, const Vif& vif);
[[nodiscard]] bool has_volume(const xml::Node& devices, const VolumeRef& volume);
// Of `flag`: the definition, or what runs.
[[nodiscard]] Result<bool> is_there(Hypervisor& hypervisor, const std::string& uuid, unsigned flag,
                                    const HasDevice& has_device);

// A device that an earlier attempt has attached, whose answer was lost or who died, is none that is missing.
[[nodiscard]] Result<void> attach_once(Hypervisor& hypervisor, const std::string& uuid, const std::string& device,
                                       unsigned flags, const HasDevice& has_device);
// What one of both has no more is taken from the other.
[[nodiscard]] Result<void> detach_once(Hypervisor& hypervisor, const std::string& uuid, const std::string& device,
                                       unsigned flags);

}  // namespace virtuserns::compute
