// <userns:ids group=''>: domains that share a range of host ids.
#include <algorithm>

#include "conf/base/text.h"
#include "conf/idpool.h"
#include "conf/validate.h"
#include "conf/validate_parts.h"

namespace virtuserns {

Result<void> validate_id_group(const std::string& name) {
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  const bool is_good =
      !name.empty() && name.size() <= kMaxIdGroupBytes && is_letter(name.front()) &&
      std::all_of(name.begin(), name.end(), [&](char c) { return is_letter(c) || c == '-' || c == '_'; });
  if (is_good) return {};
  return xml_error("<userns:ids group=" + quote(name.substr(0, kMaxIdGroupBytes)) +
                   "> is no name of a group: use at most " + std::to_string(kMaxIdGroupBytes) +
                   " letters, digits, '-' and '_', the first a letter or digit");
}

Result<void> validate_ids(const DomainDef& def) {
  if (def.userns.id_group.empty()) return {};
  TRY(validate_id_group(def.userns.id_group));
  const std::string element = "<userns:ids group=" + quote(def.userns.id_group) + ">";
  // The delegation of one user is nobody else's to share.
  if (def.userns.owner)
    return unsupported(element + " cannot be combined with <userns:owner>: the ids of an owner's domain are its own");
  if (!def.idmap.empty() && !is_fully_explicit(def.idmap))
    return unsupported(element +
                       ": <idmap> has lines without a target: give every line one, or leave <idmap> out and "
                       "the domain gets the group's range");
  return {};
}

}  // namespace virtuserns
