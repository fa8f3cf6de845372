#include "driver/links/grants.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "conf/base/text.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/namespaces.h"

namespace virtuserns::links {

namespace {

constexpr int kMostNestedNamespaces = 33;  // user_namespaces(7)
constexpr std::size_t kLookUpBytes = 64 * 1024;
constexpr int kMostGroups = 4096;

bool names(const UserLinkGrant& grant, const LinkUser& user) {
  if (grant.is_group) return user.groups.contains(grant.who);
  return grant.who == user.name || grant.who == std::to_string(user.uid);
}

Error refuse(std::string text) { return fail(VIR_ERR_OPERATION_DENIED, std::move(text)); }

}  // namespace

LinkUser look_up_user(uid_t uid, const std::vector<UserLinkGrant>& grants) {
  LinkUser user{uid, std::to_string(uid), {}};
  std::vector<char> buffer(kLookUpBytes);
  passwd account{}, *found = nullptr;
  if (::getpwuid_r(uid, &account, buffer.data(), buffer.size(), &found) != 0 || !found) return user;
  user.name = account.pw_name;
  std::vector<gid_t> ids(kMostGroups);
  int count = kMostGroups;
  if (::getgrouplist(account.pw_name, account.pw_gid, ids.data(), &count) < 0) count = kMostGroups;
  ids.resize(static_cast<std::size_t>(std::max(count, 0)));
  for (const auto& grant : grants) {
    group entry{}, *known = nullptr;
    if (grant.is_group && ::getgrnam_r(grant.who.c_str(), &entry, buffer.data(), buffer.size(), &known) == 0 &&
        known && std::find(ids.begin(), ids.end(), entry.gr_gid) != ids.end())
      user.groups.insert(grant.who);
  }
  return user;
}

Result<UserLinkGrant> find_grant(const std::vector<UserLinkGrant>& grants, const LinkUser& user,
                                 const std::string& bridge, const std::string& config_file) {
  const UserLinkGrant* best = nullptr;
  std::string others;
  for (const auto& grant : grants) {
    if (!names(grant, user)) continue;
    if (grant.bridge != bridge)
      others += (others.empty() ? "" : ", ") + grant.where;
    else if (!best || best->limit < grant.limit)
      best = &grant;
  }
  if (best) return *best;
  return refuse("user " + quote(user.name) + " may have no link on bridge " + quote(bridge) + ": " +
                (others.empty() ? config_file + " grants him none" : "granted is only " + others) +
                " (user_links = [ \"" + printable(user.name) + ":" + printable(bridge) + ":1\" ] would be one)");
}

Result<void> check_namespace(const NsFd& net, uid_t uid, const std::string& proc) {
  // By name first: an ioctl, or even fstat, of a file of a user's own file system would wait for that user's program.
  char name[8] = {};
  const auto path = proc + "/self/fd/" + std::to_string(net.get());
  if (::readlink(path.c_str(), name, sizeof name - 1) < 0) return sys_fail("look at the descriptor");
  if (!std::string_view(name).starts_with("net:[")) return refuse("the descriptor is of no network namespace");
  const auto open_own = [&](const char* kind) {
    return NsFd(::open((proc + "/self/ns/" + kind).c_str(), O_RDONLY | O_CLOEXEC));
  };
  const NsFd own_net = open_own("net"), own_user = open_own("user");
  if (!own_net || !own_user) return sys_fail("open own namespaces");
  if (TRY(kernel::id_of_namespace(net)) == TRY(kernel::id_of_namespace(own_net)))
    return refuse("the namespace is the host's own network");
  const auto own_id = TRY(kernel::id_of_namespace(own_user));
  const auto foreign =
      "the network namespace is not of uid " + std::to_string(uid) + ": no user namespace around it was made by him";
  auto user = kernel::owner_of_namespace(net);
  for (int depth = 0; user && depth < kMostNestedNamespaces; ++depth) {
    if (TRY(kernel::id_of_namespace(*user)) == own_id) break;
    if (TRY(kernel::owner_of_user_namespace(*user)) == uid) return {};
    user = kernel::parent_of_namespace(*user);
  }
  return refuse(foreign);
}

}  // namespace virtuserns::links
