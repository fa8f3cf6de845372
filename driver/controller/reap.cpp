#include "driver/controller/reap.h"

#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/text.h"
#include "driver/kernel/cgroup.h"

namespace virtuserns::controller {

namespace {
constexpr int kReapTimeoutMs = 10'000;
}

Result<void> reap(const LaunchPlan& plan) {
  std::vector<kernel::Cgroup> groups;
  for (const auto& step : plan.before) {
    const auto* group = std::get_if<CgroupStep>(&step);
    if (!group) continue;
    auto opened = kernel::Cgroup::open({group->mount, group->is_v2, group->controllers, group->path});
    if (opened)
      groups.push_back(std::move(opened).value());
    else if (opened.error().sys_errno != ENOENT && !group->is_optional)
      return std::move(opened).error();
  }
  // All of them before any is removed: whoever is in one is in the others too.
  for (const auto& group : groups) group.kill_all();
  TRY(kernel::remove_cgroups(groups, kReapTimeoutMs));
  struct stat st {};
  // Only a socket: the path is ours, but what lies there after a crash may not be.
  for (const auto* path : {&plan.socket_path, &plan.plug_path})
    if (!path->empty() && ::lstat(path->c_str(), &st) == 0 && S_ISSOCK(st.st_mode)) ::unlink(path->c_str());
  if (::rmdir(plan.stage_path.c_str()) != 0 && errno != ENOENT)
    return sys_fail("remove stage " + quote(plan.stage_path));
  return {};
}

}  // namespace virtuserns::controller
