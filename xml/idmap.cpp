#include "xml/idmap.h"

#include <algorithm>

namespace virtuserns::xml {

namespace {

Result<std::vector<IdMapEntry>> parse_entries(const Node& parent, std::string_view name) {
  std::vector<IdMapEntry> entries;
  for (const Node node : parent.children(name)) {
    const auto start = TRY(node.number<std::uint32_t>("start"));
    const auto count = TRY(node.number<std::uint32_t>("count"));
    const auto target = TRY(node.number<std::uint32_t>("target"));
    if (!start || !count)
      return node.error("<" + std::string(name) + "> of <idmap> has no " + (start ? "count" : "start") + ": write <" +
                        std::string(name) + " start='0' count='65536'/>, with target='' to choose the host ids");
    entries.push_back({*start, target, *count});
  }
  // virDomainIdmapDefParseXML sorts too; stable, so that what validation shows is in the order of the text.
  std::stable_sort(entries.begin(), entries.end(),
                   [](const IdMapEntry& a, const IdMapEntry& b) { return a.start < b.start; });
  return entries;
}

void add_entries(Element& element, const std::string& name, const std::vector<IdMapEntry>& entries) {
  for (const auto& entry : entries) {
    Element child(name);
    child.attribute("start", entry.start);
    if (entry.target) child.attribute("target", *entry.target);
    element.child(std::move(child.attribute("count", entry.count)));
  }
}

Result<IdMapLines> parse_lines(const Node& parent, std::string_view name) {
  IdMapLines lines;
  for (const Node node : parent.children(name)) {
    const auto start = TRY(node.number<std::uint32_t>("start"));
    const auto target = TRY(node.number<std::uint32_t>("target"));
    const auto count = TRY(node.number<std::uint32_t>("count"));
    if (!start || !target || !count) return node.error("<" + std::string(name) + "> needs start, target and count");
    lines.push_back({*start, *target, *count});
  }
  return lines;
}

}  // namespace

Result<IdMapDef> parse_idmap(const Node& node) {
  for (const Node child : node.children())
    if (!child.is("uid") && !child.is("gid"))
      return child.error("unknown element <" + std::string(child.name()) + "> in <idmap>: known are <uid> and <gid>");
  IdMapDef map;
  map.uid = TRY(parse_entries(node, "uid"));
  map.gid = TRY(parse_entries(node, "gid"));
  return map;
}

Element make_idmap(const IdMapDef& map) {
  Element element("idmap");
  add_entries(element, "uid", map.uid);
  add_entries(element, "gid", map.gid);
  return element;
}

Result<IdMaps> parse_idmap_lines(const Node& node) {
  IdMaps maps;
  maps.uid = TRY(parse_lines(node, "uid"));
  maps.gid = TRY(parse_lines(node, "gid"));
  return maps;
}

Element make_idmap_lines(const std::string& name, const IdMaps& maps) {
  Element element(name);
  for (const auto& [kind, lines] : {std::pair{"uid", &maps.uid}, std::pair{"gid", &maps.gid}})
    for (const auto& line : *lines)
      element.child(std::move(Element(kind)
                                  .attribute("start", line.inside)
                                  .attribute("target", line.outside)
                                  .attribute("count", line.count)));
  return element;
}

}  // namespace virtuserns::xml
