// A running domain: freeze, signals, shutdown, reboot, destroy, and deaths of those who look after it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>

#include "driver/controller/shutdown.h"
#include "driver/kernel/pidfd.h"
#include "tests/support/controller_run.h"

namespace virtuserns::test {
namespace {

using namespace controller;

ExecStep& exec_of(LaunchPlan& plan) { return std::get<ExecStep>(plan.inside.back()); }
LaunchPlan probe_plan(const RootTree& tree, const std::string& signal) {
  auto plan = make_plan_for(tree, "");
  exec_of(plan).path = "/bin/probe";
  exec_of(plan).argv = {"probe", "handle", signal};
  return plan;
}
ExitRecord ended(Domain& domain) {
  const auto note = domain.next_note();
  if (const auto* end = note ? std::get_if<EndedNote>(&*note) : nullptr) return end->record;
  ADD_FAILURE() << (note ? "another note" : note.error().text);
  return {};
}
double now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}
bool is_alive(pid_t pid) { return std::filesystem::exists("/proc/" + std::to_string(pid)); }

TEST(Life, FreezeAndThaw) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "while :; do echo x >> /out/beat; sleep 0.01; done"));
  ASSERT_TRUE(domain.start_ok());
  ASSERT_TRUE(wait_for(tree, "out/beat"));
  const auto frozen = domain.ask(FreezeRequest{true});
  ASSERT_TRUE(frozen) << frozen.error().text;
  EXPECT_TRUE(domain.status()->is_frozen);
  const auto size = tree.read("out/beat").size();
  ::usleep(100'000);
  EXPECT_EQ(tree.read("out/beat").size(), size);
  ASSERT_TRUE(domain.ask(FreezeRequest{false}));
  EXPECT_FALSE(domain.status()->is_frozen);
  for (int i = 0; i < 1000 && tree.read("out/beat").size() == size; ++i) ::usleep(5000);
  EXPECT_GT(tree.read("out/beat").size(), size);
}

TEST(Life, FreezeByTheUnifiedHierarchyAlone) {
  RootTree tree;
  auto plan = make_plan_for(tree, "sleep 1000");
  std::erase_if(plan.before, [](const BeforeStep& step) {
    const auto* group = std::get_if<CgroupStep>(&step);
    return group && !group->is_v2;
  });
  bool has_v2 = false;
  for (const auto& step : plan.before) has_v2 |= std::holds_alternative<CgroupStep>(step);
  if (!has_v2) GTEST_SKIP() << "no cgroup2 here";
  Domain domain(std::move(plan));
  ASSERT_TRUE(domain.start_ok());
  const auto frozen = domain.ask(FreezeRequest{true});
  ASSERT_TRUE(frozen) << frozen.error().text;
  EXPECT_TRUE(domain.status()->is_frozen);
  ASSERT_TRUE(domain.ask(DestroyRequest{}));
  EXPECT_EQ(ended(domain).cause, ExitCause::kDestroyed);
}

TEST(Life, DestroyOfFrozenAndOfSignalIgnoringInit) {
  RootTree tree;
  const auto before = snapshot();
  for (const bool is_frozen : {false, true}) {
    Domain domain(
        make_plan_for(tree, "trap '' TERM INT HUP; (sleep 1000 & sleep 1000 & ) ; while :; do sleep 1; done"));
    const auto boot = domain.start_ok();
    ASSERT_TRUE(boot) << boot.error().text;
    if (is_frozen) {
      ASSERT_TRUE(domain.ask(FreezeRequest{true}));
    }
    const double start = now_ms();
    const auto destroyed = domain.ask(DestroyRequest{});
    std::printf("destroy%s: %.1f ms\n", is_frozen ? " of a frozen one" : "", now_ms() - start);
    ASSERT_TRUE(destroyed) << destroyed.error().text;
    EXPECT_FALSE(is_alive(boot->init_pid));
    EXPECT_EQ(ended(domain).cause, ExitCause::kDestroyed);
    EXPECT_TRUE(domain.wait_controller());
    EXPECT_EQ(snapshot(), before);
  }
}

