#include "conf/leases.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/idpool.h"
#include "conf/validate.h"

namespace virtuserns {

namespace {

constexpr std::string_view kHeader = "virtuserns-lease 1\n";
constexpr std::string_view kGroupPrefix = "group-";
constexpr std::size_t kMaxLeaseBytes = 64 * 1024;

// FNV-1a: against accidents (torn writes, flipped bits), not against people; the file is root's.
std::string checksum(std::string_view text) {
  std::uint64_t sum = 14'695'981'039'346'656'037ULL;
  for (const char c : text) sum = (sum ^ static_cast<std::uint8_t>(c)) * 1'099'511'628'211ULL;
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex(16, '0');
  for (std::size_t i = 16; i-- > 0; sum >>= 4) hex[i] = kDigits[sum & 15];
  return hex;
}

void append_lines(std::string& text, const char* kind, const IdMapLines& lines) {
  for (const auto& line : lines)
    text += std::string(kind) + " " + std::to_string(line.inside) + " " + std::to_string(line.outside) + " " +
            std::to_string(line.count) + "\n";
}

Result<void> check_lines(const char* kind, const IdMapLines& lines) {
  if (const auto why = refuse_kernel_map(lines))
    return fail(VIR_ERR_INTERNAL_ERROR, std::string(kind) + " map: " + *why);
  for (const auto& line : lines)
    if (line.outside == 0) return fail(VIR_ERR_INTERNAL_ERROR, std::string(kind) + " map holds host id 0");
  return {};
}

bool overlap(const IdMapLines& a, const IdMapLines& b) {
  return std::any_of(a.begin(), a.end(), [&](const IdMapLine& x) {
    return std::any_of(b.begin(), b.end(), [&](const IdMapLine& y) {
      return IdRange{x.outside, x.count}.overlaps({y.outside, y.count});
    });
  });
}

bool overlap(const Lease& a, const Lease& b) {
  return overlap(a.maps.uid, b.maps.uid) || overlap(a.maps.gid, b.maps.gid);
}

void set_aside(const std::string& directory, const std::string& name, const std::string& why,
               std::vector<std::string>& problems) {
  const std::string broken = directory + "/.broken-" + name;
  // A directory or a previous ".broken-" of that name in the way: the file stays, and stays ignored.
  if (::rename((directory + "/" + name).c_str(), broken.c_str()) == 0) (void)sync_directory(directory);
  problems.push_back("lease " + quote(name) + " was set aside: " + why);
}

// A daemon that was killed while it spawned a program leaves a child that holds the lock until it has exec'd: that is
// waited for. It also means that whoever has the lock sees every such child as what it was to become.
Result<Fd> take_lock(const std::string& path) {
  auto lock = lock_file(path);
  for (int i = 0; !lock && lock.error().code == VIR_ERR_RESOURCE_BUSY && i < 100; ++i) {
    ::usleep(5'000);
    lock = lock_file(path);
  }
  return lock;
}

}  // namespace

std::string format_lease(const Lease& lease) {
  std::string text(kHeader);
  text += "name " + printable(lease.name) + "\n";
  append_lines(text, "uid", lease.maps.uid);
  append_lines(text, "gid", lease.maps.gid);
  return text + "sum " + checksum(text) + "\n";
}

Result<Lease> parse_lease(std::string_view text) {
  const auto broken = [](const std::string& why) { return fail(VIR_ERR_INTERNAL_ERROR, why); };
  const auto sum_at = text.rfind("sum ");
  if (!text.starts_with(kHeader) || sum_at == std::string_view::npos || text.size() - sum_at != 21 ||
      text.back() != '\n')
    return broken("not a complete lease");
  const auto body = text.substr(0, sum_at);
  if (text.substr(sum_at + 4, 16) != checksum(body)) return broken("wrong checksum");
  Lease lease;
  auto lines = split(body.substr(kHeader.size()), '\n');
  for (const auto line : lines) {
    if (line.starts_with("name ")) {
      lease.name = line.substr(5);
      continue;
    }
    if (line.empty()) continue;
    const auto fields = split(line, ' ');
    if (fields.size() != 4 || (fields[0] != "uid" && fields[0] != "gid"))
      return broken("unknown line " + quote(line));
    const auto inside = parse_number<std::uint32_t>(fields[1]), outside = parse_number<std::uint32_t>(fields[2]),
               count = parse_number<std::uint32_t>(fields[3]);
    if (!inside || !outside || !count) return broken("bad number in line " + quote(line));
    auto& map = fields[0] == "uid" ? lease.maps.uid : lease.maps.gid;
    if (map.size() >= kMaxIdMapLines) return broken("too many lines");
    map.push_back({*inside, *outside, *count});
  }
  if (lease.maps.uid.empty() || lease.maps.gid.empty()) return broken("a map is missing");
  TRY(check_lines("uid", lease.maps.uid));
  TRY(check_lines("gid", lease.maps.gid));
  return lease;
}

std::optional<std::string> group_of_lease(const std::string& file) {
  if (!file.starts_with(kGroupPrefix)) return std::nullopt;
  std::string name = file.substr(kGroupPrefix.size());
  return validate_id_group(name) ? std::optional(std::move(name)) : std::nullopt;
}

namespace {

enum class Rank { kLive, kGroup, kOther };

struct Found {
  std::string file;
  std::optional<Uuid> domain;  // none: a group's
  Lease lease;
  Rank rank;
};

Result<Lease> read_lease(const std::string& path) {
  const auto text = read_file(path, kMaxLeaseBytes);
  if (!text) return text.error();
  Lease lease = TRY(parse_lease(*text));
  struct stat st {};
  if (::lstat(path.c_str(), &st) == 0 && st.st_uid != 0 && st.st_uid != ::geteuid())
    return fail(VIR_ERR_INTERNAL_ERROR, "belongs to user " + std::to_string(st.st_uid));
  return lease;
}

Result<std::vector<Found>> find_leases(const std::string& directory, const std::vector<Uuid>& live,
                                       std::vector<std::string>& problems) {
  std::vector<Found> found;
  for (const auto& file : TRY(list_directory(directory), "id leases")) {
    if (file.front() == '.') continue;
    auto uuid = parse_uuid(file);
    if (uuid && format_uuid(*uuid) != file) uuid.reset();
    if (!uuid && !group_of_lease(file)) {
      // What write_atomic left when it was killed before its rename: never acknowledged, so nobody's.
      if (file.find(".new.") != std::string::npos) ::unlink((directory + "/" + file).c_str());
      continue;
    }
    auto lease = read_lease(directory + "/" + file);
    if (!lease) {
      set_aside(directory, file, lease.error().text, problems);
      continue;
    }
    const bool is_live = uuid && std::find(live.begin(), live.end(), *uuid) != live.end();
    found.push_back({file, uuid, std::move(*lease), is_live ? Rank::kLive : uuid ? Rank::kOther : Rank::kGroup});
  }
  std::stable_sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.rank < b.rank; });
  return found;
}

}  // namespace

