#include <sys/sysmacros.h>

#include "tests/unit/convert/tree.h"
#include "tools/convert/fstab.h"

namespace virtuserns::convert {
namespace {

TEST(GuestFiles, LinksStayInTheGuest) {
  const Tree tree;
  std::ofstream(tree.outside() + "/secret") << "of the host";
  tree.write("/etc/real", "of the guest");
  tree.link("/etc/absolute", "/etc/real");
  tree.link("/etc/dots", "../../../../../../etc/real");
  tree.link("/etc/host", tree.outside() + "/secret");
  tree.link("/etc/above", "../../secret");
  tree.link("/etc/magic", "/proc/self/root" + tree.outside() + "/secret");
  tree.link("/deep", "/etc");
  const auto files = tree.files();
  EXPECT_EQ(files.read_or_empty("/etc/absolute"), "of the guest");
  EXPECT_EQ(files.read_or_empty("/etc/dots"), "of the guest");
  EXPECT_EQ(files.read_or_empty("/deep/real"), "of the guest");
  EXPECT_EQ(files.read_or_empty("/etc/host"), "");
  EXPECT_EQ(files.read_or_empty("/etc/above"), "");
  EXPECT_EQ(files.read_or_empty("/etc/magic"), "");
  EXPECT_EQ(files.read("/etc/host").error().sys_errno, ENOENT);
}

TEST(GuestFiles, OnlyRegularFilesOfABoundedSizeAreRead) {
  const Tree tree;
  tree.directory("/etc");
  tree.fifo("/etc/fifo");  // an open for reading would wait for a writer
  tree.link("/etc/to-fifo", "fifo");
  tree.link("/etc/loop", "loop");
  tree.write("/etc/large", "");
  std::filesystem::resize_file(tree.path("/etc/large"), 1u << 30);
  if (::mknod(tree.path("/etc/device").c_str(), S_IFCHR | 0600, makedev(1, 5)) == 0) {
    EXPECT_FALSE(tree.files().read("/etc/device"));
  }
  const auto files = tree.files();
  for (const auto* path : {"/etc/fifo", "/etc/to-fifo", "/etc/loop", "/etc/large", "/etc"}) {
    EXPECT_FALSE(files.read(path)) << path;
    EXPECT_TRUE(files.refused().contains(path)) << path;
  }
  EXPECT_FALSE(files.read("/etc/missing"));
  EXPECT_FALSE(files.refused().contains("/etc/missing"));
  EXPECT_EQ(*files.read_head("/etc/large", 4), std::string(4, '\0'));
  EXPECT_EQ(files.type("/etc/fifo"), GuestType::kOther);
  EXPECT_EQ(files.type("/etc/loop"), GuestType::kLink);
}

TEST(GuestFiles, DirectoriesAreBounded) {
  const Tree tree;
  tree.directory("/many");
  for (std::size_t i = 0; i <= kMaxGuestEntries; ++i)
    (void)!::symlink("x", tree.path("/many/" + std::to_string(i)).c_str());
  const auto files = tree.files();
  EXPECT_TRUE(files.list("/many").empty());
  EXPECT_TRUE(files.refused().contains("/many"));
}

TEST(GuestFiles, StagedEditsAreSeenAndNotWritten) {
  const Tree tree;
  tree.write("/etc/a", "old");
  tree.write("/etc/b", "old");
  tree.link("/etc/l", "/etc/a");
  auto files = tree.files();
  ASSERT_TRUE(files.replace("/etc/a", "new"));
  ASSERT_TRUE(files.remove("/etc/b"));
  ASSERT_TRUE(files.symlink("/etc/systemd/system/x.service", "/dev/null"));
  EXPECT_EQ(files.read_or_empty("/etc/a"), "new");
  EXPECT_FALSE(files.exists("/etc/b"));
  EXPECT_EQ(*files.read_link("/etc/systemd/system/x.service"), "/dev/null");
  EXPECT_EQ(files.list("/etc"), (std::vector<std::string>{"a", "l", "systemd"}));
  EXPECT_EQ(files.list("/etc/systemd/system"), std::vector<std::string>{"x.service"});
  EXPECT_EQ(tree.read("/etc/a"), "old");
  EXPECT_EQ(tree.read("/etc/b"), "old");
  EXPECT_FALSE(std::filesystem::exists(tree.path("/etc/systemd")));
}

TEST(GuestFiles, OnlyFilesAndLinksAreReplaced) {
  const Tree tree;
  tree.directory("/etc/fstab");
  tree.fifo("/etc/pipe");
  auto files = tree.files();
  EXPECT_FALSE(files.replace("/etc/fstab", ""));
  EXPECT_FALSE(files.replace("/etc/pipe", ""));
  EXPECT_FALSE(files.replace("/etc/../x", ""));
  EXPECT_FALSE(files.replace("/", ""));
  EXPECT_TRUE(files.staged().empty());
}

TEST(Fstab, ReadsFieldsAndKeepsLines) {
  const std::string text = "# a comment\n\nUUID=1 / ext4 defaults 0 1\n/dev/sdb1\t/mnt/my\\040disk\tauto\nonly-one\n";
  const auto lines = parse_fstab(text);
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_FALSE(lines[0].is_entry);
  EXPECT_EQ(lines[2].target, "/");
  EXPECT_EQ(lines[3].target, "/mnt/my disk");
  EXPECT_EQ(lines[3].options, "defaults");
  EXPECT_FALSE(lines[4].is_entry);
  EXPECT_EQ(format_fstab(lines), text);
  FstabLine line;
  line.options = "rw,nofail,subvol=@home";
  EXPECT_EQ(option_of(line, "nofail"), "");
  EXPECT_EQ(option_of(line, "subvol"), "@home");
  EXPECT_EQ(option_of(line, "sub"), std::nullopt);
}

}  // namespace
}  // namespace virtuserns::convert
