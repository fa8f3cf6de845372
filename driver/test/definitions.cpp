// Which domains there are, and what they are defined as.
#include <libvirt/libvirt.h>

#include "conf/defaults.h"
#include "conf/validate.h"
#include "driver/test/driver.h"

namespace virtuserns::test_driver {
namespace {

constexpr unsigned kImpactFlags = VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG;

}  // namespace

DomainRef ref_of(const DomainObject& domain) { return {domain.def.name, domain.def.uuid, domain.def.id}; }

TestDriver::Locked TestDriver::lock(std::shared_ptr<TestDomain> domain) {
  std::unique_lock lock(domain->mutex);
  return {std::move(domain), std::move(lock)};
}

Result<TestDriver::Locked> TestDriver::find(const Uuid& uuid) const {
  Locked found = lock(TRY(domains_.find(uuid)));
  if (!found->exists()) return no_domain_with_uuid(uuid);
  return found;
}

Result<TestDriver::Locked> TestDriver::find_active(const Uuid& uuid) const {
  Locked found = TRY(find(uuid));
  TRY(require_active(*found));
  return found;
}

// The domain that a definition of this name and uuid belongs to, known or new.
Result<TestDriver::Locked> TestDriver::claim(const std::string& name, const Uuid& uuid) {
  for (;;) {
    auto claim = TRY(domains_.claim(name, uuid));
    Locked domain = lock(std::move(claim.object));
    if (!domain->removed) return domain;  // otherwise it ended between the two steps
  }
}

void TestDriver::remove_locked(TestDomain& domain) {
  domain.removed = true;
  domain.console.reset();
  domains_.remove(domain.def.uuid);
}

void TestDriver::emit_locked(const TestDomain& domain, EventBody body) {
  events_.emit(Event{ref_of(domain), std::move(body)});
}

void TestDriver::emit_lifecycle_locked(const TestDomain& domain, int event, int detail) {
  emit_locked(domain, LifecycleEvent{event, detail});
}

// ---- finding ----------------------------------------------------------------------------------------------------

Result<std::vector<DomainSummary>> TestDriver::list_domains() {
  std::vector<DomainSummary> list;
  for (auto& object : domains_.all()) {
    const Locked domain = lock(std::move(object));
    if (!domain->exists()) continue;
    DomainSummary summary;
    summary.ref = ref_of(*domain);
    summary.state = domain->state;
    summary.persistent = domain->persistent;
    summary.autostart = domain->autostart;
    list.push_back(std::move(summary));
  }
  return list;
}

Result<DomainRef> TestDriver::lookup_by_id(int id) {
  for (auto& object : domains_.all()) {
    const Locked domain = lock(std::move(object));
    if (domain->exists() && domain->is_active() && domain->def.id == id) return ref_of(*domain);
  }
  return no_domain_with_id(id);
}

Result<DomainRef> TestDriver::lookup_by_name(const std::string& name) {
  const Locked domain = lock(TRY(domains_.find_by_name(name)));
  if (!domain->exists()) return no_domain_with_name(name);
  return ref_of(*domain);
}

Result<DomainRef> TestDriver::lookup_by_uuid(const Uuid& uuid) { return ref_of(*TRY(find(uuid))); }

// ---- defining ---------------------------------------------------------------------------------------------------

Result<DomainRef> TestDriver::define(const Caller&, DomainDef def, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_DEFINE_VALIDATE, "define"));
  apply_defaults(def, DefaultsContext{"x86_64", "/bin/true"});
  TRY(validate(def));
  def.id = -1;
  const Locked domain = TRY(claim(def.name, def.uuid));
  const bool was_defined = assign_persistent_def(*domain, std::move(def));
  emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_DEFINED,
                        was_defined ? VIR_DOMAIN_EVENT_DEFINED_UPDATED : VIR_DOMAIN_EVENT_DEFINED_ADDED);
  return ref_of(*domain);
}

Result<void> TestDriver::undefine(const Caller&, const Uuid& uuid, unsigned flags) {
  // There is nothing of these kinds to remove, so asking for their removal is granted.
  TRY(refuse_unknown_flags(flags,
                           VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
                               VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA,
                           "undefine"));
  const Locked domain = TRY(find(uuid));
  if (!domain->persistent) return fail(VIR_ERR_OPERATION_INVALID, "Cannot undefine transient domain");
  domain->persistent = false;
  domain->autostart = false;
  domain->updated = false;
  domain->next_def.reset();
  emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_UNDEFINED, VIR_DOMAIN_EVENT_UNDEFINED_REMOVED);
  if (!domain->is_active()) remove_locked(*domain);
  return {};
}

Result<DomainDef> TestDriver::definition(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(
      flags, VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_UPDATE_CPU | VIR_DOMAIN_XML_MIGRATABLE,
      "definition"));
  const Locked domain = TRY(find(uuid));
  if ((flags & VIR_DOMAIN_XML_INACTIVE) && domain->is_active()) return without_live_values(domain->config_def());
  return domain->def;
}

Result<void> TestDriver::rename(const Caller&, const Uuid& uuid, const std::string& new_name, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "rename"));
  TRY(validate_name(new_name));
  const Locked domain = TRY(find(uuid));
  if (domain->is_active()) return fail(VIR_ERR_OPERATION_INVALID, "cannot rename active domain");
  TRY(domains_.rename(uuid, new_name));
  emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_UNDEFINED, VIR_DOMAIN_EVENT_UNDEFINED_RENAMED);
  domain->def.name = new_name;
  emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_DEFINED, VIR_DOMAIN_EVENT_DEFINED_RENAMED);
  return {};
}

// ---- facts about a definition -----------------------------------------------------------------------------------

Result<bool> TestDriver::autostart(const Uuid& uuid) { return TRY(find(uuid))->autostart; }

Result<void> TestDriver::set_autostart(const Caller&, const Uuid& uuid, bool on) {
  const Locked domain = TRY(find(uuid));
  if (!domain->persistent) return fail(VIR_ERR_OPERATION_INVALID, "Cannot set autostart for transient domain");
  domain->autostart = on;
  return {};
}

Result<bool> TestDriver::is_active(const Uuid& uuid) { return TRY(find(uuid))->is_active(); }
Result<bool> TestDriver::is_persistent(const Uuid& uuid) { return TRY(find(uuid))->persistent; }
Result<bool> TestDriver::is_updated(const Uuid& uuid) { return TRY(find(uuid))->updated; }

Result<bool> TestDriver::has_managed_save(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "has_managed_save"));
  (void)TRY(find(uuid));
  return false;
}

Result<std::string> TestDriver::metadata(const Uuid& uuid, int type, const std::string& uri, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "metadata"));
  const Locked domain = TRY(find(uuid));
  return get_metadata(*TRY(queried_def(*domain, flags)), type, uri);
}

Result<void> TestDriver::set_metadata(const Caller&, const Uuid& uuid, int type, std::optional<std::string> value,
                                      const std::string& uri, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "set_metadata"));
  const Locked domain = TRY(find(uuid));
  TRY(change_each(*domain, flags, [&](DomainDef& def) { return virtuserns::set_metadata(def, type, value, uri); }));
  emit_locked(*domain, MetadataChangeEvent{type, uri});
  return {};
}

}  // namespace virtuserns::test_driver
