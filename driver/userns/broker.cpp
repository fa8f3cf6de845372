#include "driver/userns/broker.h"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/userns/accounts.h"
#include "driver/userns/observe.h"

namespace virtuserns::userns {

namespace {

constexpr std::size_t kMaxMapBytes = 64 * 1024;

HostIdFiles read_id_files(const std::string& subid, const std::string& accounts) {
  HostIdFiles files{subid, accounts, {}, {}};
  // A missing or unreadable file delegates nothing and names nobody.
  if (const auto text = read_file(subid)) files.subid = parse_subid(*text);
  if (const auto text = read_file(accounts)) files.accounts = parse_accounts(*text);
  return files;
}

std::vector<std::string> own_names(bool is_session) {
  if (!is_session) return {"root", "0"};
  std::vector<std::string> names = {std::to_string(::geteuid())};
  passwd entry{}, *found = nullptr;
  char buffer[4096];
  if (::getpwuid_r(::geteuid(), &entry, buffer, sizeof buffer, &found) == 0 && found)
    names.emplace_back(found->pw_name);
  return names;
}

// Of the root of a container: what it has and no account in there.
std::vector<IdRange> own_ids(const std::string& file) {
  std::vector<IdRange> ranges;
  const auto text = read_kernel_file(file, kMaxMapBytes);
  const auto lines = text ? parse_kernel_map(*text) : Result<IdMapLines>(IdMapLines());
  if (!lines) return ranges;
  for (const auto& line : *lines) {
    const IdRange all{line.inside, line.count};
    const auto first = std::max<std::uint64_t>(all.first, kFirstSafeId);
    if (first < all.end()) ranges.push_back({first, all.end() - first});
  }
  return ranges;
}

bool is_in(const IdRange& range, const std::vector<IdRange>& granted) {
  return std::any_of(granted.begin(), granted.end(), [&](const IdRange& whole) { return whole.contains(range); });
}

void append_map(std::vector<IdClaim>& claims, const std::string& text, const std::string& owner) {
  const auto lines = parse_kernel_map(text);
  if (!lines) return;
  for (const auto& line : *lines) {
    // The initial namespace, and those that map all of it: they own nothing in particular.
    if (line.count > 0x7fffffff) continue;
    claims.push_back({{line.outside, line.count}, owner, std::nullopt});
  }
}

// Kept between starts. Somebody may have been given a part of it meanwhile.
Result<void> check_kept(const DomainDef& def, const IdMaps& maps, const IdClaims& claims, const IdHolder& holder) {
  for (const auto& [lines, all, kind] :
       {std::tuple(&maps.uid, &claims.uid, IdKind::kUid), std::tuple(&maps.gid, &claims.gid, IdKind::kGid)})
    for (const auto& range : host_ranges(*lines))
      if (const auto* owner = find_conflict(range, *all, holder))
        return fail(VIR_ERR_OPERATION_FAILED, std::string("the host ") + id_kind_name(kind) + "s " +
                                                  std::to_string(range.first) + "-" +
                                                  std::to_string(range.end() - 1) + " of domain " + quote(def.name) +
                                                  " overlap " + std::to_string(owner->range.first) + "-" +
                                                  std::to_string(owner->range.end() - 1) + " of " + owner->owner);
  return {};
}

}  // namespace

IdClaims read_foreign_maps(const std::string& proc) {
  IdClaims claims;
  const auto names = list_directory(proc);
  if (!names) return claims;
  std::set<std::string> seen;
  for (const auto& name : *names) {
    if (!parse_number<std::uint32_t>(name)) continue;
    const auto uid = read_kernel_file(proc + "/" + name + "/uid_map", kMaxMapBytes);
    const auto gid = read_kernel_file(proc + "/" + name + "/gid_map", kMaxMapBytes);
    // It has ended, or it shares its map with somebody seen before.
    if (!uid || !gid || !seen.insert(*uid + "/" + *gid).second) continue;
    append_map(claims.uid, *uid, "process " + name);
    append_map(claims.gid, *gid, "process " + name);
  }
  return claims;
}

Result<std::vector<std::string>> RangeBroker::open(const std::vector<Uuid>& live, bool is_inside) {
  is_inside_ = is_inside;
  auto opened = TRY(Ledger::open(paths_.state + "/leases", live));
  const std::lock_guard lock(mutex_);
  ledger_ = std::move(opened.ledger);
  for (const auto& [uuid, lease] : ledger_.all()) held_[uuid] = {lease.name, {}, {}, lease.maps, {}};
  return std::move(opened.problems);
}

IdClaims RangeBroker::claims_locked() const {
  IdClaims claims;
  for (const auto& [uuid, held] : held_) {
    const auto append = [&, &domain = uuid, &name = held.name](
                            std::vector<IdClaim>& to, const std::vector<IdRange>& ranges, const std::string& group) {
      const std::string owner = "domain " + quote(name) + (group.empty() ? "" : " of group " + quote(group));
      for (const auto& range : ranges) to.push_back({range, owner, domain, group});
    };
    append(claims.uid, host_ranges(held.leased.uid), held.leased_group);
    append(claims.gid, host_ranges(held.leased.gid), held.leased_group);
    append(claims.uid, explicit_ranges(held.asked.uid), held.group);
    append(claims.gid, explicit_ranges(held.asked.gid), held.group);
    // Of its own before it named another, or came into a group: it is on disk, and the domain's until that is gone.
    const auto own = ledger_.all().find(uuid);
    if (own == ledger_.all().end() || own->second.maps == held.leased) continue;
    append(claims.uid, host_ranges(own->second.maps.uid), "");
    append(claims.gid, host_ranges(own->second.maps.gid), "");
  }
  append_groups_locked(claims);
  return claims;
}

Result<IdClaims> RangeBroker::all_claims_locked(const DomainDef& def, TargetRules& rules) const {
  IdClaims claims = claims_locked();
  const auto uids = read_id_files(paths_.subuid, paths_.passwd), gids = read_id_files(paths_.subgid, paths_.group);
  auto owners = own_names(paths_.is_session);
  if (def.userns.owner && paths_.is_session)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                "<userns:owner>: the domains of userns:///session are their user's: leave it out");
  std::optional<Account> account;
  if (def.userns.owner) account = TRY(find_account(*def.userns.owner));
  if (account) owners = {account->name, std::to_string(account->uid)};
  append_claims(claims.uid, uids, owners);
  append_claims(claims.gid, gids, owners);
  rules = {delegated_ranges(uids.subid, owners), delegated_ranges(gids.subid, owners), paths_.is_session, "you", ""};
  if (!paths_.is_session && is_inside_) {
    const auto own_uids = own_ids(paths_.proc + "/self/uid_map"), own_gids = own_ids(paths_.proc + "/self/gid_map");
    if (!account) rules = {own_uids, own_gids, true, "you", ""};
    std::erase_if(rules.granted_uid, [&](const IdRange& range) { return !is_in(range, own_uids); });
    std::erase_if(rules.granted_gid, [&](const IdRange& range) { return !is_in(range, own_gids); });
  }
  if (account) {
    rules.must_be_granted = true;
    rules.whom = describe_owner(*def.userns.owner);
    rules.line_owner = account->name;
  }
  return claims;
}

