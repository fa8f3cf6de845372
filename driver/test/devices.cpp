// Devices come and go in the definitions; nothing is plugged anywhere.
#include <libvirt/libvirt.h>

#include <algorithm>

#include "conf/defaults.h"
#include "conf/domain_devices.h"
#include "conf/validate.h"
#include "driver/test/driver.h"

namespace virtuserns::test_driver {
namespace {

constexpr unsigned kImpactFlags = VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG;

}  // namespace

Result<void> TestDriver::attach_device(const Caller&, const Uuid& uuid, DeviceDef device, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "attach_device"));
  const Locked domain = TRY(find(uuid));
  // Once for both definitions, so that a generated MAC address is the same in both.
  apply_device_defaults(device, domain->def);
  TRY(validate_device(device));
  std::string alias;
  TRY(change_affected(*domain, flags, [&](const AffectedDefs& defs) -> Result<void> {
    if (defs.config) TRY(attach_to(*defs.config, device));
    if (!defs.live) return {};
    if (auto* link = std::get_if<InterfaceDef>(&device); link && link->target_dev.empty()) {
      link->target_dev = "vnet" + std::to_string(next_link_++);
    }
    TRY(attach_to(*defs.live, device));
    assign_aliases(*defs.live);
    // It is the last of its kind now, whatever that kind is; detach_from finds it without knowing which.
    DomainDef scratch = *defs.live;
    alias = alias_of(TRY(detach_from(scratch, device)));
    return {};
  }));
  if (!alias.empty()) emit_locked(*domain, DeviceAddedEvent{alias});
  return {};
}

Result<void> TestDriver::detach_device(const Caller&, const Uuid& uuid, DeviceDef device, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "detach_device"));
  const Locked domain = TRY(find(uuid));
  std::string alias;
  TRY(change_affected(*domain, flags, [&](const AffectedDefs& defs) -> Result<void> {
    if (defs.config) {
      // What a client takes from the live XML has a generated alias, which the configuration does not know.
      DeviceDef wanted = device;
      std::visit(
          [](auto& any) {
            if (any.alias && !any.alias->name.starts_with("ua-")) any.alias.reset();
          },
          wanted);
      (void)TRY(detach_from(*defs.config, wanted));
    }
    if (defs.live) alias = alias_of(TRY(detach_from(*defs.live, device)));
    return {};
  }));
  if (!alias.empty()) emit_locked(*domain, DeviceRemovedEvent{alias});
  return {};
}

Result<void> TestDriver::update_device(const Caller&, const Uuid& uuid, DeviceDef device, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags | VIR_DOMAIN_DEVICE_MODIFY_FORCE, "update_device"));
  const Locked domain = TRY(find(uuid));
  TRY(validate_device(device));
  return change_each(*domain, flags, [&](DomainDef& def) { return update_in(def, device); });
}

Result<SocketFd> TestDriver::open_console(const Caller&, const Uuid& uuid, const std::string& device,
                                          unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_CONSOLE_FORCE | VIR_DOMAIN_CONSOLE_SAFE, "open_console"));
  const Locked domain = TRY(find_active(uuid));
  const auto& consoles = domain->def.consoles;
  const bool is_known = std::any_of(consoles.begin(), consoles.end(), [&](const ConsoleDef& console) {
    return device.empty() || (console.alias && console.alias->name == device);
  });
  if (!is_known) {
    return fail(VIR_ERR_INTERNAL_ERROR,
                "cannot find console device '" + (device.empty() ? std::string("default") : device) + "'");
  }
  if (domain->console && domain->console->is_open() && !(flags & VIR_DOMAIN_CONSOLE_FORCE)) {
    return fail(VIR_ERR_OPERATION_FAILED, "Active console session exists for this domain");
  }
  domain->console.reset();
  auto opened = TRY(EchoConsole::open(domain->def.name));
  domain->console = std::move(opened.console);
  return std::move(opened.client);
}

Result<NamespaceFds> TestDriver::open_namespaces(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "open_namespaces"));
  (void)TRY(find_active(uuid));
  return fail(VIR_ERR_OPERATION_UNSUPPORTED, "a test domain has no namespaces to open");
}

}  // namespace virtuserns::test_driver
