// A start as a whole: what init gets, who owns its namespaces, what comes back, what is left.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/clone.h"
#include "tests/support/controller_run.h"

namespace virtuserns::test {
namespace {

using namespace controller;

ExecStep& exec_of(LaunchPlan& plan) { return std::get<ExecStep>(plan.inside.back()); }

TEST(ControllerStart, RunsInitAndTellsHowItEnded) {
  RootTree tree;
  const auto before = snapshot();
  Domain domain(make_plan_for(tree, "echo hello > /out/hello; exit 3"));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  EXPECT_GT(boot->init_pid, 0);
  EXPECT_GT(boot->init_start_time, 0u);
  EXPECT_EQ(boot->boots, 1u);
  const auto note = domain.next_note();
  ASSERT_TRUE(note) << note.error().text;
  const auto& ended = std::get<EndedNote>(*note);
  EXPECT_EQ(ended.record.cause, ExitCause::kExited);
  EXPECT_EQ(ended.record.wait_status, 3 << 8);
  EXPECT_EQ(ended.record.error, "");
  EXPECT_TRUE(domain.wait_controller());
  EXPECT_EQ(tree.read("out/hello"), "hello\n");
  EXPECT_EQ(snapshot(), before);
  EXPECT_FALSE(std::filesystem::exists(domain.plan().stage_path));
  EXPECT_FALSE(std::filesystem::exists(domain.plan().socket_path));
  const auto bytes = read_file(domain.plan().exit_record_path);
  ASSERT_TRUE(bytes);
  const auto record =
      xdr::decode_exact<ExitRecord>(std::span(reinterpret_cast<const std::uint8_t*>(bytes->data()), bytes->size()));
  ASSERT_TRUE(record);
  EXPECT_EQ(record->wait_status, 3 << 8);
}

TEST(ControllerStart, MissingTargetsAreMadeForEverybody) {
  RootTree tree;
  auto plan = make_plan_for(tree, "");
  plan.from_parent.emplace_back(TmpfsStep{"/srv/data/cache", 65536, 01777, false});
  exec_of(plan).path = "/bin/true";
  Domain domain(std::move(plan));
  ASSERT_TRUE(domain.start_ok());
  struct stat made {};
  for (const char* part : {"/srv", "/srv/data", "/srv/data/cache"}) {
    ASSERT_EQ(::stat((tree.path() + part).c_str(), &made), 0) << part;
    EXPECT_EQ(made.st_mode & 07777, 0755u) << part << ": others could not pass";
  }
}

TEST(ControllerStart, NamespacesBelongToTheDomainsOwnId) {
  RootTree tree;
  auto plan = make_plan_for(tree, "");
  exec_of(plan).path = "/bin/sleep";  // no shell, which changes signals of its own accord
  exec_of(plan).argv = {"sleep", "1000"};
  Domain domain(std::move(plan));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  ASSERT_TRUE(domain.ask(NamespacesRequest{}));
  ASSERT_EQ(domain.files().size(), 6u);
  uid_t owner = 0;
  ASSERT_EQ(::ioctl(domain.files()[0].get(), NS_GET_OWNER_UID, &owner), 0);
  EXPECT_EQ(owner, kHostId);
  // All the others hang below it, the mount namespace too: that is what locks its mounts.
  struct stat user {};
  ::fstat(domain.files()[0].get(), &user);
  for (std::size_t i = 1; i < 6; ++i) {
    const Fd parent(::ioctl(domain.files()[i].get(), NS_GET_USERNS));
    struct stat st {};
    ASSERT_EQ(::fstat(parent.get(), &st), 0) << i;
    EXPECT_EQ(st.st_ino, user.st_ino) << i;
  }
  const std::string proc = "/proc/" + std::to_string(boot->init_pid);
  EXPECT_EQ(*read_kernel_file(proc + "/uid_map"), "         0    7340032      65536\n");
  EXPECT_EQ(*read_kernel_file(proc + "/gid_map"), "         0    7340032      65536\n");
  EXPECT_EQ(*read_kernel_file(proc + "/setgroups"), "allow\n");
  const std::string status = *read_kernel_file(proc + "/status");
  EXPECT_NE(status.find("Uid:\t7340032\t7340032\t7340032\t7340032\n"), std::string::npos);
  EXPECT_NE(status.find("Groups:\t \n"), std::string::npos) << status;
  EXPECT_NE(status.find("CapInh:\t0000000000000000\n"), std::string::npos);
  EXPECT_NE(status.find("CapAmb:\t0000000000000000\n"), std::string::npos);
  EXPECT_NE(status.find("SigIgn:\t0000000000000000\n"), std::string::npos) << status;
  EXPECT_NE(status.find("SigBlk:\t0000000000000000\n"), std::string::npos) << status;
}

TEST(ControllerStart, InitHasNothingOpenButItsTerminal) {
  RootTree tree;
  // The sign is a directory: while the shell makes a file it holds one open.
  Domain domain(make_plan_for(
      tree,
      "ls -l /proc/1/fd > /out/fds; readlink /proc/1/cwd > /out/cwd; tty > /out/tty; env > /out/env; cat /proc/1/cgroup > /out/cgroup; hostname > /out/hostname; mkdir /out/done; sleep 1000"));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  ASSERT_TRUE(wait_for(tree, "out/done"));
  int terminals = 0, others = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(boot->init_pid) + "/fd")) {
    const auto target = std::filesystem::read_symlink(entry).string();
    (target == "/dev/console" || target == "/dev/pts/0" ? terminals : others) += 1;
    if (target != "/dev/console" && target != "/dev/pts/0") ADD_FAILURE() << entry.path() << " -> " << target;
  }
  EXPECT_EQ(terminals, 3);
  EXPECT_EQ(others, 0);
  EXPECT_EQ(tree.read("out/cwd"), "/\n");
  EXPECT_EQ(tree.read("out/tty"), "/dev/console\n");
  EXPECT_EQ(tree.read("out/hostname"), domain.plan().name + "\n");
  EXPECT_NE(tree.read("out/env").find("container=lxc-libvirt"), std::string::npos);
  const std::string groups = tree.read("out/cgroup");
  EXPECT_EQ(groups.find("virtuserns-test"), std::string::npos) << groups;
  for (const auto line : split(trim(groups), '\n')) EXPECT_TRUE(line.ends_with(":/")) << groups;
}

