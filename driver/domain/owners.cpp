// What a caller may write who may manage own domains only.
#include "conf/owner.h"

#include "driver/domain/domain_driver.h"

namespace virtuserns {

namespace {

bool is_own(const DomainObject& domain, const Caller& caller) {
  const auto owner = owner_of(domain);
  return domain.exists() && owner && is_owner(*owner, caller.uid, caller.user_name);
}

}  // namespace

Result<void> DomainDriver::admit_definition(const Caller& caller, const DomainDef& def) const {
  if (!caller.owns_only) return {};
  TRY(check_owned(def, owned_rules()));
  if (is_owner(*def.userns.owner, caller.uid, caller.user_name)) return {};
  return fail(VIR_ERR_ACCESS_DENIED, "<userns:owner> names " + describe_owner(*def.userns.owner) +
                                         ": only an administrator gives a domain to somebody else");
}

// What the start has filled in, which no change touches, counts for nothing.
Result<void> DomainDriver::admit_live_definition(const Caller& caller, const DomainDef& live) const {
  if (!caller.owns_only) return {};
  DomainDef def = without_live_values(live);
  std::erase_if(def.seclabels, [](const SeclabelDef& label) { return label.type == "dynamic"; });
  return admit_definition(caller, def);
}

Result<void> DomainDriver::admit_change(const Caller& caller, const DomainTable::Job& job,
                                        const std::function<Result<void>(DomainDef&)>& change) const {
  if (!caller.owns_only) return {};
  std::vector<DomainDef> defs;
  {
    const auto domain = job.look();
    defs = {domain->def, domain->config_def()};
  }
  for (auto& def : defs)
    if (change(def)) TRY(admit_live_definition(caller, def));
  return {};
}

// The domains that have this name or this uuid, if any.
bool DomainDriver::are_own(const DomainDef& def, const Caller& caller) const {
  if (const auto named = domains_.find_by_name(def.name); named && !is_own(**named, caller)) return false;
  const auto known = domains_.find(def.uuid);
  return !known || is_own(**known, caller);
}

Result<DomainTable::Job> DomainDriver::claim_for(const Caller& caller, const DomainDef& def) {
  auto claimed = domains_.claim(def.name, def.uuid);
  if (!caller.owns_only) return claimed;
  // Without a word about a domain of somebody else.
  if (!claimed && claimed.error().code == VIR_ERR_OPERATION_FAILED && !are_own(def, caller))
    return fail(VIR_ERR_ACCESS_DENIED, "the name '" + def.name + "' or the uuid is another domain's");
  auto job = TRY(std::move(claimed));
  {
    const auto domain = job.look();
    if (is_own(*domain, caller)) return job;
    if (domain->exists())
      return fail(VIR_ERR_ACCESS_DENIED, "the name '" + def.name + "' or the uuid is another domain's");
  }
  std::size_t own = 0;
  for (auto& object : domains_.all())
    if (is_own(*lock_domain(std::move(object)), caller)) ++own;
  if (own < owned_rules().max_domains) return job;
  forget_if_empty(job.domain);
  return fail(VIR_ERR_ACCESS_DENIED, "you have " + std::to_string(own) +
                                         " domains already: undefine one, or ask for a higher max_domains_per_owner");
}

}  // namespace virtuserns
