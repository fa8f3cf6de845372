// A command that joins a running container: what it is, what it has, and how it ends (promise 3 of docs/security.md).
#include <gtest/gtest.h>
#include <poll.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <fstream>

#include "tests/support/controller_run.h"

namespace virtuserns::test {
namespace {

using namespace controller;

struct Running {
  std::vector<Fd> fds;  // the socket; stdin, stdout, stderr
};

ExecDef shell(const std::string& script) {
  ExecDef def;
  for (const char* word : {"/bin/sh", "-c"}) def.arguments.push_back(std::string(word));
  def.arguments.push_back(script);
  return def;
}

Result<Running> exec(Domain& domain, const ExecDef& def, const Fd& program = {}) {
  domain.files().clear();
  std::vector<int> files;
  if (program) files.push_back(program.get());
  const auto reply = TRY(domain.request(ExecRequest{def}, 25'000, files));
  if (const auto* error = std::get_if<WireError>(&reply.body))
    return Error{error->code, error->sys_errno, error->text};
  const auto* started = std::get_if<ExecReply>(&reply.body);
  if (!started) return fail(VIR_ERR_INTERNAL_ERROR, "another reply");
  if (started->status != 0) return fail(started->status, started->text);
  return Running{std::move(domain.files())};
}

std::string read_all(const Fd& fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(fd.get(), buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  return text;
}

// -1: it did not come.
int wait_status(const Running& running, int timeout_ms = 15'000) {
  pollfd entry{running.fds[0].get(), POLLIN, 0};
  if (::poll(&entry, 1, timeout_ms * time_factor()) <= 0) return -1;
  std::uint8_t buffer[64];
  const auto got = ::recv(running.fds[0].get(), buffer, sizeof buffer, 0);
  if (got <= 0) return -1;
  const auto ended = xdr::decode_exact<ExecEnded>(std::span(buffer).first(static_cast<std::size_t>(got)));
  return ended ? ended->wait_status : -1;
}

// Its output and, if that is not 0, its status.
std::string run(Domain& domain, const ExecDef& def, const Fd& program = {}) {
  auto running = exec(domain, def, program);
  if (!running) return "failed: " + running.error().text;
  running->fds[1].reset();
  const std::string text = read_all(running->fds[2]) + read_all(running->fds[3]);
  const int status = wait_status(*running);
  return status == 0 ? text : text + "status " + std::to_string(status);
}
std::string run(Domain& domain, const std::string& script) { return run(domain, shell(script)); }

TEST(Exec, HasTheContainersIdsAndNothingElseOpen) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  EXPECT_EQ(run(domain, "grep -E '^(Uid|Gid|Groups|NSpid)' /proc/self/status | tr -s '\\t ' ' '").substr(0, 31),
            "Uid: 0 0 0 0\nGid: 0 0 0 0\nGroup");
  // The fourth is the directory that ls reads.
  EXPECT_EQ(run(domain, "ls /proc/self/fd | wc -l"), "4\n");
  EXPECT_EQ(run(domain, "env | grep -v -E '^(PATH|HOME|container|PWD|SHLVL)='"), "status 256");
  EXPECT_EQ(run(domain, "set -- $(cat /proc/$$/stat); [ $1 = $6 ] && echo leads its session"), "leads its session\n");
}

TEST(Exec, SessionKeyringIsNew) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  const std::string first = run(domain, "probe keyring"), second = run(domain, "probe keyring");
  EXPECT_NE(first.find("keyring;0;"), std::string::npos) << first;
  EXPECT_NE(first.find("_ses"), std::string::npos) << first;
  EXPECT_NE(first, second);
}

TEST(Exec, RunsWithinTheLimits) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  EXPECT_EQ(run(domain, "probe eat 200; echo status $?"), "status 137\nKilled\n");
  // Last, because those it has made stay; and they would keep the pipe open.
  EXPECT_EQ(run(domain, "probe fork > /out/made 2> /dev/null < /dev/null"), "");
  const int made = std::atoi(tree.read("out/made").c_str());
  EXPECT_GT(made, 10);
  EXPECT_LT(made, 64);
}

// Whatever the container can see of one on its way in, it is container root's and closed to it. A long file of users
// holds it there for a while.
TEST(Exec, OnItsWayInItCannotBeLookedInto) {
  RootTree tree;
  std::string users = "root:x:0:0:root:/root:/bin/sh\n";
  for (int i = 0; i < 60'000; ++i)
    users += "user" + std::to_string(i) + ":x:" + std::to_string(1000 + i) + ":1::/:\n";
  tree.write("etc/passwd", users);
  Domain domain(make_plan_for(
      tree,
      "while :; do for p in /proc/[0-9]*; do n=$(cat $p/comm 2>/dev/null) || continue\n"
      "if [ \"$n\" = virtuserns-ctl ]; then echo seen >> /out/seen\n"
      "  u=$(grep ^Uid $p/status 2>/dev/null); case \"$u\" in ''|*0*0*0*0) ;; *) echo \"ids $u\" >> /out/bad;; esac\n"
      "  l=$(readlink $p/exe 2>/dev/null); case \"$l\" in ''|/bin/busybox) ;; *) echo \"exe $l\" >> /out/bad;; esac\n"
      "  l=$(readlink $p/root 2>/dev/null) && [ \"$(cat $p/comm 2>/dev/null)\" = virtuserns-ctl ] && echo \"root $l\" >> /out/bad\n"
      "fi; done; done"));
  ASSERT_TRUE(domain.start_ok());
  ExecDef def = shell("true");
  def.user = std::string("nobody-of-that-name");
  for (int i = 0; i < 60; ++i) EXPECT_FALSE(exec(domain, def));
  EXPECT_EQ(tree.read("out/bad"), "");
  RecordProperty("seen", tree.read("out/seen").empty() ? 0 : 1);
}

TEST(Exec, IsHungUpWithItsClient) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  {
    auto polite = exec(
        domain,
        shell("exec 2> /dev/null; trap 'echo > /out/hup; exit' HUP; echo > /out/up; while :; do sleep 0.1; done"));
    auto stubborn = exec(domain, shell("trap '' HUP; echo $$ > /out/pid; while :; do sleep 0.1; done"));
    ASSERT_TRUE(polite && stubborn);
    ASSERT_TRUE(wait_for(tree, "out/up") && wait_for(tree, "out/pid"));
  }
  EXPECT_TRUE(wait_for(tree, "out/hup"));
  const std::string pid = tree.read("out/pid");
  std::string left = "it";
  for (int i = 0; i < 100 * time_factor() && !left.empty(); ++i) {
    ::usleep(100'000);
    left = run(domain, "kill -0 " + pid.substr(0, pid.size() - 1) + " 2>/dev/null && echo lives");
    left = left.find("lives") == std::string::npos ? "" : left;
  }
  EXPECT_EQ(left, "");
}

TEST(Exec, DiesWithTheDomainAndWithTheController) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  const auto first = exec(domain, shell("sleep 1000"));
  ASSERT_TRUE(first);
  ASSERT_TRUE(domain.ask(DestroyRequest{}));
  EXPECT_EQ(wait_status(*first), SIGKILL);

  Domain other(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(other.start_ok());
  const auto second = exec(other, shell("echo up; sleep 1000"));
  ASSERT_TRUE(second);
  EXPECT_EQ(read_until(second->fds[2], "up"), "up\n");
  other.kill_controller();
  EXPECT_EQ(read_all(second->fds[2]), "");  // ends: nobody holds it any more
}

TEST(Exec, ARebootEndsItAndTheNextBootTakesCommandsAgain) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  const auto running = exec(domain, shell("sleep 1000"));
  ASSERT_TRUE(running);
  ASSERT_TRUE(domain.ask(ResetRequest{}));
  EXPECT_EQ(wait_status(*running), SIGKILL);
  EXPECT_EQ(run(domain, "echo again"), "again\n");
  ExecDef def = shell("tty");
  def.has_terminal = true;
  const auto terminal = exec(domain, def);
  ASSERT_TRUE(terminal) << terminal.error().text;
  EXPECT_EQ(read_until(terminal->fds[1], "\n").substr(0, 9), "/dev/pts/");
}

TEST(Exec, AFrozenDomainRefusesAtOnce) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  if (!domain.ask(FreezeRequest{true})) GTEST_SKIP() << "no freezer";
  const auto refused = exec(domain, shell("true"));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text.find("paused"), std::string::npos) << refused.error().text;
  ASSERT_TRUE(domain.ask(FreezeRequest{false}));
  EXPECT_EQ(run(domain, "echo on"), "on\n");
}

