#include "conf/base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "tests/support/temp_dir.h"

namespace virtuserns {
namespace {

TEST(WriteAtomic, ReplacesAndLeavesNoTemp) {
  const test::TempDir dir;
  ASSERT_TRUE(write_atomic(dir.path() + "/a", "one"));
  ASSERT_TRUE(write_atomic(dir.path() + "/a", "two", 0640));
  EXPECT_EQ(read_file(dir.path() + "/a").value(), "two");
  EXPECT_EQ(list_directory(dir.path()).value(), std::vector<std::string>{"a"});
}

TEST(WriteAtomic, KeepsTheOldFileWhenItCannotReplaceIt) {
  const test::TempDir dir;
  ASSERT_EQ(::mkdir((dir.path() + "/a").c_str(), 0700), 0);
  const auto result = write_atomic(dir.path() + "/a", "x");
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().text.find(dir.path() + "/a"), std::string::npos);
  EXPECT_EQ(list_directory(dir.path()).value().size(), 1U);
}

TEST(ReadFile, RefusesWhatIsNotARegularFile) {
  const test::TempDir dir;
  ASSERT_EQ(::mkfifo((dir.path() + "/fifo").c_str(), 0600), 0);
  EXPECT_FALSE(read_file(dir.path() + "/fifo"));  // and does not hang
  std::filesystem::create_symlink("/etc/passwd", dir.path() + "/link");
  EXPECT_FALSE(read_file(dir.path() + "/link"));
  EXPECT_FALSE(read_file("/dev/zero"));
  ASSERT_TRUE(write_atomic(dir.path() + "/big", std::string(100, 'x')));
  EXPECT_FALSE(read_file(dir.path() + "/big", 99));
  EXPECT_EQ(read_file(dir.path() + "/none").error().sys_errno, ENOENT);
}

TEST(LockFile, IsExclusiveAndEndsWithItsHolder) {
  const test::TempDir dir;
  {
    const auto lock = lock_file(dir.path() + "/lock");
    ASSERT_TRUE(lock);
    EXPECT_EQ(lock_file(dir.path() + "/lock").error().code, VIR_ERR_RESOURCE_BUSY);
  }
  EXPECT_TRUE(lock_file(dir.path() + "/lock"));
}

}  // namespace
}  // namespace virtuserns
