#include "driver/domain/table.h"

#include <chrono>

namespace virtuserns {

namespace {

constexpr std::chrono::seconds kJobTimeout{30};  // libvirt's LXC_JOB_WAIT_TIME

Result<std::unique_lock<std::timed_mutex>> wait_for_job(DriverDomain& domain) {
  std::unique_lock job(domain.job, kJobTimeout);
  if (!job) return fail(VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock");
  return job;
}

}  // namespace

DomainRef ref_of(const DomainObject& domain) { return {domain.def.name, domain.def.uuid, domain.def.id}; }

std::optional<OwnerDef> owner_of(const DomainObject& domain) {
  if (domain.config_def().userns.owner == domain.def.userns.owner) return domain.def.userns.owner;
  return std::nullopt;
}

Result<DomainTable::Locked> DomainTable::find(const Uuid& uuid) const {
  Locked found = lock_domain(TRY(list_.find(uuid)));
  if (!found->exists()) return no_domain_with_uuid(uuid);
  return found;
}

Result<DomainTable::Locked> DomainTable::find_by_name(const std::string& name) const {
  Locked found = lock_domain(TRY(list_.find_by_name(name)));
  if (!found->exists()) return no_domain_with_name(name);
  return found;
}

Result<DomainRef> DomainTable::ref_by_id(int id) const {
  for (auto& object : all()) {
    const Locked domain = lock_domain(std::move(object));
    if (domain->exists() && domain->is_active() && domain->def.id == id) return ref_of(*domain);
  }
  return no_domain_with_id(id);
}

Result<DomainTable::Locked> DomainTable::find_active(const Uuid& uuid) const {
  Locked found = TRY(find(uuid));
  TRY(require_active(*found));
  return found;
}

Result<DomainTable::Job> DomainTable::take_job(const Uuid& uuid) const {
  auto domain = TRY(list_.find(uuid));
  auto lock = TRY(wait_for_job(*domain));
  Job job{std::move(domain), std::move(lock)};
  if (!job.look()->exists()) return no_domain_with_uuid(uuid);  // it ended while we waited
  return job;
}

Result<DomainTable::Job> DomainTable::claim(const std::string& name, const Uuid& uuid) {
  for (;;) {
    auto object = TRY(list_.claim(name, uuid)).object;
    auto lock = TRY(wait_for_job(*object));
    Job job{std::move(object), std::move(lock)};
    if (!job.look()->removed) return job;  // otherwise it ended between the two steps
  }
}

bool DomainTable::forget_if_empty(const Object& domain) {
  const Locked locked = lock_domain(domain);
  if (locked->removed || locked->exists()) return false;
  remove_locked(*locked);
  return true;
}

void DomainTable::remove_locked(DriverDomain& domain) {
  domain.removed = true;
  list_.remove(domain.def.uuid);
}

}  // namespace virtuserns
