// What container root may not do: the promises of docs/security.md, tried from inside.
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "driver/kernel/mount.h"
#include "tests/support/controller_run.h"

namespace virtuserns::test {
namespace {

using namespace controller;

// Runs `script`, which writes to /out/log, to its end.
std::string run_inside(const RootTree& tree, LaunchPlan plan) {
  Domain domain(std::move(plan));
  const auto boot = domain.start_ok();
  if (!boot) return "start failed: " + boot.error().text;
  if (!wait_for(tree, "out/done")) return "no end: " + tree.read("out/log");
  return tree.read("out/log");
}
std::string run_inside(const RootTree& tree, const std::string& script) {
  return run_inside(tree, make_plan_for(tree, "exec > /out/log 2>&1; " + script + "; echo > /out/done; sleep 1000"));
}

TEST(Isolation, MountsAreLocked) {
  RootTree tree;
  std::filesystem::create_directories(tree.temp() + "/data");
  std::filesystem::create_directories(tree.path() + "/data");
  auto plan = make_plan_for(
      tree,
      "exec > /out/log 2>&1\n"
      "try() { if \"$@\" 2>/dev/null; then echo \"DID $*\"; else echo refused; fi; }\n"
      "try umount /data; try mount -o remount,rw,bind /data; try mount -o remount,rw /data; try touch /data/x\n"
      "try umount /proc; try umount /sys; try umount /proc/kcore; try umount /proc/sys; try umount /dev; try umount /dev/pts\n"
      "try mount -o remount,rw,bind /proc/sys; try mount -o remount,dev,bind /; try mount -o remount,suid,bind /proc\n"
      "try sh -c 'echo 1 > /proc/sys/kernel/sysrq'\n"
      // Where the kernel has it, its mask is /dev/null, which takes everything.
      "try sh -c '[ \"$(stat -c %t:%T /proc/sysrq-trigger)\" != 1:3 ] && echo b > /proc/sysrq-trigger'\n"
      "try mount -t proc proc /tmp; try mount -t sysfs sysfs /tmp; try mount --move /proc /tmp\n"
      "try sh -c 'echo x > /sys/kernel/uevent_helper'\n"
      "try mknod /tmp/sda b 254 0; try mknod /tmp/null c 1 3; try mknod /dev/mem c 1 1\n"
      "echo > /out/done; sleep 1000");
  plan.before.emplace_back(SourceStep{2, tree.temp() + "/data", true, false});
  plan.from_parent.emplace_back(BindStep{2, "/data", OwnerShift::kIdmappedMount, true});
  const std::string log = run_inside(tree, std::move(plan));
  EXPECT_EQ(log.find("DID"), std::string::npos) << log;
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 22) << log;
}

TEST(Isolation, ReadOnlyIncludesSubmountsAndFlaggedSources) {
  // Bug X1 of libvirt's driver: a source mounted nosuid,nodev,noexec stayed writable, and so did what is mounted below.
  RootTree tree;
  const std::string source = tree.temp() + "/source";
  std::filesystem::create_directories(source);
  ASSERT_EQ(::mount("t", source.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0777"), 0);
  std::filesystem::create_directories(source + "/below");
  ASSERT_EQ(::mount("t", (source + "/below").c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0777"), 0);
  auto plan = make_plan_for(
      tree,
      "exec > /out/log 2>&1; for f in /ro/x /ro/below/x /rw/x /rw/below/x; do touch $f 2>/dev/null && echo wrote $f; done; "
      "grep ' /ro' /proc/self/mountinfo | cut -d' ' -f5,6; echo > /out/done; sleep 1000");
  plan.before.emplace_back(SourceStep{2, source, true, false});
  plan.from_parent.emplace_back(BindStep{2, "/ro", OwnerShift::kAlreadyShifted, true});
  plan.from_parent.emplace_back(BindStep{2, "/rw", OwnerShift::kAlreadyShifted, false});
  const std::string log = run_inside(tree, std::move(plan));
  EXPECT_EQ(
      log,
      "wrote /rw/x\nwrote /rw/below/x\n/ro ro,nosuid,nodev,noexec,relatime\n/ro/below ro,nosuid,nodev,relatime\n");
  ::umount2(source.c_str(), MNT_DETACH);
}

TEST(Isolation, ReadOnlyRoot) {
  RootTree tree;
  auto plan = make_plan_for(
      tree,
      "read go; touch /x 2>/dev/null && echo wrote; mount -o remount,rw,bind / 2>/dev/null && echo remounted; touch /etc/x 2>/dev/null && echo wrote; echo the''end; sleep 1000");
  std::get<RootStep>(plan.from_parent[1]).is_readonly = true;
  Domain domain(std::move(plan));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  const auto console = domain.console();
  ASSERT_TRUE(console) << console.error().text;
  ASSERT_EQ(::write(console->get(), "go\n", 3), 3);
  const std::string said = read_until(*console, "theend");
  EXPECT_NE(said.find("theend"), std::string::npos) << said;
  EXPECT_EQ(said.find("wrote"), std::string::npos) << said;
  EXPECT_EQ(said.find("remounted"), std::string::npos) << said;
  EXPECT_FALSE(std::filesystem::exists(tree.path() + "/x"));
  EXPECT_FALSE(std::filesystem::exists(tree.path() + "/etc/x"));
}

TEST(Isolation, DevicesAreThoseOfThePlan) {
  RootTree tree;
  const std::string log = run_inside(
      tree,
      "ls -A /dev | tr '\\n' ' '; echo; ls -ld /dev/pts/ptmx | cut -c1-10; echo x > /dev/null && echo null; head -c 3 /dev/zero | wc -c; "
      "stat -c '%u:%g %a' /dev/pts/0 /dev; readlink /dev/ptmx");
  EXPECT_NE(log.find("null\n3\n0:5 620\n0:0 755\npts/ptmx\n"), std::string::npos) << log;
  EXPECT_EQ(std::system(("test \"$(ls -A " + tree.path() + "/dev)\" = ''").c_str()), 0)
      << "the tree on disk was written to";
}

// One table, enforced by files (v1) and by a program (v2): with the rule the device works, without it nobody opens it.
TEST(Isolation, DeviceRulesHoldInEveryHierarchy) {
  std::size_t judged = 0;
  for (const bool is_v2 : {false, true}) {
    RootTree tree;
    auto plan = make_plan_for(
        tree,
        "exec > /out/log 2>&1; echo x > /dev/null && echo null; head -c 1 /dev/zero | wc -c; echo > /out/done; sleep 1000");
    bool is_limited = false;
    for (auto& step : plan.before) {
      auto* group = std::get_if<CgroupStep>(&step);
      if (!group) continue;
      const auto& names = group->controllers;
      const bool is_the_one = is_v2 ? group->is_v2 : std::find(names.begin(), names.end(), "devices") != names.end();
      group->device_rules.reset();
      if (!is_the_one) continue;
      is_limited = true;
      group->device_rules = standard_device_rules();
      std::erase_if(*group->device_rules, [](const auto& rule) { return rule.major == 1 && rule.minor == 5; });
    }
    if (!is_limited) continue;
    ++judged;
    const std::string log = run_inside(tree, std::move(plan));
    EXPECT_EQ(log.find("null\n"), 0u) << log;
    EXPECT_NE(log.find("/dev/zero: Operation not permitted\n0\n"), std::string::npos)
        << (is_v2 ? "v2: " : "v1: ") << log;
  }
  EXPECT_GT(judged, 0u);
}

TEST(Isolation, ADeviceNodeInTheImageOpensNothing) {
  RootTree tree;
  ASSERT_EQ(::mknod((tree.path() + "/etc/zero").c_str(), S_IFCHR | 0666, makedev(1, 5)), 0);
  const std::string log = run_inside(tree, "head -c 3 /etc/zero && echo read");
  EXPECT_EQ(log.find("read"), std::string::npos) << log;
  EXPECT_NE(log.find("Permission denied"), std::string::npos) << log;
}

TEST(Isolation, MasksHide) {
  RootTree tree;
  const std::string log = run_inside(
      tree,
      "wc -c < /proc/timer_list; wc -c < /proc/keys; ls -A /proc/acpi 2>/dev/null | wc -l; ls -A /sys/firmware | wc -l");
  EXPECT_EQ(log, "0\n0\n0\n0\n");
}

TEST(Isolation, OnlyTheNetworksOwnSettingsAreWritable) {
  RootTree tree;
  auto plan = make_plan_for(
      tree,
      "exec > /out/log 2>&1; echo 1 > /proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward\n"
      "(echo 9 > /proc/sys/net/core/somaxconn) 2>/dev/null && echo DID; echo > /out/done; sleep 1000");
  for (auto& step : plan.from_parent)
    if (auto* proc = std::get_if<ProcStep>(&step)) proc->writable = {"/proc/sys/net/ipv4"};
  EXPECT_EQ(run_inside(tree, std::move(plan)), "1\n");
}

TEST(Isolation, SessionKeyringIsNew) {
  RootTree tree;
  const std::string log = run_inside(tree, "probe keyring");
  EXPECT_NE(log.find("keyring;0;"), std::string::npos) << log;  // container root's own
  EXPECT_NE(log.find("_ses"), std::string::npos) << log;
}

TEST(Isolation, PidsLimitBites) {
  RootTree tree;
  const std::string log = run_inside(tree, "probe fork");
  const int made = std::atoi(log.c_str());
  EXPECT_GT(made, 10) << log;
  EXPECT_LT(made, 64) << log;
}

TEST(Isolation, MemoryLimitBites) {
  RootTree tree;
  const std::string log = run_inside(tree, "probe eat 20; probe eat 200; echo status $?");
  EXPECT_EQ(log.substr(0, 5), "full\n") << log;
  EXPECT_EQ(log.find("full", 5), std::string::npos) << log;
  EXPECT_NE(log.find("status 137"), std::string::npos) << log;
}

TEST(Isolation, OwnNetworkWithLoopback) {
  RootTree tree;
  const std::string log =
      run_inside(tree, "ip -o link | cut -d' ' -f2,3; ping -c1 -W2 127.0.0.1 > /dev/null && echo pong");
  EXPECT_NE(log.find("lo: <LOOPBACK,UP"), std::string::npos) << log;
  EXPECT_NE(log.find("pong"), std::string::npos) << log;
}

TEST(Isolation, UntouchedFilesOnDisk) {
  RootTree tree;
  const std::string log = run_inside(tree, "stat -c %u /etc/passwd; touch /etc/new");
  EXPECT_EQ(log, "0\n");
  struct stat st {};
  ASSERT_EQ(::stat((tree.path() + "/etc/new").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 0u);  // an idmapped mount: on disk container root's files stay root's
}

}  // namespace
}  // namespace virtuserns::test
