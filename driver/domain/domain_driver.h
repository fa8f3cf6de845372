// DomainDriver: what a driver does with definitions, whatever runs them.
//
// It owns the table of domains and answers every operation whose answer follows from definitions: finding, defining,
// changing, sizes and limits, devices of the next start, metadata, what a definition says of a domain. A module derives
// from it (TypedDomainDriver below), adds the life of its domains, and says through the hooks what differs.
//
// Contract of the hooks:
//  * They are called on the thread of the operation, without any lock but the domain's job where `job held` is said;
//    so they may block and may take the domain's mutex. A `DriverDomain&` is always of the module's own class.
//  * An error of a hook is the operation's, as it is; what the operation did before is undone.
//  * A module that is done with nothing of a concern leaves its hooks alone: each has a default.
// The module sets and ends the state of its domains itself (begin_running, end_running), with the job held or, where
// what runs tells, under the mutex alone, and emits the events of that.
#pragma once

#include <libvirt/libvirt.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conf/bulk_stats.h"
#include "conf/defaults.h"
#include "conf/owner.h"
#include "conf/tuning.h"
#include "driver/domain/table.h"

namespace virtuserns {

inline constexpr unsigned kImpactFlags = VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG;

// Which values of a running domain a change is about.
enum class Limits { kMemorySize, kMemory, kCpu, kVcpuCount, kVcpuPins, kBlockIo };

class DomainDriver : public Driver {
 public:
  // of the daemon: domains.cpp
  void autostart_all() override;
  bool has_active_domains() override;
  void connection_closed(std::uint64_t connection_id) override;

  // domains.cpp
  Result<std::vector<DomainSummary>> list_domains() override;
  Result<DomainRef> lookup_by_id(int id) override;
  Result<DomainRef> lookup_by_name(const std::string& name) override;
  Result<DomainRef> lookup_by_uuid(const Uuid& uuid) override;
  Result<std::optional<OwnerDef>> owner(const Uuid& uuid) override;
  Result<bool> is_active(const Uuid&) override;
  Result<bool> is_persistent(const Uuid&) override;
  Result<bool> is_updated(const Uuid&) override;
  Result<bool> has_managed_save(const Uuid&, unsigned flags) override;

  // definitions.cpp
  Result<DomainRef> define(const Caller&, DomainDef def, unsigned flags) override;
  Result<void> undefine(const Caller&, const Uuid&, unsigned flags) override;
  Result<DomainDef> definition(const Caller&, const Uuid&, unsigned flags) override;
  Result<void> rename(const Caller&, const Uuid&, const std::string& new_name, unsigned flags) override;
  Result<bool> autostart(const Uuid&) override;
  Result<void> set_autostart(const Caller&, const Uuid&, bool on) override;
  Result<std::string> metadata(const Uuid&, int type, const std::string& uri, unsigned flags) override;
  Result<void> set_metadata(const Caller&, const Uuid&, int type, std::optional<std::string> value,
                            const std::string& uri, unsigned flags) override;

  // watching.cpp
  Result<DomainState> state(const Uuid&, unsigned flags) override;
  Result<ControlInfo> control_info(const Uuid&, unsigned flags) override;
  Result<std::vector<DomainStats>> all_stats(const std::vector<Uuid>& uuids, unsigned stats, unsigned flags) override;
  Result<std::vector<std::string>> messages(const Uuid&, unsigned flags) override;
  Result<SecurityLabel> security_label(const Uuid&) override;

  // tuning.cpp
  Result<int> vcpu_count(const Uuid&, unsigned flags) override;
  Result<std::vector<std::vector<bool>>> vcpu_pins(const Uuid&, unsigned flags) override;
  Result<std::uint64_t> max_memory_kib(const Uuid&) override;
  Result<void> set_memory(const Caller&, const Uuid&, std::uint64_t kib, unsigned flags) override;
  Result<TypedParams> memory_parameters(const Uuid&, unsigned flags) override;
  Result<void> set_memory_parameters(const Caller&, const Uuid&, const TypedParams&, unsigned flags) override;
  Result<std::string> scheduler_type(const Uuid&, int* parameter_count) override;
  Result<TypedParams> scheduler_parameters(const Uuid&, unsigned flags) override;
  Result<void> set_scheduler_parameters(const Caller&, const Uuid&, const TypedParams&, unsigned flags) override;
  Result<TypedParams> blkio_parameters(const Uuid&, unsigned flags) override;
  Result<void> set_blkio_parameters(const Caller&, const Uuid&, const TypedParams&, unsigned flags) override;
  Result<void> set_vcpus(const Caller&, const Uuid&, unsigned count, unsigned flags) override;
  Result<void> pin_vcpu(const Caller&, const Uuid&, unsigned vcpu, const std::vector<bool>& cpus,
                        unsigned flags) override;

