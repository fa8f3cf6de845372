#include "conf/idpool.h"

#include <algorithm>
#include <limits>

#include "conf/base/text.h"

namespace virtuserns {

namespace {

constexpr std::uint64_t kEndOfIds = std::uint64_t{1} << 32;
constexpr std::size_t kMaxOwnerBytes = 256;

std::string line_name(IdKind kind, const IdMapEntry& entry) {
  return std::string("idmap line <") + id_kind_name(kind) + " start='" + std::to_string(entry.start) + "' target='" +
         std::to_string(entry.target.value_or(0)) + "' count='" + std::to_string(entry.count) + "'/>";
}

bool is_granted(const IdRange& range, const std::vector<IdRange>& granted) {
  return std::any_of(granted.begin(), granted.end(), [&](const IdRange& own) { return own.contains(range); });
}

Result<void> check_target(IdKind kind, const IdMapEntry& entry, const std::vector<IdClaim>& claims,
                          const std::vector<IdRange>& granted, const TargetRules& rules, const IdHolder& holder) {
  if (!entry.target) return {};
  const IdRange range{*entry.target, entry.count};
  const std::string line = line_name(kind, entry);
  if (range.overlaps({0, 1}))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                line + " maps host " + id_kind_name(kind) + " 0: root of the host is never given to a domain");
  const bool delegated = is_granted(range, granted);
  const std::string file = kind == IdKind::kUid ? "/etc/subuid" : "/etc/subgid";
  // Domains and other people's delegations first: their names say more than a number does. But not to an owner, for whom there are
  // no domains of others: those that are in the way lie in the owner's own delegation.
  const bool is_for_owner = !rules.line_owner.empty();
  const IdClaim* claim = find_conflict(range, claims, holder);
  if (claim && (claim->is_of_domains() ? delegated || !is_for_owner : !delegated))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, line + " overlaps host ids " + std::to_string(claim->range.first) + "-" +
                                                std::to_string(claim->range.end() - 1) + " of " + claim->owner);
  if (rules.must_be_granted && !delegated)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                line + " is not delegated to " + rules.whom + " in " + file +
                    (rules.line_owner.empty() ? ""
                                              : "; a line '" + rules.line_owner + ":" + std::to_string(range.first) +
                                                    ":" + std::to_string(range.count) + "' there would do it"));
  if (range.first < kFirstSafeId && !delegated)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                line + " takes host ids below " + std::to_string(kFirstSafeId) +
                    ", which belong to the system; a line 'root:" + std::to_string(range.first) + ":" +
                    std::to_string(range.count) + "' in " + file + " would allow it");
  return {};
}

// The lines of `entries`, with targets from `pool` where there is none. `chosen` is what was taken for the same
// (start, count) by the other kind.
Result<IdMapLines> complete(const std::vector<IdMapEntry>& entries, const IdPool& pool, std::vector<IdRange>& taken,
                            std::vector<IdMapLine>& chosen) {
  IdMapLines lines;
  for (const auto& entry : entries) {
    IdMapLine line{entry.start, entry.target.value_or(0), entry.count};
    if (!entry.target) {
      const auto same = std::find_if(chosen.begin(), chosen.end(), [&](const IdMapLine& other) {
        return other.inside == entry.start && other.count == entry.count;
      });
      if (same != chosen.end()) {
        line.outside = same->outside;
      } else {
        const auto first = choose_range(pool, entry.count, taken);
        if (!first)
          return fail(VIR_ERR_OPERATION_FAILED, "no free range of " + std::to_string(entry.count) +
                                                    " host ids between " + std::to_string(pool.first) + " and " +
                                                    std::to_string(pool.last));
        line.outside = *first;
        taken.push_back({*first, entry.count});
        chosen.push_back(line);
      }
    }
    lines.push_back(line);
  }
  return lines;
}

}  // namespace

const char* id_kind_name(IdKind kind) { return kind == IdKind::kUid ? "uid" : "gid"; }

SubidFile parse_subid(std::string_view text) {
  SubidFile file;
  std::size_t number = 0;
  while (!text.empty() && file.lines.size() < kMaxSubidLines) {
    const auto stop = text.find('\n');
    const auto line = trim(text.substr(0, stop));
    text.remove_prefix(stop == std::string_view::npos ? text.size() : stop + 1);
    ++number;
    if (line.empty() || line.front() == '#') continue;
    const auto fields = split(line, ':');
    const auto first = fields.size() == 3 ? parse_number<std::uint64_t>(fields[1]) : std::nullopt;
    const auto count = fields.size() == 3 ? parse_number<std::uint64_t>(fields[2]) : std::nullopt;
    // 2^32 - 1 is "no id" (setresuid(2) leaves it alone), so a range ends before it or at it.
    const bool usable = first && count && !fields[0].empty() && fields[0].size() <= kMaxOwnerBytes && *count > 0 &&
                        *first < kEndOfIds && *count <= kEndOfIds - *first;
    if (!usable) {
      ++file.skipped;
      continue;
    }
    file.lines.push_back({number, std::string(fields[0]), {*first, *count}});
  }
  return file;
}

