#include "driver/userns/scope.h"

#include <gtest/gtest.h>

using namespace virtuserns;
using namespace virtuserns::userns;

namespace {

DomainDef domain_in(const std::string& partition) {
  DomainDef def;
  def.uuid = *parse_uuid("0f2b6a5e-0000-4000-8000-000000000001");
  def.resource.partition = partition;
  return def;
}

TEST(Scope, HasANameForEachLifeInTheSliceOfThePartition) {
  const auto scope = make_scope(domain_in(""), 17, CgroupMode::kV2);
  EXPECT_EQ(scope.unit, "virtuserns-0f2b6a5e-0000-4000-8000-000000000001-17.scope");
  EXPECT_EQ(scope.slice, "machine.slice");
  EXPECT_EQ(scope.group(), "machine.slice/" + scope.unit);
  EXPECT_EQ(scope.controllers, Controllers::kV2);
  EXPECT_EQ(make_scope(domain_in(""), 17, CgroupMode::kHybrid).controllers, Controllers::kV1Too);
  EXPECT_NE(make_scope(domain_in(""), 18, CgroupMode::kV2).unit, scope.unit);
}

TEST(Scope, OfAUsersSystemdIsBelowItsGroup) {
  auto scope = make_scope(domain_in(""), 17, CgroupMode::kV2);
  scope.root = "user.slice/user-1000.slice/user@1000.service";
  EXPECT_EQ(scope.group(), scope.root + "/machine.slice/" + scope.unit);
}

// As systemd.slice(5), systemd-escape(1) and libvirt's virSystemdMakeSliceName have it.
TEST(Scope, PartitionsBecomeSlices) {
  EXPECT_EQ(slice_of_partition("/machine"), "machine.slice");
  EXPECT_EQ(slice_of_partition("/machine/testing"), "machine-testing.slice");
  EXPECT_EQ(slice_of_partition("/machine/a-b/.c d"), "machine-a\\x2db-\\x2ec\\x20d.slice");
  EXPECT_EQ(slice_of_partition("/"), "machine.slice");
  const auto scope = make_scope(domain_in("/machine/a-b/c"), 1, CgroupMode::kV2);
  EXPECT_EQ(scope.group(), "machine.slice/machine-a\\x2db.slice/machine-a\\x2db-c.slice/" + scope.unit);
}

TEST(Scope, NamesOfTheKernelsFilesAreEscapedAsSystemdDoesIt) {
  const auto scope = make_scope(domain_in("/cpu/x"), 1, CgroupMode::kV2);
  EXPECT_EQ(scope.slice, "cpu-x.slice");
  EXPECT_EQ(scope.group(), "_cpu.slice/cpu-x.slice/" + scope.unit);
}

TEST(Scope, HierarchiesOfSystemd) {
  EXPECT_TRUE(is_systemds({"/sys/fs/cgroup", true, {"memory"}, "/"}));
  EXPECT_TRUE(is_systemds({"/sys/fs/cgroup/unified", true, {}, "/"}));
  EXPECT_FALSE(is_systemds({"/mnt/mine", true, {}, "/"}));
  EXPECT_TRUE(is_systemds({"/sys/fs/cgroup/systemd", false, {"name=systemd"}, "/"}));
  EXPECT_TRUE(is_systemds({"/sys/fs/cgroup/cpu,cpuacct", false, {"cpu", "cpuacct"}, "/"}));
  EXPECT_FALSE(is_systemds({"/sys/fs/cgroup/freezer", false, {"freezer"}, "/"}));
  EXPECT_FALSE(is_systemds({"/sys/fs/cgroup/cpuset", false, {"cpuset"}, "/"}));
}

TEST(Scope, MachineNamesAreHostNames) {
  EXPECT_EQ(machine_name(42, "web"), "userns-42-web");
  EXPECT_EQ(machine_name(42, "w e/b_\xc3\xbc..x"), "userns-42-web.x");
  EXPECT_EQ(machine_name(42, "\xc3\xbc"), "userns-42");
  EXPECT_EQ(machine_name(42, "a."), "userns-42-a");
  EXPECT_EQ(machine_name(42, std::string(100, 'a')).size(), 64u);
}

}  // namespace
