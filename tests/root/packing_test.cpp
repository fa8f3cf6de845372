// Programs that make an image, and when they are ended.
#include "driver/compute/packing.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "tests/support/temp_dir.h"

namespace virtuserns::compute {
namespace {

using testing::HasSubstr;

class Packing : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    output_ = Fd(::open((dir_.path() + "/image").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    stop_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }
  Result<void> run(const std::string& script, int patience_s) {
    return run_packing({"/bin/sh", "-c", script}, output_, stop_, std::chrono::seconds(patience_s));
  }
  [[nodiscard]] off_t size() const {
    struct stat found {};
    EXPECT_EQ(::fstat(output_.get(), &found), 0);
    return found.st_size;
  }

  test::TempDir dir_;
  Fd output_, stop_;
};

TEST_F(Packing, IsDoneWhenItHasEndedWell) {
  ASSERT_TRUE(run("echo an earlier one", 60));
  ASSERT_TRUE(run("echo whole", 60));
  EXPECT_EQ(size(), 6);
}

TEST_F(Packing, SaysWhatWentWrongAndLeavesNothing) {
  const auto failed = run("echo half; echo 'the disk is damaged' >&2; exit 1", 60);
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().text, HasSubstr("the disk is damaged"));
  EXPECT_EQ(size(), 0);
}

TEST_F(Packing, IsEndedWhenNothingComesOfIt) {
  const auto ended = run("echo half; exec sleep 300", 2);
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, VIR_ERR_OPERATION_TIMEOUT);
  EXPECT_THAT(ended.error().text, HasSubstr("for 2 seconds"));
  EXPECT_EQ(size(), 0);
}

TEST_F(Packing, MayTakeLongWhileItWrites) { ASSERT_TRUE(run("for i in 1 2 3 4 5 6; do echo $i; sleep 1; done", 4)); }

// Before the first byte of an image there is a look through the tree.
TEST_F(Packing, MayTakeLongWhileItComputes) {
  ASSERT_TRUE(run("end=$(($(date +%s) + 6)); while [ $(date +%s) -lt $end ]; do :; done", 4));
}

TEST_F(Packing, IsEndedByWhoDoesNotWantItAnyMore) {
  std::thread other([&] {
    while (size() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    (void)::eventfd_write(stop_.get(), 1);
  });
  const auto ended = run("echo half; exec sleep 300", 200);
  other.join();
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, VIR_ERR_NO_DOMAIN);
  EXPECT_THAT(ended.error().text, HasSubstr("is being destroyed"));
  EXPECT_EQ(size(), 0);
}

}  // namespace
}  // namespace virtuserns::compute
