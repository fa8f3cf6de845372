// What domains are defined as. A definition is stored before it is acknowledged.
#include "conf/validate.h"
#include "driver/domain/domain_driver.h"

namespace virtuserns {

// ---- what a module that neither shares nor stores anything does ----
Result<void> DomainDriver::reserve(const DomainDef&) { return {}; }
void DomainDriver::restore(const DomainDef&) {}
void DomainDriver::release(const Uuid&) {}
Result<void> DomainDriver::store_definition(const DomainDef&) { return {}; }
Result<void> DomainDriver::remove_definition(const Uuid&) { return {}; }
Result<void> DomainDriver::store_autostart(const Uuid&, bool) { return {}; }
void DomainDriver::live_changed(const std::shared_ptr<DriverDomain>&) {}

Result<void> DomainDriver::prepare(DomainDef& def) const {
  apply_defaults(def, defaults_context());
  TRY(validate(def));
  def.id = -1;
  return {};
}

Result<DomainRef> DomainDriver::define(const Caller& caller, DomainDef def, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_DEFINE_VALIDATE, "virDomainDefineXMLFlags"));
  TRY(prepare(def));
  TRY(admit_definition(caller, def));
  const auto job = TRY(claim_for(caller, def));
  std::optional<DomainDef> old;
  if (const auto domain = job.look(); domain->persistent) old = domain->config_def();
  const auto accept = [&]() -> Result<void> {
    TRY(reserve(def));
    return store_definition(def);
  };
  if (auto accepted = accept(); !accepted) {
    if (old) restore(*old);
    forget_if_empty(job.domain);
    return accepted.error();
  }
  const auto domain = job.look();
  const bool was_defined = assign_persistent_def(*domain, std::move(def));
  emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_DEFINED,
                        was_defined ? VIR_DOMAIN_EVENT_DEFINED_UPDATED : VIR_DOMAIN_EVENT_DEFINED_ADDED);
  return ref_of(*domain);
}

Result<void> DomainDriver::undefine(const Caller&, const Uuid& uuid, unsigned flags) {
  // There is nothing of these kinds to remove, so asking for their removal is granted (Nova asks).
  TRY(refuse_unknown_flags(flags,
                           VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
                               VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA,
                           "virDomainUndefineFlags"));
  const auto job = TRY(domains_.take_job(uuid));
  if (!job.look()->persistent) return fail(VIR_ERR_OPERATION_INVALID, "Cannot undefine transient domain");
  TRY(remove_definition(uuid));
  bool is_gone = false;
  {
    const auto domain = job.look();
    domain->persistent = domain->autostart = domain->updated = false;
    domain->next_def.reset();
    emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_UNDEFINED, VIR_DOMAIN_EVENT_UNDEFINED_REMOVED);
    is_gone = !domain->is_active();
    if (is_gone) domains_.remove_locked(*domain);
  }
  if (is_gone)
    release(uuid);
  else
    live_changed(job.domain);
  return {};
}

Result<DomainDef> DomainDriver::definition(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(
      flags, VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_UPDATE_CPU | VIR_DOMAIN_XML_MIGRATABLE,
      "virDomainGetXMLDesc"));
  const auto domain = TRY(domains_.find(uuid));
  if ((flags & VIR_DOMAIN_XML_INACTIVE) && domain->is_active()) return without_live_values(domain->config_def());
  return domain->def;
}

Result<void> DomainDriver::rename(const Caller&, const Uuid& uuid, const std::string& new_name, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "virDomainRename"));
  TRY(validate_name(new_name));
  const auto job = TRY(domains_.take_job(uuid));
  DomainDef def;
  {
    const auto domain = job.look();
    if (domain->is_active()) return fail(VIR_ERR_OPERATION_INVALID, "cannot rename active domain");
    def = domain->def;
  }
  const std::string old_name = std::exchange(def.name, new_name);
  TRY(domains_.rename(uuid, new_name));
  if (auto stored = store_definition(def); !stored) {
    (void)domains_.rename(uuid, old_name);
    return stored;
  }
  const auto domain = job.look();
  emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_UNDEFINED, VIR_DOMAIN_EVENT_UNDEFINED_RENAMED);
  domain->def.name = new_name;
  emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_DEFINED, VIR_DOMAIN_EVENT_DEFINED_RENAMED);
  return {};
}

Result<bool> DomainDriver::autostart(const Uuid& uuid) { return TRY(domains_.find(uuid))->autostart; }

Result<void> DomainDriver::set_autostart(const Caller&, const Uuid& uuid, bool on) {
  const auto job = TRY(domains_.take_job(uuid));
  if (!job.look()->persistent) return fail(VIR_ERR_OPERATION_INVALID, "Cannot set autostart for transient domain");
  TRY(store_autostart(uuid, on));
  job.look()->autostart = on;
  return {};
}

Result<std::string> DomainDriver::metadata(const Uuid& uuid, int type, const std::string& uri, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "virDomainGetMetadata"));
  const auto domain = TRY(domains_.find(uuid));
  return get_metadata(*TRY(queried_def(*domain, flags)), type, uri);
}

Result<void> DomainDriver::set_metadata(const Caller& caller, const Uuid& uuid, int type,
                                        std::optional<std::string> value, const std::string& uri, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "virDomainSetMetadata"));
  // It says what a domain is, not what somebody notes about it; only a definition as a whole is checked.
  if (type == VIR_DOMAIN_METADATA_ELEMENT && uri == kUsernsUri)
    return fail(
        VIR_ERR_OPERATION_UNSUPPORTED,
        "metadata of namespace '" + uri + "' is a part of the definition: change it with virsh edit or define");
  const auto job = TRY(domains_.take_job(uuid));
  TRY(change_defs(caller, job, flags,
                  in_each([&](DomainDef& def) { return virtuserns::set_metadata(def, type, value, uri); })));
  emit(job, MetadataChangeEvent{type, uri});
  return {};
}

// ---- changing ---------------------------------------------------------------------------------------------------

Result<void> DomainDriver::change_defs(const Caller& caller, const DomainTable::Job& job, unsigned flags,
                                       const Change& change, const ApplyLive& apply_live) {
  std::optional<DomainDef> live, config;
  {
    const auto domain = job.look();
    const AffectedDefs defs = TRY(affected_defs(*domain, flags));
    if (defs.live) live = *defs.live;
    if (defs.config) config = *defs.config;
  }
  TRY(change(AffectedDefs{live ? &*live : nullptr, config ? &*config : nullptr}));
  if (config) TRY(admit_definition(caller, *config));
  if (live) TRY(admit_live_definition(caller, *live));
  if (live && apply_live) TRY(apply_live(*live));
  if (config) TRY(store_definition(*config));
  {
    const auto domain = job.look();
    // It may have ended meanwhile: then there is no running definition to change. Another start needs the job.
    if (live && domain->is_active()) domain->def = std::move(*live);
    if (config && domain->persistent) {
      domain->config_def() = std::move(*config);
      domain->updated = domain->is_active();
    }
  }
  if (live) live_changed(job.domain);
  return {};
}

}  // namespace virtuserns
