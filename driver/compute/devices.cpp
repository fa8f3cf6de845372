// Interfaces come and go, and what an instance says on its console.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "conf/base/text.h"
#include "driver/compute/compute.h"
#include "driver/compute/plugging.h"

namespace virtuserns::compute {
namespace {

auto find_vif(std::vector<Vif>& network, const Vif& vif) {
  return std::find_if(network.begin(), network.end(), [&](const Vif& each) { return each.mac == vif.mac; });
}

}  // namespace

Result<void> Compute::attach_interface(const std::string& uuid, const Vif& vif) {
  auto held = TRY(hold_ready(uuid));
  auto record = *held.record();
  if (find_vif(record.network, vif) != record.network.end()) return {};
  const auto facts = TRY(hypervisor_.facts(uuid));
  const auto xml = TRY(guests_.interface_xml(vif));
  TRY(attach_once(hypervisor_, uuid, xml, flags_for(facts),
                  [&](const xml::Node& devices) { return has_interface(devices, vif); }));
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
