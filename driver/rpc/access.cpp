#include "driver/rpc/access.h"

#include "conf/domain_objects.h"
#include "conf/owner.h"
#include "driver/rpc/call.h"
#include "driver/rpc/table.h"

namespace virtuserns::rpc {

bool is_for_owners(const Right& right) {
  switch (right.object) {
    case Object::kNone:
      return false;
    case Object::kConnection:
      return right.permission != Permission::kWrite;
    case Object::kDomain:
      // A descriptor of a namespace is a way around everything that the daemon lays in between; a dump is a file of root's on the host.
      return right.permission != Permission::kOpenNamespace && right.permission != Permission::kCoreDump;
    case Object::kDefinition:
      return true;
  }
  return false;
}

Result<void> check_right(const Caller& caller, const Row& row) {
  if (!caller.owns_only || is_for_owners(row.right)) return {};
  return fail(VIR_ERR_ACCESS_DENIED, std::string(row.name) + " is for administrators (access_admin_groups)");
}

bool may_see(const Caller& caller, const std::optional<OwnerDef>& owner) {
  return !caller.owns_only || (owner && is_owner(*owner, caller.uid, caller.user_name));
}

Result<void> check_domain(const Call& call, const Uuid& uuid) {
  if (!call.caller.owns_only) return {};
  const auto owner = TRY(call.driver->owner(uuid));
  if (!may_see(call.caller, owner)) return no_domain_with_uuid(uuid);
  return {};
}

Result<std::vector<DomainSummary>> visible_domains(const Call& call) {
  auto domains = TRY(call.driver->list_domains());
  std::erase_if(domains, [&](const DomainSummary& domain) { return !may_see(call.caller, domain.owner); });
  return domains;
}

Result<DomainRef> visible_or(const Call& call, Result<DomainRef> found, const Error& missing) {
  if (found && !check_domain(call, found->uuid)) return missing;
  return found;
}

}  // namespace virtuserns::rpc
