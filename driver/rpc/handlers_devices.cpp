#include <libvirt/libvirt.h>

#include "driver/rpc/handlers.h"
#include "xml/devices.h"

namespace virtuserns::rpc {

// The calls without flags are about the running domain, as in libvirt's drivers.
Result<void> domain_attach_device(Call& call, const wire::DomainXmlArgs& args) {
  return call.driver->attach_device(call.caller, args.dom.uuid, TRY(xml::parse_device(args.xml)),
                                    VIR_DOMAIN_AFFECT_LIVE);
}

Result<void> domain_attach_device_flags(Call& call, const wire::DomainXmlFlagsArgs& args) {
  return call.driver->attach_device(call.caller, args.dom.uuid, TRY(xml::parse_device(args.xml)), args.flags);
}

Result<void> domain_detach_device(Call& call, const wire::DomainXmlArgs& args) {
  return call.driver->detach_device(call.caller, args.dom.uuid, TRY(xml::parse_device(args.xml)),
                                    VIR_DOMAIN_AFFECT_LIVE);
}

Result<void> domain_detach_device_flags(Call& call, const wire::DomainXmlFlagsArgs& args) {
  return call.driver->detach_device(call.caller, args.dom.uuid, TRY(xml::parse_device(args.xml)), args.flags);
}

Result<void> domain_update_device_flags(Call& call, const wire::DomainXmlFlagsArgs& args) {
  return call.driver->update_device(call.caller, args.dom.uuid, TRY(xml::parse_device(args.xml)), args.flags);
}

Result<void> domain_open_console(Call& call, const wire::OpenConsoleArgs& args) {
  call.stream = TRY(call.driver->open_console(call.caller, args.dom.uuid, args.device.value_or(""), args.flags));
  return {};
}

Result<void> lxc_open_namespace(Call& call, const wire::DomainFlagsArgs& args) {
  NamespaceFds namespaces = TRY(call.driver->open_namespaces(call.caller, args.dom.uuid, args.flags));
  if (namespaces.fds.size() > kMaxMessageFds) return fail(VIR_ERR_RPC, "too many descriptors");
  call.reply_fds = std::move(namespaces.fds);
  return {};
}

Result<wire::ExecReply> userns_exec(Call& call, const wire::ExecArgs& args) {
  TRY(validate_exec(args.command));
  if (call.fds.size() > 1) return fail(VIR_ERR_INVALID_ARG, "a command has one program");
  Fd program = call.fds.empty() ? Fd() : std::move(call.fds.front());
  StartedCommand started = TRY(call.driver->exec(call.caller, args.dom.uuid, args.command, std::move(program)));
  if (started.fds.size() > kMaxMessageFds) return fail(VIR_ERR_RPC, "too many descriptors");
  call.reply_fds = std::move(started.fds);
  return wire::ExecReply{started.status, std::move(started.text)};
}

}  // namespace virtuserns::rpc
