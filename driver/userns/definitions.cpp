// Which domains there are, and what they are defined as. A definition is on disk before it is acknowledged.
#include <libvirt/libvirt.h>

#include "conf/base/log.h"
#include "conf/base/text.h"
#include "conf/defaults.h"
#include "conf/validate.h"
#include "driver/userns/change.h"
#include "xml/domain.h"

namespace virtuserns::userns {

namespace {

constexpr unsigned kImpactFlags = VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG;
constexpr std::chrono::seconds kJobTimeout{30};  // libvirt's LXC_JOB_WAIT_TIME

}  // namespace

DomainRef ref_of(const DomainObject& domain) { return {domain.def.name, domain.def.uuid, domain.def.id}; }

Backend::Locked Backend::lock(Object domain) {
  std::unique_lock lock(domain->mutex);
  return {std::move(domain), std::move(lock)};
}

Result<Backend::Locked> Backend::find(const Uuid& uuid) const {
  Locked found = lock(TRY(domains_.find(uuid)));
  if (!found->exists()) return no_domain_with_uuid(uuid);
  return found;
}

Result<Backend::Locked> Backend::find_active(const Uuid& uuid) const {
  Locked found = TRY(find(uuid));
  TRY(require_active(*found));
  return found;
}

Result<Backend::Job> Backend::take_job(const Uuid& uuid) const {
  auto domain = TRY(domains_.find(uuid));
  std::unique_lock job(domain->job, kJobTimeout);
  if (!job) return fail(VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock");
  {
    const Locked locked = lock(domain);
    if (!locked->exists()) return no_domain_with_uuid(uuid);
  }
  return Job{std::move(domain), std::move(job)};
}

// The domain that a definition of this name and uuid belongs to, known or new, with its job.
Result<Backend::Job> Backend::claim(const std::string& name, const Uuid& uuid) {
  for (;;) {
    auto claim = TRY(domains_.claim(name, uuid));
    std::unique_lock job(claim.object->job, kJobTimeout);
    if (!job) return fail(VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock");
    const bool is_gone = lock(claim.object)->removed;
    if (!is_gone) return Job{std::move(claim.object), std::move(job)};
  }
}

// What claim() made and nobody filled.
void Backend::forget_if_empty(const Object& domain) {
  Uuid uuid;
  {
    const Locked locked = lock(domain);
    if (locked->removed || locked->exists()) return;
    locked->removed = true;
    uuid = locked->def.uuid;
    domains_.remove(uuid);
  }
  broker_.release(uuid);
}

void Backend::emit_locked(const UsernsDomain& domain, EventBody body) {
  events_.emit(Event{ref_of(domain), std::move(body)});
}

void Backend::emit_lifecycle_locked(const UsernsDomain& domain, int event, int detail) {
  emit_locked(domain, LifecycleEvent{event, detail});
}

Result<void> Backend::prepare_def(DomainDef& def) const {
  apply_defaults(def, DefaultsContext{host_.node.arch, paths_.controller});
  TRY(validate(def));
  def.id = -1;
  return {};
}

Result<void> Backend::save_definition(const DomainDef& def) {
  return store_.save(format_uuid(def.uuid),
                     xml::format_domain(without_live_values(def), xml::FormatKind::kInactive, xml::Secrets::kShow));
}

// ---- finding ----------------------------------------------------------------------------------------------------

Result<std::vector<DomainSummary>> Backend::list_domains() {
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

Result<DomainRef> Backend::lookup_by_id(int id) {
  for (auto& object : domains_.all()) {
    const Locked domain = lock(std::move(object));
    if (domain->exists() && domain->is_active() && domain->def.id == id) return ref_of(*domain);
  }
  return no_domain_with_id(id);
}

Result<DomainRef> Backend::lookup_by_name(const std::string& name) {
  const Locked domain = lock(TRY(domains_.find_by_name(name)));
  if (!domain->exists()) return no_domain_with_name(name);
  return ref_of(*domain);
}

Result<DomainRef> Backend::lookup_by_uuid(const Uuid& uuid) { return ref_of(*TRY(find(uuid))); }

// ---- defining ---------------------------------------------------------------------------------------------------

Result<DomainRef> Backend::define(const Caller&, DomainDef def, unsigned flags) {
  TRY(refuse_unknown_flags(flags, VIR_DOMAIN_DEFINE_VALIDATE, "define"));
  TRY(prepare_def(def));
  const Job job = TRY(claim(def.name, def.uuid));
  DomainDef old;
  bool had_def = false;
  {
    const Locked domain = job.look();
    had_def = domain->persistent;
    old = domain->config_def();
  }
  const auto give_up = [&](Error error) {
    if (had_def) broker_.restore(old);
    forget_if_empty(job.domain);
    return error;
  };
  if (auto claimed = broker_.claim(def); !claimed) return give_up(claimed.error());
  if (auto saved = save_definition(def); !saved) return give_up(saved.error());
  const Locked domain = job.look();
  const bool was_defined = assign_persistent_def(*domain, std::move(def));
  emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_DEFINED,
                        was_defined ? VIR_DOMAIN_EVENT_DEFINED_UPDATED : VIR_DOMAIN_EVENT_DEFINED_ADDED);
  return ref_of(*domain);
}

Result<void> Backend::undefine(const Caller&, const Uuid& uuid, unsigned flags) {
  // There is nothing of these kinds to remove, so asking for their removal is granted (Nova asks).
  TRY(refuse_unknown_flags(flags,
                           VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
                               VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA,
                           "undefine"));
  const Job job = TRY(take_job(uuid));
  if (!job.look()->persistent) return fail(VIR_ERR_OPERATION_INVALID, "Cannot undefine transient domain");
  TRY(store_.remove(format_uuid(uuid)));
  bool is_gone = false;
  {
    const Locked domain = job.look();
    domain->persistent = domain->autostart = domain->updated = false;
    domain->next_def.reset();
    emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_UNDEFINED, VIR_DOMAIN_EVENT_UNDEFINED_REMOVED);
    is_gone = !domain->is_active();
    if (is_gone) {
      domain->removed = true;
      domains_.remove(uuid);
    }
  }
  if (is_gone)
    broker_.release(uuid);
  else
    save_status(job.domain);
  return {};
}

Result<DomainDef> Backend::definition(const Caller&, const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(
      flags, VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_UPDATE_CPU | VIR_DOMAIN_XML_MIGRATABLE,
      "definition"));
  const Locked domain = TRY(find(uuid));
  if ((flags & VIR_DOMAIN_XML_INACTIVE) && domain->is_active()) return without_live_values(domain->config_def());
  return domain->def;
}

Result<void> Backend::rename(const Caller&, const Uuid& uuid, const std::string& new_name, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "rename"));
  TRY(validate_name(new_name));
  const Job job = TRY(take_job(uuid));
  DomainDef def;
  {
    const Locked domain = job.look();
    if (domain->is_active()) return fail(VIR_ERR_OPERATION_INVALID, "cannot rename active domain");
    def = domain->def;
  }
  const std::string old_name = std::exchange(def.name, new_name);
  TRY(domains_.rename(uuid, new_name));
  if (auto saved = save_definition(def); !saved) {
    (void)domains_.rename(uuid, old_name);
    return saved;
  }
  const Locked domain = job.look();
  emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_UNDEFINED, VIR_DOMAIN_EVENT_UNDEFINED_RENAMED);
  domain->def.name = new_name;
  emit_lifecycle_locked(*domain, VIR_DOMAIN_EVENT_DEFINED, VIR_DOMAIN_EVENT_DEFINED_RENAMED);
  return {};
}

