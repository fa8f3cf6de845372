// What is frozen for an instance is its own.
#include "driver/compute/blocks.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "conf/base/undo.h"
#include "driver/kernel/device.h"
#include "driver/kernel/program.h"
#include "tests/support/temp_dir.h"

namespace virtuserns::compute {
namespace {

using testing::HasSubstr;

// The kernel says the same device number, none, for a file and for what a loop device over another file is over.
TEST(Blocks, AFileIsNobodysMountedDevice) {
  if (!std::getenv("VIRTUSERNS_TEST_MACHINE")) GTEST_SKIP() << "needs root, and mounts of its own (leak_check.py)";
  const test::TempDir dir;
  const auto image = dir.path() + "/other.img", place = dir.path() + "/other", file = dir.path() + "/volume";
  std::filesystem::create_directory(place);
  const Fd backing(::open(image.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(::ftruncate(backing.get(), 16 << 20), 0);
  ASSERT_TRUE(kernel::need_program({"mke2fs", "-q", "-F", "-t", "ext4", image}));
  ASSERT_TRUE(Fd(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)));
  auto loop = kernel::attach_loop({backing, image});
  ASSERT_TRUE(loop) << loop.error().text;
  ASSERT_EQ(::mount(loop->path.c_str(), place.c_str(), "ext4", 0, nullptr), 0);
  Undo undo;
  undo.add([&] { (void)::umount2(place.c_str(), MNT_DETACH); });
  // There are no other loop devices here: those of the machine are nobody's to try this with.
  const auto name = loop->path.substr(loop->path.rfind('/'));
  ASSERT_EQ(::mount("tmpfs", "/sys/block", "tmpfs", 0, nullptr), 0);
  undo.add([] { (void)::umount2("/sys/block", MNT_DETACH); });
  std::filesystem::create_directory("/sys/block" + name);

  const auto frozen = freeze_filesystem(file);
  const Fd top(::open(place.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  EXPECT_NE(::ioctl(top.get(), FITHAW, 0), 0) << "another file system was frozen";
  ASSERT_FALSE(frozen);
  EXPECT_EQ(frozen.error().code, VIR_ERR_OPERATION_UNSUPPORTED);
  EXPECT_THAT(frozen.error().text, HasSubstr("is no block device"));
}

}  // namespace
}  // namespace virtuserns::compute
