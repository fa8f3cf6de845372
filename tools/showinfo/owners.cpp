#include "tools/showinfo/owners.h"

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "conf/leases.h"

namespace virtuserns::showinfo {

namespace {

constexpr std::size_t kMaxLease = 64 * 1024;

void add_files(std::vector<IdClaim>& claims, const std::string& subid, const std::string& accounts) {
  HostIdFiles files{subid, accounts, {}, {}};
  if (const auto text = read_file(subid)) files.subid = parse_subid(*text);
  if (const auto text = read_file(accounts)) files.accounts = parse_accounts(*text);
  append_claims(claims, files, {});
}

void add_maps(IdClaims& claims, const IdMaps& maps, const std::string& owner) {
  for (const auto& range : host_ranges(maps.uid)) claims.uid.push_back({range, owner, std::nullopt});
  for (const auto& range : host_ranges(maps.gid)) claims.gid.push_back({range, owner, std::nullopt});
}

}  // namespace

IdClaims read_claims(const Paths& paths, const Host& host) {
  IdClaims claims;
  add_files(claims.uid, paths.subuid, paths.passwd);
  add_files(claims.gid, paths.subgid, paths.group);
  const std::string leases = paths.state + "/leases";
  if (const auto names = list_directory(leases))
    for (const auto& name : *names) {
      const auto group = group_of_lease(name);
      if (!group && !parse_uuid(name)) continue;
      const auto text = read_file(leases + "/" + name, kMaxLease);
      const auto lease = text ? parse_lease(*text) : Result<Lease>(text.error());
      if (lease) add_maps(claims, lease->maps, (group ? "lease of group " : "lease of domain ") + quote(lease->name));
    }
  for (const auto& domain : host.domains) {
    if (!domain.user_ns) continue;
    const auto found = host.namespaces.find(*domain.user_ns);
    if (found != host.namespaces.end() && found->second.maps)
      add_maps(claims, *found->second.maps, "running domain " + quote(domain.name));
  }
  return claims;
}

std::vector<std::string> owners_of(const std::vector<IdClaim>& claims, std::uint32_t id) {
  std::vector<std::string> owners;
  for (const auto& claim : claims)
    if (claim.range.overlaps({id, 1})) owners.push_back(claim.owner);
  return owners;
}

}  // namespace virtuserns::showinfo