  // devices.cpp
  Result<void> attach_device(const Caller&, const Uuid&, DeviceDef device, unsigned flags) override;
  Result<void> detach_device(const Caller&, const Uuid&, DeviceDef device, unsigned flags) override;
  Result<void> update_device(const Caller&, const Uuid&, DeviceDef device, unsigned flags) override;

 protected:
  // `events` outlives the driver.
  DomainDriver(EventHub& events, std::function<std::shared_ptr<DriverDomain>()> make)
      : domains_(std::move(make)), events_(events) {}

  // ---- hooks: definitions ----
  virtual DefaultsContext defaults_context() const = 0;
  virtual OwnedRules owned_rules() const { return {}; }
  // Takes for `def` what no two domains may share, instead of what the domain had before; job held. Then the
  // definition is accepted, or restore() gets the one that stood before.
  virtual Result<void> reserve(const DomainDef& def);
  virtual void restore(const DomainDef& def);
  virtual void release(const Uuid& uuid);  // the domain is gone
  // Durable when it returns; after an error what was stored before stands. job held. Default: nothing is stored.
  virtual Result<void> store_definition(const DomainDef& def);
  virtual Result<void> remove_definition(const Uuid& uuid);
  virtual Result<void> store_autostart(const Uuid& uuid, bool on);

  // ---- hooks: a running domain ----
  // Something changed that the next daemon must know of a running domain (or it has ended meanwhile). job held.
  virtual void live_changed(const std::shared_ptr<DriverDomain>& domain);
  // Makes the changed values of `live` true of what runs. May correct `live`, which is recorded after it. `given`: the
  // parameters of the call, where it has any; what they do not name was not changed. job held.
  virtual Result<void> apply_limits(DriverDomain& domain, DomainDef& live, Limits changed, const TypedParams& given);
  // Puts what the running domain really has into `live`, a copy of its definition.
  virtual void read_limits(DomainDef& live, Limits wanted);
  virtual std::size_t host_cpus() const = 0;
  // Plug `device` in or out; `live`, a copy, is recorded when every definition took the change. The string is the
  // device's alias. job held. Default: VIR_ERR_OPERATION_UNSUPPORTED.
  virtual Result<std::string> attach_live(DriverDomain& domain, DomainDef& live, DeviceDef device);
  virtual Result<std::string> detach_live(DriverDomain& domain, DomainDef& live, const DeviceDef& device);
  virtual Result<void> update_live(DriverDomain& domain, DomainDef& live, const DeviceDef& device);
  // Fills in what only a running domain has: cpu times, memory, interfaces, blocks. `def`: a copy of what runs.
  virtual void sample_live(DriverDomain& domain, const DomainDef& def, StatsSample& sample) = 0;
  // Of its start, for virDomainGetMessages; with the domain's mutex held.
  virtual std::vector<std::string> live_messages_locked(const DriverDomain& domain);
  // Its creator's connection has ended; not to be waited for where that takes long. Default: destroy().
  virtual void autodestroy(const Uuid& uuid);

  // ---- for the module ----
  using Change = std::function<Result<void>(const AffectedDefs&)>;
  using ApplyLive = std::function<Result<void>(DomainDef& live)>;
  // `change` runs on copies of the definitions that `flags` mean; then `apply_live` makes it true of the running
  // domain; then the persistent definition is stored; then both replace the originals. After an error of any step the
  // originals stand (what apply_live did before a failing store is what the next change or start repairs).
  [[nodiscard]] Result<void> change_defs(const Caller& caller, const DomainTable::Job& job, unsigned flags,
                                         const Change& change, const ApplyLive& apply_live = {});
  // A definition from outside: completed and checked.
  [[nodiscard]] Result<void> prepare(DomainDef& def) const;
  // Of a caller who may manage own domains only: a definition, prepared, that is the caller's and contains what an owner may
  // write. Others write what they like. owners.cpp
  [[nodiscard]] Result<void> admit_definition(const Caller& caller, const DomainDef& def) const;
  [[nodiscard]] Result<void> admit_live_definition(const Caller& caller, const DomainDef& live) const;
  // Before a hook makes it true of what runs: the definitions, so changed, would be admitted. One that cannot be changed so makes the
  // change itself fail.
  [[nodiscard]] Result<void> admit_change(const Caller& caller, const DomainTable::Job& job,
                                          const std::function<Result<void>(DomainDef&)>& change) const;
  // domains_.claim(), and the domain that is there is the caller's, if the caller may manage own domains only. owners.cpp
  [[nodiscard]] Result<DomainTable::Job> claim_for(const Caller& caller, const DomainDef& def);
  // What claim() made and nobody filled, with what was reserved for it.
  void forget_if_empty(const std::shared_ptr<DriverDomain>& domain);