TEST(Exec, NonsenseIsRefusedAndOnTheSocketHangsUp) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  EXPECT_FALSE(exec(domain, ExecDef{}));
  ExecDef def = shell("true");
  def.environment.push_back(std::string("nothing"));
  EXPECT_FALSE(exec(domain, def));
  for (const auto& message : {xdr::encode(ExecSignal{65}), xdr::encode(ExecSignal{0}), std::vector<std::uint8_t>(3),
                              std::vector<std::uint8_t>(60'000)}) {
    const auto running = exec(domain, shell("trap 'exit 0' HUP; while :; do sleep 0.1; done"));
    ASSERT_TRUE(running);
    ASSERT_TRUE(send_packet(running->fds[0].get(), message));
    EXPECT_EQ(read_all(running->fds[2]), "");  // ends
  }
  EXPECT_TRUE(domain.status());
}

TEST(Exec, ATrapInThePlaceOfTheTerminalIsNotTaken) {
  // Container root covers its /dev/pts with files of its own. The terminal is one of the real instance all the same.
  RootTree tree;
  Domain domain(make_plan_for(
      tree,
      "mount -t tmpfs none /dev/pts; for n in 0 1 2 3 4; do mkfifo /dev/pts/$n 2>/dev/null || busybox mkfifo "
      "/dev/pts/$n; done; busybox mkfifo /dev/pts/ptmx; echo > /out/ready; sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  ASSERT_TRUE(wait_for(tree, "out/ready"));
  ExecDef def = shell("stty size; test -t 0 && echo terminal");
  def.has_terminal = true;
  def.rows = 12;
  def.columns = 34;
  const auto terminal = exec(domain, def);
  ASSERT_TRUE(terminal) << terminal.error().text;
  EXPECT_EQ(read_until(terminal->fds[1], "terminal\r\n"), "12 34\r\nterminal\r\n");
}

// A file of users that never answers holds the start of one command and nothing else.
TEST(Exec, AFifoForTheUsersFileHoldsNothing) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "rm /etc/passwd; busybox mkfifo /etc/passwd; echo > /out/ready; sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  ASSERT_TRUE(wait_for(tree, "out/ready"));
  EXPECT_EQ(run(domain, "echo on"), "on\n");
  ExecDef def = shell("true");
  def.user = std::string("web");
  EXPECT_FALSE(exec(domain, def));
}

constexpr int kAllSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

Fd memory_of_busybox(int seals, mode_t mode) {
  std::ifstream in("/bin/busybox", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  Fd memory(::memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(::write(memory.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(::fchmod(memory.get(), mode), 0);
  EXPECT_EQ(::fcntl(memory.get(), F_ADD_SEALS, seals), 0);
  return memory;
}

// Nothing of it is in the container's tree, nothing stays open, and container root cannot change it for anybody.
TEST(Exec, AProgramThatIsBroughtAlong) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  const Fd program = memory_of_busybox(kAllSeals, 0555);
  ExecDef def;
  for (const char* word :
       {"sh", "-c",
        "busybox readlink /proc/$$/exe; busybox ls /proc/$$/fd; "
        "(echo x > /proc/$$/exe) 2>/dev/null; busybox chmod 777 /proc/$$/exe 2>/dev/null || echo no"})
    def.arguments.push_back(std::string(word));
  EXPECT_EQ(run(domain, def, program), "/memfd:program (deleted)\n0\n1\n2\nno\n");
  struct stat st {};
  EXPECT_EQ(::fstat(program.get(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0555u);
}

TEST(Exec, AProgramThatIsNoSealedMemoryIsRefused) {
  RootTree tree;
  Domain domain(make_plan_for(tree, "sleep 1000"));
  ASSERT_TRUE(domain.start_ok());
  std::vector<Fd> wrong;
  wrong.emplace_back(::open("/bin/busybox", O_RDONLY | O_CLOEXEC));
  wrong.emplace_back(::open(tree.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  wrong.emplace_back(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int missing : {F_SEAL_WRITE, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL})
    wrong.push_back(memory_of_busybox(kAllSeals & ~missing, 0555));
  for (const mode_t mode : {04755u, 02755u, 0775u, 0757u}) wrong.push_back(memory_of_busybox(kAllSeals, mode));
  for (std::size_t i = 0; i < wrong.size(); ++i) {
    const auto refused = exec(domain, shell("true"), wrong[i]);
    ASSERT_FALSE(refused) << i;
    EXPECT_NE(refused.error().text.find("sealed memory"), std::string::npos) << i << refused.error().text;
  }
  EXPECT_EQ(run(domain, "echo on"), "on\n");
}

}  // namespace
}  // namespace virtuserns::test
