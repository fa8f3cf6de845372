#include <gtest/gtest.h>

#include "driver/links/grants.h"
#include "driver/links/make.h"
#include "driver/links/request.h"

namespace virtuserns::links {
namespace {

std::vector<UserLinkGrant> grants(const std::string& lines) {
  const auto config = parse_daemon_config("user_links = [\n" + lines + "\n]", "x.conf");
  return config ? config->user_links : std::vector<UserLinkGrant>();
}

LinkRequest sample() {
  LinkRequest request;
  request.bridge = std::string("br0");
  request.guest_name = std::string("eth0");
  request.guest_mac = {0x52, 0x54, 0, 0, 0, 1};
  return request;
}

template <class Change>
std::string refusal_of(Change change) {
  auto request = sample();
  change(request);
  const auto decoded = decode_request(xdr::encode(request));
  return decoded ? "" : decoded.error().text;
}

TEST(LinkRequest, WhatTheKernelMayBeHanded) {
  EXPECT_EQ(refusal_of([](LinkRequest&) {}), "");
  EXPECT_EQ(refusal_of([](LinkRequest& r) { r.mtu = 68; }), "");
  EXPECT_EQ(refusal_of([](LinkRequest& r) { r.mtu = 67; }), "request for a link: mtu 67 is not from 68 to 65535");
  EXPECT_EQ(refusal_of([](LinkRequest& r) { r.version = 2; }), "request for a link: version 2 is not known");
  for (const char* name : {"", ".", "..", "a/b", "a b", "a%d", "a:b", "a\x01", "a\xff"}) {
    EXPECT_NE(refusal_of([&](LinkRequest& r) { r.bridge = std::string(name); }).find("no name"), std::string::npos)
        << name;
    EXPECT_NE(refusal_of([&](LinkRequest& r) { r.guest_name = std::string(name); }).find("no name"),
              std::string::npos);
  }
  EXPECT_NE(refusal_of([](LinkRequest& r) { r.guest_name = std::string(16, 'x'); }), "");
  EXPECT_NE(refusal_of([](LinkRequest& r) { r.guest_mac = {}; }), "");
  EXPECT_NE(refusal_of([](LinkRequest& r) { r.guest_mac[0] = 0x53; }).find("one station"), std::string::npos);
}

TEST(LinkRequest, EveryShorterAndLongerMessageIsRefused) {
  auto bytes = xdr::encode(sample());
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(decode_request(std::span(bytes).first(size))) << size;
  bytes.push_back(0);
  EXPECT_FALSE(decode_request(bytes));
}

TEST(Grants, TheLineThatGivesMost) {
  const auto all = grants("'anna:br0:2',\n'@staff:br0:5',\n'1002:br1:1',\n'@anna:br1:9'");
  ASSERT_EQ(all.size(), 4U);
  EXPECT_EQ(find_grant(all, {1001, "anna", {}}, "br0", "x.conf")->limit, 2U);
  const auto most = find_grant(all, {1001, "anna", {"staff"}}, "br0", "x.conf");
  ASSERT_TRUE(most);
  EXPECT_EQ(most->limit, 5U);
  EXPECT_EQ(most->where, "x.conf:3: '@staff:br0:5'");
  EXPECT_TRUE(find_grant(all, {1002, "elsa", {}}, "br1", "x.conf"));
  // A group of her name is not she, and she is no group.
  EXPECT_FALSE(find_grant(all, {1001, "anna", {}}, "br1", "x.conf"));
  EXPECT_FALSE(find_grant(all, {1003, "staff", {}}, "br0", "x.conf"));
}

TEST(Grants, ErrorsSayWhatThereIs) {
  const auto all = grants("'anna:br0:2'");
  EXPECT_EQ(find_grant(all, {1001, "anna", {}}, "br1", "x.conf").error().text,
            "user 'anna' may have no link on bridge 'br1': granted is only x.conf:2: 'anna:br0:2' "
            "(user_links = [ \"anna:br1:1\" ] would be one)");
  EXPECT_EQ(find_grant(all, {1002, "elsa", {}}, "br0", "x.conf").error().text,
            "user 'elsa' may have no link on bridge 'br0': x.conf grants him none "
            "(user_links = [ \"elsa:br0:1\" ] would be one)");
}

TEST(Grants, RootIsNamedLikeAnybody) { EXPECT_FALSE(find_grant({}, {0, "root", {}}, "br0", "x.conf")); }

TEST(Links, NamesFitTheKernel) {
  EXPECT_EQ(host_name_of(1001, 0), "vu1001-0");
  EXPECT_LE(host_name_of(4'294'967'294U, kMostUserLinks - 1).size(), kMaxNetName);
}

}  // namespace
}  // namespace virtuserns::links
