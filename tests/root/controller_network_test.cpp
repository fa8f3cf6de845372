// Links, addresses and routes of a container, in a network namespace of the test's own.
#include <gtest/gtest.h>

#include "conf/base/undo.h"
#include "driver/kernel/link.h"
#include "tests/support/controller_run.h"

namespace virtuserns::test {
namespace {

using namespace controller;

LaunchPlan with_network(LaunchPlan plan, const std::string& host_name) {
  plan.from_parent.emplace_back(VethStep{host_name, "eth0", {0x52, 0x54, 0, 0, 0, 9}, "br0", 1400, true});
  plan.inside.insert(plan.inside.begin() + 1,
                     {LinkUpStep{"eth0"}, AddressStep{"eth0", {192, 0, 2, 2}, 24, {}},
                      AddressStep{"eth0", {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}, 64, {}},
                      RouteStep{"eth0", {0, 0, 0, 0}, 0, {192, 0, 2, 1}, 100},
                      RouteStep{"", {198, 51, 100, 0}, 24, {192, 0, 2, 1}, {}}});
  return plan;
}

TEST(Network, VethInABridgeWithAddressAndRoute) {
  auto route = kernel::RouteSocket::open();
  ASSERT_TRUE(route);
  ASSERT_TRUE(kernel::create_bridge(*route, "br0"));
  ASSERT_TRUE(kernel::set_link_up(*route, "br0"));
  ASSERT_TRUE(kernel::add_address(*route, {"br0", {192, 0, 2, 1}, 24, {}}));
  RootTree tree;
  Domain domain(with_network(
      make_plan_for(
          tree,
          "exec > /out/log 2>&1; ip -o link show eth0 | grep -o 'mtu 1400'; cat /sys/class/net/eth0/address; ip route; "
          "ping -c1 -W5 192.0.2.1 > /dev/null && echo pong; echo > /out/done; sleep 1000"),
      "vnet%d"));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  ASSERT_EQ(boot->host_links, (std::vector<std::string>{"vnet0"}));
  const auto link = kernel::find_link(*route, "vnet0");
  ASSERT_TRUE(link) << link.error().text;
  EXPECT_EQ(link->mac, (std::vector<std::uint8_t>{0xfe, 0x54, 0, 0, 0, 9}));
  EXPECT_TRUE(std::filesystem::exists("/sys/class/net/"));
  ASSERT_TRUE(wait_for(tree, "out/done"));
  const std::string log = tree.read("out/log");
  EXPECT_NE(log.find("mtu 1400\n52:54:00:00:00:09\n"), std::string::npos) << log;
  EXPECT_NE(log.find("default via 192.0.2.1 dev eth0  metric 100"), std::string::npos) << log;
  EXPECT_NE(log.find("198.51.100.0/24 via 192.0.2.1 dev eth0"), std::string::npos) << log;
  EXPECT_NE(log.find("pong"), std::string::npos) << log;

  const auto reply = domain.request(AddressesRequest{});
  ASSERT_TRUE(reply) << reply.error().text;
  const auto& links = std::get<AddressesReply>(reply->body).links;
  ASSERT_GE(links.size(), 2u);
  const auto eth = std::find_if(links.begin(), links.end(), [](const auto& entry) { return entry.name == "eth0"; });
  ASSERT_NE(eth, links.end());
  EXPECT_EQ(eth->hardware_address, "52:54:00:00:00:09");
  EXPECT_EQ(eth->addresses.at(0).bytes, (std::vector<std::uint8_t>{192, 0, 2, 2}));
  EXPECT_EQ(eth->addresses.at(0).prefix, 24u);

  // The second one gets the next name; the first one's goes with its namespace.
  RootTree other_tree;
  Domain other(with_network(make_plan_for(other_tree, "sleep 1000"), "vnet%d"));
  const auto other_boot = other.start_ok();
  ASSERT_TRUE(other_boot) << other_boot.error().text;
  EXPECT_EQ(other_boot->host_links, (std::vector<std::string>{"vnet1"}));
  ASSERT_TRUE(domain.ask(DestroyRequest{}));
  for (int i = 0; i < 5000 && kernel::find_link(*route, "vnet0"); ++i) ::usleep(1000);
  EXPECT_FALSE(kernel::find_link(*route, "vnet0"));
  ASSERT_TRUE(other.ask(DestroyRequest{}));
  (void)kernel::remove_link(*route, "br0");
}

TEST(Network, MacvlanOnADummy) {
  auto route = kernel::RouteSocket::open();
  ASSERT_TRUE(kernel::create_bridge(*route, "low0"));
  Undo undo;
  undo.add([&] { (void)kernel::remove_link(*route, "low0"); });
  RootTree tree;
  auto plan = make_plan_for(tree, "cat /sys/class/net/eth1/address > /out/mac; echo > /out/done; sleep 1000");
  plan.from_parent.emplace_back(MacvlanStep{"low0", "eth1", "bridge", {2, 0, 0, 0, 0, 7}});
  plan.inside.insert(plan.inside.begin(), LinkUpStep{"eth1"});
  Domain domain(std::move(plan));
  const auto boot = domain.start_ok();
  if (!boot && boot.error().sys_errno == EOPNOTSUPP) GTEST_SKIP() << "no macvlan in this kernel";
  ASSERT_TRUE(boot) << boot.error().text;
  ASSERT_TRUE(wait_for(tree, "out/done"));
  EXPECT_EQ(tree.read("out/mac"), "02:00:00:00:00:07\n");
}

}  // namespace
}  // namespace virtuserns::test
