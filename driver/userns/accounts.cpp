#include "driver/userns/accounts.h"

#include <pwd.h>

#include <array>

namespace virtuserns::userns {

Result<Account> find_account(const OwnerDef& owner) {
  std::array<char, 16384> buffer;
  passwd entry{};
  passwd* found = nullptr;
  const int err = owner.uid ? ::getpwuid_r(*owner.uid, &entry, buffer.data(), buffer.size(), &found)
                            : ::getpwnam_r(owner.user.c_str(), &entry, buffer.data(), buffer.size(), &found);
  const std::string whose = "<userns:owner>: " + describe_owner(owner);
  if (found == nullptr)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                whose + (err == 0 ? " is no account of this host" : " cannot be looked up"));
  // Another name of root, whose files and ids are nobody's to give.
  if (found->pw_uid == 0) return fail(VIR_ERR_CONFIG_UNSUPPORTED, whose + " is root, who owns no domain");
  return Account{found->pw_name, found->pw_uid, found->pw_gid};
}

}  // namespace virtuserns::userns
