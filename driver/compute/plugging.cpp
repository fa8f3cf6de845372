#include "driver/compute/plugging.h"

#include <algorithm>

#include "driver/compute/kinds.h"
#include "xml/devices.h"

namespace virtuserns::compute {

bool is_up(const DomainFacts& facts) {
  return facts.state == PowerState::kRunning || facts.state == PowerState::kPaused;
}

unsigned flags_for(const DomainFacts& facts) {
  return is_up(facts) ? VIR_DOMAIN_AFFECT_CONFIG | VIR_DOMAIN_AFFECT_LIVE : VIR_DOMAIN_AFFECT_CONFIG;
}

bool has_interface(const xml::Node& devices, const Vif& vif) {
  const auto all = devices.children("interface");
  return std::any_of(all.begin(), all.end(), [&](const xml::Node& each) {
    return xml::parse_mac(each.child("mac").attribute_or("address")) == xml::parse_mac(vif.mac);
  });
}

bool has_volume(const xml::Node& devices, const VolumeRef& volume) {
  const auto all = devices.children("disk");
  return std::any_of(all.begin(), all.end(), [&](const xml::Node& each) {
    return each.child("source").attribute_or("dev") == volume.path &&
           "/dev/" + each.child("target").attribute_or("dev") == volume.device;
  });
}

Result<bool> is_there(Hypervisor& hypervisor, const std::string& uuid, unsigned flag, const HasDevice& has_device) {
  const auto text = TRY(hypervisor.xml(uuid, flag == VIR_DOMAIN_AFFECT_CONFIG ? VIR_DOMAIN_XML_INACTIVE : 0));
  const auto document = TRY(xml::Document::parse(text));
  return has_device(document.root().child("devices"));
}

Result<void> attach_once(Hypervisor& hypervisor, const std::string& uuid, const std::string& device, unsigned flags,
                         const HasDevice& has_device) {
  const auto attached = hypervisor.attach(uuid, device, flags);
  if (attached || attached.error().code == kUnavailable) return attached;
  unsigned missing = 0;
  for (const unsigned flag : {VIR_DOMAIN_AFFECT_LIVE, VIR_DOMAIN_AFFECT_CONFIG}) {
    if ((flags & flag) == 0) continue;
    if (!TRY(is_there(hypervisor, uuid, flag, has_device))) missing |= flag;
  }
  if (missing == flags) return attached;
  return missing == 0 ? Result<void>() : hypervisor.attach(uuid, device, missing);
}

Result<void> detach_once(Hypervisor& hypervisor, const std::string& uuid, const std::string& device, unsigned flags) {
  auto detached = hypervisor.detach(uuid, device, flags);
  for (const unsigned flag : {VIR_DOMAIN_AFFECT_LIVE, VIR_DOMAIN_AFFECT_CONFIG}) {
    if (detached || detached.error().code != VIR_ERR_DEVICE_MISSING) break;
    if ((flags & flag) == 0) continue;
    const auto gone = hypervisor.detach(uuid, device, flag);
    if (!gone && gone.error().code != VIR_ERR_DEVICE_MISSING) return gone;
  }
  if (detached || detached.error().code == VIR_ERR_DEVICE_MISSING) return {};
  return detached;
}

}  // namespace virtuserns::compute
