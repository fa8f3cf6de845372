// DomainTable: the domains of a driver, and the two ways to have one to oneself.
//
// Locks, in the order in which they may be taken:
//  * job    one operation that changes a domain at a time. Held across calls that block. Waited for at most as long as
//           libvirt's drivers wait (VIR_ERR_OPERATION_TIMEOUT).
//  * mutex  of a domain (conf/domain_objects.h): to look and to record, never across a call that blocks, never two.
//           Events are emitted under it: watchers hear them in the order in which they happened.
//  * the table's own, inside its calls only.
// Every call may come from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "conf/domain_objects.h"
#include "driver/driver.h"

namespace virtuserns {

// What the base knows of a domain. A module derives its own from it, with what it knows of a running one.
struct DriverDomain : DomainObject {
  std::timed_mutex job;
  std::optional<std::uint64_t> autodestroy_by;  // Caller::connection_id; guarded by mutex
};

// A domain with its mutex held. The mutex is released before the domain can go.
template <class Domain>
struct LockedDomain {
  std::shared_ptr<Domain> domain;
  std::unique_lock<std::mutex> lock;
  Domain* operator->() const { return domain.get(); }
  Domain& operator*() const { return *domain; }
};

template <class Domain>
[[nodiscard]] LockedDomain<Domain> lock_domain(std::shared_ptr<Domain> domain) {
  std::unique_lock lock(domain->mutex);
  return {std::move(domain), std::move(lock)};
}

// A domain whose job is ours, without its mutex.
template <class Domain>
struct DomainJob {
  std::shared_ptr<Domain> domain;
  std::unique_lock<std::timed_mutex> lock;
  [[nodiscard]] LockedDomain<Domain> look() const { return lock_domain(domain); }
};

[[nodiscard]] DomainRef ref_of(const DomainObject& domain);
// As Driver::owner(). With the domain's mutex held.
[[nodiscard]] std::optional<OwnerDef> owner_of(const DomainObject& domain);

class DomainTable {
 public:
  using Object = std::shared_ptr<DriverDomain>;
  using Locked = LockedDomain<DriverDomain>;
  using Job = DomainJob<DriverDomain>;

  // `make`: a new, empty object of the module's class.
  explicit DomainTable(std::function<Object()> make) : list_(std::move(make)) {}

  // VIR_ERR_NO_DOMAIN where there is none, or only one that claim() made and nobody filled yet.
  [[nodiscard]] Result<Locked> find(const Uuid& uuid) const;
  [[nodiscard]] Result<Locked> find_by_name(const std::string& name) const;
  [[nodiscard]] Result<DomainRef> ref_by_id(int id) const;
  [[nodiscard]] Result<Locked> find_active(const Uuid& uuid) const;  // VIR_ERR_OPERATION_INVALID: it does not run
  // Without its mutex, and also one that nobody filled yet.
  [[nodiscard]] Result<Object> find_object(const Uuid& uuid) const { return list_.find(uuid); }
  // In the order of uuids, as they were; each may be gone (exists()) by the time its mutex is taken.
  [[nodiscard]] std::vector<Object> all() const { return list_.all(); }

  // Blocks. The domain exists when this returns; only the holder of its job can make it go, or its own end.
  [[nodiscard]] Result<Job> take_job(const Uuid& uuid) const;
  // The domain that a definition of this name and uuid belongs to, known or new, with its job. Blocks. Whoever cannot
  // fill a new one calls forget_if_empty. VIR_ERR_OPERATION_FAILED: the name or the uuid is another domain's.
  [[nodiscard]] Result<Job> claim(const std::string& name, const Uuid& uuid);
  // True: it was empty and is gone.
  bool forget_if_empty(const Object& domain);

  // The holder of the job has the name reserved by this and sets def.name itself. VIR_ERR_OPERATION_INVALID: taken.
  [[nodiscard]] Result<void> rename(const Uuid& uuid, const std::string& new_name) {
    return list_.rename(uuid, new_name);
  }
  void remove_locked(DriverDomain& domain);  // with its mutex held

 private:
  DomainList<DriverDomain> list_;
};

}  // namespace virtuserns
