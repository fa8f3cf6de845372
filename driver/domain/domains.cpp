// Which domains there are, and what is to be done with all of them.
#include "conf/base/log.h"
#include "driver/domain/domain_driver.h"

namespace virtuserns {

// ---- finding ----------------------------------------------------------------------------------------------------

Result<std::vector<DomainSummary>> DomainDriver::list_domains() {
  std::vector<DomainSummary> list;
  for (auto& object : domains_.all()) {
    const auto domain = lock_domain(std::move(object));
    if (!domain->exists()) continue;
    DomainSummary summary;
    summary.ref = ref_of(*domain);
    summary.state = domain->state;
    summary.persistent = domain->persistent;
    summary.autostart = domain->autostart;
    summary.owner = owner_of(*domain);
    list.push_back(std::move(summary));
  }
  return list;
}

Result<DomainRef> DomainDriver::lookup_by_id(int id) { return domains_.ref_by_id(id); }
Result<DomainRef> DomainDriver::lookup_by_name(const std::string& name) {
  return ref_of(*TRY(domains_.find_by_name(name)));
}
Result<DomainRef> DomainDriver::lookup_by_uuid(const Uuid& uuid) { return ref_of(*TRY(domains_.find(uuid))); }

Result<std::optional<OwnerDef>> DomainDriver::owner(const Uuid& uuid) { return owner_of(*TRY(domains_.find(uuid))); }

Result<bool> DomainDriver::is_active(const Uuid& uuid) { return TRY(domains_.find(uuid))->is_active(); }
Result<bool> DomainDriver::is_persistent(const Uuid& uuid) { return TRY(domains_.find(uuid))->persistent; }
Result<bool> DomainDriver::is_updated(const Uuid& uuid) { return TRY(domains_.find(uuid))->updated; }

Result<bool> DomainDriver::has_managed_save(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainHasManagedSaveImage"));
  (void)TRY(domains_.find(uuid));
  return false;
}

// ---- of the daemon ----------------------------------------------------------------------------------------------

void DomainDriver::autostart_all() {
  for (auto& object : domains_.all()) {
    DomainRef ref;
    {
      const auto domain = lock_domain(std::move(object));
      if (!domain->exists() || !domain->autostart || domain->is_active()) continue;
      ref = ref_of(*domain);
    }
    if (auto created = create(Caller{}, ref.uuid, {}, 0); !created)
      log_error("driver", "autostart of domain '" + ref.name + "': " + created.error().text);
  }
}

bool DomainDriver::has_active_domains() {
  for (auto& object : domains_.all()) {
    const auto domain = lock_domain(std::move(object));
    if (domain->exists() && domain->is_active()) return true;
  }
  return false;
}

void DomainDriver::connection_closed(std::uint64_t connection_id) {
  for (auto& object : domains_.all()) {
    Uuid uuid;
    {
      const auto domain = lock_domain(std::move(object));
      if (!domain->exists() || !domain->is_active() || domain->autodestroy_by != connection_id) continue;
      uuid = domain->def.uuid;
    }
    autodestroy(uuid);
  }
}

void DomainDriver::autodestroy(const Uuid& uuid) {
  if (auto done = destroy(Caller{}, uuid, 0); !done) log_error("driver", "autodestroy: " + done.error().text);
}

void DomainDriver::forget_if_empty(const std::shared_ptr<DriverDomain>& domain) {
  if (domains_.forget_if_empty(domain)) release(domain->def.uuid);
}

// ---- events -----------------------------------------------------------------------------------------------------

void DomainDriver::emit_locked(const DriverDomain& domain, EventBody body) {
  events_.emit(Event{ref_of(domain), std::move(body), owner_of(domain)});
}

void DomainDriver::emit_lifecycle_locked(const DriverDomain& domain, int event, int detail) {
  emit_locked(domain, LifecycleEvent{event, detail});
}

void DomainDriver::emit(const DomainTable::Job& job, EventBody body) {
  if (const auto domain = job.look(); domain->exists()) emit_locked(*domain, std::move(body));
}

}  // namespace virtuserns
