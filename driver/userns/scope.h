// What a domain is called among systemd's units, and where its groups are then. Pure; driver/userns/systemd.h does it.
//
// The unit's name is new for every life, so that a start never meets the scope of the life before, which systemd removes
// when it comes to it.
#pragma once

#include <string>

#include "conf/domain.h"
#include "driver/kernel/facts.h"

namespace virtuserns::userns {

enum class Controllers { kV2, kV1Too };  // that systemd knows on this host

struct Scope {
  std::string unit;   // "virtuserns-<uuid>-<life>.scope"
  std::string slice;  // "machine.slice"; of <partition>/machine/a-b</partition> "machine-a\x2db.slice"
  Controllers controllers = Controllers::kV2;
  std::string
      root;  // the group of the systemd that makes it: "" of pid 1, "user.slice/..../user@1000.service" of a user's
  [[nodiscard]] std::string group() const;  // "machine.slice/virtuserns-<uuid>-<life>.scope", below `root`
};

[[nodiscard]] Scope make_scope(const DomainDef& def, std::uint64_t life, CgroupMode mode);
// libvirt's rule: the parts of the partition, each escaped as systemd does it, joined by '-'.
[[nodiscard]] std::string slice_of_partition(const std::string& partition);
// Whether systemd makes groups of its units in this hierarchy: v2 and name=systemd where it mounted them, of v1 the
// controllers that it knows. Of the others (cpuset and freezer of v1) every group is ours alone.
[[nodiscard]] bool is_systemds(const CgroupHierarchy& hierarchy);
// For machinectl(1): "userns-<pid>-<name>", of the characters of a host name, at most 64.
[[nodiscard]] std::string machine_name(pid_t controller, const std::string& name);

}  // namespace virtuserns::userns
