// A password in a container's /etc/shadow, whatever that is.
#include "driver/kernel/shadow.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "conf/base/file.h"
#include "tests/support/temp_dir.h"

namespace virtuserns::kernel {
namespace {

namespace fs = std::filesystem;

constexpr const char* kText =
    "root:*:19000:0:99999:7:::\nanna:$6$old:19001:0:99999:7:::\nshort:x\nanna:second:1::::::\n";

TEST(ReplaceHash, ChangesTheUsersLineAndNothingElse) {
  EXPECT_EQ(*replace_hash(kText, "anna", "$6$new", 20'000),
            "root:*:19000:0:99999:7:::\nanna:$6$new:20000:0:99999:7:::\nshort:x\nanna:second:1::::::\n");
  EXPECT_EQ(*replace_hash(kText, "short", "h", 20'000),
            "root:*:19000:0:99999:7:::\nanna:$6$old:19001:0:99999:7:::\nshort:h\nanna:second:1::::::\n");
  EXPECT_EQ(*replace_hash("root:*:1:0", "root", "h", 2), "root:h:2:0") << "without an end of line";
  EXPECT_EQ(*replace_hash("\n\nroot:*", "root", "h", 2), "\n\nroot:h");
}

TEST(ReplaceHash, SaysWhoIsMissing) {
  for (const char* user : {"ann", "annaa", "", "root:*", "anna\n"}) {
    const auto none = replace_hash(kText, user, "h", 1);
    ASSERT_FALSE(none) << user;
    EXPECT_EQ(none.error().code, VIR_ERR_INVALID_ARG);
  }
  EXPECT_EQ(replace_hash("", "elsa", "h", 1).error().text, "the container has no user 'elsa' in its /etc/shadow");
  EXPECT_FALSE(replace_hash("elsa\n", "elsa", "h", 1)) << "a line without fields is none";
}

struct Shadow : testing::Test {
  test::TempDir dir;
  DirFd root{::open(dir.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
  std::string etc = dir.path() + "/etc", shadow = etc + "/shadow";

  void SetUp() override { fs::create_directory(etc); }
  void write(const std::string& path, const std::string& text = kText) { std::ofstream(path) << text; }
  std::string read() { return read_file(shadow).value(); }
  Error refused(const std::string& user = "anna") {
    const auto set = set_password_below(root, user, "$6$new", 120);
    return set ? Error{0, 0, "done"} : set.error();
  }
  std::vector<std::string> files() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(etc)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
};

TEST_F(Shadow, IsReplacedWithItsMode) {
  write(shadow);
  ASSERT_EQ(::chmod(shadow.c_str(), 0640), 0);
  write(etc + "/shadow.userns-new", "of one that was killed");
  struct stat before {
  }, after{};
  ASSERT_EQ(::stat(shadow.c_str(), &before), 0);
  ASSERT_TRUE(set_password_below(root, "anna", "$6$new"));
  ASSERT_EQ(::stat(shadow.c_str(), &after), 0);
  EXPECT_NE(read().find("anna:$6$new:"), std::string::npos);
  EXPECT_EQ(after.st_mode, before.st_mode);
  EXPECT_EQ(after.st_uid, before.st_uid);
  EXPECT_NE(after.st_ino, before.st_ino) << "not written over: who reads sees the old or the new one";
  EXPECT_EQ(files(), (std::vector<std::string>{".pwd.lock", "shadow"}));
}

TEST_F(Shadow, NothingIsMadeWhereThereIsNone) {
  EXPECT_EQ(refused().code, VIR_ERR_OPERATION_UNSUPPORTED);
  EXPECT_EQ(files(), std::vector<std::string>{});
  fs::remove(etc);
  EXPECT_EQ(refused().code, VIR_ERR_OPERATION_UNSUPPORTED);
  EXPECT_EQ(refused().text, "the container has no /etc/shadow, where a password could be");
}

TEST_F(Shadow, AUserWhoIsMissingChangesNothing) {
  write(shadow);
  EXPECT_EQ(refused("elsa").code, VIR_ERR_INVALID_ARG);
  EXPECT_EQ(read(), kText);
}

TEST_F(Shadow, WhatIsNoRegularFileIsNotOpened) {
  const auto wanted = [&](const char* what) {
    const auto error = refused();
    EXPECT_NE(error.text.find("/etc/shadow of the container"), std::string::npos) << what << ": " << error.text;
    EXPECT_FALSE(fs::exists(etc + "/shadow.userns-new")) << what;
    std::error_code ignored;
    fs::remove_all(shadow, ignored);
  };
  ASSERT_EQ(::mkfifo(shadow.c_str(), 0600), 0);
  wanted("fifo");
  ASSERT_EQ(::symlink("shadow", shadow.c_str()), 0);
  wanted("loop");
  write(dir.path() + "/outside");
  ASSERT_EQ(::symlink((dir.path() + "/outside").c_str(), shadow.c_str()), 0);
  wanted("link");
  EXPECT_EQ(read_file(dir.path() + "/outside").value(), kText);
  fs::create_directory(shadow);
  wanted("directory");
  write(shadow, std::string(kMaxShadowBytes + 1, 'x'));
  wanted("long");
  if (::geteuid() == 0 && ::mknod(shadow.c_str(), S_IFCHR | 0600, 0x103) == 0) wanted("device");  // null
}

// A directory that leads outside is taken from the root that it is seen from.
TEST_F(Shadow, LinksStayInTheRoot) {
  fs::remove(etc);
  ASSERT_EQ(::symlink("/../../../../../../real", etc.c_str()), 0);
  fs::create_directory(dir.path() + "/real");
  write(dir.path() + "/real/shadow");
  ASSERT_TRUE(set_password_below(root, "anna", "$6$new"));
  EXPECT_NE(read_file(dir.path() + "/real/shadow").value().find("anna:$6$new:"), std::string::npos);
}

TEST_F(Shadow, ALockThatIsNoneOrIsKeptIsAnError) {
  write(shadow);
  ASSERT_EQ(::mkfifo((etc + "/.pwd.lock").c_str(), 0600), 0);
  EXPECT_NE(refused().text.find("/etc/.pwd.lock of the container"), std::string::npos);
  fs::remove(etc + "/.pwd.lock");
  ASSERT_EQ(::symlink("/elsewhere", (etc + "/.pwd.lock").c_str()), 0);
  EXPECT_NE(refused().text.find("/etc/.pwd.lock of the container"), std::string::npos);
  EXPECT_FALSE(fs::exists(dir.path() + "/elsewhere"));
  fs::remove(etc + "/.pwd.lock");
  // As lckpwdf(3) has it: of another process.
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t holder = ::fork();
  if (holder == 0) {
    const int lock = ::open((etc + "/.pwd.lock").c_str(), O_WRONLY | O_CREAT, 0600);
    struct flock whole {};
    whole.l_type = F_WRLCK;
    ::_exit(::fcntl(lock, F_SETLK, &whole) == 0 && ::write(ready[1], "x", 1) == 1 ? ::pause() : 1);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(refused().code, VIR_ERR_RESOURCE_BUSY);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(120)) << "it is waited for";
  EXPECT_EQ(read(), kText);
  // Whoever has it lets go of it soon.
  std::jthread letting_go([holder] {
    ::usleep(100'000);
    ::kill(holder, SIGKILL);
  });
  EXPECT_TRUE(set_password_below(root, "anna", "$6$new"));
  ::waitpid(holder, nullptr, 0);
}

}  // namespace
}  // namespace virtuserns::kernel
