#include "xml/devices.h"
#include "xml/kept.h"
#include "xml/order.h"
#include "xml/parts.h"

namespace virtuserns::xml {

namespace {

constexpr Word<DiskType> kTypes[] = {{"file", DiskType::kFile}, {"block", DiskType::kBlock}};

}  // namespace

Result<DiskDef> parse_disk(const Node& node, unsigned flags) {
  DiskDef def;
  def.type = TRY(parse_word(node, "disk type", node.attribute_or("type", "file"), kTypes));
  def.device =
      TRY(parse_choice(node, "disk device", node.attribute_or("device", "disk"), {"disk", "cdrom", "floppy", "lun"}));
  if (const auto driver = TRY(node.only_child("driver"))) {
    def.driver_name = driver.attribute_or("name");
    def.driver_type = driver.attribute_or("type");
    def.driver_cache = driver.attribute_or("cache");
    if (!def.driver_cache.empty())
      def.driver_cache = TRY(parse_choice(driver, "disk cache mode", def.driver_cache,
                                          {"default", "none", "writethrough", "writeback", "directsync", "unsafe"}));
    if (def.driver_cache == "default") def.driver_cache.clear();
    keep_rest(driver, {"name", "type", "cache"}, {}, def.kept, "driver/");
  }
  if (const auto source = TRY(node.only_child("source"))) {
    const std::string_view name = def.type == DiskType::kFile ? "file" : "dev";
    def.source = source.attribute_or(name);
    keep_rest(source, {name}, {}, def.kept, "source/");
  }
  if (const auto target = TRY(node.only_child("target"))) {
    def.target_dev = target.attribute_or("dev");
    def.target_bus = target.attribute_or("bus");
    keep_rest(target, {"dev", "bus"}, {}, def.kept, "target/");
  }
  if (def.target_dev.empty()) return node.error("<disk> has no target: write <target dev='vda'/>");
  def.readonly = node.child("readonly") || def.device == "cdrom";
  def.alias = parse_alias(node, flags);
  keep_rest(node, {"type", "device"}, {"driver", "source", "target", "readonly", "alias"}, def.kept);
  return def;
}

Element make_disk(const DiskDef& def, FormatKind kind) {
  Element element("disk");
  element.attribute("type", word_of(def.type, kTypes)).attribute_if("device", def.device);
  Element driver("driver");
  driver.attribute_if("name", def.driver_name).attribute_if("type", def.driver_type);
  element.child_if(std::move(driver.attribute_if("cache", def.driver_cache).kept(def.kept, "driver/")));
  Element source("source");
  source.attribute_if(def.type == DiskType::kFile ? "file" : "dev", def.source);
  element.child_if(std::move(source.kept(def.kept, "source/")));
  Element target("target");
  target.attribute("dev", def.target_dev).attribute_if("bus", def.target_bus);
  element.child(std::move(target.kept(def.kept, "target/")));
  if (def.readonly) element.child(Element("readonly"));
  add_alias(element, def.alias, kind);
  return element.kept(def.kept).sort(order::kDiskAttributes, order::kDisk);
}

}  // namespace virtuserns::xml