// As systemd does it; where the group has controllers, a group that hands them on takes no init (tests/conformance/debian.py).
TEST(Life, GroupsOfALifeDoNotOutliveIt) {
  RootTree tree;
  auto plan = make_plan_for(tree,
                            "echo x >> /out/boots; cd /sys/fs/cgroup; ls -d own* > /out/found; mkdir -p own/below; "
                            "echo $$ > own/below/cgroup.procs && echo in > /out/moved; "
                            "if [ $(wc -l < /out/boots) = 1 ]; then reboot -f; fi; echo x > /out/second; sleep 1000");
  bool has_v2 = false;
  for (auto& step : plan.before)
    if (auto* group = std::get_if<CgroupStep>(&step); group && group->is_v2) has_v2 = group->delegate = true;
  if (!has_v2) GTEST_SKIP() << "this machine has no cgroup2";
  const auto is_mount = [](const ParentStep& step) { return std::holds_alternative<CgroupMountStep>(step); };
  if (std::none_of(plan.from_parent.begin(), plan.from_parent.end(), is_mount))
    plan.from_parent.emplace_back(CgroupMountStep{});
  Domain domain(std::move(plan));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  ASSERT_TRUE(wait_for(tree, "out/second"));
  EXPECT_EQ(tree.read("out/moved"), "in\n");
  EXPECT_EQ(tree.read("out/found"), "");
}

TEST(Life, RebootFromInside) {
  RootTree tree;
  Domain domain(
      make_plan_for(tree, "echo x >> /out/boots; if [ $(wc -l < /out/boots) = 1 ]; then reboot -f; fi; sleep 1000"));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot) << boot.error().text;
  const auto note = domain.next_note();
  ASSERT_TRUE(note) << note.error().text;
  const auto* rebooted = std::get_if<RebootedNote>(&*note);
  ASSERT_TRUE(rebooted) << (std::holds_alternative<EndedNote>(*note) ? std::get<EndedNote>(*note).record.error : "");
  EXPECT_EQ(rebooted->sequence, 1u);
  EXPECT_EQ(rebooted->boot.boots, 2u);
  EXPECT_NE(rebooted->boot.init_pid, boot->init_pid);
  EXPECT_EQ(domain.status()->unacknowledged.size(), 1u);
  ASSERT_TRUE(domain.ask(AckRequest{1}));
  EXPECT_TRUE(domain.status()->unacknowledged.empty());
  ASSERT_TRUE(domain.ask(DestroyRequest{}));
}

TEST(Life, PoweroffFromInsideAndPolicies) {
  RootTree tree;
  {
    Domain domain(make_plan_for(tree, "poweroff -f; sleep 1000"));
    ASSERT_TRUE(domain.start_ok());
    EXPECT_EQ(ended(domain).cause, ExitCause::kPoweroff);
  }
  auto plan = make_plan_for(tree, "reboot -f; sleep 1000");
  plan.after_reboot = AfterExit::kDestroy;
  Domain domain(std::move(plan));
  ASSERT_TRUE(domain.start_ok());
  EXPECT_EQ(ended(domain).cause, ExitCause::kReboot);
}

TEST(Life, RebootStormIsSlowedDown) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "reboot -f; sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  int reboots = 0;
  // Not longer on a slow machine: the pause that follows the ninth is as long everywhere.
  while (domain.next_note(1500 / time_factor())) ++reboots;
  EXPECT_EQ(reboots, 9);
  const auto status = domain.status();
  ASSERT_TRUE(status) << status.error().text;
  EXPECT_EQ(status->boot.init_pid, 0);
  const double start = now_ms();
  ASSERT_TRUE(domain.ask(DestroyRequest{}));  // while it waits
  EXPECT_LT(now_ms() - start, 1000);
}

TEST(Life, TheHostMayUnmountTheRootOfARunningDomain) {
  RootTree tree;
  const std::string image = tree.temp() + "/mounted";
  std::filesystem::create_directories(image);
  ASSERT_EQ(::mount("t", image.c_str(), "tmpfs", 0, "size=8m"), 0);
  // Owners shifted by hand: the kernel of Debian 12 has no idmapped mounts of a tmpfs.
  const std::string id = std::to_string(kHostId);
  ASSERT_EQ(
      std::system(("cp -a " + tree.path() + "/. " + image + " && chown -hR " + id + ":" + id + " " + image).c_str()),
      0);
  auto plan = make_plan_for(tree, "read go; reboot -f");
  for (auto& step : plan.before)
    if (auto* source = std::get_if<SourceStep>(&step)) source->host_source = image;
  for (auto& step : plan.from_parent)
    if (auto* root = std::get_if<RootStep>(&step)) root->shift = OwnerShift::kAlreadyShifted;
  Domain domain(std::move(plan));
  ASSERT_TRUE(domain.start_ok());
  EXPECT_EQ(::umount2(image.c_str(), 0), 0) << "the controller keeps it busy: " << std::strerror(errno);
  const auto console = domain.console();
  ASSERT_TRUE(console);
  ASSERT_EQ(::write(console->get(), "go\n", 3), 3);
  const auto note = domain.next_note();
  ASSERT_TRUE(note) << note.error().text;
  EXPECT_TRUE(std::holds_alternative<RebootedNote>(*note));
}

