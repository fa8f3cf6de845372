// Who holds which host ids, and the choice of a range that nobody holds. Pure: the files are parsed here, read elsewhere.
//
// A claim is a range of host ids with an owner that a person can find: a domain, a line of /etc/subuid, an account, a
// live process. Automatic ranges come out of the configured pool and overlap no claim; ranges that a definition
// asks for are refused with the name of the owner they collide with.
//
// Host id 0 is nobody's to give. Other ids below 65536 and the ids of accounts can be given to system domains by the
// administrator, in the words lxc users know: a line 'root:1000:1' in /etc/subuid (and /etc/subgid).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"
#include "conf/idmap.h"
#include "conf/uuid.h"

namespace virtuserns {

inline constexpr std::uint32_t kFirstSafeId = 65'536;  // below it: accounts of the system and 16-bit remainders

enum class IdKind { kUid, kGid };
[[nodiscard]] const char* id_kind_name(IdKind kind);  // "uid", "gid"

struct IdClaim {
  IdRange range;
  std::string owner;           // "domain 'web'", "user 'anna' (line 3 of /etc/subuid)"
  std::optional<Uuid> domain;  // of a domain: its own claims never stand in its way
  std::string group =
      {};  // of a group of domains (<userns:ids group=''>): nor do those in the way of its other domains
  [[nodiscard]] bool is_of_domains() const { return domain || !group.empty(); }
  bool operator==(const IdClaim&) const = default;
};

// For whom a range is looked at: a domain, and the group that it shares ids with (empty: none).
struct IdHolder {
  Uuid domain;
  std::string group;
  IdHolder(const Uuid& uuid, std::string its_group = {}) : domain(uuid), group(std::move(its_group)) {}
};

struct IdClaims {
  std::vector<IdClaim> uid, gid;
};

// ---- the files of the host ------------------------------------------------------------------------------------

struct SubidLine {
  std::size_t number = 0;  // 1-based
  std::string owner;       // login name or decimal uid, as written
  IdRange range;
  bool operator==(const SubidLine&) const = default;
};

inline constexpr std::size_t kMaxSubidLines = 65'536;

// /etc/subuid and /etc/subgid: "owner:first:count". Blank lines, '#' comments and lines that say nothing usable
// (no owner, count 0, beyond 2^32) are skipped, as shadow's tools do; `skipped` counts the latter.
struct SubidFile {
  std::vector<SubidLine> lines;
  std::size_t skipped = 0;
};
[[nodiscard]] SubidFile parse_subid(std::string_view text);

struct AccountLine {
  std::size_t number = 0;
  std::string name;
  std::uint32_t id = 0;
};
// /etc/passwd and /etc/group: the third field of "name:x:id:...". Others (nis '+' lines, comments) are skipped.
[[nodiscard]] std::vector<AccountLine> parse_accounts(std::string_view text);

// What the files of one kind of id amount to.
struct HostIdFiles {
  std::string subid_path = "/etc/subuid", account_path = "/etc/passwd";
  SubidFile subid;
  std::vector<AccountLine> accounts;
};
// Claims of everyone but `owners` (login names and decimal uids: of root in system mode, of the user in a session).
void append_claims(std::vector<IdClaim>& claims, const HostIdFiles& files, const std::vector<std::string>& owners);
// What the lines of `owners` delegate, in the order of the file.
[[nodiscard]] std::vector<IdRange> delegated_ranges(const SubidFile& file, const std::vector<std::string>& owners);

// ---- choosing -------------------------------------------------------------------------------------------------

struct IdPool {
  std::uint32_t first = 0, last = 0;  // inclusive
  std::uint32_t size = 65'536;        // of an automatic range
};

// The lowest range of `count` ids in [first, last], aligned to first + k * size so that ranges of the usual size
// never fragment the pool, that overlaps no claim.
[[nodiscard]] std::optional<std::uint32_t> choose_range(const IdPool& pool, std::uint32_t count,
                                                        std::vector<IdRange> taken);

// A claim of somebody else than `holder` that overlaps `range`.
[[nodiscard]] const IdClaim* find_conflict(const IdRange& range, const std::vector<IdClaim>& claims,
                                           const IdHolder& holder);

// Lines whose target is given, as claims of the domain.
[[nodiscard]] std::vector<IdRange> explicit_ranges(const std::vector<IdMapEntry>& entries);

// Every given target against the claims and the delegation to us (`granted`, which excuses accounts and ids below
// 65536, never host 0). VIR_ERR_CONFIG_UNSUPPORTED names the line of the map and the owner it collides with.
struct TargetRules {
  std::vector<IdRange> granted_uid, granted_gid;
  bool must_be_granted = false;
  std::string whom = "you";  // of whose delegation errors speak
  std::string line_owner;    // and whose line would help; empty: none is proposed
};
[[nodiscard]] Result<void> check_targets(const IdMapDef& map, const IdClaims& claims, const TargetRules& rules,
                                         const IdHolder& holder);

// The maps of a domain: given lines as they are, lines without a target (or the whole map, when there is none) out of
// the pool. Uids and gids of one line get the same host range. What the domain has as one of a group is not its own to take.
// VIR_ERR_OPERATION_FAILED when the pool is used up.
[[nodiscard]] Result<IdMaps> choose_maps(const DomainDef& def, const IdPool& pool, const IdClaims& claims);

// True when nothing is left to choose.
[[nodiscard]] bool is_fully_explicit(const IdMapDef& map);

}  // namespace virtuserns
