#include "driver/kernel/facts.h"

#include <unistd.h>

#include <algorithm>
#include <tuple>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/clone.h"
#include "driver/kernel/facts_text.h"
#include "driver/kernel/node_facts.h"

namespace virtuserns {

namespace kernel {

namespace {

// Options of a v1 superblock that name no controller (cgroup-v1/cgroups.rst).
bool is_plain_option(std::string_view option) {
  static constexpr std::string_view kPlain[] = {
      "rw",  "ro",     "xattr", "clone_children", "noprefix", "cpuset_v2_mode", "none",
      "all", "nosuid", "nodev", "noexec",         "relatime", "seclabel",       "favordynmods"};
  return option.starts_with("release_agent=") ||
         std::find(std::begin(kPlain), std::end(kPlain), option) != std::end(kPlain);
}

}  // namespace

std::vector<CgroupHierarchy> parse_cgroup_mounts(std::string_view mountinfo) {
  std::vector<CgroupHierarchy> hierarchies;
  for (const auto line : split(mountinfo, '\n')) {
    const auto words = split_blanks(line);
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 10 || words.end() - dash < 4) continue;
    CgroupHierarchy hierarchy;
    hierarchy.is_v2 = dash[1] == "cgroup2";
    // A mount of a part of a hierarchy (field 4) is somebody's container: groups are made from the root's mount.
    if ((!hierarchy.is_v2 && dash[1] != "cgroup") || words[3] != "/") continue;
    hierarchy.mount = unescape_octal(words[4]);
    if (!hierarchy.is_v2)
      for (const auto option : split(dash[3], ','))
        if (!is_plain_option(option)) hierarchy.controllers.emplace_back(option);
    const bool is_known = std::any_of(hierarchies.begin(), hierarchies.end(), [&](const CgroupHierarchy& known) {
      return known.is_v2 == hierarchy.is_v2 && known.controllers == hierarchy.controllers;
    });
    if (!is_known && hierarchies.size() < 64) hierarchies.push_back(std::move(hierarchy));
  }
  return hierarchies;
}

void set_own_groups(std::string_view own_cgroup, std::vector<CgroupHierarchy>& hierarchies) {
  for (const auto line : split(own_cgroup, '\n')) {
    const auto first = line.find(':');
    const auto second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const auto controllers = line.substr(first + 1, second - first - 1);
    for (auto& hierarchy : hierarchies) {
      const bool is_match = hierarchy.is_v2 ? controllers.empty()
                                            : !controllers.empty() && join(hierarchy.controllers, ",") == controllers;
      // The kernel may list co-mounted controllers in another order than the mount options do.
      const bool has_first = !hierarchy.is_v2 && !hierarchy.controllers.empty() &&
                             std::ranges::any_of(split(controllers, ','), [&](std::string_view name) {
                               return name == hierarchy.controllers[0];
                             });
      if (is_match || has_first) hierarchy.own_path = std::string(line.substr(second + 1));
    }
  }
}

std::pair<std::uint32_t, std::uint32_t> parse_kernel_release(std::string_view text) {
  const auto parts = split(trim(text), '.');
  if (parts.size() < 2) return {0, 0};
  const auto digits = parts[1].substr(0, parts[1].find_first_not_of("0123456789"));
  return {parse_number<std::uint32_t>(parts[0]).value_or(0), parse_number<std::uint32_t>(digits).value_or(0)};
}

}  // namespace kernel

namespace {

constexpr std::size_t kMaxMountinfo = 16 * 1024 * 1024;

CgroupMode mode_of(const std::vector<CgroupHierarchy>& hierarchies) {
  bool has_v1 = false, has_v2 = false;
  for (const auto& hierarchy : hierarchies) (hierarchy.is_v2 ? has_v2 : has_v1) = true;
  if (has_v1) return has_v2 ? CgroupMode::kHybrid : CgroupMode::kV1;
  return has_v2 ? CgroupMode::kV2 : CgroupMode::kNone;
}

std::string read_or_empty(const std::string& path) {
  auto text = read_kernel_file(path, 1024 * 1024);
  return text ? std::move(text).value() : std::string();
}

}  // namespace

Result<HostFacts> read_host_facts(const std::string& proc, const std::string& sys) {
  HostFacts facts;
  facts.hierarchies =
      kernel::parse_cgroup_mounts(TRY(read_kernel_file(proc + "/self/mountinfo", kMaxMountinfo), "host facts"));
  kernel::set_own_groups(read_or_empty(proc + "/self/cgroup"), facts.hierarchies);
  for (auto& hierarchy : facts.hierarchies) {
    if (!hierarchy.is_v2) continue;
    const std::string mount =
        hierarchy.mount.starts_with("/sys/") ? sys + hierarchy.mount.substr(4) : hierarchy.mount;
    const std::string text = read_or_empty(mount + "/cgroup.controllers");
    for (const auto controller : split_blanks(text)) hierarchy.controllers.emplace_back(controller);
  }
  facts.cgroup_mode = mode_of(facts.hierarchies);
  const bool has_v2 = facts.cgroup_mode == CgroupMode::kV2 || facts.cgroup_mode == CgroupMode::kHybrid;
  facts.has_unmounted_cgroup2 =
      !has_v2 && read_or_empty(proc + "/filesystems").find("\tcgroup2\n") != std::string::npos;
  std::tie(facts.kernel_major, facts.kernel_minor) =
      kernel::parse_kernel_release(TRY(read_kernel_file(proc + "/sys/kernel/osrelease", 256), "host facts"));
  // Whose file systems are the machine's own nobody below its own root may have shifted (mount_setattr(2)).
  facts.is_initial_user_namespace = kernel::is_initial_map(read_or_empty(proc + "/self/uid_map"));
  facts.has_idmapped_mounts =
      facts.is_initial_user_namespace && std::pair(facts.kernel_major, facts.kernel_minor) >= std::pair(5u, 12u);
  facts.has_time_namespace = ::access((proc + "/self/ns/time").c_str(), F_OK) == 0;
  facts.has_user_namespaces = trim(read_or_empty(proc + "/sys/user/max_user_namespaces")) != "0" &&
                              trim(read_or_empty(proc + "/sys/kernel/unprivileged_userns_clone")) != "0";
  facts.last_capability = parse_number<std::uint64_t>(trim(read_or_empty(proc + "/sys/kernel/cap_last_cap")))
                              .value_or(facts.last_capability);
  facts.node = kernel::read_node_facts(proc, sys);
  return facts;
}

}  // namespace virtuserns
