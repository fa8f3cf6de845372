#include "xml/devices.h"
#include "xml/kept.h"
#include "xml/order.h"
#include "xml/parts.h"

namespace virtuserns::xml {

Result<ConsoleDef> parse_console(const Node& node, unsigned flags) {
  ConsoleDef def;
  const bool is_live = (flags & kParseLive) != 0;
  def.type = TRY(parse_choice(node, "console type", node.attribute_or("type", "pty"),
                              {"null", "vc", "pty", "dev", "file", "pipe", "stdio", "udp", "tcp", "unix", "spicevmc",
                               "spiceport", "nmdm", "qemu-vdagent", "dbus"}));
  if (is_live) def.tty = node.attribute_or("tty");
  // The host side of a pty is chosen at each start.
  const bool is_stale = def.type == "pty" && !is_live;
  if (const auto source = TRY(node.only_child("source")); source && !is_stale) {
    def.source_path = source.attribute_or("path");
    keep_rest(source, {"path"}, {}, def.kept, "source/");
  }
  if (const auto target = TRY(node.only_child("target"))) {
    def.target_type = TRY(parse_choice(target, "console target type", target.attribute_or("type", "lxc"),
                                       {"serial", "xen", "uml", "virtio", "lxc", "openvz", "sclp", "sclplm"}));
    def.target_port = TRY(target.number<std::uint32_t>("port")).value_or(0);
    keep_rest(target, {"type", "port"}, {}, def.kept, "target/");
  }
  if (const auto log = TRY(node.only_child("log"))) {
    def.log_file = log.attribute_or("file");
    def.log_append = TRY(log.on_off("append"));
    if (def.log_file.empty()) return log.error("<log> of <console> has no file");
  }
  def.alias = parse_alias(node, flags);
  keep_rest(node, {"type", "tty"}, {"source", "target", "log", "alias"}, def.kept);
  return def;
}

Element make_console(const ConsoleDef& def, FormatKind kind) {
  Element element("console");
  const bool is_active = kind != FormatKind::kInactive;
  element.attribute("type", def.type);
  if (is_active) element.attribute_if("tty", def.tty);
  if (def.type != "pty" || is_active) {
    Element source("source");
    element.child_if(std::move(source.attribute_if("path", def.source_path).kept(def.kept, "source/")));
  }
  if (!def.log_file.empty()) {
    Element log("log");
    log.attribute("file", def.log_file);
    if (def.log_append) log.attribute("append", *def.log_append ? "on" : "off");
    element.child(std::move(log));
  }
  Element target("target");
  target.attribute("type", def.target_type).attribute("port", def.target_port).kept(def.kept, "target/");
  element.child(std::move(target));
  add_alias(element, def.alias, kind);
  return element.kept(def.kept).sort({}, order::kConsole);
}

}  // namespace virtuserns::xml
