// The store of bases with the program that makes them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "driver/compute/images.h"
#include "tests/support/temp_dir.h"

namespace virtuserns::compute {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class RealImages : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    const char* build = std::getenv("VIRTUSERNS_BUILD");
    ASSERT_TRUE(build);
    options_.program = std::string(build) + "/tools/image/virt-userns-image";
    options_.folder = dir_.path() + "/store";
    const auto tree = dir_.path() + "/tree";
    std::filesystem::create_directories(tree + "/bin");
    std::ofstream(tree + "/bin/su") << "program";
    ASSERT_EQ(::chmod((tree + "/bin/su").c_str(), 04755), 0);
    std::ofstream large(tree + "/large");
    for (int i = 0; i < 100'000; ++i) large << "0123456789012345678901234567890123456789012345678901234567890123\n";
    large.close();
    image_ = dir_.path() + "/image.tar.gz";
    ASSERT_EQ(std::system(("tar -czf " + image_ + " -C " + tree + " .").c_str()), 0);
  }
  [[nodiscard]] ImageSource source() const { return {image_, "root-tar"}; }
  void expect_whole(const std::string& base) const {
    struct stat st {};
    ASSERT_EQ(::lstat((base + "/bin/su").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 04755));
    EXPECT_EQ(std::filesystem::file_size(base + "/large"), 6'500'000u);
  }

  test::TempDir dir_;
  StoreOptions options_;
  std::string image_;
};

TEST_F(RealImages, AreMadeOnceAndSwept) {
  const auto store = ImageStore::open(options_).value();
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { good += store.get("sha-1", source()) ? 1 : 0; });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 4);
  expect_whole(options_.folder + "/bases/sha-1");
  const auto bases = store.list().value();
  ASSERT_EQ(bases.size(), 1u);
  EXPECT_GE(bases[0].bytes, 6'500'000u);
  EXPECT_THAT(store.sweep({.max_bytes = 0}).value(), ElementsAre("sha-1"));
  EXPECT_TRUE(std::filesystem::is_empty(options_.folder + "/bases"));
}

TEST_F(RealImages, SayWhatIsWrong) {
  auto wrong = source();
  wrong.format = "qcow2";
  const auto store = ImageStore::open(options_).value();
  const auto made = store.get("a", wrong);
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().text, HasSubstr("said to be qcow2"));
  options_.limit_bytes = 4096;
  const auto large = ImageStore::open(options_).value().get("a", source());
  ASSERT_FALSE(large);
  EXPECT_THAT(large.error().text, HasSubstr("4096 bytes"));
  EXPECT_TRUE(std::filesystem::is_empty(options_.folder + "/bases"));
}

TEST_F(RealImages, WhoeverIsKilledTheNextOneMakesIt) {
  const auto bases = options_.folder + "/bases";
  for (int delay_us : {0, 5'000, 20'000, 60'000}) {
    ASSERT_TRUE(ImageStore::open(options_));
    const pid_t pid = ::fork();
    if (pid == 0) {
      const auto store = ImageStore::open(options_);
      ::_exit(store && store->get("a", source()) ? 0 : 1);
    }
    ::usleep(static_cast<useconds_t>(delay_us));
    ASSERT_EQ(::kill(pid, SIGKILL), 0);
    ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
    // The program that it had started may still be at it, with the lock of the base: this waits for it.
    const auto store = ImageStore::open(options_).value();
    const auto base = store.get("a", source());
    ASSERT_TRUE(base) << base.error().text;
    expect_whole(*base);
    EXPECT_THAT(store.sweep({.max_bytes = 0}).value(), ElementsAre("a"));
    EXPECT_TRUE(std::filesystem::is_empty(bases));
  }
}

}  // namespace
}  // namespace virtuserns::compute
