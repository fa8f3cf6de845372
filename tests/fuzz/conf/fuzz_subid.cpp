// /etc/subuid, /etc/passwd: whatever stands there, ranges stay within 2^32 and the pool's choice stays disjoint.
#include <cstdlib>
#include <string_view>

#include "conf/idpool.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace virtuserns;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  HostIdFiles files;
  files.subid = parse_subid(text);
  files.accounts = parse_accounts(text);
  IdClaims claims;
  append_claims(claims.uid, files, {"root"});
  for (const auto& claim : claims.uid)
    if (claim.range.count == 0 || claim.range.end() > (1ULL << 32)) std::abort();
  DomainDef def;
  if (const auto maps = choose_maps(def, {2'000'000, 4'000'000'000, 65'536}, claims); maps)
    for (const auto& line : maps->uid)
      if (find_conflict({line.outside, line.count}, claims.uid, Uuid{{9}})) std::abort();
  return 0;
}