void RangeBroker::record_locked(const DomainDef& def) {
  auto& held = held_[def.uuid];
  held.name = def.name;
  held.asked = def.idmap;
  held.group = group_of(def);
}

void RangeBroker::run_locked(const DomainDef& def, const IdMaps& maps, const std::string& leased_group) {
  auto& held = held_[def.uuid];
  held.name = def.name;
  held.leased = maps;
  held.leased_group = leased_group;
}

Result<void> RangeBroker::claim(const DomainDef& def) {
  const std::lock_guard lock(mutex_);
  const std::string group = group_of(def);
  if (def.userns.owner || !explicit_ranges(def.idmap.uid).empty() || !explicit_ranges(def.idmap.gid).empty()) {
    TargetRules rules;
    const auto claims = TRY(all_claims_locked(def, rules));
    TRY(check_targets(def.idmap, claims, rules, {def.uuid, group}));
  }
  TRY(check_group_locked(def, group));
  record_locked(def);
  return {};
}

void RangeBroker::restore(const DomainDef& def) {
  const std::lock_guard lock(mutex_);
  record_locked(def);
  drop_unused_groups_locked();
}

// A user cannot mount a tree with other owners than it has: so the range that its root directory already belongs to, when that
// is free, comes before any other. What live processes have does not count: it is the user's own range, and the user's tree.
std::optional<IdMaps> RangeBroker::range_of_root(const DomainDef& def, const IdClaims& claims,
                                                 const TargetRules& rules) const {
  if (!def.idmap.uid.empty() || !def.idmap.gid.empty()) return std::nullopt;
  const auto st = stat_root_tree(def);
  if (!st) return std::nullopt;
  const std::uint32_t count = def.userns.id_count.value_or(config_.id_range_size);
  const IdRange range{st->st_uid, count};
  if (st->st_uid != st->st_gid || !is_in(range, rules.granted_uid) || !is_in(range, rules.granted_gid))
    return std::nullopt;
  if (find_conflict(range, claims.uid, def.uuid) || find_conflict(range, claims.gid, def.uuid)) return std::nullopt;
  const IdMapLines lines = {{0, st->st_uid, count}};
  return IdMaps{lines, lines};
}

