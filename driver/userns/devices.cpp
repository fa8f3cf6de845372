// Devices in definitions; consoles and namespaces of running domains.
#include <libvirt/libvirt.h>

#include <algorithm>

#include "conf/base/text.h"
#include "conf/defaults.h"
#include "conf/domain_devices.h"
#include "conf/validate.h"
#include "driver/userns/change.h"

namespace virtuserns::userns {

namespace {

constexpr unsigned kImpactFlags = VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG;
constexpr int kRequestTimeoutMs = 5'000;

std::string kind_of(const DeviceDef& device) {
  static constexpr const char* kKinds[] = {"filesystem", "disk", "interface", "console", "hostdev"};
  return kKinds[device.index()];
}

Result<void> refuse_live(const AffectedDefs& defs, const DeviceDef& device, const char* what) {
  if (!defs.live) return {};
  return fail(VIR_ERR_OPERATION_UNSUPPORTED,
              std::string(what) + " of device '" + kind_of(device) +
                  "' is not supported while the domain runs; use --config for its next start");
}

DeviceDef without_generated_alias(DeviceDef device) {
  std::visit(
      [](auto& any) {
        if (any.alias && !any.alias->name.starts_with("ua-")) any.alias.reset();
      },
      device);
  return device;
}

const auto kNothingLive = [](const RunPtr&, const DomainDef&) { return Result<void>(); };

}  // namespace

Result<void> Backend::attach_device(const Caller&, const Uuid& uuid, DeviceDef device, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "attach_device"));
  apply_device_defaults(device, TRY(find(uuid))->def);
  TRY(validate_device(device));
  return change_defs(
      uuid, flags,
      [&](const AffectedDefs& defs) -> Result<void> {
        TRY(refuse_live(defs, device, "attaching"));
        if (!defs.config) return {};
        TRY(attach_to(*defs.config, device));
        return validate(*defs.config);
      },
      kNothingLive);
}

Result<void> Backend::detach_device(const Caller&, const Uuid& uuid, DeviceDef device, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "detach_device"));
  return change_defs(
      uuid, flags,
      [&](const AffectedDefs& defs) -> Result<void> {
        TRY(refuse_live(defs, device, "detaching"));
        if (defs.config) (void)TRY(detach_from(*defs.config, without_generated_alias(device)));
        return {};
      },
      kNothingLive);
}

Result<void> Backend::update_device(const Caller&, const Uuid& uuid, DeviceDef device, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags | VIR_DOMAIN_DEVICE_MODIFY_FORCE, "update_device"));
  TRY(validate_device(device));
  return change_defs(
      uuid, flags,
      [&](const AffectedDefs& defs) -> Result<void> {
        TRY(refuse_live(defs, device, "updating"));
        if (!defs.config) return {};
        TRY(update_in(*defs.config, without_generated_alias(device)));
        return validate(*defs.config);
      },
      kNothingLive);
}

Result<SocketFd> Backend::open_console(const Caller&, const Uuid& uuid, const std::string& device, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_CONSOLE_FORCE | VIR_DOMAIN_CONSOLE_SAFE, "open_console"));
  RunPtr run;
  std::uint32_t port = 0;
  {
    const Locked domain = TRY(find_active(uuid));
    const auto& consoles = domain->def.consoles;
    const auto found = device.empty()
                           ? consoles.begin()
                           : std::find_if(consoles.begin(), consoles.end(), [&](const ConsoleDef& console) {
                               return console.alias && console.alias->name == device;
                             });
    if (found == consoles.end())
      return fail(VIR_ERR_INTERNAL_ERROR,
                  "cannot find console device '" + (device.empty() ? std::string("default") : device) + "'");
    port = found->target_port;
    run = domain->run;
  }
  Answer answer = TRY(run->channel->request(controller::ConsoleRequest{port, (flags & VIR_DOMAIN_CONSOLE_FORCE) != 0},
                                            kRequestTimeoutMs));
  if (answer.files.empty()) return fail(VIR_ERR_INTERNAL_ERROR, "the domain's controller gave no console");
  return SocketFd(answer.files[0].release());
}

Result<NamespaceFds> Backend::open_namespaces(const Caller& caller, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "open_namespaces"));
  if (caller.read_only) return fail(VIR_ERR_OPERATION_DENIED, "read only access prevents virDomainLxcOpenNamespace");
  RunPtr run;
  {
    const Locked domain = TRY(find_active(uuid));
    run = domain->run;
  }
  if (!config_.allow_enter_namespace)
    return fail(
        VIR_ERR_OPERATION_DENIED,
        "entering the namespaces of a domain is refused: libvirt's client library joins the user namespace without changing its "
        "user id, so that the command would run as root of the host, within reach of the container. Use 'virsh console', or a "
        "login service inside; allow_enter_namespace = 1 in virtusernsd.conf allows it all the same");
  Answer answer = TRY(run->channel->request(controller::NamespacesRequest{}, kRequestTimeoutMs));
  return NamespaceFds{std::move(answer.files)};
}

}  // namespace virtuserns::userns
