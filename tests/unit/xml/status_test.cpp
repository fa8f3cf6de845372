#include "xml/status.h"

#include <gtest/gtest.h>

#include "xml/domain.h"

namespace virtuserns::xml {
namespace {

DomainStatus running() {
  DomainStatus status;
  status.live = std::move(
      *parse_domain("<domain type='lxc' id='4711'><name>web</name><uuid>6b0f5c1e-55a2-4f5e-9a34-0c1f4f7a0001</uuid>"
                    "<memory>65536</memory><devices><interface type='user'><target dev='vnet7'/></interface>"
                    "<graphics type='vnc' passwd='s'/></devices></domain>",
                    kParseLive));
  status.live.current_memory_kib = 65536;
  status.state = 3;
  status.reason = 1;
  status.controller_pid = 4711;
  status.controller_start_time = 18446744073709551615u;
  status.init_pid = 4712;
  status.init_start_time = 5;
  status.started_ms = 1700000000000;
  status.persistent = true;
  status.autodestroy = true;
  status.cgroup = "/machine/a&b";
  status.maps = {{{0, 2000000, 65536}}, {{0, 3000000, 5}, {5, 4000000, 1}}};
  status.facts = {{"socket", "/run/x y"}, {"veth", "<7>"}};
  return status;
}

TEST(Status, ComesBackWhole) {
  const auto text = format_status(running());
  const auto again = parse_status(text);
  ASSERT_TRUE(again) << again.error().text << "\n" << text;
  EXPECT_EQ(format_status(*again), text);
  auto expected = running();
  expected.live = again->live;  // what a definition gains by a round trip is domain_golden_test's business
  EXPECT_EQ(*again, expected);
  EXPECT_EQ(again->live.id, 4711);
  EXPECT_EQ(again->live.interfaces[0].target_dev, "vnet7");
  EXPECT_NE(text.find("passwd='s'"), std::string::npos);
}

TEST(Status, EmptyFactsAndMapsComeBack) {
  auto status = running();
  status.facts = {{"empty", ""}};
  status.maps = {};
  status.init_pid = 0;
  status.init_start_time = 0;
  status.cgroup.clear();
  const auto again = parse_status(format_status(status));
  ASSERT_TRUE(again) << again.error().text;
  EXPECT_EQ(again->facts, status.facts);
  EXPECT_EQ(again->maps, status.maps);
  EXPECT_EQ(again->init_pid, 0);
}

TEST(Status, KnowsANewerOneWhateverIsInIt) {
  EXPECT_TRUE(is_newer_status("<domstatus version='2'><what-is-this/></domstatus>"));
  for (const char* text : {"<domstatus version='1'/>", "<domstatus version='-2'/>", "<domstatus/>",
                           "<domain version='2'/>", "<domstatus version='2'>", ""})
    EXPECT_FALSE(is_newer_status(text)) << text;
}

TEST(Status, RefusesWhatItCannotTrust) {
  const auto text = format_status(running());
  const auto replaced = [&](const std::string& from, const std::string& to) {
    auto changed = text;
    const auto at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    changed.replace(at, from.size(), to);
    const auto result = parse_status(changed);
    return result ? std::string("accepted") : result.error().text;
  };
  EXPECT_EQ(replaced("version='1'", "version='2'"),
            "status: format version 2 is not known, this program reads up to 1");
  EXPECT_EQ(replaced("version='1'", "version='0'"),
            "status: format version 0 is not known, this program reads up to 1");
  EXPECT_EQ(replaced(" version='1'", ""), "status: line 1: <domstatus> has no version");
  EXPECT_EQ(
      replaced("state='paused'", "state='busy'").find("status: line 1: unknown domain state 'busy': known are "), 0u);
  EXPECT_EQ(replaced("pid='4711'", "pid='0'"), "status: line 2: pid of <controller> must be above 0");
  EXPECT_EQ(replaced("pid='4711'", "pid='-5'"), "status: line 2: pid of <controller> must be above 0");
  EXPECT_EQ(replaced("pid='4711'", "pid='4294967296'").find("status: line 2: invalid value '4294967296'"), 0u);
  EXPECT_EQ(replaced("starttime='18446744073709551615'", "x='1'"),
            "status: line 2: unknown attribute 'x' in <controller>");
  EXPECT_EQ(replaced("<cgroup>", "<cgroup/><cgroup>").find("status: line 4: element <cgroup> appears more than once"),
            0u);
  EXPECT_EQ(replaced("<fact name='veth'>", "<fact name='socket'>").find("status: line "), 0u);
  EXPECT_EQ(replaced("<cgroup>", "<odd/><cgroup>"), "status: line 4: unknown element <odd> in <domstatus>");
  EXPECT_EQ(replaced("persistent='yes'", "persistent='1'").find("status: line 1: invalid value '1'"), 0u);
  EXPECT_EQ(replaced("<domstatus", "<status").find("status: "), 0u);
  EXPECT_FALSE(parse_status(""));
  EXPECT_FALSE(parse_status("<domstatus version='1'/>"));
  for (std::size_t size = 0; size < text.size() - 1; size += 17)
    EXPECT_FALSE(parse_status(text.substr(0, size))) << size;
}

}  // namespace
}  // namespace virtuserns::xml
