// One device of a domain that runs: what it comes to, and what only a start can do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libvirt/virterror.h>

#include "driver/userns/make_plan.h"

namespace virtuserns::userns {
namespace {

using ::testing::HasSubstr;

class PlanDevice : public ::testing::Test {
 protected:
  PlanDevice() {
    maps_.uid = maps_.gid = {{0, 2'000'000, 65'536}};
    context_.host.has_user_namespaces = context_.host.has_idmapped_mounts = context_.host.is_initial_user_namespace =
        true;
  }
  Result<DevicePlan> plan() {
    context_.filesystems.resize(only_.filesystems.size());
    return make_device_plan(only_, maps_, context_);
  }
  FilesystemDef& add_filesystem() {
    auto& fs = only_.filesystems.emplace_back();
    fs.source = "/srv/data";
    fs.target = "/data";
    return fs;
  }
  void expect_only_at_a_start(const std::string& what) {
    const auto planned = plan();
    ASSERT_FALSE(planned);
    EXPECT_EQ(planned.error().code, VIR_ERR_OPERATION_UNSUPPORTED);
    EXPECT_THAT(planned.error().text, HasSubstr(what));
    EXPECT_THAT(planned.error().text, HasSubstr("--config"));
  }
  DomainDef only_;
  IdMaps maps_;
  PlanContext context_;
};

TEST_F(PlanDevice, ADirectoryIsOneSourceAndOneMount) {
  add_filesystem().readonly = true;
  const auto planned = plan();
  ASSERT_TRUE(planned) << planned.error().text;
  ASSERT_EQ(planned->sources.size(), 1U);
  EXPECT_EQ(std::get<SourceStep>(planned->sources[0]).host_source, "/srv/data");
  ASSERT_EQ(planned->ask.from_parent.size(), 1U);
  const auto& bind = std::get<BindStep>(planned->ask.from_parent[0]);
  EXPECT_EQ(bind.source_id, 0U) << "the first descriptor that comes along";
  EXPECT_TRUE(bind.is_readonly);
  EXPECT_EQ(bind.shift, OwnerShift::kIdmappedMount);
  EXPECT_EQ(controller::place_of(planned->ask.from_parent[0]), "/data");
}

TEST_F(PlanDevice, ALinkHasItsAddressesAndComesUp) {
  auto& link = only_.interfaces.emplace_back();
  link.type = InterfaceType::kEthernet;
  link.guest_dev = "eth7";
  link.ips.push_back({.address = "10.9.9.2", .prefix = 24});
  const auto planned = plan();
  ASSERT_TRUE(planned) << planned.error().text;
  EXPECT_TRUE(planned->sources.empty());
  EXPECT_EQ(controller::place_of(planned->ask.from_parent.at(0)), "eth7");
  ASSERT_EQ(planned->ask.inside.size(), 2U);
  for (const auto& step : planned->ask.inside) EXPECT_EQ(controller::link_of(step), "eth7");
}

TEST_F(PlanDevice, ANodeComesWithItsRuleAndNoOther) {
  auto& node = only_.hostdevs.emplace_back();
  node.type = HostdevType::kCapsMisc;
  node.source = "/dev/rtc0";
  context_.devices["/dev/rtc0"] = {false, 250, 3};
  const auto planned = plan();
  ASSERT_TRUE(planned) << planned.error().text;
  ASSERT_EQ(planned->ask.rules.size(), 1U);
  EXPECT_EQ(format_device_rule(planned->ask.rules[0]), "c 250:3 rw");
}

TEST_F(PlanDevice, WhatNeedsAProcessOrALockIsForAStart) {
  add_filesystem().type = FilesystemType::kFile;
  expect_only_at_a_start("image");
  only_.filesystems[0].type = FilesystemType::kBind;
  expect_only_at_a_start("'bind'");
  only_.filesystems.clear();
  only_.interfaces.emplace_back().type = InterfaceType::kUser;
  expect_only_at_a_start("type='user'");
  only_.interfaces.clear();
  only_.hostdevs.emplace_back().type = HostdevType::kCapsNet;
  expect_only_at_a_start("type='net'");
  only_.hostdevs.clear();
  add_filesystem();
  context_.paths.is_session = true;
  expect_only_at_a_start("session");
}

}  // namespace
}  // namespace virtuserns::userns
