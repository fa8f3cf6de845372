// The back end with real controllers on the real kernel: what a daemon that is killed, a controller that is killed and
// a container that reboots meanwhile come to.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>

#include "driver/userns/observe.h"
#include "tests/root/backend_fixture.h"
#include "tests/support/test_machine.h"

namespace virtuserns::test {
namespace {

TEST_F(BackendTest, StartsWithItsOwnIdsAndDestroysWithoutTrace) {
  auto daemon = backend();
  ASSERT_TRUE(daemon->define(root, domain(kIdle), 0));
  const auto created = daemon->create(root, uuid, {}, 0);
  ASSERT_TRUE(created) << created.error().text;
  EXPECT_GT(created->id, 0);
  EXPECT_EQ(state(*daemon), kRunning + VIR_DOMAIN_RUNNING_BOOTED);
  const auto live = daemon->definition(root, uuid, 0);
  ASSERT_EQ(live->idmap.uid.size(), 1u);
  EXPECT_GE(*live->idmap.uid[0].target, config.id_range_first);
  EXPECT_EQ(live->consoles[0].alias->name, "console0");
  EXPECT_TRUE(daemon->definition(root, uuid, VIR_DOMAIN_XML_INACTIVE)->idmap.empty());
  const auto again = daemon->create(root, uuid, {}, 0);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, VIR_ERR_OPERATION_INVALID);
  const auto destroyed = daemon->destroy(root, uuid, 0);
  ASSERT_TRUE(destroyed) << destroyed.error().text;
  EXPECT_EQ(state(*daemon), kOff + VIR_DOMAIN_SHUTOFF_DESTROYED);
  expect_nothing_left();
  EXPECT_EQ(heard, (std::vector<std::string>{"0/0", "2/0", "5/1"}));
  // The same ids again, and then no lease without a domain.
  ASSERT_TRUE(daemon->create(root, uuid, {}, 0));
  EXPECT_EQ(daemon->definition(root, uuid, 0)->idmap, live->idmap);
  ASSERT_TRUE(daemon->destroy(root, uuid, 0));
  ASSERT_TRUE(daemon->undefine(root, uuid, 0));
  EXPECT_EQ(list_directory(paths.state + "/leases")->size(), 1u) << "only the lock";
}

TEST_F(BackendTest, FailedStartNamesTheCauseAndLeavesNothing) {
  auto daemon = backend();
  auto def = domain("true");
  def.os.init = "/no/such/init";
  const auto created = daemon->create_transient(root, def, {}, 0);
  ASSERT_FALSE(created);
  EXPECT_NE(created.error().text.find("/no/such/init"), std::string::npos) << created.error().text;
  expect_nothing_left();
  EXPECT_FALSE(daemon->lookup_by_uuid(uuid));
  EXPECT_EQ(list_directory(paths.state + "/leases")->size(), 1u);
}

TEST_F(BackendTest, TheHostsOwnRootIsNoSourceByAnyName) {
  auto daemon = backend();
  fs::create_symlink("/", dir.path() + "/link");
  for (const std::string& name : {std::string("/"), std::string("//"), std::string("/."),
                                  std::string("/proc/self/root"), dir.path() + "/link"}) {
    auto def = domain("true");
    def.filesystems[0].source = name;
    const auto as_root = daemon->create_transient(root, def, {}, 0);
    ASSERT_FALSE(as_root) << name;
    EXPECT_NE(as_root.error().text.find("host's own root directory"), std::string::npos) << as_root.error().text;
    def = domain("true");
    def.filesystems.push_back(def.filesystems[0]);
    def.filesystems[1].source = name;
    def.filesystems[1].target = "/host";
    EXPECT_FALSE(daemon->create_transient(root, def, {}, 0)) << name;
  }
  expect_nothing_left();
}

TEST_F(BackendTest, ANameThatLooksLikeAnOption) {
  auto daemon = backend();
  auto def = domain(kIdle);
  def.name = "--reap";
  const auto created = daemon->create_transient(root, def, {}, 0);
  ASSERT_TRUE(created) << created.error().text;
  EXPECT_TRUE(daemon->destroy(root, uuid, 0));
  expect_nothing_left();
}

TEST_F(BackendTest, GroupsThatTheContainerMadeGoWithIt) {
  if (!fs::exists("/sys/fs/cgroup/unified") && !fs::exists("/sys/fs/cgroup/cgroup.controllers"))
    GTEST_SKIP() << "no cgroup2 here";
  auto daemon = backend();
  // Hidden names, and as deep as it can get.
  const std::string script =
      "cd /sys/fs/cgroup; /bin/busybox mkdir .hidden .hidden/..b; i=0; while [ $i -lt 300 ] &amp;&amp; /bin/busybox mkdir d 2&gt;/dev/null; do cd d; i=$((i+1)); done; "
      "echo $i &gt; /out/ready; " +
      kIdle;
  ASSERT_TRUE(daemon->create_transient(root, domain(script), {}, 0));
  ASSERT_TRUE(
      eventually([&] { return fs::exists(tree() + "/out/ready") && fs::file_size(tree() + "/out/ready") > 0; }));
  std::ifstream in(tree() + "/out/ready");
  int depth = 0;
  in >> depth;
  EXPECT_LT(depth, 65);
  const auto destroyed = daemon->destroy(root, uuid, 0);
  EXPECT_TRUE(destroyed) << destroyed.error().text;
  expect_nothing_left();
}

TEST_F(BackendTest, DestroyDoesNotWaitForAReplyThatNobodyReads) {
  auto daemon = backend();
  ASSERT_TRUE(daemon->define(root, domain(kIdle), 0));
  for (int round = 0; round < 10; ++round) {
    ASSERT_TRUE(daemon->create(root, uuid, {}, 0));
    const auto before = std::chrono::steady_clock::now();
    ASSERT_TRUE(daemon->destroy(root, uuid, 0));
    EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(3)) << round;
  }
}

