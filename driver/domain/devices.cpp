// Devices come and go in the definitions; what runs is the module's.
#include "conf/domain_devices.h"

#include <algorithm>

#include "conf/validate.h"
#include "driver/domain/domain_driver.h"

namespace virtuserns {

namespace {

Error no_live_change(const char* what, const DeviceDef& device) {
  static constexpr const char* kKinds[] = {"filesystem", "disk", "interface", "console", "hostdev"};
  return fail(VIR_ERR_OPERATION_UNSUPPORTED,
              std::string(what) + " of device '" + kKinds[device.index()] +
                  "' is not supported while the domain runs; use --config for its next start");
}

// What a client takes from the live XML has a generated alias, which the configuration does not know.
DeviceDef without_generated_alias(DeviceDef device) {
  std::visit(
      [](auto& any) {
        if (any.alias && !any.alias->name.starts_with("ua-")) any.alias.reset();
      },
      device);
  return device;
}

}  // namespace

Result<std::string> DomainDriver::attach_live(DriverDomain&, DomainDef&, DeviceDef device) {
  return no_live_change("attaching", device);
}
Result<std::string> DomainDriver::detach_live(DriverDomain&, DomainDef&, const DeviceDef& device) {
  return no_live_change("detaching", device);
}
Result<void> DomainDriver::update_live(DriverDomain&, DomainDef&, const DeviceDef& device) {
  return no_live_change("updating", device);
}

Result<void> DomainDriver::attach_device(const Caller& caller, const Uuid& uuid, DeviceDef device, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "virDomainAttachDeviceFlags"));
  const auto job = TRY(domains_.take_job(uuid));
  // Once for both definitions, so that a generated MAC address is the same in both.
  apply_device_defaults(device, job.look()->def);
  TRY(validate_device(device));
  TRY(admit_change(caller, job, [&](DomainDef& def) { return attach_to(def, device); }));
  std::optional<std::string> alias;
  DomainDef with;
  auto changed = change_defs(caller, job, flags, [&](const AffectedDefs& defs) -> Result<void> {
    if (defs.config) {
      TRY(attach_to(*defs.config, device));
      TRY(validate(*defs.config));
    }
    if (!defs.live) return {};
    alias = TRY(attach_live(*job.domain, *defs.live, device));
    with = *defs.live;
    return {};
  });
  if (!changed && alias) (void)detach_live(*job.domain, with, device);  // what could not be recorded is not left
  TRY(std::move(changed));
  if (alias && !alias->empty()) emit(job, DeviceAddedEvent{*alias});
  return {};
}

Result<void> DomainDriver::detach_device(const Caller& caller, const Uuid& uuid, DeviceDef device, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "virDomainDetachDeviceFlags"));
  const auto job = TRY(domains_.take_job(uuid));
  std::string alias;
  TRY(change_defs(caller, job, flags, [&](const AffectedDefs& defs) -> Result<void> {
    if (defs.config) (void)TRY(detach_from(*defs.config, without_generated_alias(device)));
    if (defs.live) alias = TRY(detach_live(*job.domain, *defs.live, device));
    return {};
  }));
  if (!alias.empty()) emit(job, DeviceRemovedEvent{alias});
  return {};
}

Result<void> DomainDriver::update_device(const Caller& caller, const Uuid& uuid, DeviceDef device, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags | VIR_DOMAIN_DEVICE_MODIFY_FORCE, "virDomainUpdateDeviceFlags"));
  TRY(validate_device(device));
  const auto job = TRY(domains_.take_job(uuid));
  TRY(admit_change(caller, job, [&](DomainDef& def) { return update_in(def, without_generated_alias(device)); }));
  return change_defs(caller, job, flags, [&](const AffectedDefs& defs) -> Result<void> {
    if (defs.live) TRY(update_live(*job.domain, *defs.live, device));
    if (!defs.config) return {};
    TRY(update_in(*defs.config, without_generated_alias(device)));
    return validate(*defs.config);
  });
}

// ---- finding ----------------------------------------------------------------------------------------------------

Result<const InterfaceDef*> find_interface(const DomainDef& def, const std::string& device) {
  const auto found = std::find_if(def.interfaces.begin(), def.interfaces.end(), [&](const InterfaceDef& link) {
    return link.target_dev == device || (link.mac && format_mac(*link.mac) == device);
  });
  if (found == def.interfaces.end()) return fail(VIR_ERR_INVALID_ARG, "'" + device + "' is not a known interface");
  return &*found;
}

Result<const ConsoleDef*> find_console(const DomainDef& def, const std::string& device) {
  const auto found = std::find_if(def.consoles.begin(), def.consoles.end(), [&](const ConsoleDef& console) {
    return device.empty() || (console.alias && console.alias->name == device);
  });
  if (found == def.consoles.end())
    return fail(VIR_ERR_INTERNAL_ERROR,
                "cannot find console device '" + (device.empty() ? std::string("default") : device) + "'");
  return &*found;
}

}  // namespace virtuserns