  void emit_locked(const DriverDomain& domain, EventBody body);  // with its mutex held
  void emit_lifecycle_locked(const DriverDomain& domain, int event, int detail);
  // Without it; says nothing of a domain that has gone.
  void emit(const DomainTable::Job& job, EventBody body);

  DomainTable domains_;

 private:
  [[nodiscard]] Result<void> change_limits(const Caller& caller, const Uuid& uuid, unsigned flags, Limits limits,
                                           const TypedParams& given, const Change& change,
                                           std::optional<EventBody> event = {});
  [[nodiscard]] bool are_own(const DomainDef& def, const Caller& caller) const;
  // A copy of the definition that a query is about, with what really is when that is the running one.
  [[nodiscard]] Result<DomainDef> queried_limits(const Uuid& uuid, unsigned flags, Limits limits);

  EventHub& events_;
};

// The same change in each affected definition.
[[nodiscard]] inline auto in_each(std::function<Result<void>(DomainDef&)> change) {
  return [change = std::move(change)](const AffectedDefs& defs) -> Result<void> {
    if (defs.live) TRY(change(*defs.live));
    if (defs.config) TRY(change(*defs.config));
    return {};
  };
}

// By the name of its end on the host or its MAC address. VIR_ERR_INVALID_ARG.
[[nodiscard]] Result<const InterfaceDef*> find_interface(const DomainDef& def, const std::string& device);
// By alias; "" is the first. VIR_ERR_INTERNAL_ERROR, as libvirt's drivers answer.
[[nodiscard]] Result<const ConsoleDef*> find_console(const DomainDef& def, const std::string& device);
// What definition and state say; the memory and time that are used are the module's. With the domain's mutex held.
[[nodiscard]] DomainInfo info_locked(const DomainObject& domain);
[[nodiscard]] InterfaceSample sample_of(const std::string& name, const InterfaceStats& stats);
[[nodiscard]] BlockSample sample_of(const DiskDef& disk, const BlockStats& stats);

// The table's calls in terms of the module's own class of domains.
template <class Domain>
class TypedDomainDriver : public DomainDriver {
 protected:
  using Object = std::shared_ptr<Domain>;
  using Locked = LockedDomain<Domain>;
  using Job = DomainJob<Domain>;

  explicit TypedDomainDriver(EventHub& events) : DomainDriver(events, [] { return std::make_shared<Domain>(); }) {}

  [[nodiscard]] static Object typed(std::shared_ptr<DriverDomain> domain) {
    return std::static_pointer_cast<Domain>(std::move(domain));
  }
  template <template <class> class Held>  // LockedDomain, DomainJob
  [[nodiscard]] static Held<Domain> typed(Held<DriverDomain> held) {
    return {typed(std::move(held.domain)), std::move(held.lock)};
  }
  [[nodiscard]] static Locked lock(Object domain) { return lock_domain(std::move(domain)); }
  [[nodiscard]] Result<Locked> find(const Uuid& uuid) const { return typed(TRY(domains_.find(uuid))); }
  [[nodiscard]] Result<Locked> find_active(const Uuid& uuid) const { return typed(TRY(domains_.find_active(uuid))); }
  [[nodiscard]] Result<Job> take_job(const Uuid& uuid) const { return typed(TRY(domains_.take_job(uuid))); }
  [[nodiscard]] Result<Job> claim(const std::string& name, const Uuid& uuid) {
    return typed(TRY(domains_.claim(name, uuid)));
  }
  [[nodiscard]] Result<Job> claim_for(const Caller& caller, const DomainDef& def) {
    return typed(TRY(DomainDriver::claim_for(caller, def)));
  }
};

}  // namespace virtuserns