TEST(Life, ShutdownOfAnInitThatHandlesTerm) {
  RootTree tree;
  Domain domain(probe_plan(tree, "15"));
  ASSERT_TRUE(domain.start_ok());
  ASSERT_TRUE(wait_for(tree, "out/ready"));
  const auto asked = domain.ask(ShutdownRequest{});
  ASSERT_TRUE(asked) << asked.error().text;
  EXPECT_EQ(ended(domain).wait_status, 15 << 8);
}

TEST(Life, RebootOfAnInitThatOnlyKnowsHowToEnd) {
  RootTree tree;
  Domain domain(probe_plan(tree, "2"));
  ASSERT_TRUE(domain.start_ok());
  ASSERT_TRUE(wait_for(tree, "out/ready"));
  ASSERT_TRUE(domain.ask(ShutdownRequest{true, ShutdownWay::kAny}));
  const auto note = domain.next_note();
  ASSERT_TRUE(note) << note.error().text;
  EXPECT_TRUE(std::holds_alternative<RebootedNote>(*note));
}

TEST(Life, ShutdownOfAnInitThatHandlesNothingIsAnError) {
  RootTree tree;
  auto plan = make_plan_for(tree, "");
  exec_of(plan).path = "/bin/sleep";
  exec_of(plan).argv = {"sleep", "1000"};
  Domain domain(std::move(plan));
  ASSERT_TRUE(domain.start_ok());
  const auto asked = domain.ask(ShutdownRequest{});
  ASSERT_FALSE(asked);
  EXPECT_NE(asked.error().text.find("handles none of"), std::string::npos) << asked.error().text;
  EXPECT_EQ(asked.error().code, VIR_ERR_OPERATION_FAILED);
  EXPECT_FALSE(domain.ask(ShutdownRequest{false, ShutdownWay::kInitctl}));
}

