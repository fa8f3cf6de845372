#include <libvirt/libvirt.h>

#include "conf/base/text.h"
#include "driver/rpc/handlers.h"
#include "xml/domain.h"
#include "xml/metadata.h"

namespace virtuserns::rpc {
namespace {

wire::IntReply yes_or_no(bool fact) { return {fact ? 1 : 0}; }

Result<wire::DomainReply> define(Call& call, const std::string& text, unsigned flags) {
  const bool is_checked = (flags & VIR_DOMAIN_DEFINE_VALIDATE) != 0;
  DomainDef def = TRY(xml::parse_domain(text, is_checked ? xml::kParseSchema : xml::kParseInactive));
  return wire::DomainReply{TRY(call.driver->define(call.caller, std::move(def), flags))};
}

Result<wire::DomainReply> create_transient(Call& call, const wire::XmlFlagsArgs& args) {
  const bool is_checked = (args.flags & VIR_DOMAIN_START_VALIDATE) != 0;
  DomainDef def = TRY(xml::parse_domain(args.xml, is_checked ? xml::kParseSchema : xml::kParseInactive));
  return wire::DomainReply{
      TRY(call.driver->create_transient(call.caller, std::move(def), std::move(call.fds), args.flags))};
}

}  // namespace

Result<wire::DomainReply> domain_define_xml(Call& call, const wire::XmlArgs& args) {
  return define(call, args.xml, 0);
}

Result<wire::DomainReply> domain_define_xml_flags(Call& call, const wire::XmlFlagsArgs& args) {
  return define(call, args.xml, args.flags);
}

Result<void> domain_undefine(Call& call, const wire::DomainArgs& args) {
  return call.driver->undefine(call.caller, args.dom.uuid, 0);
}

Result<void> domain_undefine_flags(Call& call, const wire::DomainFlagsArgs& args) {
  return call.driver->undefine(call.caller, args.dom.uuid, args.flags);
}

Result<wire::TextReply> domain_get_xml_desc(Call& call, const wire::DomainFlagsArgs& args) {
  const DomainDef def = TRY(call.driver->definition(call.caller, args.dom.uuid, args.flags));
  const bool is_live = def.id != -1 && (args.flags & VIR_DOMAIN_XML_INACTIVE) == 0;
  const auto secrets = (args.flags & VIR_DOMAIN_XML_SECURE) != 0 ? xml::Secrets::kShow : xml::Secrets::kHide;
  return wire::TextReply{
      xml::format_domain(def, is_live ? xml::FormatKind::kActive : xml::FormatKind::kInactive, secrets)};
}

Result<wire::TextReply> domain_get_os_type(Call& call, const wire::DomainArgs& args) {
  return wire::TextReply{TRY(call.driver->definition(call.caller, args.dom.uuid, 0)).os.type};
}

Result<wire::IntReply> domain_rename(Call& call, const wire::RenameArgs& args) {
  TRY(call.driver->rename(call.caller, args.dom.uuid, args.new_name.value_or(""), args.flags));
  return wire::IntReply{0};
}

Result<wire::IntReply> domain_get_autostart(Call& call, const wire::DomainArgs& args) {
  return yes_or_no(TRY(call.driver->autostart(args.dom.uuid)));
}

Result<void> domain_set_autostart(Call& call, const wire::DomainCountArgs& args) {
  return call.driver->set_autostart(call.caller, args.dom.uuid, args.count != 0);
}

Result<wire::IntReply> domain_is_active(Call& call, const wire::DomainArgs& args) {
  return yes_or_no(TRY(call.driver->is_active(args.dom.uuid)));
}

Result<wire::IntReply> domain_is_persistent(Call& call, const wire::DomainArgs& args) {
  return yes_or_no(TRY(call.driver->is_persistent(args.dom.uuid)));
}

Result<wire::IntReply> domain_is_updated(Call& call, const wire::DomainArgs& args) {
  return yes_or_no(TRY(call.driver->is_updated(args.dom.uuid)));
}

Result<wire::IntReply> domain_has_managed_save_image(Call& call, const wire::DomainFlagsArgs& args) {
  return yes_or_no(TRY(call.driver->has_managed_save(args.dom.uuid, args.flags)));
}

// No driver has snapshots: there are none of a domain that exists, which is what `virsh undefine` asks before it
// acts.
Result<wire::IntReply> domain_snapshot_num(Call& call, const wire::DomainFlagsArgs& args) {
  (void)TRY(call.driver->lookup_by_uuid(args.dom.uuid));
  return wire::IntReply{0};
}

Result<wire::TextReply> domain_get_metadata(Call& call, const wire::GetMetadataArgs& args) {
  const std::string uri = args.uri.value_or("");
  auto text = TRY(call.driver->metadata(args.dom.uuid, args.type, uri, args.flags));
  if (args.type != VIR_DOMAIN_METADATA_ELEMENT) return wire::TextReply{std::move(text)};
  DomainDef def;  // a client gets the element as it gave it: without the namespace that it was put into
  def.metadata.push_back({uri, std::move(text)});
  return wire::TextReply{TRY(xml::extract_metadata(def, uri))};
}

Result<void> domain_set_metadata(Call& call, const wire::SetMetadataArgs& args) {
  std::optional<std::string> value = args.text;
  const std::string uri = args.uri.value_or("");
  if (value && args.type == VIR_DOMAIN_METADATA_ELEMENT) {
    if (uri.empty()) return fail(VIR_ERR_INVALID_ARG, "a metadata element needs a namespace URI");
    value = TRY(xml::parse_metadata_element(*value, args.key.value_or(""), uri)).xml;
  } else if (value && args.type == VIR_DOMAIN_METADATA_TITLE && value->find('\n') != std::string::npos) {
    return fail(VIR_ERR_INVALID_ARG, "metadata title can't contain newlines");
  }
  return call.driver->set_metadata(call.caller, args.dom.uuid, args.type, std::move(value), uri, args.flags);
}

Result<void> domain_create(Call& call, const wire::DomainArgs& args) {
  (void)TRY(call.driver->create(call.caller, args.dom.uuid, {}, 0));
  return {};
}

Result<wire::DomainReply> domain_create_with_flags(Call& call, const wire::DomainFlagsArgs& args) {
  return wire::DomainReply{TRY(call.driver->create(call.caller, args.dom.uuid, {}, args.flags))};
}

Result<wire::DomainReply> domain_create_with_files(Call& call, const wire::DomainFlagsArgs& args) {
  return wire::DomainReply{TRY(call.driver->create(call.caller, args.dom.uuid, std::move(call.fds), args.flags))};
}

Result<wire::DomainReply> domain_create_xml(Call& call, const wire::XmlFlagsArgs& args) {
  call.fds.clear();
  return create_transient(call, args);
}

Result<wire::DomainReply> domain_create_xml_with_files(Call& call, const wire::XmlFlagsArgs& args) {
  return create_transient(call, args);
}

Result<void> domain_shutdown(Call& call, const wire::DomainArgs& args) {
  return call.driver->shutdown(call.caller, args.dom.uuid, 0);
}

Result<void> domain_shutdown_flags(Call& call, const wire::DomainFlagsArgs& args) {
  return call.driver->shutdown(call.caller, args.dom.uuid, args.flags);
}

Result<void> domain_reboot(Call& call, const wire::DomainFlagsArgs& args) {
  return call.driver->reboot(call.caller, args.dom.uuid, args.flags);
}

Result<void> domain_reset(Call& call, const wire::DomainFlagsArgs& args) {
  return call.driver->reset(call.caller, args.dom.uuid, args.flags);
}

Result<void> domain_destroy(Call& call, const wire::DomainArgs& args) {
  return call.driver->destroy(call.caller, args.dom.uuid, 0);
}

Result<void> domain_destroy_flags(Call& call, const wire::DomainFlagsArgs& args) {
  return call.driver->destroy(call.caller, args.dom.uuid, args.flags);
}

Result<void> domain_suspend(Call& call, const wire::DomainArgs& args) {
  return call.driver->suspend(call.caller, args.dom.uuid);
}

Result<void> domain_resume(Call& call, const wire::DomainArgs& args) {
  return call.driver->resume(call.caller, args.dom.uuid);
}

Result<void> domain_send_process_signal(Call& call, const wire::SignalArgs& args) {
  return call.driver->send_process_signal(call.caller, args.dom.uuid, args.pid, args.signal, args.flags);
}

Result<void> domain_set_user_password(Call& call, const wire::SetUserPasswordArgs& args) {
  if (!args.user || !args.password) return fail(VIR_ERR_INVALID_ARG, "a user and a password are needed");
  return call.driver->set_user_password(call.caller, args.dom.uuid, *args.user, *args.password, args.flags);
}

Result<void> domain_core_dump(Call& call, const wire::CoreDumpArgs& args) {
  return call.driver->core_dump(call.caller, args.dom.uuid, args.to, args.flags);
}

}  // namespace virtuserns::rpc
