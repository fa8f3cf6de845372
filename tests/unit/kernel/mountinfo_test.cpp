#include "driver/kernel/mountinfo.h"

#include <gtest/gtest.h>

namespace virtuserns::kernel {
namespace {

TEST(Mountinfo, PlacesAreUnescapedAndBrokenLinesLeftOut) {
  const auto mounts = parse_mountinfo(
      "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
      "37 36 0:21 / /a\\134b ro - tmpfs none rw\n"
      "38 36 0:22 / /c\n"
      "\n");
  ASSERT_EQ(mounts.size(), 2U);
  EXPECT_EQ(mounts[0].device, "98:0");
  EXPECT_EQ(mounts[0].root, "/mnt1");
  EXPECT_EQ(mounts[0].place, "/mnt 2");
  EXPECT_EQ(mounts[1].place, "/a\\b");
}

}  // namespace
}  // namespace virtuserns::kernel