TEST(Life, BusyboxInit) {
  RootTree tree;
  tree.write("etc/inittab", "::sysinit:/bin/sh -c 'echo x >> /out/boots'\n::respawn:/bin/sleep 1000\n");
  auto plan = make_plan_for(tree, "");
  exec_of(plan).path = "/sbin/init";
  exec_of(plan).argv = {"/sbin/init"};
  Domain domain(std::move(plan));
  ASSERT_TRUE(domain.start_ok());
  ASSERT_TRUE(wait_for(tree, "out/boots"));
  Result<void> asked = domain.ask(ShutdownRequest{true, ShutdownWay::kAny});
  for (int i = 0; i < 200 && !asked; ++i, ::usleep(10'000))
    asked = domain.ask(ShutdownRequest{true, ShutdownWay::kAny});
  ASSERT_TRUE(asked) << asked.error().text;
  auto note = domain.next_note();
  ASSERT_TRUE(note) << note.error().text;
  EXPECT_TRUE(std::holds_alternative<RebootedNote>(*note));
  for (int i = 0; i < 1000 && tree.read("out/boots") != "x\nx\n"; ++i) ::usleep(5000);
  // It takes the signals only once its sysinit is over, and until then the answer is an honest error.
  Result<void> again = domain.ask(ShutdownRequest{});
  for (int i = 0; i < 200 && !again; ++i, ::usleep(10'000)) again = domain.ask(ShutdownRequest{});
  ASSERT_TRUE(again) << again.error().text;
  EXPECT_EQ(ended(domain).cause, ExitCause::kPoweroff);
}

TEST(Life, ShutdownByInitctl) {
  RootTree tree;
  Domain domain(make_plan_for(
      tree,
      "mkfifo() { /bin/busybox mkfifo $1; }; mkfifo /run/initctl; echo > /out/ready; head -c 384 /run/initctl > /out/request; echo > /out/done; sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  ASSERT_TRUE(wait_for(tree, "out/ready"));
  Result<void> asked;
  for (int i = 0; i < 200; ++i)
    if (asked = domain.ask(ShutdownRequest{false, ShutdownWay::kInitctl}); asked) break;
  ASSERT_TRUE(asked) << asked.error().text;
  ASSERT_TRUE(wait_for(tree, "out/done"));
  const std::string request = tree.read("out/request");
  ASSERT_EQ(request.size(), 384u);
  EXPECT_EQ(request.substr(0, 9), std::string("\x69\x19\x09\x03\x01\x00\x00\x00"
                                              "0",
                                              9));
}

TEST(Life, InitctlThatIsNoFifoIsNeverOpened) {
  RootTree tree;
  const std::string canary = tree.temp() + "/canary";
  std::ofstream(canary) << "canary";
  std::filesystem::create_symlink(canary, tree.path() + "/run/initctl");
  Domain domain(make_plan_for(tree, "ln -s /etc/passwd /dev/initctl; echo > /out/ready; sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  ASSERT_TRUE(wait_for(tree, "out/ready"));
  EXPECT_FALSE(domain.ask(ShutdownRequest{false, ShutdownWay::kInitctl}));
  std::ifstream in(canary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "canary");
}

// A process of host root somewhere else, by the number that init had.
TEST(Life, InitctlIsWrittenInTheRootOfInitAlone) {
  TempDir dir;
  const std::string fifo = dir.path() + "/run/initctl";
  std::filesystem::create_directory(dir.path() + "/run");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const Fd reader(::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  const DirFd proc(::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  int pair[2];
  ASSERT_EQ(::pipe(pair), 0);
  const pid_t stranger = ::fork();
  if (stranger == 0) {
    if (::chroot(dir.path().c_str()) == 0) (void)!::write(pair[1], "x", 1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(pair[0], &byte, 1), 1);
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  const auto gone = kernel::open_process(dead), alive = kernel::open_process(stranger);
  ASSERT_TRUE(gone && alive);
  ::waitpid(dead, nullptr, 0);
  char text[1024];
  EXPECT_FALSE(ask_to_shut_down({proc, *gone, stranger}, {false, ShutdownWay::kInitctl}));
  EXPECT_LE(::read(reader.get(), text, sizeof text), 0);
  EXPECT_TRUE(ask_to_shut_down({proc, *alive, stranger}, {false, ShutdownWay::kInitctl}));
  EXPECT_EQ(::read(reader.get(), text, sizeof text), 384);
  ::kill(stranger, SIGKILL);
  ::waitpid(stranger, nullptr, 0);
  ::close(pair[0]), ::close(pair[1]);
}

// The group of a dead leader, and one whose number is the same.
TEST(Life, ASignalToAGroupIsForThatOfThePidfd) {
  constexpr unsigned kProcessGroup = 1u << 2;
  const auto self = kernel::open_process(::getpid());
  ASSERT_TRUE(self);
  if (::syscall(SYS_pidfd_send_signal, self->get(), 0, nullptr, kProcessGroup) != 0 && errno == EINVAL)
    GTEST_SKIP() << "this kernel knows groups by number only (before Linux 6.9)";
  const auto child_of = [](pid_t number) {
    pid_t wanted[] = {number};
    clone_args args{};
    args.exit_signal = SIGCHLD;
    if (number != 0) args.set_tid = reinterpret_cast<std::uintptr_t>(wanted), args.set_tid_size = 1;
    const auto child = static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
    if (child == 0) {
      ::setpgid(0, 0);
      ::pause();
      ::_exit(0);
    }
    ::setpgid(child, child);
    return child;
  };
  const pid_t leader = child_of(0);
  const auto process = kernel::open_process(leader);
  ASSERT_TRUE(process);
  EXPECT_TRUE(kernel::send_signal_to_group(*process, leader, SIGKILL));
  EXPECT_FALSE(kernel::is_reaped(*process));
  ASSERT_EQ(::waitpid(leader, nullptr, 0), leader);
  EXPECT_TRUE(kernel::is_reaped(*process));
  const pid_t stranger = child_of(leader);
  ASSERT_EQ(stranger, leader);
  EXPECT_FALSE(kernel::send_signal_to_group(*process, leader, SIGKILL));
  ::usleep(20'000);
  EXPECT_EQ(::waitpid(stranger, nullptr, WNOHANG), 0) << "it lives";
  ::kill(stranger, SIGKILL);
  ::waitpid(stranger, nullptr, 0);
}

TEST(Life, SignalToAPidInside) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000 & echo $! > /out/pid; wait $!; echo $? > /out/status; sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  ASSERT_TRUE(wait_for(tree, "out/pid"));
  std::string text;
  for (int i = 0; i < 1000 && text.empty(); ++i, ::usleep(1000)) text = tree.read("out/pid");
  const auto sent = domain.ask(SignalRequest{std::atoi(text.c_str()), SIGUSR1});
  ASSERT_TRUE(sent) << sent.error().text;
  ASSERT_TRUE(wait_for(tree, "out/status"));
  for (int i = 0; i < 1000 && tree.read("out/status").empty(); ++i) ::usleep(1000);
  EXPECT_EQ(tree.read("out/status"), std::to_string(128 + SIGUSR1) + "\n");
  EXPECT_FALSE(domain.ask(SignalRequest{4711, SIGTERM}));
  EXPECT_FALSE(domain.ask(SignalRequest{-1, SIGTERM}));
  EXPECT_FALSE(domain.ask(SignalRequest{1, SIGUSR1}));  // not handled: the kernel would drop it
  EXPECT_FALSE(domain.ask(SignalRequest{1, 1000}));
}

TEST(Life, AControllerThatIsKilledTakesItsContainerAlong) {
  RootTree tree;
  const auto before = snapshot();
  Domain domain(make_plan_for(tree, "sleep 1000 & sleep 1000"));
  const auto boot = domain.start_ok();
  ASSERT_TRUE(boot);
  domain.kill_controller();
  for (int i = 0; i < 5000 && is_alive(boot->init_pid); ++i) ::usleep(1000);
  EXPECT_FALSE(is_alive(boot->init_pid));
  EXPECT_EQ(domain.reap(), 0);
  EXPECT_EQ(domain.reap(), 0);  // again: nothing to do
  EXPECT_EQ(snapshot(), before);
  EXPECT_FALSE(std::filesystem::exists(domain.plan().socket_path));
  EXPECT_FALSE(std::filesystem::exists(domain.plan().stage_path));
}

TEST(Life, TheNextDaemonFindsEverything) {
  RootTree tree;
  Domain domain(make_plan_for(
      tree, "echo x >> /out/boots; [ $(wc -l < /out/boots) -lt 3 ] && read go && reboot -f; sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  const auto console = domain.console();
  ASSERT_TRUE(console);
  domain.reconnect();
  ASSERT_TRUE(domain.status());
  ASSERT_EQ(::write(console->get(), "go\n", 3), 3);
  const auto note = domain.next_note();
  ASSERT_TRUE(note) << note.error().text;
  EXPECT_TRUE(std::holds_alternative<RebootedNote>(*note));
  domain.reconnect();
  const auto status = domain.status();
  ASSERT_TRUE(status);
  EXPECT_EQ(status->boot.boots, 2u);
  EXPECT_EQ(status->last_sequence, 1u);
  EXPECT_EQ(status->unacknowledged.size(), 1u);
  // The console survives daemons and boots.
  ASSERT_EQ(::write(console->get(), "go\n", 3), 3);
  EXPECT_TRUE(domain.next_note());
  ASSERT_TRUE(domain.ask(ResetRequest{}));
  EXPECT_EQ(domain.status()->boot.boots, 4u);
}

TEST(Life, GroupWritesAndPolicy) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "read go; reboot -f; sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  const auto written = domain.ask(CgroupWriteRequest{{{"pids", "pids.max", "33"}}});
  ASSERT_TRUE(written) << written.error().text;
  EXPECT_FALSE(domain.ask(CgroupWriteRequest{{{"pids", "../pids.max", "33"}}}));
  EXPECT_FALSE(domain.ask(CgroupWriteRequest{{{"nonsense", "pids.max", "33"}}}));
  ASSERT_TRUE(domain.ask(PolicyRequest{false}));
  const auto console = domain.console();
  ASSERT_TRUE(console);
  ASSERT_EQ(::write(console->get(), "go\n", 3), 3);
  EXPECT_EQ(ended(domain).cause, ExitCause::kReboot);
}

TEST(Life, NumbersOfAnIdleController) {
  RootTree tree;
  std::vector<double> starts, stops;
  for (int i = 0; i < 20; ++i) {
    Domain domain(make_plan_for(tree, "sleep 1000"));
    const double start = now_ms();
    const auto boot = domain.start_ok();
    ASSERT_TRUE(boot) << boot.error().text;
    starts.push_back(now_ms() - start);
    if (i == 19) {
      for (const pid_t pid : {domain.controller_pid(), stem_of(domain.controller_pid())}) {
        std::ifstream rollup("/proc/" + std::to_string(pid) + "/smaps_rollup");
        for (std::string line; std::getline(rollup, line);)
          if (line.starts_with("Pss:") || line.starts_with("Rss:") || line.starts_with("Private_Dirty:"))
            std::printf("%s %s\n", pid == domain.controller_pid() ? "controller" : "stem", line.c_str());
      }
    }
    const double stop = now_ms();
    ASSERT_TRUE(domain.ask(DestroyRequest{}));
    stops.push_back(now_ms() - stop);
  }
  std::sort(starts.begin(), starts.end());
  std::sort(stops.begin(), stops.end());
  std::printf("start median %.2f ms (least %.2f), destroy median %.2f ms (least %.2f)\n", starts[10], starts[0],
              stops[10], stops[0]);
}

}  // namespace
}  // namespace virtuserns::test
