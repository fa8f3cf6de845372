#include "driver/kernel/apparmor.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "conf/base/file.h"
#include "tests/support/temp_dir.h"

namespace virtuserns::kernel {
namespace {

TEST(Apparmor, ParsesLabelsAsTheKernelWritesThem) {
  const auto confined = parse_apparmor_label("virtuserns-container (enforce)\n");
  ASSERT_TRUE(confined);
  EXPECT_EQ(confined->profile, "virtuserns-container");
  EXPECT_TRUE(confined->is_enforced);
  EXPECT_FALSE(parse_apparmor_label("virtuserns-container (complain)\n")->is_enforced);
  EXPECT_EQ(parse_apparmor_label("unconfined\n")->profile, "unconfined");
  EXPECT_EQ(parse_apparmor_label(std::string_view("unconfined\0", 11))->profile, "unconfined");
  EXPECT_EQ(parse_apparmor_label("a//&b (c) (enforce)")->profile, "a//&b (c)");
  EXPECT_FALSE(parse_apparmor_label("\n"));
  EXPECT_FALSE(parse_apparmor_label(""));
}

TEST(Apparmor, ListsProfilesOnlyWhereItIsOn) {
  test::TempDir temp;
  const std::string sys = temp.path();
  EXPECT_TRUE(read_apparmor_profiles(sys).empty());
  ASSERT_TRUE(make_directories(sys + "/module/apparmor/parameters", 0755));
  ASSERT_TRUE(make_directories(sys + "/kernel/security/apparmor", 0755));
  ASSERT_TRUE(write_atomic_volatile(sys + "/kernel/security/apparmor/profiles", "one (enforce)\ntwo (complain)\n"));
  ASSERT_TRUE(write_atomic_volatile(sys + "/module/apparmor/parameters/enabled", "N\n"));
  EXPECT_TRUE(read_apparmor_profiles(sys).empty());
  ASSERT_TRUE(write_atomic_volatile(sys + "/module/apparmor/parameters/enabled", "Y\n"));
  EXPECT_EQ(read_apparmor_profiles(sys), (std::set<std::string>{"one", "two"}));
}

TEST(Apparmor, AProfileThatIsNotThereIsAnError) {
  const DirFd proc(::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  EXPECT_FALSE(set_exec_profile(proc, "no-such-profile-of-virtuserns"));
}

}  // namespace
}  // namespace virtuserns::kernel
