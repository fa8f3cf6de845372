// Which domains are in which group, and what the group has.
#include <algorithm>
#include <map>
#include <set>

#include "conf/base/text.h"
#include "conf/validate.h"
#include "driver/userns/broker.h"
#include "xml/nova.h"

namespace virtuserns::userns {

namespace {

bool is_of_size(const IdMaps& maps, std::uint32_t count) {
  return maps.uid == maps.gid && maps.uid.size() == 1 && maps.uid.front().count == count;
}

IdMaps explicit_maps(const IdMapDef& map) {
  const auto lines = [](const std::vector<IdMapEntry>& entries) {
    IdMapLines all;
    for (const auto& entry : entries) all.push_back({entry.start, entry.target.value_or(0), entry.count});
    return all;
  };
  return {lines(map.uid), lines(map.gid)};
}

}  // namespace

// An owner of a domain may write what Nova writes: that is nobody's word for a project.
std::string RangeBroker::group_of(const DomainDef& def) const {
  if (!def.userns.id_group.empty()) return def.userns.id_group;
  if (config_.ids_per != "project" || def.userns.owner || paths_.is_session) return {};
  // Validation has no word in this: lines without a target are chosen for the domain alone.
  if (!def.idmap.empty() && !is_fully_explicit(def.idmap)) return {};
  const std::string project = xml::nova_project(def);
  const std::string group = "nova-" + project;
  return !project.empty() && validate_id_group(group) ? group : "";
}

// "group 'shop' (domain 'web', ...)", of each that a domain is in.
std::map<std::string, std::string> RangeBroker::describe_groups_locked() const {
  std::map<std::string, std::vector<std::string>> members;
  for (const auto& [uuid, held] : held_)
    for (const auto& group : std::set{held.group, held.leased_group})
      if (!group.empty()) members[group].push_back(held.name);
  std::map<std::string, std::string> described;
  for (const auto& [group, names] : members)
    described[group] =
        "group " + quote(group) + " (domain " + quote(names.front()) + (names.size() > 1 ? ", ...)" : ")");
  return described;
}

std::optional<IdMaps> RangeBroker::range_of_group_locked(const std::string& group, const DomainDef& def) const {
  bool is_shared = false;
  std::optional<IdMaps> of_another;
  for (const auto& [uuid, held] : held_) {
    if (uuid == def.uuid || (held.group != group && held.leased_group != group)) continue;
    is_shared = true;
    if (of_another) continue;
    if (held.leased_group == group && !held.leased.uid.empty())
      of_another = held.leased;
    else if (is_fully_explicit(held.asked))
      of_another = explicit_maps(held.asked);
  }
  const auto leased = ledger_.groups().find(group);
  if (leased == ledger_.groups().end()) return of_another;
  // One that shares it with nobody may ask for another size.
  if (!is_shared && def.userns.id_count && !is_of_size(leased->second.maps, *def.userns.id_count))
    return std::nullopt;
  return leased->second.maps;
}

Result<void> RangeBroker::check_group_locked(const DomainDef& def, const std::string& group) const {
  if (group.empty()) return {};
  const std::string element = "<userns:ids group=" + quote(group) + ">";
  if (paths_.is_session)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                element + ": domains of userns:///session share no ids: leave 'group' out");
  if (!def.userns.id_count || !def.idmap.empty()) return {};
  const auto maps = range_of_group_locked(group, def);
  if (!maps || is_of_size(*maps, *def.userns.id_count)) return {};
  return fail(VIR_ERR_CONFIG_UNSUPPORTED, element + " with count='" + std::to_string(*def.userns.id_count) +
                                              "': " + describe_groups_locked()[group] + " has " +
                                              std::to_string(maps->uid.front().count) +
                                              " ids already: leave 'count' out, or undefine its other domains");
}

// Beside what its domains hold: of those that do not run.
void RangeBroker::append_groups_locked(IdClaims& claims) const {
  if (ledger_.groups().empty()) return;
  const auto described = describe_groups_locked();
  for (const auto& [group, lease] : ledger_.groups()) {
    const auto found = described.find(group);
    const std::string owner = found == described.end() ? "group " + quote(group) : found->second;
    for (const auto& range : host_ranges(lease.maps.uid)) claims.uid.push_back({range, owner, std::nullopt, group});
    for (const auto& range : host_ranges(lease.maps.gid)) claims.gid.push_back({range, owner, std::nullopt, group});
  }
}

void RangeBroker::drop_unused_groups_locked() {
  if (!is_collected_ || ledger_.groups().empty()) return;
  std::set<std::string> used, unused;
  for (const auto& [uuid, held] : held_) used.insert({held.group, held.leased_group});
  for (const auto& [group, lease] : ledger_.groups())
    if (!used.contains(group)) unused.insert(group);
  for (const auto& group : unused) ledger_.remove_group(group);
}

}  // namespace virtuserns::userns
