// The child that reads archives: what it has, and that there is nothing else.
#include "tools/image/confined.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>

#include "conf/base/file.h"
#include "conf/privileges.h"
#include "driver/kernel/mount.h"
#include "tests/support/temp_dir.h"
#include "tools/convert/storage.h"
#include "tools/image/tally.h"

namespace virtuserns::image {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kSome = capability_bit(CAP_CHOWN) | capability_bit(CAP_DAC_OVERRIDE) |
                                capability_bit(CAP_FOWNER) | capability_bit(CAP_FSETID) | capability_bit(CAP_SETFCAP);

// Each in a process of its own: a workplace is for ever.
Result<std::string> confined(const std::string& folder, const std::function<Result<std::string>()>& work) {
  const auto workplace = TRY(convert::make_workplace());
  const auto ids = TRY(make_child_ids());
  auto tree = TRY(kernel::clone_mount(TRY(open_directory(folder)), "", kernel::Depth::kTopOnly));
  TRY(kernel::set_mount_idmap(tree, ids, kernel::Depth::kTopOnly));
  TRY(kernel::set_mount_attributes(tree, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0,
                                   kernel::Depth::kTopOnly));
  return run_confined({ids, std::move(tree), workplace, kSome, {}}, work);
}

// "+answer" or "-error".
std::string in_process(const std::string& folder, const std::function<Result<std::string>()>& work) {
  int pair[2];
  EXPECT_EQ(::pipe(pair), 0);
  const Fd ours(pair[0]);
  Fd theirs(pair[1]);
  const pid_t pid = ::fork();
  if (pid == 0) {
    const auto done = confined(folder, work);
    const auto text = done ? "+" + *done : "-" + done.error().text;
    (void)!::write(theirs.get(), text.data(), text.size());
    ::_exit(0);
  }
  theirs.reset();
  std::string said;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(ours.get(), buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<std::size_t>(got));
  EXPECT_EQ(::waitpid(pid, nullptr, 0), pid);
  return said;
}

#define SKIP_UNLESS_ROOT() \
  if (::geteuid() != 0) GTEST_SKIP() << "needs root"

// A call that has to fail: its errno, or "no".
std::string tried(const char* what, long result) {
  return std::string(what) + " " + (result < 0 ? std::string(::strerrorname_np(errno)) : "no") + "\n";
}

std::string try_everything() {
  std::string said;
  said += tried("outside", ::open("/../../etc/passwd", O_RDONLY));
  said += tried("proc", ::open("/proc/self/root", O_RDONLY));
  said += tried("device", ::mknod("/sda", S_IFBLK | 0600, makedev(8, 0)));
  said += tried("socket", ::socket(AF_INET, SOCK_STREAM, 0));
  said += tried("unix", ::socket(AF_UNIX, SOCK_STREAM, 0));
  said += tried("fork", ::fork());
  char* none[] = {nullptr};
  said += tried("exec", ::execve("/program", none, none));
  said += tried("mount", ::mount("none", "/", "tmpfs", 0, nullptr));
  said += tried("chroot", ::chroot("/"));
  said += tried("trusted", ::setxattr("/", "trusted.overlay.opaque", "y", 1, 0));
  said += tried("stranger", ::chown("/file", 65536, 0));
  said += tried("signal", ::kill(-1, 0));
  said += tried("memory", ::malloc(std::size_t{1} << 30) ? 0 : -1);
  return said;
}

TEST(Confined, HasNothingButTheTree) {
  SKIP_UNLESS_ROOT();
  const test::TempDir dir;
  ASSERT_EQ(::mknod((dir.path() + "/file").c_str(), S_IFREG | 0600, 0), 0);
  EXPECT_EQ(
      in_process(dir.path(), [] { return Result<std::string>(try_everything()); }),
      "+outside ENOENT\nproc ENOENT\ndevice EPERM\nsocket EPERM\nunix EPERM\nfork EPERM\nexec EPERM\nmount EPERM\n"
      "chroot EPERM\ntrusted EPERM\nstranger EINVAL\nsignal EPERM\nmemory ENOMEM\n");
}

TEST(Confined, WritesTheNumbersThatItSees) {
  SKIP_UNLESS_ROOT();
  const test::TempDir dir;
  EXPECT_EQ(
      in_process(dir.path(),
                 []() -> Result<std::string> {
                   if (::mkdir("/made", 0700) != 0 || ::chown("/made", 65535, 1) != 0 || ::mkdir("/own", 04755) != 0)
                     return sys_fail("make");
                   return std::to_string(::getuid()) + " " + std::to_string(::getpid());
                 }),
      "+0 1");
  struct stat st {};
  ASSERT_EQ(::lstat((dir.path() + "/made").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 65535u);
  EXPECT_EQ(st.st_gid, 1u);
  ASSERT_EQ(::lstat((dir.path() + "/own").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 0u);
}

TEST(Confined, IsNobodyOfTheMachine) {
  SKIP_UNLESS_ROOT();
  const test::TempDir dir;
  ASSERT_EQ(::mkfifo((dir.path() + "/wait").c_str(), 0600), 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    (void)confined(dir.path(), [] {
      const Fd waits(::open("/wait", O_RDONLY));
      char byte = 0;
      (void)!::read(waits.get(), &byte, 1);  // nobody writes: it is there until it is ended
      return Result<std::string>("");
    });
    ::_exit(0);
  }
  // Opens when the child is there.
  const Fd opened(::open((dir.path() + "/wait").c_str(), O_WRONLY));
  ASSERT_TRUE(opened);
  const auto children =
      read_kernel_file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children").value();
  const auto status = read_kernel_file("/proc/" + std::to_string(std::stoi(children)) + "/status").value();
  EXPECT_THAT(status, HasSubstr("Uid:\t4294836224\t4294836224\t4294836224\t4294836224\n"));
  EXPECT_THAT(status, HasSubstr("Groups:\t \n"));
  EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1\n"));
  EXPECT_THAT(status, HasSubstr("Seccomp:\t2\n"));
  EXPECT_THAT(status, HasSubstr("CapEff:\t000000008000001b\n"));
  EXPECT_THAT(status, HasSubstr("CapBnd:\t000000008000001b\n"));
  // It dies with its parent.
  const Fd child(static_cast<int>(::syscall(SYS_pidfd_open, std::stoi(children), 0)));
  ASSERT_TRUE(child);
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  pollfd ended{child.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&ended, 1, 60'000), 1);
}

TEST(Confined, WhatItSaysIsAStrangers) {
  SKIP_UNLESS_ROOT();
  const test::TempDir dir;
  EXPECT_EQ(in_process(dir.path(), [] { return Result<std::string>(fail(1, "no\x1b[1m good")); }),
            "-no\\x1b[1m good");
  EXPECT_THAT(in_process(dir.path(), [] { return Result<std::string>(std::string(kMaxAnswer + 1, 'x')); }),
              HasSubstr("says too much"));
  EXPECT_THAT(in_process(dir.path(), []() -> Result<std::string> { ::abort(); }), HasSubstr("was ended by signal"));
  EXPECT_THAT(in_process(dir.path(), []() -> Result<std::string> { ::_exit(3); }), HasSubstr("ended with 3"));
  EXPECT_FALSE(Tally::decode("garbage"));
  EXPECT_FALSE(Tally::decode(std::string(20, '\xff')));
}

}  // namespace
}  // namespace virtuserns::image