// In a session the pool is what /etc/subuid and /etc/subgid both delegate.
Result<IdMaps> RangeBroker::choose_locked(const DomainDef& def, const IdClaims& claims,
                                          const TargetRules& rules) const {
  if (!rules.must_be_granted)
    return choose_maps(def, {config_.id_range_first, config_.id_range_last, config_.id_range_size}, claims);
  Error last =
      fail(VIR_ERR_OPERATION_FAILED, paths_.is_session || def.userns.owner
                                         ? "/etc/subuid and /etc/subgid delegate no common range to " + rules.whom
                                         : "this container has no ids of its own to give away");
  if (def.userns.owner) last.text += "; a line '" + rules.line_owner + ":FIRST:COUNT' in both would do it";
  for (const auto& range : rules.granted_uid) {
    const bool is_group_too = std::any_of(rules.granted_gid.begin(), rules.granted_gid.end(),
                                          [&](const IdRange& gids) { return gids.contains(range); });
    if (!is_group_too) continue;
    const auto first = static_cast<std::uint32_t>(range.first), end = static_cast<std::uint32_t>(range.end() - 1);
    auto maps = choose_maps(def, {first, end, config_.id_range_size}, claims);
    if (maps) return maps;
    last = maps.error();
  }
  return last;
}

Result<IdMaps> RangeBroker::lease(const DomainDef& def) {
  const std::lock_guard lock(mutex_);
  IdMaps maps = TRY(lease_locked(def));
  if (!def.userns.owner) return maps;
  // Read again, because it is live: what the owner has lost since the range was chosen, and what runs in it by now.
  TargetRules rules;
  (void)TRY(all_claims_locked(def, rules));
  const auto foreign = read_foreign_maps(paths_.proc);
  const auto check = [&](const IdMapLines& lines, const std::vector<IdRange>& granted, const char* file,
                         const std::vector<IdClaim>& live) -> Result<void> {
    for (const auto& range : host_ranges(lines)) {
      const std::string ids = "the host ids " + std::to_string(range.first) + "-" + std::to_string(range.end() - 1) +
                              " of domain " + quote(def.name);
      if (!is_in(range, granted))
        return fail(VIR_ERR_OPERATION_FAILED, ids + " are not delegated to " + rules.whom + " any more: a line '" +
                                                  rules.line_owner + ":" + std::to_string(range.first) + ":" +
                                                  std::to_string(range.count) + "' in " + file + " would do it");
      if (const auto* claim = find_conflict(range, live, def.uuid))
        return fail(VIR_ERR_OPERATION_FAILED,
                    ids + " are in use by " + claim->owner +
                        ", of a session of the owner for instance: end it, or choose others");
    }
    return {};
  };
  TRY(check(maps.uid, rules.granted_uid, "/etc/subuid", foreign.uid));
  TRY(check(maps.gid, rules.granted_gid, "/etc/subgid", foreign.gid));
  return maps;
}

// What the domain has had before, as long as its definition still asks for it.
std::optional<IdMaps> RangeBroker::kept_locked(const DomainDef& def, const TargetRules& rules) const {
  const auto known = ledger_.all().find(def.uuid);
  if (known == ledger_.all().end()) return std::nullopt;
  // Of the ids of accounts we choose none; whoever changed the file does not either.
  const auto is_choice = [&](const IdMapLine& line) {
    if (def.userns.owner && !is_in({line.outside, line.count}, rules.granted_uid)) return false;
    return paths_.is_session || line.outside >= kFirstSafeId;
  };
  const std::uint32_t whole = def.userns.id_count.value_or(config_.id_range_size);
  const auto fits = [&](const IdMapLines& held, const std::vector<IdMapEntry>& asked) {
    if (asked.empty()) return held.size() == 1 && held[0].inside == 0 && held[0].count == whole && is_choice(held[0]);
    return held.size() == asked.size() &&
           std::equal(held.begin(), held.end(), asked.begin(), [&](const IdMapLine& a, const IdMapEntry& b) {
             return a.inside == b.start && a.count == b.count && (b.target ? *b.target == a.outside : is_choice(a));
           });
  };
  const auto& maps = known->second.maps;
  if (!fits(maps.uid, def.idmap.uid) || !fits(maps.gid, def.idmap.gid)) return std::nullopt;
  return maps;
}

