// Interfaces and volumes come and go, and what an instance says on its console.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/text.h"
#include "driver/compute/compute.h"
#include "driver/compute/kinds.h"
#include "xml/devices.h"
#include "xml/domain.h"

namespace virtuserns::compute {
namespace {

bool is_up(const DomainFacts& facts) {
  return facts.state == PowerState::kRunning || facts.state == PowerState::kPaused;
}

unsigned flags_for(const DomainFacts& facts) {
  return is_up(facts) ? VIR_DOMAIN_AFFECT_CONFIG | VIR_DOMAIN_AFFECT_LIVE : VIR_DOMAIN_AFFECT_CONFIG;
}

// A device that an earlier attempt has attached, whose answer was lost or who died, is none that is missing: to what runs, to the
// definition, or to both.
template <class IsThere>
Result<void> attach_once(Hypervisor& hypervisor, const std::string& uuid, const std::string& device, unsigned flags,
                         const IsThere& is_there) {
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

// What one of both has no more is taken from the other.
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

auto find_vif(std::vector<Vif>& network, const Vif& vif) {
  return std::find_if(network.begin(), network.end(), [&](const Vif& each) { return each.mac == vif.mac; });
}

auto find_volume(std::vector<VolumeRef>& volumes, const VolumeRef& volume) {
  return std::find_if(volumes.begin(), volumes.end(),
                      [&](const VolumeRef& each) { return each.device == volume.device; });
}

}  // namespace

Result<void> Compute::attach_interface(const std::string& uuid, const Vif& vif) {
  auto held = TRY(hold_ready(uuid));
  auto record = *held.record();
  if (find_vif(record.network, vif) != record.network.end()) return {};
  const auto facts = TRY(hypervisor_.facts(uuid));
  const auto xml = TRY(guests_.interface_xml(vif));
  TRY(attach_once(hypervisor_, uuid, xml, flags_for(facts), [&](const DomainDef& def) {
    return std::any_of(def.interfaces.begin(), def.interfaces.end(),
                       [&](const InterfaceDef& each) { return each.mac == xml::parse_mac(vif.mac); });
  }));
  record.network.push_back(vif);
  return save(held, std::move(record));
}

Result<void> Compute::detach_interface(const std::string& uuid, const Vif& vif) {
  auto held = TRY(hold_ready(uuid));
  auto record = *held.record();
  const auto found = find_vif(record.network, vif);
  if (found == record.network.end())
    return fail(VIR_ERR_DEVICE_MISSING, "the instance has no interface with MAC address " + vif.mac);
  const auto facts = TRY(hypervisor_.facts(uuid));
  TRY(detach_once(hypervisor_, uuid, TRY(guests_.interface_xml(*found)), flags_for(facts)));
  record.network.erase(found);
  return save(held, std::move(record));
}

Result<void> Compute::attach_volume(const std::string& uuid, const VolumeRef& volume) {
  auto held = TRY(hold_ready(uuid));
  auto record = *held.record();
  if (const auto found = find_volume(record.volumes, volume); found != record.volumes.end()) {
    if (*found == volume) return {};
    return fail(VIR_ERR_INVALID_ARG, "the instance has another volume at " + quote(volume.device) + " already");
  }
  const auto facts = TRY(hypervisor_.facts(uuid));
  TRY(attach_once(hypervisor_, uuid, guests_.volume_xml(volume), flags_for(facts), [&](const DomainDef& def) {
    return std::any_of(def.disks.begin(), def.disks.end(), [&](const DiskDef& each) {
      return each.source == volume.path && "/dev/" + each.target_dev == volume.device;
    });
  }));
  record.volumes.push_back(volume);
  return save(held, std::move(record));
}

Result<void> Compute::detach_volume(const std::string& uuid, const VolumeRef& volume) {
  auto held = TRY(hold_ready(uuid));
  auto record = *held.record();
  const auto found = find_volume(record.volumes, volume);
  if (found == record.volumes.end())
    return fail(VIR_ERR_DEVICE_MISSING, "the instance has no volume at " + quote(volume.device));
  if (found->is_root) return fail(VIR_ERR_OPERATION_INVALID, "the root of the instance cannot be detached");
  const auto facts = TRY(hypervisor_.facts(uuid));
  TRY(detach_once(hypervisor_, uuid, guests_.volume_xml(*found), flags_for(facts)));
  record.volumes.erase(found);
  return save(held, std::move(record));
}

Result<std::uint16_t> Compute::serial_console(const std::string& uuid) {
  if (!knows(uuid)) return fail(VIR_ERR_NO_DOMAIN, "there is no instance " + uuid + " here");
  if (!is_up(TRY(hypervisor_.facts(uuid))))
    return fail(VIR_ERR_OPERATION_INVALID, "the instance does not run, so nobody answers at its console");
  return consoles_.open(uuid, settings_.console_address);
}

Result<std::string> Compute::console_output(const std::string& uuid, std::size_t bytes) {
  // Without the job: whoever looks why a start takes long wants to see this.
  if (!knows(uuid)) return fail(VIR_ERR_NO_DOMAIN, "there is no instance " + uuid + " here");
  const auto path = folder_of(uuid) + "/console.log";
  const Fd log(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!log && errno == ENOENT) return std::string();
  if (!log) return sys_fail("open " + quote(path));
  struct stat found {};
  if (::fstat(log.get(), &found) != 0) return sys_fail("look at " + quote(path));
  const auto size = static_cast<std::size_t>(std::max<off_t>(found.st_size, 0));
  std::string text(std::min(size, bytes), '\0');
  const auto got = ::pread(log.get(), text.data(), text.size(), static_cast<off_t>(size - text.size()));
  if (got < 0) return sys_fail("read " + quote(path));
  text.resize(static_cast<std::size_t>(got));
  return text;
}

}  // namespace virtuserns::compute
