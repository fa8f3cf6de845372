#include "driver/compute/plugging.h"

#include "driver/compute/kinds.h"
#include "xml/domain.h"

namespace virtuserns::compute {

bool is_up(const DomainFacts& facts) {
  return facts.state == PowerState::kRunning || facts.state == PowerState::kPaused;
}

unsigned flags_for(const DomainFacts& facts) {
  return is_up(facts) ? VIR_DOMAIN_AFFECT_CONFIG | VIR_DOMAIN_AFFECT_LIVE : VIR_DOMAIN_AFFECT_CONFIG;
}

Result<void> attach_once(Hypervisor& hypervisor, const std::string& uuid, const std::string& device, unsigned flags,
                         const std::function<bool(const DomainDef&)>& is_there) {
  const auto attached = hypervisor.attach(uuid, device, flags);
  if (attached || attached.error().code == kUnavailable) return attached;
  unsigned missing = 0;
  for (const unsigned flag : {VIR_DOMAIN_AFFECT_LIVE, VIR_DOMAIN_AFFECT_CONFIG}) {
    if ((flags & flag) == 0) continue;
    const auto text = TRY(hypervisor.xml(uuid, flag == VIR_DOMAIN_AFFECT_CONFIG ? VIR_DOMAIN_XML_INACTIVE : 0));
    if (!is_there(TRY(xml::parse_domain(text, xml::kParseLive)))) missing |= flag;
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
