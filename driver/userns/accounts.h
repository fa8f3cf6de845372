// The accounts of this host that own domains.
#pragma once

#include <sys/types.h>

#include <string>

#include "conf/base/result.h"
#include "conf/owner.h"

namespace virtuserns::userns {

struct Account {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;  // the primary group
};
// As the system knows it now (nsswitch.conf(5)). VIR_ERR_CONFIG_UNSUPPORTED: there is no such account, or it is root's.
[[nodiscard]] Result<Account> find_account(const OwnerDef& owner);

}  // namespace virtuserns::userns
