// Argument and reply rules that bite (docs: the wire, section 10), through the real codec.
#include <gtest/gtest.h>

#include "driver/rpc/dispatch.h"
#include "driver/rpc/protocol.h"
#include "tests/support/fake_driver.h"

namespace virtuserns::rpc {
namespace {

struct Nothing {};

class Handlers : public ::testing::Test {
 protected:
  template <class Reply = Nothing, class Args>
  Reply ask(std::int32_t procedure, const Args& args) {
    const Header header{kRemoteProgram, 1, procedure, MessageType::kCall, 1, Status::kOk};
    const Answer answer =
        serve(session_, *find_row(kRemoteProgram, procedure), Message{header, xdr::encode(args), {}});
    bytes_ = answer.frame.bytes.size();
    const auto reply = std::span(answer.frame.bytes).subspan(kLengthBytes);
    status_ = xdr::decode<Header>(reply)->status;
    if (status_ != Status::kOk) return Reply{};
    auto value = xdr::decode_exact<Reply>(reply.subspan(kHeaderBytes));
    EXPECT_TRUE(value);
    return value ? std::move(*value) : Reply{};
  }
  void SetUp() override { ASSERT_TRUE(session_.open("", false)); }

  test::FakeDriver driver_;
  SessionHost host_{{{"userns", &driver_}}, false};
  Session session_{host_, Peer{1000, 1000, 77, 1, {}}, 5, false, AuthMethod::kNone};
  DomainRef dom_ = test::FakeDriver::ref(1);
  Status status_ = Status::kOk;
  std::size_t bytes_ = 0;
};

TEST_F(Handlers, NodeInfoHasFourBytesACharacter) {
  const auto info = ask<wire::NodeInfoReply>(6, std::array<std::uint8_t, 0>{});
  EXPECT_EQ(info.model.text, "x86_64");
  EXPECT_EQ(bytes_, 188U);  // as libvirtd's
}

TEST_F(Handlers, LxcConfigBecomesADomain) {
  const wire::NativeArgs lxc{"lxc-tools",
                             "lxc.uts.name = web\nlxc.rootfs.path = dir:/srv/web\nlxc.hook.start = /a--b\n", 0};
  const auto text = ask<wire::TextReply>(135, lxc).text;
  EXPECT_NE(text.find("<name>web</name>"), std::string::npos) << text;
  EXPECT_NE(text.find("<source dir='/srv/web'/>"), std::string::npos) << text;
  EXPECT_EQ(text.find("<uuid>00000000"), std::string::npos) << text;  // no definition may have that
  EXPECT_TRUE(text.starts_with("<!-- line 3: ")) << text;
  (void)ask<wire::TextReply>(135, wire::NativeArgs{"qemu-argv", "", 0});
  EXPECT_EQ(status_, Status::kError);
}

TEST_F(Handlers, ParamsCountOrParams) {
  auto reply = ask<wire::ParamsCountReply>(198, wire::DomainCountFlagsArgs{dom_, 0, 0});
  EXPECT_EQ(reply.count, 3);
  EXPECT_TRUE(reply.params.empty());
  reply = ask<wire::ParamsCountReply>(198, wire::DomainCountFlagsArgs{dom_, 2, VIR_TYPED_PARAM_STRING_OKAY});
  EXPECT_EQ(reply.params.size(), 2U);
  reply = ask<wire::ParamsCountReply>(198, wire::DomainCountFlagsArgs{dom_, 16, 0});
  ASSERT_EQ(reply.params.size(), 3U);
  EXPECT_EQ(std::get<std::string>(reply.params[2].value), "x");
}

TEST_F(Handlers, CpuStats) {
  auto reply = ask<wire::ParamsCountReply>(262, wire::CpuStatsArgs{dom_, 0, 0, 0, 0});
  EXPECT_EQ(reply.count, 3);
  reply = ask<wire::ParamsCountReply>(262, wire::CpuStatsArgs{dom_, 0, 0, 1, 0});
  EXPECT_EQ(reply.count, 1);
  EXPECT_TRUE(reply.params.empty());
  reply = ask<wire::ParamsCountReply>(262, wire::CpuStatsArgs{dom_, 1, 1, 2, 0});
  EXPECT_EQ(reply.count, 1);
  EXPECT_EQ(reply.params.size(), 2U);
  reply = ask<wire::ParamsCountReply>(262, wire::CpuStatsArgs{dom_, 0, -1, 1, 0});
  EXPECT_EQ(reply.count, 2);
  reply = ask<wire::ParamsCountReply>(262, wire::CpuStatsArgs{dom_, 2, -1, 1, 0});
  EXPECT_EQ(reply.params.size(), 2U);
  for (const auto& bad : {wire::CpuStatsArgs{dom_, 1, -2, 1, 0}, wire::CpuStatsArgs{dom_, 1, -1, 2, 0},
                          wire::CpuStatsArgs{dom_, 1, 3, 1, 0}, wire::CpuStatsArgs{dom_, 1, 0, 129, 0},
                          wire::CpuStatsArgs{dom_, 2049, 0, 1, 0}}) {
    (void)ask<wire::ParamsCountReply>(262, bad);
    EXPECT_EQ(status_, Status::kError);
  }
}

TEST_F(Handlers, VcpuMaps) {
  auto reply = ask<wire::VcpusReply>(20, wire::VcpusArgs{dom_, 2, 2});
  ASSERT_EQ(reply.vcpus.size(), 2U);
  EXPECT_EQ(reply.maps, (std::vector<std::uint8_t>{5, 0, 0xff, 1}));
  reply = ask<wire::VcpusReply>(20, wire::VcpusArgs{dom_, 1, 1});
  EXPECT_EQ(reply.vcpus.size(), 1U);
  EXPECT_EQ(reply.maps.size(), 1U);
  reply = ask<wire::VcpusReply>(20, wire::VcpusArgs{dom_, 2, 0});
  EXPECT_TRUE(reply.maps.empty());
  for (const auto& bad : {wire::VcpusArgs{dom_, -1, 1}, wire::VcpusArgs{dom_, 1, -1}, wire::VcpusArgs{dom_, 16385, 1},
                          wire::VcpusArgs{dom_, 16384, 1024}}) {
    (void)ask<wire::VcpusReply>(20, bad);
    EXPECT_EQ(status_, Status::kError);
  }
  const auto pins = ask<wire::PinInfoReply>(230, wire::PinInfoArgs{dom_, 2, 1, 0});
  EXPECT_EQ(pins.count, 2);
  EXPECT_EQ(pins.maps, (std::vector<std::uint8_t>{1, 2}));
}

TEST_F(Handlers, Lists) {
  EXPECT_EQ(ask<wire::IdsReply>(37, wire::IntArgs{1}).ids.size(), 1U);
  EXPECT_EQ(ask<wire::NamesReply>(21, wire::IntArgs{16}).names, std::vector<std::string>{"fake3"});
  EXPECT_TRUE(ask<wire::NamesReply>(21, wire::IntArgs{-5}).names.empty());
  const auto count = [&](unsigned flags) {
    return ask<wire::ListAllReply>(273, wire::ListAllArgs{1, flags}).domains.size();
  };
  EXPECT_EQ(count(0), 3U);
  EXPECT_EQ(count(VIR_CONNECT_LIST_DOMAINS_ACTIVE), 2U);
  EXPECT_EQ(count(VIR_CONNECT_LIST_DOMAINS_ACTIVE | VIR_CONNECT_LIST_DOMAINS_INACTIVE), 3U);
  EXPECT_EQ(count(VIR_CONNECT_LIST_DOMAINS_TRANSIENT), 1U);
  EXPECT_EQ(count(VIR_CONNECT_LIST_DOMAINS_AUTOSTART | VIR_CONNECT_LIST_DOMAINS_ACTIVE), 1U);
  EXPECT_EQ(count(VIR_CONNECT_LIST_DOMAINS_PAUSED), 1U);
  EXPECT_EQ(count(VIR_CONNECT_LIST_DOMAINS_OTHER), 0U);
  EXPECT_EQ(count(1U << 30), 0U);
  EXPECT_EQ(status_, Status::kError);
  EXPECT_EQ(ask<wire::ListAllReply>(273, wire::ListAllArgs{0, 0}).count, 3U);
}

TEST_F(Handlers, LabelsAreIntsWithTheNul) {
  const auto label = ask<wire::SecurityLabelReply>(121, wire::DomainArgs{dom_});
  EXPECT_EQ(label.label, (std::vector<std::int32_t>{'l', 'b', 'l', 0}));
}

TEST_F(Handlers, CpuMap) {
  const auto map = ask<wire::CpuMapReply>(293, wire::CpuMapArgs{1, 1, 0});
  EXPECT_EQ(map.cpus, 9);
  EXPECT_EQ(map.online, 8U);
  EXPECT_EQ(map.map, (std::vector<std::uint8_t>{0xfd, 1}));
}

TEST_F(Handlers, NodeStatsTakeTheirFieldsInTheirOwnOrder) {
  EXPECT_EQ(ask<wire::NodeStatsReply>(227, wire::NodeStatsArgs{-1, 0, 0}).count, 3);
  EXPECT_EQ(ask<wire::NodeStatsReply>(227, wire::NodeStatsArgs{-1, 2, 0}).stats.size(), 2U);
}

TEST_F(Handlers, Features) {
  for (const int yes : {8, 9, 10, 14, 15, 16}) EXPECT_EQ(ask<wire::IntReply>(60, wire::IntArgs{yes}).value, 1) << yes;
  for (const int no : {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 17, -1})
    EXPECT_EQ(ask<wire::IntReply>(60, wire::IntArgs{no}).value, 0) << no;
}

TEST_F(Handlers, IdentityIsOnesOwnOrTrusted) {
  const auto say = [&](std::uint64_t uid) {
    (void)ask(419, wire::IdentityArgs{TypedParams{{VIR_CONNECT_IDENTITY_UNIX_USER_ID, uid},
                                                  {VIR_CONNECT_IDENTITY_USER_NAME, std::string("eve")}},
                                      0});
    return status_;
  };
  EXPECT_EQ(say(1000), Status::kOk);
  EXPECT_EQ(say(0), Status::kError);
  EXPECT_EQ(session_.caller().uid, 1000U);
  Session root(host_, Peer{0, 0, 1, 1, {}}, 6, false, AuthMethod::kNone);
  EXPECT_TRUE(root.set_identity({{VIR_CONNECT_IDENTITY_UNIX_USER_ID, std::uint64_t{1234}}}));
  EXPECT_EQ(root.caller().uid, 1234U);
  EXPECT_FALSE(root.set_identity({{VIR_CONNECT_IDENTITY_UNIX_USER_ID, std::string("0")}}));
}

TEST(Session, OpenNames) {
  test::FakeDriver userns, test;
  const SessionHost host{{{"userns", &userns}, {"test", &test}}, false};
  const auto uri = [&](const std::string& name) -> std::string {
    Session session(host, Peer{1000, 1000, 1, 1, {}}, 1, false, AuthMethod::kNone);
    return session.open(name, false) ? session.uri() + (session.driver() == &test ? " t" : "") : "refused";
  };
  EXPECT_EQ(uri("userns:///system"), "userns:///system");
  EXPECT_EQ(uri("userns:///session"), "userns:///system");
  EXPECT_EQ(uri("userns+unix:///system?socket=/x"), "userns:///system");
  EXPECT_EQ(uri("userns:/system"), "userns:///system");
  EXPECT_EQ(uri("userns:///"), "userns:///system");
  EXPECT_EQ(uri("lxc:///system"), "lxc:///system");
  EXPECT_EQ(uri("lxc:///"), "lxc:///system");
  EXPECT_EQ(uri(""), "userns:///system");
  EXPECT_EQ(uri("test:///default"), "test:///default t");
  EXPECT_EQ(uri("userns:///foo"), "refused");
  EXPECT_EQ(uri("qemu:///system"), "refused");
  EXPECT_EQ(uri("nonsense"), "refused");
  Session twice(host, Peer{1000, 1000, 1, 1, {}}, 1, false, AuthMethod::kNone);
  EXPECT_TRUE(twice.open("", false));
  EXPECT_FALSE(twice.open("", false));
}

}  // namespace
}  // namespace virtuserns::rpc
