// The bookkeeping that every hypervisor driver needs: which domains exist, which of a domain's two definitions a
// call means, and the words libvirt's users expect when it means none.
//
// Pure: no files, no kernel, no events. A driver derives its own object from DomainObject (sockets, leases,
// counters) and keeps a DomainList of it.
//
// Locks. DomainList has one mutex and never takes a domain's. DomainObject::mutex guards every member of the object
// (not its name in the list); nobody holds it across a call that can block, nor two of them at once. A driver that
// must block while it owns a domain takes a job of its own for that.
#pragma once

#include <libvirt/libvirt.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"
#include "conf/uuid.h"

namespace virtuserns {

// ---- libvirt's words --------------------------------------------------------------------------------------------

[[nodiscard]] Error no_domain_with_uuid(const Uuid& uuid);         // VIR_ERR_NO_DOMAIN
[[nodiscard]] Error no_domain_with_name(const std::string& name);  // VIR_ERR_NO_DOMAIN
[[nodiscard]] Error no_domain_with_id(int id);                     // VIR_ERR_NO_DOMAIN
[[nodiscard]] Error domain_not_running();                          // VIR_ERR_OPERATION_INVALID

// ---- live and config --------------------------------------------------------------------------------------------

// What VIR_DOMAIN_AFFECT_LIVE, _CONFIG or neither (_CURRENT) means for this domain now.
struct Impact {
  bool live = false, config = false;
  bool operator==(const Impact&) const = default;
};

// Ignores other bits of `flags`. VIR_ERR_OPERATION_INVALID for LIVE on a domain that does not run and for CONFIG on
// a transient one.
[[nodiscard]] Result<Impact> resolve_impact(unsigned flags, bool is_active, bool is_persistent);

// ---- one domain -------------------------------------------------------------------------------------------------

struct DomainObject {
  std::mutex mutex;

  // While it runs: what runs (id >= 0, aliases, live values). Otherwise the persistent definition.
  DomainDef def;
  // While it runs and is persistent: what the next start will use.
  std::optional<DomainDef> next_def;
  bool persistent = false;
  bool autostart = false;
  bool updated = false;  // virDomainIsUpdated: next_def was changed while the domain runs
  bool removed = false;  // no longer in its list: whoever still holds it answers VIR_ERR_NO_DOMAIN
  int state = VIR_DOMAIN_SHUTOFF;
  int reason = VIR_DOMAIN_SHUTOFF_UNKNOWN;

  [[nodiscard]] bool is_active() const { return def.id >= 0; }
  // False between DomainList::claim and the moment its driver defined or started it, and after its end: nobody but
  // the claimer may see it.
  [[nodiscard]] bool exists() const { return !removed && (persistent || is_active()); }
  // The definition that the next start will use; of a transient domain, the running one.
  [[nodiscard]] DomainDef& config_def() { return next_def ? *next_def : def; }
  [[nodiscard]] const DomainDef& config_def() const { return next_def ? *next_def : def; }

