// The range broker: every host id has one owner. Definitions are checked when they are defined, automatic ranges are
// chosen when a domain first starts and kept until it is undefined (transient: until it ends).
//
// A domain with an owner has its range from that user's lines of /etc/subuid and /etc/subgid and not from the pool. What the
// user's own sessions hold is known as far as it runs: live maps are in the way of a start. Ranges of their domains that are off
// are not known.
//
// Domains of a group (<userns:ids group=''>, or one of Nova's projects with ids_per = "project") may have the same ids. Those without
// <idmap> have the group's range: what was leased for it before, else what another one of them has, else a new one. It is the
// group's as long as a domain of it is defined or runs.
//
// One lock for all of it: what was checked is what is then recorded. It is never held together with a domain's.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "conf/daemon_config.h"
#include "conf/idpool.h"
#include "conf/leases.h"
#include "conf/paths.h"

namespace virtuserns::userns {

// Ranges of id maps of live processes that are not in the initial user namespace; at most one claim for each map.
[[nodiscard]] IdClaims read_foreign_maps(const std::string& proc);

class RangeBroker {
 public:
  RangeBroker(const DaemonConfig& config, const Paths& paths) : config_(config), paths_(paths) {}
  // `live`: domains that may be running. `is_inside`: of a container, whose ids are all that there are. The problems are
  // for the log.
  [[nodiscard]] Result<std::vector<std::string>> open(const std::vector<Uuid>& live, bool is_inside);

  // The ranges that a definition asks for: checked against everybody else's, and remembered as the domain's.
  // `old`, if any, is put back by whoever fails later with restore().
  [[nodiscard]] Result<void> claim(const DomainDef& def);
  // Of a definition that was accepted before: remembered without a check.
  void restore(const DomainDef& def);
  // The maps of a start: durable when this returns. Stands against subuid lines that came later (row A6).
  [[nodiscard]] Result<IdMaps> lease(const DomainDef& def);
  // Of a domain found running: its maps are its own whatever the ledger says.
  void adopt(const DomainDef& def, const IdMaps& maps);
  // It does not run any more: given maps are what its definition says, automatic ones stay leased.
  void ended(const Uuid& domain);
  void release(const Uuid& domain);
  // Leases of domains that are not known, and of groups that none of these is in, are given back.
  void collect(const std::vector<Uuid>& known);

 private:
  struct Held {
    std::string name;
    IdMapDef asked;
    std::string group;  // of the definition
    IdMaps leased;
    std::string leased_group;  // that shares `leased`
  };
  [[nodiscard]] IdClaims claims_locked() const;
  [[nodiscard]] Result<IdClaims> all_claims_locked(const DomainDef& def, TargetRules& rules) const;
  [[nodiscard]] Result<IdMaps> lease_locked(const DomainDef& def);
  [[nodiscard]] std::optional<IdMaps> kept_locked(const DomainDef& def, const TargetRules& rules) const;
  [[nodiscard]] std::optional<IdMaps> range_of_root(const DomainDef& def, const IdClaims& claims,
                                                    const TargetRules& rules) const;
  [[nodiscard]] Result<IdMaps> choose_locked(const DomainDef& def, const IdClaims& claims,
                                             const TargetRules& rules) const;
  [[nodiscard]] Result<void> write_locked(const DomainDef& def, const std::string& group, const IdMaps& maps);
  void record_locked(const DomainDef& def);
  void run_locked(const DomainDef& def, const IdMaps& maps, const std::string& leased_group);

  // groups: broker_groups.cpp
  [[nodiscard]] std::string group_of(const DomainDef& def) const;
  [[nodiscard]] std::map<std::string, std::string> describe_groups_locked() const;
  [[nodiscard]] std::optional<IdMaps> range_of_group_locked(const std::string& group, const DomainDef& def) const;
  [[nodiscard]] Result<void> check_group_locked(const DomainDef& def, const std::string& group) const;
  void append_groups_locked(IdClaims& claims) const;
  void drop_unused_groups_locked();

  const DaemonConfig& config_;
  const Paths& paths_;
  bool is_inside_ = false;
  std::mutex mutex_;
  Ledger ledger_;
  std::map<Uuid, Held> held_;
  bool is_collected_ = false;  // all domains are known: a group without one has none
};

}  // namespace virtuserns::userns