TEST_F(BackendTest, PausedDomainIsPausedForTheNextDaemon) {  // X3, B7
  killed_daemon([&](userns::Backend& daemon) {
    (void)daemon.define(root, domain(kIdle), 0);
    if (!daemon.create(root, uuid, {}, 0) || !daemon.suspend(root, uuid)) ::_exit(4);
  });
  auto daemon = backend();
  EXPECT_EQ(state(*daemon), VIR_DOMAIN_PAUSED * 100 + VIR_DOMAIN_PAUSED_USER);
  ASSERT_TRUE(daemon->resume(root, uuid));
  EXPECT_EQ(state(*daemon), kRunning + VIR_DOMAIN_RUNNING_UNPAUSED);
  ASSERT_TRUE(daemon->destroy(root, uuid, 0));
  expect_nothing_left();
}

TEST_F(BackendTest, RebootWhileTheDaemonIsAwayIsNotAnEnd) {  // X4, B5
  killed_daemon([&](userns::Backend& daemon) {
    (void)daemon.define(
        root, domain("while true; do if [ -e /out/go ]; then rm /out/go; reboot -f; fi; sleep 0.05; done"), 0);
    if (!daemon.create(root, uuid, {}, 0)) ::_exit(4);
  });
  ::chmod((tree() + "/out").c_str(), 0777);
  std::ofstream(tree() + "/out/go") << "x";
  ASSERT_TRUE(eventually([&] { return !fs::exists(tree() + "/out/go"); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const auto begin = std::chrono::steady_clock::now();
  auto daemon = backend();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
  EXPECT_EQ(state(*daemon), kRunning + VIR_DOMAIN_RUNNING_BOOTED);
  EXPECT_EQ(heard, (std::vector<std::string>{"reboot"})) << "the missed one is delivered";
  ASSERT_TRUE(daemon->destroy(root, uuid, 0));
  expect_nothing_left();
}

TEST_F(BackendTest, EndWhileTheDaemonIsAwayIsKnown) {
  killed_daemon([&](userns::Backend& daemon) {
    (void)daemon.define(root, domain("sleep 0.5; poweroff -f"), 0);
    if (!daemon.create(root, uuid, {}, 0)) ::_exit(4);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  auto daemon = backend();
  EXPECT_EQ(state(*daemon), kOff + VIR_DOMAIN_SHUTOFF_SHUTDOWN);
  expect_nothing_left();
}

TEST_F(BackendTest, KilledControllerIsACrash) {  // B10, F2
  auto daemon = backend();
  ASSERT_TRUE(daemon->define(root, domain(kIdle), 0));
  const auto created = daemon->create(root, uuid, {}, 0);
  ASSERT_TRUE(created) << created.error().text;
  ::kill(created->id, SIGKILL);
  EXPECT_TRUE(eventually([&] { return state(*daemon) == kOff + VIR_DOMAIN_SHUTOFF_CRASHED; })) << state(*daemon);
  expect_nothing_left();
  ASSERT_TRUE(daemon->create(root, uuid, {}, 0)) << "and it starts again";
  ASSERT_TRUE(daemon->destroy(root, uuid, 0));
}

TEST_F(BackendTest, DaemonAndControllerKilledTogether) {  // F4
  const pid_t id = orphan();
  ASSERT_GT(id, 1);
  ::kill(id, SIGKILL);
  auto daemon = backend();
  EXPECT_EQ(state(*daemon), kOff + VIR_DOMAIN_SHUTOFF_CRASHED);
  expect_nothing_left();
}

// F1: the daemon dies somewhere in a start or a destroy, in steps of a millisecond. The next one either has the domain
// running and can end it, or there is nothing of it.
TEST_F(BackendTest, DaemonKilledAnywhereInAStartOrDestroy) {
  int running = 0, off = 0;
  {
    auto daemon = backend();
    ASSERT_TRUE(daemon->define(root, domain(kIdle), 0));
  }
  for (int ms = 0; ms < 80; ms += 2) {
    const pid_t child = ::fork();
    if (child == 0) {
      userns::Backend daemon(config, paths, hub);
      if (!daemon.start()) ::_exit(3);
      std::thread killer([ms] {
        std::this_thread::sleep_for(std::chrono::milliseconds(ms));
        ::kill(::getpid(), SIGKILL);
      });
      for (;;) {
        (void)daemon.create(root, uuid, {}, 0);
        (void)daemon.destroy(root, uuid, 0);
      }
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
    auto daemon = backend();
    if (state(*daemon) / 100 == VIR_DOMAIN_RUNNING) {
      ++running;
      const auto destroyed = daemon->destroy(root, uuid, 0);
      // The end that the killed daemon had asked for may have come first.
      ASSERT_TRUE(destroyed || state(*daemon) / 100 == VIR_DOMAIN_SHUTOFF) << ms << " ms: " << destroyed.error().text;
    } else {
      ++off;
      ASSERT_EQ(state(*daemon) / 100, VIR_DOMAIN_SHUTOFF) << ms << " ms";
    }
    expect_nothing_left();
    ASSERT_FALSE(HasFailure()) << ms << " ms";
  }
  std::printf("found running %d times, off %d times\n", running, off);
  EXPECT_GT(running, 0);
  EXPECT_GT(off, 0);
}

// A file system that does not answer: whoever opens the program waits for a lease (fcntl(2), F_SETLEASE).
TEST_F(BackendTest, AControllerThatCannotBeRunHoldsNoStartForEver) {
  std::ifstream longest("/proc/sys/fs/lease-break-time");
  int most_s = 0;
  if (!(longest >> most_s) || most_s < 30) GTEST_SKIP() << "a lease is broken too soon here";
  const std::string program = dir.path() + "/controller";
  fs::copy_file(paths.controller, program);
  paths.controller = program;
  auto daemon = backend();
  ASSERT_TRUE(daemon->define(root, domain(kIdle), 0));
  ::signal(SIGIO, SIG_IGN);
  Fd held(::open(program.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::fcntl(held.get(), F_SETLEASE, F_WRLCK), 0);
  const auto before = std::chrono::steady_clock::now();
  const auto created = daemon->create(root, uuid, {}, 0);
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(25));
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error().code, VIR_ERR_OPERATION_TIMEOUT);
  EXPECT_NE(created.error().text.find("does not begin"), std::string::npos) << created.error().text;
  EXPECT_EQ(state(*daemon) / 100, VIR_DOMAIN_SHUTOFF);
  expect_nothing_left();
  // The next one is not held up by it, and of the late one nothing is left.
  held.reset();
  const auto again = daemon->create(root, uuid, {}, 0);
  ASSERT_TRUE(again) << again.error().text;
  ASSERT_TRUE(daemon->destroy(root, uuid, 0));
  expect_nothing_left();
  siginfo_t ended{};
  EXPECT_TRUE(eventually([&] { return ::waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) != 0; }))
      << "children of ours are left";
}

TEST_F(BackendTest, StoppedControllerDoesNotStopDestroy) {  // F5
  auto daemon = backend();
  const auto created = daemon->create_transient(root, domain(kIdle), {}, 0);
  ASSERT_TRUE(created) << created.error().text;
  ::kill(created->id, SIGSTOP);
  const auto begin = std::chrono::steady_clock::now();
  const auto destroyed = daemon->destroy(root, uuid, 0);
  EXPECT_TRUE(destroyed) << destroyed.error().text;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  EXPECT_FALSE(daemon->lookup_by_uuid(uuid));
  expect_nothing_left();
}

TEST_F(BackendTest, ShutdownFromInsideAndStatistics) {
  auto daemon = backend();
  ASSERT_TRUE(
      daemon->create_transient(root, domain("while ! [ -e /out/off ]; do sleep 0.05; done; poweroff -f"), {}, 0));
  ASSERT_TRUE(eventually([&] { return daemon->info(uuid)->cpu_time_ns > 0; }));
  EXPECT_GT(daemon->info(uuid)->memory_kib, 0u);
  const auto memory = daemon->memory_stats(uuid, 0);
  ASSERT_TRUE(memory) << memory.error().text;
  for (const auto& stat : *memory)
    EXPECT_NE(stat.tag, VIR_DOMAIN_MEMORY_STAT_SWAP_IN) << "v1 has no such number (X14)";
  EXPECT_EQ(daemon->all_stats({}, 0, 0)->size(), 1u);
  const auto set = daemon->set_memory(root, uuid, 32 * 1024, VIR_DOMAIN_AFFECT_LIVE);
  ASSERT_TRUE(set) << set.error().text;
  const std::string name = "/" + group + "/machine/virtuserns-" + format_uuid(uuid);
  auto limit = read_kernel_file("/sys/fs/cgroup/memory" + name + "/memory.limit_in_bytes");
  if (!limit) limit = read_kernel_file("/sys/fs/cgroup" + name + "/memory.max");
  ASSERT_TRUE(limit) << limit.error().text;
  EXPECT_EQ(*limit, "33554432\n");
  EXPECT_EQ(daemon->open_namespaces(root, uuid, 0).error().code, VIR_ERR_OPERATION_DENIED);
  auto console = daemon->open_console(root, uuid, "", 0);
  EXPECT_TRUE(console) << console.error().text;
  std::ofstream(tree() + "/out/off") << "x";
  EXPECT_TRUE(eventually([&] { return !daemon->lookup_by_uuid(uuid); }));
  expect_nothing_left();
  EXPECT_EQ(heard, (std::vector<std::string>{"2/0", "5/0"}));
}

TEST_F(BackendTest, AutodestroyAndConflictingMaps) {
  auto daemon = backend();
  Caller client;
  client.connection_id = 7;
  const std::string map =
      "<idmap><uid start='0' target='3000000' count='65536'/><gid start='0' target='3000000' count='65536'/></idmap>";
  ASSERT_TRUE(daemon->create_transient(client, domain(kIdle, map), {}, VIR_DOMAIN_START_AUTODESTROY));
  auto other = domain(kIdle, map);
  other.name = "other";
  other.uuid = Uuid{{9, 1}};
  const auto refused = daemon->define(root, other, 0);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text.find("domain 'web'"), std::string::npos) << refused.error().text;
  daemon->connection_closed(7);
  EXPECT_TRUE(eventually([&] { return !daemon->lookup_by_uuid(uuid); }));
  const auto defined = daemon->define(root, other, 0);
  EXPECT_TRUE(defined) << defined.error().text;
  expect_nothing_left();
}

TEST(Sysinfo, SaysWhatTheFirmwareSays) {
  const TempDir sys;
  EXPECT_EQ(userns::format_sysinfo(sys.path()).error().code, VIR_ERR_CONFIG_UNSUPPORTED);
  fs::create_directories(sys.path() + "/class/dmi/id");
  for (const auto& [name, text] : {std::pair{"bios_vendor", "Firm & Sons\n"},
                                   {"sys_vendor", "Maker\n"},
                                   {"product_name", "Thing 1\n"},
                                   {"product_serial", "\n"},
                                   {"chassis_type", "1\n"}})
    std::ofstream(sys.path() + "/class/dmi/id/" + name) << text;
  const auto xml = userns::format_sysinfo(sys.path());
  ASSERT_TRUE(xml) << xml.error().text;
  EXPECT_EQ(*xml,
            "<sysinfo type='smbios'>\n"
            "  <bios>\n"
            "    <entry name='vendor'>Firm &amp; Sons</entry>\n"
            "  </bios>\n"
            "  <system>\n"
            "    <entry name='manufacturer'>Maker</entry>\n"
            "    <entry name='product'>Thing 1</entry>\n"
            "  </system>\n"
            "</sysinfo>\n");
}

}  // namespace
}  // namespace virtuserns::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const char* build = std::getenv("VIRTUSERNS_BUILD");
  if (::geteuid() != 0 || !build || !std::filesystem::exists("/bin/busybox")) {
    std::puts("needs root, VIRTUSERNS_BUILD and /bin/busybox");
    return 77;
  }
  // Links and mounts of the tests are nobody else's.
  if (!virtuserns::test::is_in_test_machine() && (::unshare(CLONE_NEWNS | CLONE_NEWNET) != 0 ||
                                                  ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0))
    return 77;
  return RUN_ALL_TESTS();
}
