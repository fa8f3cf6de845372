#include <libvirt/libvirt.h>

#include "driver/rpc/auth.h"
#include "driver/rpc/handlers.h"
#include "xml/caps.h"
#include "xml/domain.h"
#include "xml/lxc_native.h"

namespace virtuserns::rpc {
namespace {

// libvirt's VIR_DRV_FEATURE_*, internal to it but asked over the wire (src/libvirt_internal.h).
enum Feature : std::int32_t {
  kFdPassing = 8,
  kTypedParamString = 9,
  kServerKeepalive = 10,
  kEventCallbackIds = 14,
  kCloseCallback = 15,
  kNetworkUpdateOrder = 16,
};

constexpr std::uint32_t kOpenReadOnly = 1;  // the other bits of CONNECT_OPEN are the client's own business

// Without what may not stand in a comment of XML: "--", a "-" at its end, control characters.
std::string comment_text(std::string_view line) {
  std::string text;
  for (const char c : line) {
    if (c == '-' && text.ends_with('-')) text += ' ';
    text += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return text.ends_with('-') ? text + ' ' : text;
}

}  // namespace

Result<void> connect_open(Call& call, const wire::OpenArgs& args) {
  return call.session.open(args.name.value_or(""), (args.flags & kOpenReadOnly) != 0);
}

Result<void> connect_close(Call& call) {
  call.closes_connection = true;
  return {};
}

Result<wire::AuthListReply> auth_list(Call& call) {
  const bool needs_polkit = call.session.auth_method() == AuthMethod::kPolkit && !call.session.is_authenticated();
  return wire::AuthListReply{{needs_polkit ? 2 : 0}};
}

Result<wire::IntReply> auth_polkit(Call& call) {
  if (call.session.is_authenticated()) return fail(VIR_ERR_AUTH_FAILED, "polkit authentication is not expected");
  TRY(check_polkit(call.session.peer(), call.session.is_socket_read_only() ? kPolkitMonitor : kPolkitManage));
  call.session.set_authenticated();
  return wire::IntReply{1};
}

Result<wire::IntReply> connect_supports_feature(Call& call, const wire::IntArgs& args) {
  switch (args.value) {
    case kServerKeepalive:
      call.session.want_keepalive();
      return wire::IntReply{1};
    case kFdPassing:
    case kTypedParamString:
    case kEventCallbackIds:
    case kCloseCallback:
    case kNetworkUpdateOrder:
      return wire::IntReply{1};
    default:
      return wire::IntReply{0};
  }
}

Result<wire::TextReply> connect_get_type(Call& call) { return wire::TextReply{call.driver->type_name()}; }

Result<wire::U64Reply> connect_get_version(Call& call) {
  return wire::U64Reply{TRY(call.driver->hypervisor_version())};
}

// The protocol that is spoken here is that of libvirt 9.0.0; nova, for one, refuses less than 8.0.0.
Result<wire::U64Reply> connect_get_lib_version(Call&) { return wire::U64Reply{9'000'000}; }

Result<wire::IntReply> connect_get_max_vcpus(Call& call, const wire::MaybeTextArgs& args) {
  return wire::IntReply{TRY(call.driver->max_vcpus(args.text.value_or("")))};
}

Result<wire::TextReply> connect_get_hostname(Call& call) { return wire::TextReply{TRY(call.driver->hostname())}; }

Result<wire::TextReply> connect_get_uri(Call& call) { return wire::TextReply{call.session.uri()}; }

// A local socket: as secure as libvirt says of it.
Result<wire::IntReply> connect_is_secure(Call&) { return wire::IntReply{1}; }

Result<wire::TextReply> connect_get_capabilities(Call& call) {
  return wire::TextReply{xml::format_capabilities(TRY(call.driver->capabilities()))};
}

Result<wire::TextReply> connect_get_domain_capabilities(Call& call, const wire::DomainCapabilitiesArgs& args) {
  TRY(refuse_unknown_flags(args.flags, 0, "virConnectGetDomainCapabilities"));
  return wire::TextReply{xml::format_domain_capabilities(TRY(call.driver->domain_capabilities(
      args.emulator.value_or(""), args.arch.value_or(""), args.machine.value_or(""), args.virt_type.value_or(""))))};
}

Result<wire::TextReply> connect_get_sysinfo(Call& call, const wire::FlagsArgs& args) {
  return wire::TextReply{TRY(call.driver->sysinfo(args.flags))};
}

// lxc.conf means the same to every driver. What a domain cannot say goes into comments before it, where a person who
// reads the conversion finds it and a parser does not mind.
Result<wire::TextReply> connect_xml_from_native(Call&, const wire::NativeArgs& args) {
  TRY(refuse_unknown_flags(args.flags, 0, "virConnectDomainXMLFromNative"));
  if (args.format != "lxc-tools") return fail(VIR_ERR_INVALID_ARG, "unsupported config type " + args.format);
  xml::LxcImport import = TRY(xml::parse_lxc_config(args.text));
  import.def.uuid = make_random_uuid();
  std::string text;
  for (const auto& line : import.ignored) text += "<!-- " + comment_text(line) + " -->\n";
  return wire::TextReply{text + xml::format_domain(import.def, xml::FormatKind::kInactive)};
}

Result<wire::TextReply> connect_xml_to_native(Call& call, const wire::NativeArgs& args) {
  DomainDef def = TRY(xml::parse_domain(args.text));
  return wire::TextReply{TRY(call.driver->to_native(args.format, std::move(def), args.flags))};
}

Result<void> connect_set_identity(Call& call, const wire::IdentityArgs& args) {
  TRY(refuse_unknown_flags(args.flags, 0, "virConnectSetIdentity"));
  return call.session.set_identity(args.params);
}

Result<void> register_close_callback(Call& call) { return call.session.set_close_callback(true); }
Result<void> unregister_close_callback(Call& call) { return call.session.set_close_callback(false); }

}  // namespace virtuserns::rpc
