#include "xml/devices.h"
#include "xml/kept.h"
#include "xml/order.h"
#include "xml/parts.h"

namespace virtuserns::xml {

namespace {

constexpr Word<FilesystemType> kTypes[] = {
    {"mount", FilesystemType::kMount},  {"bind", FilesystemType::kBind},   {"ram", FilesystemType::kRam},
    {"file", FilesystemType::kFile},    {"block", FilesystemType::kBlock}, {"template", FilesystemType::kTemplate},
    {"volume", FilesystemType::kVolume}};

// The attribute of <source> that names it.
std::string_view source_attribute(FilesystemType type) {
  switch (type) {
    case FilesystemType::kMount:
    case FilesystemType::kBind:
      return "dir";
    case FilesystemType::kFile:
      return "file";
    case FilesystemType::kBlock:
      return "dev";
    case FilesystemType::kTemplate:
      return "name";
    case FilesystemType::kRam:
    case FilesystemType::kVolume:
      break;
  }
  return {};
}

Result<void> parse_source(const Node& node, FilesystemDef& def) {
  const auto source = TRY(node.only_child("source"));
  const auto name = source_attribute(def.type);
  if (def.type == FilesystemType::kRam) {
    const auto usage = source.attribute("usage");
    if (!usage) return node.error("<filesystem type='ram'> has no size: write <source usage='65536' units='KiB'/>");
    def.ram_usage_kib = TRY(parse_scaled(source, *usage, source.attribute_or("units"), 1024)) / 1024;
    keep_rest(source, {"usage", "units"}, {}, def.kept, "source/");
  } else if (def.type == FilesystemType::kVolume) {
    def.source_pool = source.attribute_or("pool");
    def.source_volume = source.attribute_or("volume");
    if (def.source_pool.empty() || def.source_volume.empty())
      return node.error("<filesystem type='volume'> needs <source pool='' volume=''/>");
    keep_rest(source, {"pool", "volume"}, {}, def.kept, "source/");
  } else {
    def.source = source.attribute_or(name);
    if (def.source.empty() && source.attribute_or("socket").empty())
      return node.error("<filesystem type='" + std::string(word_of(def.type, kTypes)) + "'> needs <source " +
                        std::string(name) + "=''/>");
    keep_rest(source, {name}, {}, def.kept, "source/");
  }
  return {};
}

Result<std::optional<std::uint64_t>> parse_limit(const Node& node, std::string_view name) {
  const auto limit = TRY(node.only_child(name));
  if (!limit) return std::optional<std::uint64_t>();
  const auto bytes = TRY(parse_scaled(limit, limit.text(), limit.attribute_or("unit"), 1));
  return bytes == 0 ? std::optional<std::uint64_t>() : std::optional(bytes);
}

}  // namespace

Result<FilesystemDef> parse_filesystem(const Node& node, unsigned flags) {
  FilesystemDef def;
  def.type = TRY(parse_word(node, "filesystem type", node.attribute_or("type", "mount"), kTypes));
  def.access_mode = node.attribute_or("accessmode");
  if (!def.access_mode.empty())
    def.access_mode =
        TRY(parse_choice(node, "filesystem accessmode", def.access_mode, {"passthrough", "mapped", "squash"}));
  if (const auto driver = TRY(node.only_child("driver"))) {
    def.driver_type = driver.attribute_or("type");
    if (!def.driver_type.empty())
      def.driver_type = TRY(parse_choice(driver, "filesystem driver type", def.driver_type,
                                         {"path", "handle", "loop", "nbd", "ploop", "virtiofs"}));
    def.driver_format = driver.attribute_or("format");
    def.driver_wrpolicy = driver.attribute_or("wrpolicy");
    keep_rest(driver, {"type", "format", "wrpolicy"}, {}, def.kept, "driver/");
  }
  TRY(parse_source(node, def));
  if (const auto target = TRY(node.only_child("target"))) {
    def.target = target.attribute_or("dir");
    keep_rest(target, {"dir"}, {}, def.kept, "target/");
  }
  def.readonly = static_cast<bool>(node.child("readonly"));
  def.space_hard_limit_bytes = TRY(parse_limit(node, "space_hard_limit"));
  def.space_soft_limit_bytes = TRY(parse_limit(node, "space_soft_limit"));
  def.alias = parse_alias(node, flags);
  keep_rest(node, {"type", "accessmode"},
            {"driver", "source", "target", "readonly", "space_hard_limit", "space_soft_limit", "alias"}, def.kept);
  return def;
}

Element make_filesystem(const FilesystemDef& def, FormatKind kind) {
  Element element("filesystem");
  element.attribute("type", word_of(def.type, kTypes)).attribute_if("accessmode", def.access_mode);
  Element driver("driver");
  driver.attribute_if("type", def.driver_type).attribute_if("format", def.driver_format);
  driver.attribute_if("wrpolicy", def.driver_wrpolicy).kept(def.kept, "driver/");
  element.child_if(std::move(driver));
  Element source("source");
  if (def.type == FilesystemType::kRam)
    source.attribute("usage", def.ram_usage_kib).attribute("units", "KiB");
  else if (def.type == FilesystemType::kVolume)
    source.attribute("pool", def.source_pool).attribute("volume", def.source_volume);
  else
    source.attribute_if(source_attribute(def.type), def.source);
  element.child(std::move(source.kept(def.kept, "source/")));
  Element target("target");
  element.child_if(std::move(target.attribute_if("dir", def.target).kept(def.kept, "target/")));
  if (def.readonly) element.child(Element("readonly"));
  add_alias(element, def.alias, kind);
  const auto add_limit = [&](const char* name, const std::optional<std::uint64_t>& bytes) {
    if (bytes) element.child(std::move(Element(name).attribute("unit", "bytes").text(std::to_string(*bytes))));
  };
  add_limit("space_hard_limit", def.space_hard_limit_bytes);
  add_limit("space_soft_limit", def.space_soft_limit_bytes);
  return element.kept(def.kept).sort(order::kFilesystemAttributes, order::kFilesystem);
}

}  // namespace virtuserns::xml
