// Netlink messages: their bytes, and answers that lie about lengths.
#include <gtest/gtest.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>

#include "driver/kernel/link.h"

namespace virtuserns::kernel {
namespace {

std::vector<std::uint8_t> bytes_of(NetlinkMessage message) {
  const auto bytes = message.finish(7);
  return {bytes.begin(), bytes.end()};
}

TEST(Netlink, PadsAndCounts) {
  NetlinkMessage message(RTM_GETLINK, NLM_F_DUMP);
  message.attribute(IFLA_IFNAME, std::string_view("eth0"));
  EXPECT_EQ(bytes_of(std::move(message)),
            (std::vector<std::uint8_t>{28, 0, 0, 0, RTM_GETLINK, 0, 5,   3,   7,   0,   0, 0, 0, 0,
                                       0,  0, 9, 0, 3,           0, 'e', 't', 'h', '0', 0, 0, 0, 0}));
}

TEST(Netlink, AnAttributeTooLongSpoilsTheMessage) {
  NetlinkMessage message(RTM_NEWLINK, 0);
  message.attribute(IFLA_IFNAME, std::string(65536, 'x'));
  EXPECT_FALSE(message.is_valid());
  NetlinkMessage many(RTM_NEWLINK, 0);
  for (int i = 0; i < 40; ++i) many.attribute(IFLA_IFNAME, std::string(1000, 'x'));
  EXPECT_FALSE(many.is_valid());
}

TEST(Netlink, VethIsOneNestedMessage) {
  auto message = veth_message({"vnet0", "eth0", {2, 0, 0, 0, 0, 9}, "br0", 1400, true}, 12, 33);
  const auto bytes = bytes_of(std::move(message));
  const auto attributes = parse_attributes(std::span(bytes).subspan(sizeof(nlmsghdr) + sizeof(ifinfomsg)));
  ASSERT_EQ(attributes.size(), 5u);
  EXPECT_EQ(attributes[0].text(), "vnet0");
  EXPECT_EQ(attributes[1].u32(), 1400u);
  EXPECT_EQ(attributes[2].u32(), 12u);
  EXPECT_EQ(attributes[3].bytes[0], 0xfe);
  const auto info = parse_attributes(attributes[4].bytes);
  ASSERT_EQ(info.size(), 2u);
  EXPECT_EQ(info[0].text(), "veth");
  const auto data = parse_attributes(info[1].bytes);
  ASSERT_EQ(data.size(), 1u);
  EXPECT_EQ(data[0].type, VETH_INFO_PEER);
  const auto peer = parse_attributes(data[0].bytes.subspan(sizeof(ifinfomsg)));
  ASSERT_EQ(peer.size(), 4u);
  EXPECT_EQ(peer[0].text(), "eth0");
  EXPECT_EQ(peer[3].type, IFLA_NET_NS_FD);
  EXPECT_EQ(peer[3].u32(), 33u);
}

TEST(Netlink, AnswersThatLie) {
  const auto none = [](std::uint16_t, std::span<const std::uint8_t>) {};
  std::vector<std::uint8_t> ack(sizeof(nlmsghdr) + sizeof(nlmsgerr));
  nlmsghdr head{};
  head.nlmsg_len = static_cast<std::uint32_t>(ack.size());
  head.nlmsg_type = NLMSG_ERROR;
  head.nlmsg_seq = 7;
  nlmsgerr error{};
  error.error = -EBUSY;
  std::memcpy(ack.data(), &head, sizeof head);
  std::memcpy(ack.data() + sizeof head, &error, sizeof error);
  EXPECT_EQ(read_answers(ack, 7, none)->error, EBUSY);
  EXPECT_FALSE(read_answers(ack, 8, none));
  head.nlmsg_len = 4;
  std::memcpy(ack.data(), &head, sizeof head);
  EXPECT_EQ(read_answers(ack, 7, none)->error, EBADMSG);
  head.nlmsg_len = 4000;
  std::memcpy(ack.data(), &head, sizeof head);
  EXPECT_EQ(read_answers(ack, 7, none)->error, EBADMSG);
  EXPECT_FALSE(read_answers({}, 7, none));
  const std::uint8_t lying[] = {200, 0, 1, 0, 3, 0, 1, 0};
  EXPECT_TRUE(parse_attributes(lying).empty());
  const std::uint8_t short_one[] = {3, 0, 1, 0};
  EXPECT_TRUE(parse_attributes(short_one).empty());
}

}  // namespace
}  // namespace virtuserns::kernel
