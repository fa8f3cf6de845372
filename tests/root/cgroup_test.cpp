// Control groups by themselves, without a container.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <thread>

#include "driver/kernel/cgroup.h"
#include "tests/support/controller_run.h"

namespace virtuserns::test {
namespace {

std::optional<kernel::Cgroup> make_v1(const std::string& controller, const std::string& name) {
  for (const auto& step : all_cgroups(name))
    if (!step.is_v2 && step.controllers == std::vector<std::string>{controller})
      if (auto made = kernel::Cgroup::make({step.mount, false, step.controllers, step.path})) return std::move(*made);
  return std::nullopt;
}

// A process that dies only when it is thawed.
pid_t start_frozen(const kernel::Cgroup& group, const kernel::Cgroup& freezer) {
  const pid_t pid = ::fork();
  if (pid == 0)
    for (;;) ::pause();
  const std::string number = std::to_string(pid);
  EXPECT_TRUE(group.write("cgroup.procs", number));
  EXPECT_TRUE(freezer.write("cgroup.procs", number));
  EXPECT_TRUE(freezer.set_frozen(true));
  return pid;
}

// A domain with thousands of processes takes longer to end than one that hangs is waited for.
TEST(CgroupRemoval, WaitsAsLongAsSomethingEnds) {
  constexpr int kTimeoutMs = 1000, kCount = 4;
  std::vector<kernel::Cgroup> groups, freezers;
  if (auto group = make_v1("pids", "slow")) groups.push_back(std::move(*group));
  std::vector<pid_t> pids;
  for (int i = 0; i < kCount && !groups.empty(); ++i)
    if (auto freezer = make_v1("freezer", "slow" + std::to_string(i))) {
      pids.push_back(start_frozen(groups.front(), *freezer));
      freezers.push_back(std::move(*freezer));
    }
  if (freezers.empty()) {
    for (auto& group : groups) EXPECT_TRUE(group.try_remove());
    GTEST_SKIP() << "needs pids and freezer of cgroup v1, where a frozen process does not die";
  }
  std::jthread thaw([&] {
    for (const auto& freezer : freezers) {
      ::usleep(kTimeoutMs * 600);
      EXPECT_TRUE(freezer.set_frozen(false));
    }
  });
  const auto removed = kernel::remove_cgroups(groups, kTimeoutMs);
  EXPECT_TRUE(removed) << removed.error().text;
  thaw.join();
  for (const pid_t pid : pids) EXPECT_EQ(::waitpid(pid, nullptr, 0), pid);
  EXPECT_TRUE(kernel::remove_cgroups(freezers, kTimeoutMs));
}

}  // namespace
}  // namespace virtuserns::test
