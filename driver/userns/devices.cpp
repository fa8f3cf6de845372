// Consoles, commands and namespaces of running domains. Devices change in definitions only, which is the base's.
#include <libvirt/libvirt.h>

#include "driver/userns/backend.h"

namespace virtuserns::userns {

namespace {

constexpr int kExecTimeoutMs = 30'000;  // beyond the controller's own

}  // namespace

Result<SocketFd> Backend::open_console(const Caller&, const Uuid& uuid, const std::string& device, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_CONSOLE_FORCE | VIR_DOMAIN_CONSOLE_SAFE, "virDomainOpenConsole"));
  RunPtr run;
  std::uint32_t port = 0;
  {
    const Locked domain = TRY(find_active(uuid));
    port = TRY(find_console(domain->def, device))->target_port;
    run = domain->run;
  }
  connect_again(run);
  Answer answer = TRY(run->channel->request(controller::ConsoleRequest{port, (flags & VIR_DOMAIN_CONSOLE_FORCE) != 0},
                                            kRequestTimeoutMs));
  if (answer.files.empty()) return fail(VIR_ERR_INTERNAL_ERROR, "the domain's controller gave no console");
  return SocketFd(answer.files[0].release());
}

Result<NamespaceFds> Backend::open_namespaces(const Caller& caller, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainLxcOpenNamespace"));
  if (caller.read_only) return fail(VIR_ERR_OPERATION_DENIED, "read only access prevents virDomainLxcOpenNamespace");
  RunPtr run;
  {
    const Locked domain = TRY(find_active(uuid));
    run = domain->run;
  }
  if (!allow_enter_namespace_)
    return fail(
        VIR_ERR_OPERATION_DENIED,
        "entering the namespaces of a domain is refused: libvirt's client library joins the user namespace without changing its "
        "user id, so that the command would run as root of the host, within reach of the container. Use "
        "'virt-userns-exec DOMAIN -- COMMAND', which does none of that, or 'virsh console'; allow_enter_namespace = 1 in virtusernsd.conf allows it all the same");
  connect_again(run);
  Answer answer = TRY(run->channel->request(controller::NamespacesRequest{}, kRequestTimeoutMs));
  return NamespaceFds{std::move(answer.files)};
}

Result<StartedCommand> Backend::exec(const Caller& caller, const Uuid& uuid, const ExecDef& def, Fd program) {
  if (caller.read_only) return fail(VIR_ERR_OPERATION_DENIED, "read only access prevents exec");
  TRY(validate_exec(def));
  std::vector<int> files;
  if (program) {
    TRY(validate_program(program.get()));
    files.push_back(program.get());
  }
  RunPtr run;
  {
    const Locked domain = TRY(find_active(uuid));
    run = domain->run;
  }
  connect_again(run);
  Answer answer = TRY(run->channel->request(controller::ExecRequest{def}, kExecTimeoutMs, files));
  auto* reply = std::get_if<controller::ExecReply>(&answer.body);
  if (!reply || (reply->status == 0 && answer.files.size() != (def.has_terminal ? 2 : 4)))
    return fail(VIR_ERR_INTERNAL_ERROR, "the domain's controller gave no command");
  return StartedCommand{reply->status, std::move(reply->text), std::move(answer.files)};
}

}  // namespace virtuserns::userns
