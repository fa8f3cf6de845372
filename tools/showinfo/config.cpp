#include "tools/showinfo/config.h"

#include "conf/base/text.h"
#include "conf/idpool.h"
#include "tools/showinfo/json.h"
#include "xml/domain.h"

namespace virtuserns::showinfo {

namespace {

void add_lines(std::string& text, const char* letter, const std::vector<IdMapEntry>& entries) {
  for (const auto& entry : entries)
    text += std::string("lxc.id_map = ") + letter + " " + std::to_string(entry.start) + " " +
            std::to_string(entry.target.value_or(0)) + " " + std::to_string(entry.count) + "\n";
}

JsonList list_of(const std::vector<IdMapEntry>& entries) {
  JsonList list;
  for (const auto& entry : entries)
    list.add(
        JsonObject().set("start", entry.start).set("target", entry.target.value_or(0)).set("count", entry.count));
  return list;
}

}  // namespace

Result<DomainMap> read_domain_map(std::string_view xml) {
  auto def = TRY(xml::parse_domain(xml, xml::kParseLive));
  if (!is_fully_explicit(def.idmap))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                "domain " + quote(def.name) +
                    " says no host ids: they are chosen when it starts; take the definition of "
                    "the running domain, or give each line of its <idmap> a target");
  return DomainMap{std::move(def.name), std::move(def.idmap)};
}

std::string format_config(const std::vector<DomainMap>& maps) {
  std::string text;
  for (const auto& map : maps) {
    text += "# " + printable(map.name) + "\n";
    add_lines(text, "u", map.map.uid);
    add_lines(text, "g", map.map.gid);
  }
  return text;
}

std::string format_config_json(const std::vector<DomainMap>& maps) {
  JsonList list;
  for (const auto& map : maps)
    list.add(JsonObject().set("domain", map.name).set("uid", list_of(map.map.uid)).set("gid", list_of(map.map.gid)));
  return Json(JsonObject().set("schema", 1).set("domains", list)).format() + "\n";
}

}  // namespace virtuserns::showinfo