Result<Ledger::Opened> Ledger::open(const std::string& directory, const std::vector<Uuid>& live) {
  Opened opened;
  TRY(make_directories(directory, 0700));
  opened.ledger.directory_ = directory;
  opened.ledger.lock_ = TRY(take_lock(directory + "/.lock"), "id leases");
  std::vector<Found> kept;
  for (auto& candidate : TRY(find_leases(directory, live, opened.problems))) {
    const auto holder = std::find_if(kept.begin(), kept.end(),
                                     [&](const Found& other) { return overlap(other.lease, candidate.lease); });
    if (holder != kept.end())
      set_aside(directory, candidate.file, "overlaps the lease of " + holder->file, opened.problems);
    else
      kept.push_back(std::move(candidate));
  }
  for (auto& [file, domain, lease, rank] : kept)
    if (domain)
      opened.ledger.leases_.emplace(*domain, std::move(lease));
    else
      opened.ledger.groups_.emplace(*group_of_lease(file), std::move(lease));
  return opened;
}

Result<void> Ledger::write_file(const std::string& name, const Lease& lease, const Lease* old) const {
  const std::string path = directory_ + "/" + name;
  auto written = write_atomic(path, format_lease(lease));
  if (written) return {};
  // It may have failed when the file was there already: who was refused a lease must not keep one.
  if (old)
    (void)write_atomic_volatile(path, format_lease(*old));
  else
    ::unlink(path.c_str());
  return std::move(written).error().with_context("lease of ids");
}

Result<void> Ledger::write(const Uuid& domain, Lease lease) {
  const auto old = leases_.find(domain);
  TRY(write_file(format_uuid(domain), lease, old == leases_.end() ? nullptr : &old->second));
  leases_[domain] = std::move(lease);
  return {};
}

void Ledger::remove(const Uuid& domain) {
  if (leases_.erase(domain) != 0) ::unlink((directory_ + "/" + format_uuid(domain)).c_str());
}

Result<void> Ledger::write_group(const std::string& name, IdMaps maps) {
  Lease lease{name, std::move(maps)};
  const auto old = groups_.find(name);
  TRY(write_file(std::string(kGroupPrefix) + name, lease, old == groups_.end() ? nullptr : &old->second));
  groups_[name] = std::move(lease);
  return {};
}

void Ledger::remove_group(const std::string& name) {
  if (groups_.erase(name) != 0) ::unlink((directory_ + "/" + std::string(kGroupPrefix) + name).c_str());
}

}  // namespace virtuserns