std::vector<AccountLine> parse_accounts(std::string_view text) {
  std::vector<AccountLine> accounts;
  std::size_t number = 0;
  while (!text.empty() && accounts.size() < 1'000'000) {
    const auto stop = text.find('\n');
    const auto line = text.substr(0, stop);
    text.remove_prefix(stop == std::string_view::npos ? text.size() : stop + 1);
    ++number;
    if (line.empty() || line.front() == '#' || line.front() == '+' || line.front() == '-') continue;
    const auto name_end = line.find(':');
    const auto secret_end = name_end == std::string_view::npos ? name_end : line.find(':', name_end + 1);
    if (secret_end == std::string_view::npos) continue;
    const auto id =
        parse_number<std::uint32_t>(line.substr(secret_end + 1, line.find(':', secret_end + 1) - secret_end - 1));
    if (id) accounts.push_back({number, std::string(line.substr(0, name_end)), *id});
  }
  return accounts;
}

void append_claims(std::vector<IdClaim>& claims, const HostIdFiles& files, const std::vector<std::string>& owners) {
  for (const auto& line : files.subid.lines) {
    if (std::find(owners.begin(), owners.end(), line.owner) != owners.end()) continue;
    claims.push_back(
        {line.range,
         "user " + quote(line.owner) + " (line " + std::to_string(line.number) + " of " + files.subid_path + ")",
         std::nullopt});
  }
  for (const auto& account : files.accounts)
    claims.push_back({{account.id, 1},
                      "account " + quote(account.name) + " (line " + std::to_string(account.number) + " of " +
                          files.account_path + ")",
                      std::nullopt});
}

std::vector<IdRange> delegated_ranges(const SubidFile& file, const std::vector<std::string>& owners) {
  std::vector<IdRange> ranges;
  for (const auto& line : file.lines)
    if (std::find(owners.begin(), owners.end(), line.owner) != owners.end()) ranges.push_back(line.range);
  return ranges;
}

std::optional<std::uint32_t> choose_range(const IdPool& pool, std::uint32_t count, std::vector<IdRange> taken) {
  if (count == 0 || pool.size == 0) return std::nullopt;
  std::sort(taken.begin(), taken.end());
  // 2^32 - 1 is no id.
  const std::uint64_t end = std::min<std::uint64_t>(std::uint64_t{pool.last} + 1, kEndOfIds - 1);
  const std::uint64_t first = std::max<std::uint64_t>(pool.first, kFirstSafeId);
  const auto align = [&](std::uint64_t id) { return first + (id - first + pool.size - 1) / pool.size * pool.size; };
  std::uint64_t candidate = first;
  for (const auto& range : taken) {
    if (range.count == 0 || range.end() <= candidate) continue;
    if (range.first >= candidate + count) break;  // sorted: nothing later begins before
    candidate = align(range.end());
  }
  if (candidate + count > end) return std::nullopt;
  return static_cast<std::uint32_t>(candidate);
}

const IdClaim* find_conflict(const IdRange& range, const std::vector<IdClaim>& claims, const IdHolder& holder) {
  const IdClaim* found = nullptr;
  for (const auto& claim : claims) {
    if (claim.domain == holder.domain || !claim.range.overlaps(range)) continue;
    if (!claim.group.empty() && claim.group == holder.group) continue;
    if (claim.is_of_domains()) return &claim;
    if (!found) found = &claim;
  }
  return found;
}

std::vector<IdRange> explicit_ranges(const std::vector<IdMapEntry>& entries) {
  std::vector<IdRange> ranges;
  for (const auto& entry : entries)
    if (entry.target) ranges.push_back({*entry.target, entry.count});
  return ranges;
}

Result<void> check_targets(const IdMapDef& map, const IdClaims& claims, const TargetRules& rules,
                           const IdHolder& holder) {
  for (const auto& entry : map.uid)
    TRY(check_target(IdKind::kUid, entry, claims.uid, rules.granted_uid, rules, holder));
  for (const auto& entry : map.gid)
    TRY(check_target(IdKind::kGid, entry, claims.gid, rules.granted_gid, rules, holder));
  return {};
}

Result<IdMaps> choose_maps(const DomainDef& def, const IdPool& pool, const IdClaims& claims) {
  std::vector<IdRange> taken;
  taken.reserve(claims.uid.size() + claims.gid.size());
  // One range serves as uids and as gids: it must be free as both.
  for (const auto* list : {&claims.uid, &claims.gid})
    for (const auto& claim : *list)
      if (claim.domain != def.uuid || !claim.group.empty()) taken.push_back(claim.range);
  for (const auto& range : explicit_ranges(def.idmap.uid)) taken.push_back(range);
  for (const auto& range : explicit_ranges(def.idmap.gid)) taken.push_back(range);

  IdMapDef map = def.idmap;
  const IdMapEntry whole{0, std::nullopt, def.userns.id_count.value_or(pool.size)};
  if (map.uid.empty()) map.uid = {whole};
  if (map.gid.empty()) map.gid = {whole};
  std::vector<IdMapLine> chosen;
  IdMaps maps;
  maps.uid = TRY(complete(map.uid, pool, taken, chosen));
  maps.gid = TRY(complete(map.gid, pool, taken, chosen));
  return maps;
}

bool is_fully_explicit(const IdMapDef& map) {
  const auto given = [](const IdMapEntry& entry) { return entry.target.has_value(); };
  return !map.uid.empty() && !map.gid.empty() && std::all_of(map.uid.begin(), map.uid.end(), given) &&
         std::all_of(map.gid.begin(), map.gid.end(), given);
}

}  // namespace virtuserns