TEST(ControllerStart, PassesFilesInOrder) {
  RootTree tree;
  auto plan = make_plan_for(
      tree, "cat <&3 > /out/a; cat <&4 > /out/b; ls /proc/self/fd > /out/fds; echo > /out/done; sleep 1000");
  exec_of(plan).passed_files = 2;
  int a[2], b[2];
  ASSERT_EQ(::pipe2(a, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(b, O_CLOEXEC), 0);
  ASSERT_EQ(::write(a[1], "first", 5), 5);
  ASSERT_EQ(::write(b[1], "second", 6), 6);
  ::close(a[1]);
  ::close(b[1]);
  Domain domain(std::move(plan));
  const auto boot = domain.start_ok({a[0], b[0]});
  ASSERT_TRUE(boot) << boot.error().text;
  ASSERT_TRUE(wait_for(tree, "out/done"));
  EXPECT_EQ(tree.read("out/a"), "first");
  EXPECT_EQ(tree.read("out/b"), "second");
  EXPECT_EQ(tree.read("out/fds"), "0\n1\n2\n3\n4\n5\n");  // 5: ls reading the directory
}

TEST(ControllerStart, InitUserFromTheContainersOwnFiles) {
  RootTree tree;
  std::filesystem::permissions(tree.path() + "/out", std::filesystem::perms(0777));
  auto plan =
      make_plan_for(tree, "id > /out/id; grep Cap /proc/self/status > /out/caps; echo > /out/done; sleep 1000");
  plan.inside.insert(plan.inside.end() - 1, UserStep{"web", ""});
  plan.inside.insert(plan.inside.end() - 1, SeccompStep{{6, 0, 0, 0, 0, 0, 0xff, 0x7f}});  // allow everything
  Domain domain(std::move(plan));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  ASSERT_TRUE(wait_for(tree, "out/done"));
  EXPECT_EQ(tree.read("out/id"), "uid=33(web) gid=34(web) groups=34(web),77(extra)\n");
  EXPECT_NE(tree.read("out/caps").find("CapEff:\t0000000000000000"), std::string::npos) << tree.read("out/caps");
  const std::string status = *read_kernel_file("/proc/" + std::to_string(boot->init_pid) + "/status");
  EXPECT_NE(status.find("Seccomp:\t2\n"), std::string::npos);
}

TEST(ControllerStart, BoundingSetAndNoNewPrivileges) {
  RootTree tree;
  auto plan =
      make_plan_for(tree, "grep -E 'Cap|NoNewPrivs' /proc/self/status > /out/caps; echo > /out/done; sleep 1000");
  for (auto& step : plan.inside)
    if (auto* caps = std::get_if<CapabilitiesStep>(&step)) *caps = {0xff, true};
  plan.inside.insert(plan.inside.end() - 1, SeccompStep{{6, 0, 0, 0, 0, 0, 0xff, 0x7f}});
  Domain domain(std::move(plan));
  ASSERT_TRUE(domain.start_ok());
  ASSERT_TRUE(wait_for(tree, "out/done"));
  EXPECT_EQ(tree.read("out/caps"),
            "CapInh:\t0000000000000000\nCapPrm:\t00000000000000ff\nCapEff:\t00000000000000ff\n"
            "CapBnd:\t00000000000000ff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n");
}

// Each failure names the step, the object and the errno, and leaves nothing.
void expect_failure(const RootTree& tree, const std::function<void(LaunchPlan&)>& change, const std::string& text,
                    int sys_errno) {
  SCOPED_TRACE(text);
  const auto before = snapshot();
  auto plan = make_plan_for(tree, "sleep 1000");
  change(plan);
  Domain domain(std::move(plan));
  const auto note = domain.start();
  ASSERT_TRUE(note) << note.error().text;
  const auto* failed = std::get_if<FailedNote>(&*note);
  ASSERT_TRUE(failed);
  EXPECT_NE(failed->error.text.find(text), std::string::npos) << failed->error.text;
  EXPECT_EQ(failed->error.sys_errno, sys_errno) << failed->error.text;
  EXPECT_TRUE(domain.wait_controller());
  EXPECT_EQ(snapshot(), before);
  EXPECT_FALSE(std::filesystem::exists(domain.plan().socket_path));
  EXPECT_FALSE(std::filesystem::exists(domain.plan().stage_path));
  ::mkdir(domain.plan().stage_path.c_str(), 0700);
}

// As systemd makes it: the test makes the scope, and removes it. Which group of v2 is whose is told by /proc.
struct ScopedPlan {
  LaunchPlan plan;
  std::string scope;  // the directory; empty: this machine has no cgroup2
};

ScopedPlan scoped_plan(const RootTree& tree, const std::string& script) {
  ScopedPlan scoped{make_plan_for(tree, script), ""};
  for (auto& step : scoped.plan.before) {
    auto* group = std::get_if<CgroupStep>(&step);
    if (!group || !group->is_v2) continue;
    group->scope = group->path + ".scope";
    group->path = group->scope + "/container";
    scoped.scope = group->mount + "/" + group->scope;
    std::filesystem::create_directories(scoped.scope);
  }
  return scoped;
}

std::string v2_group(pid_t pid) {
  const auto text = read_file("/proc/" + std::to_string(pid) + "/cgroup");
  const auto at = text ? text->find("0::") : std::string::npos;
  return at == std::string::npos ? "" : text->substr(at + 3, text->find('\n', at) - at - 3);
}

TEST(ControllerStart, InAScopeItIsBesideItsContainer) {
  RootTree tree;
  auto [plan, scope] = scoped_plan(tree, "sleep 1000");
  if (scope.empty()) GTEST_SKIP() << "this machine has no cgroup2";
  Domain domain(std::move(plan));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  EXPECT_TRUE(v2_group(domain.controller_pid()).ends_with(".scope/supervisor")) << v2_group(domain.controller_pid());
  EXPECT_TRUE(v2_group(boot->init_pid).ends_with(".scope/container")) << v2_group(boot->init_pid);
  ASSERT_TRUE(domain.ask(DestroyRequest{}));
  EXPECT_TRUE(domain.wait_controller());
  EXPECT_FALSE(std::filesystem::exists(scope + "/container"));
  EXPECT_EQ(::rmdir((scope + "/supervisor").c_str()), 0);
  EXPECT_EQ(::rmdir(scope.c_str()), 0);
}

TEST(ControllerStart, WithoutADaemonNobodyMakesItsScope) {
  RootTree tree;
  auto [plan, scope] = scoped_plan(tree, "sleep 1000");
  if (scope.empty()) GTEST_SKIP() << "this machine has no cgroup2";
  const std::string stage = plan.stage_path;
  Domain domain(std::move(plan));
  domain.daemon_will(Domain::Daemon::kGone);
  const auto boot = domain.start_ok();
  ASSERT_FALSE(boot);
  EXPECT_NE(boot.error().text.find("wait for the scope: the daemon is gone"), std::string::npos) << boot.error().text;
  EXPECT_TRUE(domain.wait_controller());
  EXPECT_FALSE(std::filesystem::exists(stage));
  EXPECT_EQ(::rmdir(scope.c_str()), 0) << "a group was made in it";
}

TEST(ControllerStart, FailuresNameStepObjectAndErrno) {
  RootTree tree;
  expect_failure(
      tree, [](LaunchPlan& p) { exec_of(p).path = "/sbin/nothing"; }, "exec '/sbin/nothing'", ENOENT);
  expect_failure(
      tree, [](LaunchPlan& p) { exec_of(p).path = "/etc/passwd"; }, "exec '/etc/passwd'", EACCES);
  expect_failure(
      tree, [](LaunchPlan& p) { exec_of(p).directory = "/nowhere"; }, "enter '/nowhere'", ENOENT);
  expect_failure(
      tree,
      [](LaunchPlan& p) {
        p.before.emplace_back(SourceStep{99, "/no/such", false, false});
      },
      "source '/no/such'", ENOENT);
  expect_failure(
      tree,
      [](LaunchPlan& p) {
        p.before.emplace_back(DeviceSourceStep{99, "/dev/nothing", false});
      },
      "device '/dev/nothing'", ENOENT);
  expect_failure(
      tree,
      [](LaunchPlan& p) {
        std::get<CgroupStep>(p.before[0]).writes.push_back({"no.such", "1"});
      },
      "no.such", ENOENT);
  expect_failure(
      tree,
      [](LaunchPlan& p) {
        p.from_parent.emplace_back(VethStep{"vnet%d", "eth0", {2, 0, 0, 0, 0, 1}, "nobridge", {}, true});
      },
      "create veth 'eth0': the host has no bridge 'nobridge': create it", ENODEV);
  expect_failure(
      tree, [](LaunchPlan& p) { p.inside.insert(p.inside.begin(), LinkUpStep{"eth7"}); }, "set link 'eth7' up",
      ENODEV);
  expect_failure(
      tree,
      [](LaunchPlan& p) {
        p.inside.insert(p.inside.end() - 1, UserStep{"nobody", ""});
      },
      "no user 'nobody'", 0);
  expect_failure(
      tree,
      [](LaunchPlan& p) { p.inside.insert(p.inside.end() - 1, SeccompStep{std::vector<std::uint8_t>(8, 0xff)}); },
      "install seccomp filter", EINVAL);
}

TEST(ControllerStart, AFailedStartRemovesItsLinks) {
  RootTree tree;
  expect_failure(
      tree,
      [](LaunchPlan& p) {
        p.from_parent.emplace_back(VethStep{"vnet%d", "eth0", {2, 0, 0, 0, 0, 1}, "", {}, true});
        exec_of(p).path = "/nothing";
      },
      "exec '/nothing'", ENOENT);
}

}  // namespace
}  // namespace virtuserns::test