Result<IdMaps> RangeBroker::lease_locked(const DomainDef& def) {
  TargetRules rules;
  auto claims = TRY(all_claims_locked(def, rules));
  const std::string group = group_of(def);
  const IdHolder holder(def.uuid, group);
  TRY(check_targets(def.idmap, claims, rules, holder));
  TRY(check_group_locked(def, group));
  if (is_fully_explicit(def.idmap)) {
    IdMaps maps = TRY(choose_maps(def, {}, claims));
    run_locked(def, maps, group);
    return maps;
  }
  auto preferred = rules.must_be_granted ? range_of_root(def, claims, rules) : std::nullopt;
  std::optional<IdMaps> kept;
  if (!group.empty())
    kept = range_of_group_locked(group, def);
  else if (!def.userns.owner || !preferred)  // an owner's tree counts more: the delegation was another perhaps
    kept = kept_locked(def, rules);
  if (kept) {
    TRY(check_kept(def, *kept, claims, holder));
  } else {
    // What it had alone stays its own: it is no group's.
    if (!group.empty())
      for (auto* list : {&claims.uid, &claims.gid})
        for (auto& claim : *list)
          if (claim.domain == def.uuid) claim.domain.reset();
    const auto foreign = preferred ? IdClaims() : read_foreign_maps(paths_.proc);
    claims.uid.insert(claims.uid.end(), foreign.uid.begin(), foreign.uid.end());
    claims.gid.insert(claims.gid.end(), foreign.gid.begin(), foreign.gid.end());
  }
  IdMaps maps = kept ? std::move(*kept) : preferred ? std::move(*preferred) : TRY(choose_locked(def, claims, rules));
  TRY(write_locked(def, group, maps));
  record_locked(def);
  run_locked(def, maps, group);
  return maps;
}

// Nothing is written that stands there already.
Result<void> RangeBroker::write_locked(const DomainDef& def, const std::string& group, const IdMaps& maps) {
  if (!group.empty()) {
    const auto known = ledger_.groups().find(group);
    if (known != ledger_.groups().end() && known->second.maps == maps) return {};
    return ledger_.write_group(group, maps);
  }
  const auto known = ledger_.all().find(def.uuid);
  if (known != ledger_.all().end() && known->second.maps == maps) return {};
  return ledger_.write(def.uuid, {def.name, maps});
}

void RangeBroker::adopt(const DomainDef& def, const IdMaps& maps) {
  const std::lock_guard lock(mutex_);
  // With whom it shares them was decided when it began, and what it says of itself may have changed since.
  const auto own = ledger_.all().find(def.uuid);
  const bool is_own = own != ledger_.all().end() && own->second.maps == maps;
  const auto shared = std::find_if(ledger_.groups().begin(), ledger_.groups().end(),
                                   [&](const auto& group) { return group.second.maps == maps; });
  run_locked(def, maps, is_own ? "" : shared != ledger_.groups().end() ? shared->first : group_of(def));
}

void RangeBroker::ended(const Uuid& domain) {
  const std::lock_guard lock(mutex_);
  const auto held = held_.find(domain);
  if (held == held_.end()) return;
  const auto lease = ledger_.all().find(domain);
  held->second.leased = lease == ledger_.all().end() ? IdMaps{} : lease->second.maps;
  held->second.leased_group.clear();
  drop_unused_groups_locked();
}

void RangeBroker::release(const Uuid& domain) {
  const std::lock_guard lock(mutex_);
  held_.erase(domain);
  ledger_.remove(domain);
  drop_unused_groups_locked();
}

void RangeBroker::collect(const std::vector<Uuid>& known) {
  const std::lock_guard lock(mutex_);
  std::vector<Uuid> strays;
  for (const auto& [uuid, held] : held_)
    if (std::find(known.begin(), known.end(), uuid) == known.end()) strays.push_back(uuid);
  for (const auto& uuid : strays) {
    held_.erase(uuid);
    ledger_.remove(uuid);
  }
  is_collected_ = true;
  drop_unused_groups_locked();
}

}  // namespace virtuserns::userns
