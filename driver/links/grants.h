// Who may have links, and in which namespaces: the two questions of the link broker.
#pragma once

#include <sys/types.h>

#include <set>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/daemon_config.h"

namespace virtuserns::links {

struct LinkUser {
  uid_t uid = 0;
  std::string name;              // of the account; without one the decimal uid
  std::set<std::string> groups;  // of those that grants name
};
// As the account database has it now: blocks for as long as that takes.
[[nodiscard]] LinkUser look_up_user(uid_t uid, const std::vector<UserLinkGrant>& grants);

// The line that gives most. The error names the user, the bridge, and the lines that he has.
[[nodiscard]] Result<UserLinkGrant> find_grant(const std::vector<UserLinkGrant>& grants, const LinkUser& user,
                                               const std::string& bridge, const std::string& config_file);

// `net` is a network namespace over which `uid` has every power already: it is in a user namespace that he made, or in one
// below, and in none of ours. Whatever else the descriptor is of, none of its operations is called.
[[nodiscard]] Result<void> check_namespace(const NsFd& net, uid_t uid, const std::string& proc);

}  // namespace virtuserns::links
