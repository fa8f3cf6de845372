#include "tools/showinfo/map.h"

#include "conf/base/text.h"
#include "tools/showinfo/json.h"
#include "tools/showinfo/owners.h"
#include "tools/showinfo/table.h"

namespace virtuserns::showinfo {

namespace {

// Host ids of `ns`, in the caller's terms: the kernel has composed the maps of the levels between already.
std::optional<IdMapLines> lines_of(const Host& host, NamespaceId id, IdKind kind) {
  const auto found = host.namespaces.find(id);
  if (found == host.namespaces.end() || !found->second.maps) return std::nullopt;
  const auto maps = id == host.own ? seen_from_inside(*found->second.maps) : *found->second.maps;
  return kind == IdKind::kUid ? maps.uid : maps.gid;
}

}  // namespace

Result<MapAnswer> translate(const Host& host, const Process& process, IdKind kind, From from, std::uint32_t id,
                            const IdClaims& claims) {
  const auto chain = process.user_ns ? host.chain(*process.user_ns) : std::vector<NamespaceId>();
  if (chain.empty())
    return fail(VIR_ERR_OPERATION_DENIED, "the user namespace of process " + std::to_string(process.pid) +
                                              " is not visible to this user; run this as root");
  MapAnswer answer;
  answer.kind = kind;
  std::optional<std::uint32_t> host_id = id;
  if (from == From::kContainer) {
    const auto lines = lines_of(host, chain.front(), kind);
    host_id = lines ? to_host(*lines, id) : std::nullopt;
  }
  for (const auto level : chain) {
    const auto lines = lines_of(host, level, kind);
    const auto* domain = host.domain_of(level);
    MapLevel row{level, domain ? domain->name : "", std::nullopt, lines.has_value()};
    if (lines && host_id) row.here = to_inside(*lines, *host_id);
    answer.levels.push_back(std::move(row));
  }
  if (from == From::kContainer) answer.levels.front().here = id;
  if (from == From::kHost) answer.levels.back().here = id;
  answer.is_mapped = answer.levels.front().here && answer.levels.back().here;
  if (host_id) answer.owners = owners_of(kind == IdKind::kUid ? claims.uid : claims.gid, *host_id);
  return answer;
}

std::string format_map(const std::vector<MapAnswer>& answers) {
  std::vector<std::vector<std::string>> cells;
  for (const auto& answer : answers)
    for (std::size_t i = 0; i < answer.levels.size(); ++i) {
      const auto& level = answer.levels[i];
      const bool is_last = i + 1 == answer.levels.size();
      std::string who = level.domain.empty() ? "" : "domain " + quote(level.domain);
      if (is_last) who = answer.owners.empty() ? "nobody's" : join(answer.owners, ", ");
      cells.push_back({id_kind_name(answer.kind),
                       level.here       ? std::to_string(*level.here)
                       : level.is_known ? "not mapped"
                                        : "not visible",
                       std::to_string(level.id), is_last ? "here" : std::to_string(answer.levels.size() - 1 - i),
                       who});
    }
  return format_table({{"kind"}, {"id", Align::kRight}, {"usersns"}, {"level"}, {"owner"}}, cells);
}

std::string format_map_json(const std::vector<MapAnswer>& answers) {
  JsonList list;
  for (const auto& answer : answers) {
    JsonList levels, owners;
    for (const auto& level : answer.levels)
      levels.add(JsonObject()
                     .set("usersns", level.id)
                     .set("id", level.here ? Json(*level.here) : Json())
                     .set("visible", level.is_known)
                     .set("domain", level.domain.empty() ? Json() : Json(level.domain)));
    for (const auto& owner : answer.owners) owners.add(owner);
    list.add(JsonObject()
                 .set("kind", id_kind_name(answer.kind))
                 .set("mapped", answer.is_mapped)
                 .set("levels", levels)
                 .set("owners", owners));
  }
  return Json(JsonObject().set("schema", 1).set("ids", list)).format() + "\n";
}

}  // namespace virtuserns::showinfo