  void set_state(int new_state, int new_reason) { state = new_state, reason = new_reason; }
};

// The definitions a change has to be made in. A pointer that is null: not in that one.
struct AffectedDefs {
  DomainDef* live = nullptr;
  DomainDef* config = nullptr;
};
[[nodiscard]] Result<AffectedDefs> affected_defs(DomainObject& domain, unsigned flags);
// The one definition that a query asks about. LIVE together with CONFIG is VIR_ERR_INVALID_ARG.
[[nodiscard]] Result<const DomainDef*> queried_def(const DomainObject& domain, unsigned flags);
[[nodiscard]] Result<void> require_active(const DomainObject& domain);

// Puts `def` where virDomainDefineXML or virDomainCreateXML puts it in an object that DomainList::claim returned:
// a running domain keeps what runs. Says whether a persistent definition was there before (DEFINED_UPDATED).
bool assign_persistent_def(DomainObject& domain, DomainDef def);
// For virDomainCreateXML: a persistent definition of the same name and uuid waits as next_def until this one ends.
// VIR_ERR_OPERATION_INVALID when the domain is active. Undone by end_running.
[[nodiscard]] Result<void> assign_transient_def(DomainObject& domain, DomainDef def);
// The definition now runs under `id`; a persistent domain keeps a copy for the next start.
void begin_running(DomainObject& domain, int id, int running_reason);
// It does not run any more: the next definition takes its place. False: nothing is left of it (transient), the
// caller removes it from its list.
[[nodiscard]] bool end_running(DomainObject& domain, int shutoff_reason);

// What VIR_DOMAIN_XML_INACTIVE shows: without id, generated aliases, terminal paths and generated link names.
[[nodiscard]] DomainDef without_live_values(DomainDef def);

// Of virConnectListAllDomainsFlags and virConnectGetAllDomainStatsFlags: true when the domain passes every group of
// filters that `flags` has a bit of.
struct ListFacts {
  int state = 0;
  bool active = false, persistent = false, autostart = false;
  bool managed_save = false, snapshot = false, checkpoint = false;
};
[[nodiscard]] bool passes_list_filter(const ListFacts& facts, unsigned flags);

// ---- metadata ---------------------------------------------------------------------------------------------------

// `type`: virDomainMetadataType. A missing one is VIR_ERR_NO_DOMAIN_METADATA.
[[nodiscard]] Result<std::string> get_metadata(const DomainDef& def, int type, const std::string& uri);
// No value: removes. `value` of an element is canonical XML text with its namespace declared.
[[nodiscard]] Result<void> set_metadata(DomainDef& def, int type, const std::optional<std::string>& value,
                                        const std::string& uri);

// ---- all domains ------------------------------------------------------------------------------------------------

// Names and uuids, each unique. Keeps an index of its own, so that it never needs a domain's mutex.
class DomainNames {
 public:
  // Refuses what virDomainObjListAdd refuses, with its codes and words.
  [[nodiscard]] Result<void> check(const std::string& name, const Uuid& uuid) const;
  void insert(const std::string& name, const Uuid& uuid);
  void erase(const Uuid& uuid);
  [[nodiscard]] Result<void> rename(const Uuid& uuid, const std::string& new_name);
  [[nodiscard]] std::optional<Uuid> find(const std::string& name) const;

 private:
  std::map<std::string, Uuid> by_name_;
  std::map<Uuid, std::string> names_;
};

template <class Object>  // derived from DomainObject, or itself
class DomainList {
 public:
  using Pointer = std::shared_ptr<Object>;
  struct Claim {
    Pointer object;
    bool is_new = false;
  };
  using Factory = std::function<Pointer()>;

  // `make`: for an owner that keeps objects of a class derived from Object. It is called with the list's mutex held.
  explicit DomainList(Factory make = [] { return std::make_shared<Object>(); }) : make_(std::move(make)) {}

  // The object of this name and uuid: the one that is there, or a new one that has only these two (the caller fills
  // it, or removes it again when it cannot). Refuses a name or uuid that belongs to another domain. One that is
  // there may be gone by the time the caller has its mutex (`removed`): claim again.
  [[nodiscard]] Result<Claim> claim(const std::string& name, const Uuid& uuid) {
    const std::lock_guard lock(mutex_);
    TRY(names_.check(name, uuid));
    if (auto found = objects_.find(uuid); found != objects_.end()) return Claim{found->second, false};
    Pointer object = make_();
    object->def.name = name;
    object->def.uuid = uuid;
    names_.insert(name, uuid);
    objects_.emplace(uuid, object);
    return Claim{std::move(object), true};
  }

  [[nodiscard]] Result<Pointer> find(const Uuid& uuid) const {
    const std::lock_guard lock(mutex_);
    auto found = objects_.find(uuid);
    if (found == objects_.end()) return no_domain_with_uuid(uuid);
    return found->second;
  }

  [[nodiscard]] Result<Pointer> find_by_name(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    auto uuid = names_.find(name);
    if (!uuid) return no_domain_with_name(name);
    return objects_.at(*uuid);
  }

  // In the order of uuids.
  [[nodiscard]] std::vector<Pointer> all() const {
    const std::lock_guard lock(mutex_);
    std::vector<Pointer> list;
    list.reserve(objects_.size());
    for (const auto& [uuid, object] : objects_) list.push_back(object);
    return list;
  }

  // The caller changes def.name itself.
  [[nodiscard]] Result<void> rename(const Uuid& uuid, const std::string& new_name) {
    const std::lock_guard lock(mutex_);
    return names_.rename(uuid, new_name);
  }

  // The caller sets DomainObject::removed.
  void remove(const Uuid& uuid) {
    const std::lock_guard lock(mutex_);
    objects_.erase(uuid);
    names_.erase(uuid);
  }

  [[nodiscard]] std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return objects_.size();
  }

 private:
  Factory make_;
  mutable std::mutex mutex_;
  DomainNames names_;
  std::map<Uuid, Pointer> objects_;
};

}  // namespace virtuserns
