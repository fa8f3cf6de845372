#include "driver/controller/outer.h"

#include <gtest/gtest.h>

namespace virtuserns::controller {
namespace {

LaunchPlan plan_with(IdMapLines uid, IdMapLines gid) {
  LaunchPlan plan;
  plan.from_parent.push_back(IdMapStep{{std::move(uid), std::move(gid)}});
  return plan;
}

TEST(OuterMaps, TheUserIsRootAndTheDomainsIdsAreThemselves) {
  const auto maps = outer_maps(plan_with({{0, 2'000'000, 65'536}}, {{0, 3'000'000, 1'000}}), 1001, 1002);
  EXPECT_EQ(maps.uid, (IdMapLines{{0, 1001, 1}, {2'000'000, 2'000'000, 65'536}}));
  EXPECT_EQ(maps.gid, (IdMapLines{{0, 1002, 1}, {3'000'000, 3'000'000, 1'000}}));
}

TEST(OuterMaps, NeighboursAreOneLineInOrder) {
  const auto maps =
      outer_maps(plan_with({{0, 500, 10}, {10, 100, 10}, {20, 110, 5}, {25, 510, 1}}, {{0, 7, 1}}), 1, 1);
  EXPECT_EQ(maps.uid, (IdMapLines{{0, 1, 1}, {100, 100, 15}, {500, 500, 11}}));
  EXPECT_EQ(maps.gid, (IdMapLines{{0, 1, 1}, {7, 7, 1}}));
}

// The user's own id beside the range: a line of its own, since it is mapped to another number.
TEST(OuterMaps, OwnIdNextToTheRange) {
  const auto maps = outer_maps(plan_with({{0, 1002, 2}}, {{0, 1002, 2}}), 1001, 1001);
  EXPECT_EQ(maps.uid, (IdMapLines{{0, 1001, 1}, {1002, 1002, 2}}));
}

}  // namespace
}  // namespace virtuserns::controller
