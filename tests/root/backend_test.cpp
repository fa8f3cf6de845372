// The back end with real controllers on the real kernel: what a daemon that is killed, a controller that is killed and
// a container that reboots meanwhile come to.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <libvirt/libvirt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/userns/backend.h"
#include "driver/userns/observe.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_machine.h"
#include "xml/domain.h"

using namespace virtuserns;
namespace fs = std::filesystem;

namespace {

struct BackendTest : testing::Test {
  test::TempDir dir;
  Paths paths;
  DaemonConfig config;
  EventHub hub;
  std::mutex mutex;
  std::vector<std::string> heard;
  const Caller root{};
  const std::string group = "virtuserns-backend-" + std::to_string(::getpid());
  const Uuid uuid{{0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0x49, 0x08, 0x87, 0x06, 5, 4, 3, 2, 1, 0}};

  void SetUp() override {
    ::chmod(dir.path().c_str(), 0711);
    paths.driver_run = dir.path() + "/run";
    paths.definitions = dir.path() + "/etc";
    paths.state = dir.path() + "/var";
    paths.log = dir.path() + "/log";
    paths.subuid = paths.subgid = dir.path() + "/subuid";
    paths.controller = std::string(std::getenv("VIRTUSERNS_BUILD")) + "/driver/controller/virtuserns-controller";
    config.cgroup_parent = group;
    for (const char* name : {"bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "out"})
      fs::create_directories(tree() + "/" + name);
    fs::copy_file("/bin/busybox", tree() + "/bin/busybox");
    for (const char* applet : {"sh", "sleep", "reboot", "poweroff", "cat", "true", "rm"})
      fs::create_symlink("busybox", tree() + "/bin/" + applet);
    hub.subscribe([this](const Event& event) {
      const std::lock_guard lock(mutex);
      if (const auto* life = std::get_if<LifecycleEvent>(&event.body))
        heard.push_back(std::to_string(life->event) + "/" + std::to_string(life->detail));
      if (std::holds_alternative<RebootEvent>(event.body)) heard.push_back("reboot");
    });
  }

  void TearDown() override {
    // Our own sub-tree of each hierarchy, empty by now.
    for (const auto& hierarchy : hierarchies()) {
      ::rmdir((hierarchy / group / "machine").c_str());
      ::rmdir((hierarchy / group).c_str());
    }
  }

  // Where cgroup2 is alone it is mounted where v1's hierarchies have their directories.
  static std::vector<fs::path> hierarchies() {
    if (fs::exists("/sys/fs/cgroup/cgroup.controllers")) return {"/sys/fs/cgroup"};
    std::error_code ignored;
    std::vector<fs::path> found;
    for (const auto& hierarchy : fs::directory_iterator("/sys/fs/cgroup", ignored)) found.push_back(hierarchy.path());
    return found;
  }

  std::string tree() const { return dir.path() + "/tree"; }
  DomainDef domain(const std::string& script, const std::string& extra = "") const {
    const auto def = xml::parse_domain(
        "<domain type='lxc'><name>web</name><uuid>0f0e0d0c-0b0a-4908-8706-050403020100</uuid><memory unit='MiB'>64</memory>" +
        extra + "<os><type>exe</type><init>/bin/sh</init><initarg>-c</initarg><initarg>" + script +
        "</initarg></os><devices><filesystem type='mount'><source dir='" + tree() +
        "'/><target dir='/'/></filesystem>"
        "<console type='pty'/></devices></domain>");
    EXPECT_TRUE(def) << (def ? "" : def.error().text);
    return def ? *def : DomainDef{};
  }
  std::unique_ptr<userns::Backend> backend() {
    auto made = std::make_unique<userns::Backend>(config, paths, hub);
    const auto started = made->start();
    EXPECT_TRUE(started) << (started ? "" : started.error().text);
    return made;
  }
  // A daemon that does `work` and is then killed in its tracks.
  template <class Work>
  void killed_daemon(const Work& work) {
    const pid_t child = ::fork();
    if (child == 0) {
      userns::Backend daemon(config, paths, hub);
      if (!daemon.start()) ::_exit(3);
      work(daemon);
      ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
  }
  template <class Condition>
  static bool eventually(const Condition& condition, int ms = 10'000) {
    if (const char* factor = std::getenv("VIRTUSERNS_TIME_FACTOR")) ms *= std::max(1, std::atoi(factor));
    for (int i = 0; i < ms / 10 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return condition();
  }
  // The controller of a domain whose daemon was killed; 0: there is none.
  pid_t orphan() {
    pid_t id = 0;
    killed_daemon([&](userns::Backend& daemon) {
      (void)daemon.define(root, domain("while true; do sleep 1; done"), 0);
      const auto created = daemon.create(root, uuid, {}, 0);
      if (!created) ::_exit(4);
      std::ofstream(dir.path() + "/id") << created->id;
    });
    std::ifstream(dir.path() + "/id") >> id;
    return id;
  }
  // The child of the controller that is no stem: a domain of one process.
  static pid_t init_of(pid_t controller) {
    std::ifstream children("/proc/" + std::to_string(controller) + "/task/" + std::to_string(controller) +
                           "/children");
    for (pid_t child = 0; children >> child;)
      if (const auto name = read_kernel_file("/proc/" + std::to_string(child) + "/comm", 64);
          name && trim(*name) != "virtuserns-stem")
        return child;
    return 0;
  }
  int state(userns::Backend& daemon) const {
    const auto now = daemon.state(uuid, 0);
    return now ? now->state * 100 + now->reason : -1;
  }
  // G3: no group, no file of a run, no process with our root directory.
  void expect_nothing_left() const {
    for (const auto& hierarchy : hierarchies())
      EXPECT_FALSE(fs::exists(hierarchy / group / "machine" / ("virtuserns-" + format_uuid(uuid)))) << hierarchy;
    EXPECT_TRUE(fs::is_empty(paths.driver_run)) << *list_directory(paths.driver_run)->begin();
  }
};

constexpr int kRunning = VIR_DOMAIN_RUNNING * 100, kOff = VIR_DOMAIN_SHUTOFF * 100;
const std::string kIdle = "while true; do sleep 1; done";

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

// A controller answers and goes on at once: both are read in one go, before whoever asked has woken up.
TEST(Channel, WhatAnAnswerChangesIsRecordedBeforeLaterNotes) {
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
  userns::Channel channel{SocketFd(pair[0])};
  const SocketFd peer(pair[1]);
  std::vector<std::string> order;
  std::thread asker([&] {
    EXPECT_TRUE(channel.request(controller::FreezeRequest{true}, 5000, {},
                                [&](const userns::ReplyBody&) { order.emplace_back("answer"); }));
  });
  const auto packet = controller::recv_packet(peer.get());
  ASSERT_TRUE(packet);
  const auto request = xdr::decode_exact<controller::Request>(packet->bytes);
  ASSERT_TRUE(request);
  controller::FromController reply{controller::Reply{request->serial, controller::EmptyReply{}}};
  ASSERT_TRUE(controller::send_packet(peer.get(), xdr::encode(reply)));
  controller::FromController note{controller::Note{controller::RebootedNote{}}};
  ASSERT_TRUE(controller::send_packet(peer.get(), xdr::encode(note)));
  EXPECT_TRUE(channel.read_available([&](controller::Note) { order.emplace_back("note"); }));
  asker.join();
  EXPECT_EQ(order, (std::vector<std::string>{"answer", "note"}));
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

// ---- a controller that hangs up and lives ----

// Its socket, out of sight of the daemon, and daemons of our own on it: as many as make it drop the others.
class HungUp {
 public:
  explicit HungUp(const std::string& socket) : socket_(socket) {
    fs::rename(socket_, socket_ + ".away");
    for (int i = 0; i < 17; ++i) {
      auto connected = userns::Channel::connect(socket_ + ".away");
      EXPECT_TRUE(connected);
      if (!connected) return;
      auto& channel = *channels_.emplace_back(std::make_unique<userns::Channel>(std::move(*connected)));
      EXPECT_TRUE(ask(channel, controller::StatusRequest{}));
    }
  }
  bool ask(const userns::RequestBody& body) { return ask(*channels_.back(), body); }
  void end() {
    channels_.clear();
    if (fs::exists(socket_ + ".away")) fs::rename(socket_ + ".away", socket_);
  }

 private:
  static bool ask(userns::Channel& channel, const userns::RequestBody& body) {
    std::atomic<bool> is_over = false;
    std::thread reader([&] {
      while (!is_over) {
        pollfd readable{channel.socket()->get(), POLLIN, 0};
        if (::poll(&readable, 1, 20) > 0) (void)channel.read_available([](controller::Note) {});
      }
    });
    const bool is_answered = static_cast<bool>(channel.request(body, 5000));
    is_over = true;
    reader.join();
    return is_answered;
  }
  std::string socket_;
  std::vector<std::unique_ptr<userns::Channel>> channels_;
};

struct HungUpTest : BackendTest {
  std::string run_file(const char* suffix) const { return paths.driver_run + "/" + format_uuid(uuid) + suffix; }
  bool hears(const std::vector<std::string>& wanted) {
    return eventually([&] {
      const std::lock_guard lock(mutex);
      return heard == wanted;
    });
  }
};

TEST_F(HungUpTest, TheNextRequestConnectsAgain) {
  auto daemon = backend();
  ASSERT_TRUE(daemon->define(root, domain("trap 'exit 0' TERM; " + kIdle), 0));
  ASSERT_TRUE(daemon->create(root, uuid, {}, 0));
  HungUp others(run_file(".sock"));
  ASSERT_TRUE(eventually([&] { return !daemon->suspend(root, uuid); })) << "it has hung up, and is out of sight";
  EXPECT_EQ(daemon->state(uuid, 0)->state, VIR_DOMAIN_RUNNING);
  others.end();
  const auto suspended = daemon->suspend(root, uuid);
  ASSERT_TRUE(suspended) << suspended.error().text;
  ASSERT_TRUE(daemon->resume(root, uuid));
  ExecDef command;
  command.arguments.emplace_back("true");
  EXPECT_TRUE(daemon->exec(root, uuid, command, {}));
  const auto asked = daemon->shutdown(root, uuid, 0);
  ASSERT_TRUE(asked) << asked.error().text;
  EXPECT_TRUE(eventually([&] { return state(*daemon) == kOff + VIR_DOMAIN_SHUTOFF_SHUTDOWN; })) << state(*daemon);
  expect_nothing_left();
  // Suspended once or twice: the last one before it had hung up may have gone through.
  EXPECT_EQ(heard.front(), "0/0");
  EXPECT_EQ(std::count(heard.begin(), heard.end(), "5/0"), 1);
}

TEST_F(HungUpTest, WhatHappenedMeanwhileIsHeardOnceAndByItself) {
  auto daemon = backend();
  ASSERT_TRUE(daemon->define(
      root, domain("while true; do if [ -e /out/go ]; then rm /out/go; reboot -f; fi; sleep 0.05; done"), 0));
  ::chmod((tree() + "/out").c_str(), 0777);
  ASSERT_TRUE(daemon->create(root, uuid, {}, 0));
  std::vector<std::string> wanted = {"0/0", "2/0"};
  for (int round = 0; round < 2; ++round) {
    HungUp others(run_file(".sock"));
    std::ofstream(tree() + "/out/go") << "x";
    ASSERT_TRUE(eventually([&] { return !fs::exists(tree() + "/out/go"); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    EXPECT_TRUE(others.ask(controller::FreezeRequest{true}));
    EXPECT_EQ(heard, wanted) << "nobody has told it";
    others.end();
    wanted.insert(wanted.end(), {"reboot", "3/0"});
    EXPECT_TRUE(hears(wanted)) << heard.size();
    EXPECT_EQ(state(*daemon), VIR_DOMAIN_PAUSED * 100 + VIR_DOMAIN_PAUSED_UNKNOWN);
    ASSERT_TRUE(daemon->resume(root, uuid));
    wanted.emplace_back("4/0");
    EXPECT_TRUE(hears(wanted));
  }
  ASSERT_TRUE(daemon->destroy(root, uuid, 0));
  wanted.emplace_back("5/1");
  EXPECT_EQ(heard, wanted);
  expect_nothing_left();
}

TEST_F(HungUpTest, AnEndMeanwhileIsNoCrash) {
  auto daemon = backend();
  ASSERT_TRUE(
      daemon->define(root, domain("while true; do if [ -e /out/go ]; then poweroff -f; fi; sleep 0.05; done"), 0));
  ASSERT_TRUE(daemon->create(root, uuid, {}, 0));
  HungUp others(run_file(".sock"));
  std::ofstream(tree() + "/out/go") << "x";
  EXPECT_TRUE(hears({"0/0", "2/0", "5/0"}));
  EXPECT_EQ(state(*daemon), kOff + VIR_DOMAIN_SHUTOFF_SHUTDOWN);
  fs::remove(run_file(".sock.away"));
  expect_nothing_left();
}

TEST_F(HungUpTest, DestroyIsNoKill) {
  auto daemon = backend();
  ASSERT_TRUE(daemon->define(root, domain(kIdle), 0));
  ASSERT_TRUE(daemon->create(root, uuid, {}, 0));
  HungUp others(run_file(".sock"));
  ASSERT_TRUE(eventually([&] { return !daemon->suspend(root, uuid); }));
  others.end();
  const auto before = std::chrono::steady_clock::now();
  ASSERT_TRUE(daemon->destroy(root, uuid, 0));
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(3));
  expect_nothing_left();
}

// The daemon connects to a controller that has its end to tell before it comes to any question. Whether it is heard is a
// race of the two, hence the rounds.
TEST_F(BackendTest, AnEndDuringTheRecoveryIsHeardOnce) {
  for (int round = 0; round < 8; ++round) {
    const pid_t id = orphan();
    ASSERT_GT(id, 1);
    const pid_t init = init_of(id);
    ASSERT_GT(init, 1);
    ASSERT_EQ(::kill(id, SIGSTOP), 0);
    std::thread world([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(250));
      ::kill(init, SIGKILL);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      ::kill(id, SIGCONT);
    });
    auto daemon = backend();
    world.join();
    EXPECT_TRUE(eventually([&] { return state(*daemon) / 100 == VIR_DOMAIN_SHUTOFF; })) << state(*daemon);
    EXPECT_EQ(state(*daemon), kOff + VIR_DOMAIN_SHUTOFF_CRASHED);
    EXPECT_EQ(heard, (std::vector<std::string>{"5/2"})) << round;
    EXPECT_TRUE(eventually([&] { return fs::is_empty(paths.driver_run); }));
    heard.clear();
  }
  expect_nothing_left();
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
  const test::TempDir sys;
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

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const char* build = std::getenv("VIRTUSERNS_BUILD");
  if (::geteuid() != 0 || !build || !fs::exists("/bin/busybox")) {
    std::puts("needs root, VIRTUSERNS_BUILD and /bin/busybox");
    return 77;
  }
  // Links and mounts of the tests are nobody else's.
  if (!virtuserns::test::is_in_test_machine() && (::unshare(CLONE_NEWNS | CLONE_NEWNET) != 0 ||
                                                  ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0))
    return 77;
  return RUN_ALL_TESTS();
}
