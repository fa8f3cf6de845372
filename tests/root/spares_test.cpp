#include "driver/compute/spares.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "conf/base/fd.h"
#include "conf/base/file.h"

namespace virtuserns::compute {
namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;

class SparesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    char name[] = "/tmp/virtuserns-spares-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  std::string spares() const { return folder_ + "/spares"; }
  std::string disk() const { return folder_ + "/disk.img"; }

  std::size_t waiting() const {
    std::size_t count = 0;
    for (const auto& each : std::filesystem::directory_iterator(spares())) count += each.path().empty() ? 0 : 1;
    return count;
  }

  // Takes until there is one: it is made a while after somebody asked.
  bool take_eventually(Spares& from, std::uint64_t bytes) const {
    for (int i = 0; i < 60; ++i) {
      if (from.take(bytes, disk())) return true;
      std::this_thread::sleep_for(std::chrono::seconds(1));
    }
    return false;
  }

  std::string folder_;
};

TEST_F(SparesTest, TheSecondWhoAsksFindsOne) {
  const auto from = Spares::open(spares());
  ASSERT_TRUE(from) << from.error().text;
  EXPECT_FALSE((*from)->take(64 * kMiB, disk()));
  EXPECT_FALSE(std::filesystem::exists(disk()));
  ASSERT_TRUE(take_eventually(**from, 64 * kMiB));
  struct stat found {};
  ASSERT_EQ(::stat(disk().c_str(), &found), 0);
  EXPECT_EQ(static_cast<std::uint64_t>(found.st_size), 64 * kMiB);
  EXPECT_EQ(found.st_mode & 0777, 0600u);
  // The magic of ext4's super block.
  const Fd file(::open(disk().c_str(), O_RDONLY | O_CLOEXEC));
  unsigned char magic[2] = {};
  ASSERT_EQ(::pread(file.get(), magic, sizeof magic, 1024 + 0x38), 2);
  EXPECT_EQ(magic[0] | magic[1] << 8, 0xEF53);
}

TEST_F(SparesTest, OfAnotherSizeThereIsNone) {
  const auto from = Spares::open(spares());
  ASSERT_TRUE(from);
  ASSERT_TRUE(take_eventually(**from, 64 * kMiB));
  EXPECT_FALSE((*from)->take(65 * kMiB, disk()));
}

TEST_F(SparesTest, OneOfEachOfTheLastSizesIsKept) {
  const auto from = Spares::open(spares());
  ASSERT_TRUE(from);
  for (std::uint64_t i = 0; i < 2 * Spares::kMostSizes; ++i) EXPECT_FALSE((*from)->take((64 + i) * kMiB, disk()));
  for (int i = 0; i < 600 && waiting() < Spares::kMostSizes; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(waiting(), Spares::kMostSizes);
  EXPECT_FALSE((*from)->take(64 * kMiB, disk())) << "the size that was asked for first";
  EXPECT_TRUE((*from)->take((64 + 2 * Spares::kMostSizes - 1) * kMiB, disk()));
}

TEST_F(SparesTest, NothingIsLeftAndNothingIsTrusted) {
  ASSERT_TRUE(make_directories(spares(), 0700));
  ASSERT_TRUE(write_atomic(spares() + "/1-1", "half a disk"));
  {
    const auto from = Spares::open(spares());
    ASSERT_TRUE(from);
    EXPECT_EQ(waiting(), 0u);
    ASSERT_TRUE(take_eventually(**from, 64 * kMiB));
  }
  EXPECT_EQ(waiting(), 0u);
}

TEST_F(SparesTest, ADiskThatCannotBeMovedIsNone) {
  const auto from = Spares::open(spares());
  ASSERT_TRUE(from);
  ASSERT_TRUE(take_eventually(**from, 64 * kMiB));
  // Until the one that is lost was a whole one, and the next is made.
  for (int i = 0; i < 600; ++i) {
    const bool was_there = waiting() != 0;
    EXPECT_FALSE((*from)->take(64 * kMiB, folder_ + "/missing/disk.img"));
    if (was_there && waiting() == 0) return;
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  FAIL() << "it is kept";
}

}  // namespace
}  // namespace virtuserns::compute
