// The plan's wire form: what make_plan builds is what the controller reads, and nothing else is accepted.
#include <gtest/gtest.h>

#include "driver/controller/plan.h"
#include "driver/controller/protocol.h"
#include "tests/support/sample_plan.h"

namespace virtuserns {
namespace {

TEST(Plan, RoundTripsEveryStep) {
  const LaunchPlan plan = test::make_full_plan();
  const auto bytes = encode_plan(plan);
  const auto back = decode_plan(bytes);
  ASSERT_TRUE(back) << back.error().text;
  EXPECT_EQ(describe(*back), describe(plan));
  EXPECT_EQ(encode_plan(*back), bytes);
}

TEST(Plan, DescribesEveryStepOnALine) {
  const LaunchPlan plan = test::make_full_plan();
  const std::string text = describe(plan);
  const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  EXPECT_EQ(lines, 3 + plan.consoles.size() + plan.before.size() + plan.from_parent.size() + plan.inside.size());
  EXPECT_NE(text.find("from_parent: idmap uid 0:2000000:65536 gid 0:2000000:65536\n"), std::string::npos) << text;
  EXPECT_NE(text.find("inside: address 192.0.2.2/24 on 'eth0'\n"), std::string::npos) << text;
}

TEST(Plan, EveryPrefixIsRefused) {
  const auto bytes = encode_plan(test::make_full_plan());
  for (std::size_t size = 0; size < bytes.size(); size += 4)
    EXPECT_FALSE(decode_plan(std::span(bytes).first(size))) << size;
}

TEST(Plan, RefusesWhatWouldNotBeAContainer) {
  const auto refused = [](auto&& change) {
    LaunchPlan plan = test::make_full_plan();
    change(plan);
    const auto back = decode_plan(encode_plan(plan));
    return back ? std::string() : back.error().text;
  };
  EXPECT_NE(refused([](LaunchPlan& p) { p.version = 99; }).find("version 99"), std::string::npos);
  EXPECT_NE(refused([](LaunchPlan& p) { p.host_uid = 0; }).find("host id 0"), std::string::npos);
  EXPECT_NE(refused([](LaunchPlan& p) { p.host_uid = 5; }).find("own ids"), std::string::npos);
  EXPECT_NE(
      refused([](LaunchPlan& p) { std::get<IdMapStep>(p.from_parent[0]).maps.uid[0].outside = 0; }).find("target 0"),
      std::string::npos);
  EXPECT_NE(refused([](LaunchPlan& p) { p.from_parent.erase(p.from_parent.begin()); }).find("one id map"),
            std::string::npos);
  EXPECT_NE(refused([](LaunchPlan& p) { p.inside.pop_back(); }).find("exec"), std::string::npos);
  EXPECT_NE(refused([](LaunchPlan& p) { std::get<CgroupStep>(p.before[0]).path = "a/../../b"; }).find("cgroup"),
            std::string::npos);
  EXPECT_NE(refused([](LaunchPlan& p) { std::get<CgroupStep>(p.before[0]).mount = ""; }).find("cgroup"),
            std::string::npos);
  EXPECT_NE(refused([](LaunchPlan& p) { std::get<CgroupStep>(p.before[0]).scope = "other"; }).find("is not in scope"),
            std::string::npos);
  EXPECT_NE(refused([](LaunchPlan& p) { std::get<CgroupStep>(p.before[0]).writes[0].file = "../x"; }).find("cgroup"),
            std::string::npos);
  EXPECT_NE(refused([](LaunchPlan& p) { p.stage_path = "stage"; }).find("stage"), std::string::npos);
  const auto of_link = [&](auto&& change) {
    return refused([&](LaunchPlan& p) { change(std::get<UserLinkStep>(p.from_parent.back())); });
  };
  EXPECT_EQ(of_link([](UserLinkStep&) {}), "");
  EXPECT_NE(of_link([](UserLinkStep& s) { s.guest_name = ""; }).find("without a name"), std::string::npos);
  EXPECT_NE(of_link([](UserLinkStep& s) { s.gateway = std::string(100, '1'); }).find("too long"), std::string::npos);
  EXPECT_NE(of_link([](UserLinkStep& s) { s.prefix = 33; }).find("prefix 33"), std::string::npos);
  EXPECT_NE(of_link([](UserLinkStep& s) { s.log_file = "log"; }).find("absolute"), std::string::npos);
  EXPECT_NE(of_link([](UserLinkStep& s) { s.ports[0].host_port = 65536; }).find("port that is none"),
            std::string::npos);
  EXPECT_NE(of_link([](UserLinkStep& s) { s.ports[0].guest_port = 0; }).find("port that is none"), std::string::npos);
  EXPECT_NE(of_link([](UserLinkStep& s) { s.ports.resize(1025); }).find("too many"), std::string::npos);
}

TEST(Protocol, RoundTripsMessages) {
  using namespace controller;
  Request request{7, CgroupWriteRequest{{{"memory", "memory.limit_in_bytes", "1048576"}}}};
  const auto back = xdr::decode_exact<Request>(xdr::encode(request));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->serial, 7u);
  EXPECT_EQ(std::get<CgroupWriteRequest>(back->body).writes.at(0).file, "memory.limit_in_bytes");
  StatusReply status;
  status.boot.host_links = {"vnet0"};
  status.unacknowledged.emplace_back(EndedNote{3, {ExitCause::kReboot, 1, 2, 3, ""}});
  const FromController out = Reply{9, status};
  const auto in = xdr::decode_exact<FromController>(xdr::encode(out));
  ASSERT_TRUE(in);
  EXPECT_EQ(std::get<EndedNote>(std::get<StatusReply>(std::get<Reply>(*in).body).unacknowledged.at(0)).sequence, 3u);
}

}  // namespace
}  // namespace virtuserns