// ---- facts about a definition -----------------------------------------------------------------------------------

Result<bool> Backend::autostart(const Uuid& uuid) { return TRY(find(uuid))->autostart; }

Result<void> Backend::set_autostart(const Caller&, const Uuid& uuid, bool on) {
  const Job job = TRY(take_job(uuid));
  if (!job.look()->persistent) return fail(VIR_ERR_OPERATION_INVALID, "Cannot set autostart for transient domain");
  TRY(store_.set_autostart(format_uuid(uuid), on));
  job.look()->autostart = on;
  return {};
}

Result<bool> Backend::is_active(const Uuid& uuid) { return TRY(find(uuid))->is_active(); }
Result<bool> Backend::is_persistent(const Uuid& uuid) { return TRY(find(uuid))->persistent; }
Result<bool> Backend::is_updated(const Uuid& uuid) { return TRY(find(uuid))->updated; }

Result<bool> Backend::has_managed_save(const Uuid& uuid, unsigned flags) {
  TRY(refuse_unknown_flags(flags, 0, "has_managed_save"));
  (void)TRY(find(uuid));
  return false;
}

Result<std::string> Backend::metadata(const Uuid& uuid, int type, const std::string& uri, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "metadata"));
  const Locked domain = TRY(find(uuid));
  return get_metadata(*TRY(queried_def(*domain, flags)), type, uri);
}

Result<void> Backend::set_metadata(const Caller&, const Uuid& uuid, int type, std::optional<std::string> value,
                                   const std::string& uri, unsigned flags) {
  TRY(refuse_unknown_flags(flags, kImpactFlags, "set_metadata"));
  TRY(change_defs(
      uuid, flags,
      [&](const AffectedDefs& defs) -> Result<void> {
        if (defs.live) TRY(virtuserns::set_metadata(*defs.live, type, value, uri));
        if (defs.config) TRY(virtuserns::set_metadata(*defs.config, type, value, uri));
        return {};
      },
      [](const RunPtr&, const DomainDef&) { return Result<void>(); }));
  if (const auto domain = find(uuid)) emit_locked(**domain, MetadataChangeEvent{type, uri});
  return {};
}

}  // namespace virtuserns::userns
