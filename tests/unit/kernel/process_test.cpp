// Parsers of what the kernel and a container's own files say.
#include <gtest/gtest.h>

#include <csignal>

#include "driver/controller/shutdown.h"
#include "driver/controller/users.h"
#include "driver/kernel/cgroup.h"
#include "driver/kernel/process.h"

namespace virtuserns {
namespace {

using namespace controller;

TEST(Process, Status) {
  const auto status = kernel::parse_process_status(
      "Name:\tinit\nNSpid:\t4711\t1\t7\nSigBlk:\t0000000000000001\nSigIgn:\t0\nSigCgt:\t0000000180014000\n");
  ASSERT_TRUE(status);
  EXPECT_EQ(status->ns_pids, (std::vector<pid_t>{4711, 1, 7}));
  EXPECT_TRUE(is_handled(*status, SIGTERM));
  EXPECT_TRUE(is_handled(*status, SIGHUP));  // blocked: fetched by sigwait or signalfd
  EXPECT_FALSE(is_handled(*status, SIGINT));
  EXPECT_FALSE(is_handled(*status, 0));
  EXPECT_FALSE(is_handled(*status, 65));
  EXPECT_FALSE(kernel::parse_process_status("Name:\tx\n"));
  EXPECT_FALSE(kernel::parse_process_status("NSpid:\t1 x\n"));
}

TEST(Process, StartTimeBehindAHostileName) {
  EXPECT_EQ(kernel::parse_start_time("7 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 999 20\n"), 999u);
  EXPECT_FALSE(kernel::parse_start_time("7 (x) S 1 2"));
  EXPECT_FALSE(kernel::parse_start_time(""));
  const auto family = kernel::parse_family("7 (a) 9 9 9) S 4 5 6\n");
  ASSERT_TRUE(family);
  EXPECT_EQ(family->parent, 4);
  EXPECT_EQ(family->group, 5);
  for (const char* text : {"", "7 (x", "7 (x) S 4", "7 (x) S a b"}) EXPECT_FALSE(kernel::parse_family(text)) << text;
}

TEST(Cgroup, States) {
  EXPECT_EQ(*kernel::v1::parse_freezer_state("FREEZING\n"), kernel::FreezerState::kFreezing);
  EXPECT_FALSE(kernel::v1::parse_freezer_state("MELTED"));
  EXPECT_EQ(*kernel::v2::parse_events("populated 1\nfrozen 1\n", true), kernel::FreezerState::kFrozen);
  EXPECT_EQ(*kernel::v2::parse_events("populated 1\nfrozen 0\n", true), kernel::FreezerState::kFreezing);
  EXPECT_EQ(*kernel::v2::parse_events("populated 1\nfrozen 0\n", false), kernel::FreezerState::kThawed);
  EXPECT_FALSE(kernel::v2::parse_events("populated 1\n", false));
  EXPECT_EQ(*kernel::parse_pids("1\n0\n22\n"), (std::vector<pid_t>{1, 22}));
  EXPECT_FALSE(kernel::parse_pids("1\n-2\n"));
}

TEST(Users, Resolve) {
  const std::string passwd = "root:x:0:0::/:/bin/sh\n# remark\nbroken:x\nweb:x:33:34::/:\n7:x:700:701::/:\n";
  const std::string group = "root:x:0:\nstaff:x:50:web,root\nbad:x:y:web\nextra:x:60: web \n";
  const auto web = resolve_identity("web", "", passwd, group);
  ASSERT_TRUE(web);
  EXPECT_EQ(web->uid, 33u);
  EXPECT_EQ(web->gid, 34u);
  EXPECT_EQ(web->groups, (std::vector<gid_t>{34, 50, 60}));
  const auto by_number = resolve_identity("+33", "staff", passwd, group);
  ASSERT_TRUE(by_number);
  EXPECT_EQ(by_number->gid, 50u);
  EXPECT_EQ(resolve_identity("7", "", passwd, group)->uid, 700u);  // a name of digits is a name
  EXPECT_FALSE(resolve_identity("1", "", passwd, group));
  EXPECT_FALSE(resolve_identity("+-1", "", passwd, group));
  EXPECT_FALSE(resolve_identity("+4294967295", "", passwd, group));
  EXPECT_FALSE(resolve_identity("nobody", "", passwd, group));
  // (uid_t)-1 would leave the ids as they are: root.
  EXPECT_FALSE(resolve_identity("evil", "", "evil:x:4294967295:0::/:\n", group));
  EXPECT_FALSE(resolve_identity("evil", "", "evil:x:5:4294967295::/:\n", group));
  EXPECT_FALSE(resolve_identity("web", "evil", passwd, "evil:x:4294967295:\n"));
  EXPECT_FALSE(resolve_identity("web", "nogroup", passwd, group));
  EXPECT_EQ(resolve_identity("+5", "+6", "", "")->gid, 6u);
}

TEST(Shutdown, KindOfInit) {
  EXPECT_EQ(tell_init_kind("/usr/lib/systemd/systemd", std::string_view("/sbin/init\0", 11)), InitKind::kSystemd);
  EXPECT_EQ(tell_init_kind("/lib/systemd/systemd (deleted)", ""), InitKind::kSystemd);
  EXPECT_EQ(tell_init_kind("/bin/busybox", std::string_view("init\0", 5)), InitKind::kBusybox);
  EXPECT_EQ(tell_init_kind("/bin/busybox", std::string_view("/bin/sh\0-c\0", 11)), InitKind::kOther);
  EXPECT_EQ(tell_init_kind("/bin/busybox", std::string_view("/bin/busybox\0init\0", 18)), InitKind::kBusybox);
  // A script named /sbin/init: its comm says init, but it is a shell that runs.
  EXPECT_EQ(tell_init_kind("/bin/busybox", std::string_view("/bin/sh\0/sbin/init\0", 19)), InitKind::kOther);
  EXPECT_EQ(tell_init_kind("/sbin/init", "init [2]"), InitKind::kSysvinit);
  EXPECT_EQ(tell_init_kind("", ""), InitKind::kOther);
}

}  // namespace
}  // namespace virtuserns
