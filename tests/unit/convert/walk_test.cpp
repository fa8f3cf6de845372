#include "tools/convert/walk.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "tests/unit/convert/tree.h"

namespace virtuserns::convert {
namespace {

TEST(Walk, CountsWhatAContainerSeesDifferently) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can make other owners";
  const Tree tree;
  tree.write("/a", "x");
  tree.write("/dir/suid", "x");
  tree.write("/dir/far", "x");
  tree.write("/dir/cap", "x");
  tree.write("/dir/acl", "x");
  tree.fifo("/pipe");
  tree.link("/link", "/etc");
  ASSERT_EQ(::chown(tree.path("/dir/far").c_str(), 100000, 5), 0);
  ASSERT_EQ(::lchown(tree.path("/link").c_str(), 5, 200000), 0);
  ASSERT_EQ(::chmod(tree.path("/dir/suid").c_str(), 04755), 0);
  ASSERT_EQ(::mknod(tree.path("/dir/disk").c_str(), S_IFBLK | 0600, makedev(8, 0)), 0);
  const unsigned char capability[20] = {1, 0, 0, 2, 0, 0x20};
  const bool has_caps = ::setxattr(tree.path("/dir/cap").c_str(), "security.capability", capability, 20, 0) == 0;
  // user::rw-, user:70000:r--, group::r--, mask::r--, other::---
  const unsigned char acl[] = {2, 0,    0,    0,    1,    0,    6,    0, 0xff, 0xff, 0xff, 0xff, 2,    0,    4,
                               0, 0x70, 0x11, 1,    0,    4,    0,    4, 0,    0xff, 0xff, 0xff, 0xff, 0x10, 0,
                               4, 0,    0xff, 0xff, 0xff, 0xff, 0x20, 0, 0,    0,    0xff, 0xff, 0xff, 0xff};
  const bool has_acls = ::setxattr(tree.path("/dir/acl").c_str(), "system.posix_acl_access", acl, sizeof acl, 0) == 0;
  const auto result = walk(tree.open(), 65536);
  ASSERT_TRUE(result) << result.error().text;
  EXPECT_EQ(result->entries, 10u);
  EXPECT_EQ(result->highest_uid, 100000u);
  EXPECT_EQ(result->highest_gid, 200000u);
  EXPECT_EQ(result->above_map.count, has_acls ? 3u : 2u);
  EXPECT_EQ(result->devices.examples, std::vector<std::string>{"/dir/disk"});
  EXPECT_EQ(result->setuid.count, 1u);
  EXPECT_EQ(result->fifos.count, 1u);
  EXPECT_EQ(result->capabilities.count, has_caps ? 1u : 0u);
  EXPECT_EQ(result->acls.count, has_acls ? 1u : 0u);
  EXPECT_TRUE(result->is_complete);
  const auto findings = findings_of(*result, 65536);
  EXPECT_EQ(worst(findings), Severity::kLoss);
  EXPECT_EQ(about(findings, "device node").size(), 1u);
  ASSERT_FALSE(about(findings, "not mapped").empty());
  EXPECT_NE(about(findings, "not mapped")[0].remedy.find("--id-count 200001"), std::string::npos);
}

TEST(Walk, ImmutableFilesAreNamed) {
  const Tree tree;
  tree.write("/etc/resolv.conf", "x");
  const Fd file(::open(tree.path("/etc/resolv.conf").c_str(), O_RDONLY | O_CLOEXEC));
  int flags = FS_IMMUTABLE_FL;
  if (::ioctl(file.get(), FS_IOC_SETFLAGS, &flags) != 0) GTEST_SKIP() << "no immutable flag to be had here";
  const auto result = walk(tree.open(), 65536);
  flags = 0;
  ASSERT_EQ(::ioctl(file.get(), FS_IOC_SETFLAGS, &flags), 0);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->immutable.examples, std::vector<std::string>{"/etc/resolv.conf"});
}

TEST(Walk, IsBoundedInDepthAndEntriesAndNamesAreSafe) {
  const Tree tree;
  tree.directory("/1/2/3/4/5/6");
  tree.write("/evil\n\x1b[2Jname", "x");
  ASSERT_EQ(::chmod(tree.path("/evil\n\x1b[2Jname").c_str(), 04755), 0);
  WalkLimits limits;
  limits.max_depth = 3;
  auto result = walk(tree.open(), 65536, limits);
  ASSERT_TRUE(result);
  EXPECT_FALSE(result->is_complete);
  EXPECT_EQ(all_of(findings_of(*result, 65536)).find('\x1b'), std::string::npos);
  limits = {};
  limits.max_entries = 4;
  result = walk(tree.open(), 65536, limits);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->entries, 4u);
  EXPECT_FALSE(result->is_complete);
}

TEST(Walk, HardLinksCountOnceAndLinksAreNotFollowed) {
  const Tree tree;
  tree.write("/one", std::string(65536, 'x'));
  std::filesystem::create_hard_link(tree.path("/one"), tree.path("/two"));
  tree.link("/out", tree.outside());
  const auto result = walk(tree.open(), 65536);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->entries, 4u);
  EXPECT_LE(result->bytes, 2u * 65536);
  EXPECT_GE(result->bytes, 65536u);
}

}  // namespace
}  // namespace virtuserns::convert
