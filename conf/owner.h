// Whose a domain is, and what a definition may contain that its owner has written.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "conf/base/result.h"
#include "conf/domain.h"

namespace virtuserns {

// The owner as errors name it: "user 'anna'", "uid 1001".
[[nodiscard]] std::string describe_owner(const OwnerDef& owner);
// `user`: the account's name, as the system knows `uid` by.
[[nodiscard]] bool is_owner(const OwnerDef& owner, uid_t uid, const std::string& user);
// A name that could be a number, root, and neither or both of user and uid.
[[nodiscard]] Result<void> validate_owner(const OwnerDef& owner);

// What the daemon would fill in or set by itself, and so an owner may write as well.
struct OwnedRules {
  std::string emulator;
  std::uint64_t pids_limit = 0;
  std::size_t max_domains = 0;  // of one owner
};
// The definition, completed (apply_defaults), as somebody writes it who may manage own domains only. A list of what is allowed:
// whatever is not on it is refused, also what is kept and has no effect today. VIR_ERR_ACCESS_DENIED names element and remedy.
[[nodiscard]] Result<void> check_owned(const DomainDef& def, const OwnedRules& rules);

}  // namespace virtuserns
