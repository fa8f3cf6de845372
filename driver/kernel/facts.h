// What this machine offers: read once at start, plain data, so that make_plan stays pure. Reads only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/capabilities.h"

namespace virtuserns {

struct CgroupHierarchy {
  std::string mount;  // "/sys/fs/cgroup/memory"
  bool is_v2 = false;
  std::vector<std::string>
      controllers;       // v1: of the mount options ("cpu", "cpuacct"; "name=systemd"); v2: cgroup.controllers
  std::string own_path;  // the daemon's own group, from /proc/self/cgroup
};

enum class CgroupMode { kNone, kV1, kHybrid, kV2 };

struct HostFacts {
  CgroupMode cgroup_mode = CgroupMode::kNone;
  std::vector<CgroupHierarchy> hierarchies;
  // The kernel has cgroup2 and nobody has mounted it (v1 alone): who wants groups of it mounts it for itself.
  bool has_unmounted_cgroup2 = false;
  bool is_initial_user_namespace = false;
  bool has_idmapped_mounts = false;  // tried on `idmap_probe_path`'s file system by the caller per root
  bool has_time_namespace = false;
  bool has_user_namespaces = true;     // user.max_user_namespaces > 0 and kernel.unprivileged_userns_clone != 0
  std::uint64_t last_capability = 40;  // /proc/sys/kernel/cap_last_cap
  std::uint32_t kernel_major = 0, kernel_minor = 0;
  NodeFacts node;
};

// `proc` and `sys` are roots for tests.
[[nodiscard]] Result<HostFacts> read_host_facts(const std::string& proc = "/proc", const std::string& sys = "/sys");

}  // namespace virtuserns
