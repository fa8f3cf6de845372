// Devices of running domains come and go in their definitions; nothing is plugged anywhere.
#include <libvirt/libvirt.h>

#include "conf/domain_devices.h"
#include "driver/test/driver.h"

namespace virtuserns::test_driver {

Result<std::string> TestDriver::attach_live(DriverDomain&, DomainDef& live, DeviceDef device) {
  if (auto* link = std::get_if<InterfaceDef>(&device); link && link->target_dev.empty()) {
    link->target_dev = "vnet" + std::to_string(next_link_++);
  }
  TRY(attach_to(live, device));
  assign_aliases(live);
  // It is the last of its kind now, whatever that kind is; detach_from finds it without knowing which.
  DomainDef scratch = live;
  return alias_of(TRY(detach_from(scratch, device)));
}

Result<std::string> TestDriver::detach_live(DriverDomain&, DomainDef& live, const DeviceDef& device) {
  return alias_of(TRY(detach_from(live, device)));
}

Result<void> TestDriver::update_live(DriverDomain&, DomainDef& live, const DeviceDef& device) {
  return update_in(live, device);
}

Result<SocketFd> TestDriver::open_console(const Caller&, const Uuid& uuid, const std::string& device,
                                          unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_CONSOLE_FORCE | VIR_DOMAIN_CONSOLE_SAFE, "virDomainOpenConsole"));
  const Locked domain = TRY(find_active(uuid));
  (void)TRY(find_console(domain->def, device));
  if (domain->console && domain->console->is_open() && !(flags & VIR_DOMAIN_CONSOLE_FORCE)) {
    return fail(VIR_ERR_OPERATION_FAILED, "Active console session exists for this domain");
  }
  domain->console.reset();
  auto opened = TRY(EchoConsole::open(domain->def.name));
  domain->console = std::move(opened.console);
  return std::move(opened.client);
}

Result<NamespaceFds> TestDriver::open_namespaces(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainLxcOpenNamespace"));
  (void)TRY(find_active(uuid));
  return fail(VIR_ERR_OPERATION_UNSUPPORTED, "a test domain has no namespaces to open");
}

}  // namespace virtuserns::test_driver
