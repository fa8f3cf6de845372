// The parts of make_plan, one file each. Internal to driver/userns.
#pragma once

#include "driver/userns/make_plan.h"

namespace virtuserns::userns {

// A plan in the making.
struct Draft {
  const DomainDef& def;
  const IdMaps& maps;
  const PlanContext& context;
  MadePlan made;
  std::uint32_t next_source = 1;

  [[nodiscard]] LaunchPlan& plan() { return made.plan; }
  [[nodiscard]] std::uint32_t plan_uid() const;  // host ids of container root
  [[nodiscard]] std::uint32_t plan_gid() const;
  void message(std::string text) { made.messages.push_back(std::move(text)); }
};

// The hierarchy whose groups limit devices: v1's if there is one, else cgroup2; null: nobody does.
[[nodiscard]] const CgroupHierarchy* device_hierarchy(const HostFacts& host);  // plan_groups.cpp

void plan_groups(Draft& draft);  // plan_groups.cpp
// Beyond those that every domain has.
[[nodiscard]] std::vector<DeviceRule> own_device_rules(const Draft& draft);  // plan_groups.cpp
// Those that are not the root.
[[nodiscard]] Result<void> plan_filesystems(Draft& draft);  // plan_mounts.cpp
[[nodiscard]] Result<void> plan_mounts(Draft& draft);       // plan_mounts.cpp
[[nodiscard]] Result<void> plan_devices(Draft& draft);      // plan_mounts.cpp
[[nodiscard]] Result<void> plan_network(Draft& draft);      // plan_network.cpp
[[nodiscard]] Result<void> plan_init(Draft& draft);         // plan_init.cpp
// Of the overlay at `fs`, to be kept under `id`: plan_overlay.cpp.
[[nodiscard]] Result<void> plan_overlay(Draft& draft, const FilesystemDef& fs, const OverlayDef& overlay,
                                        const FilesystemFacts& facts, std::uint32_t id);

[[nodiscard]] inline Error unsupported(std::string text) { return fail(VIR_ERR_CONFIG_UNSUPPORTED, std::move(text)); }

}  // namespace virtuserns::userns
