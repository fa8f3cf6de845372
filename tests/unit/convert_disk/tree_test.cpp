#include "tools/convert/tree.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "tests/support/temp_dir.h"

namespace virtuserns::convert {
namespace {

struct Trees {
  test::TempDir dir;
  DirFd from, to;
  Trees() {
    EXPECT_EQ(::mkdir((dir.path() + "/from").c_str(), 0755), 0);
    EXPECT_EQ(::mkdir((dir.path() + "/to").c_str(), 0700), 0);
    from = open_directory(dir.path() + "/from").value();
    to = open_directory(dir.path() + "/to").value();
  }
  [[nodiscard]] std::string path(const std::string& name) const { return dir.path() + "/" + name; }
};

Result<Copied> copy(const Trees& trees, std::uint64_t max_bytes = 1u << 30) {
  return copy_tree(trees.from, trees.to, max_bytes, [](const CopyCount&) {});
}

TEST(Tree, CopiesHolesLinksAndTimes) {
  const Trees trees;
  const Fd file(::open(trees.path("from/file").c_str(), O_RDWR | O_CREAT, 0600));
  ASSERT_EQ(::pwrite(file.get(), "x", 1, 10 * 1024 * 1024), 1);
  ASSERT_EQ(::ftruncate(file.get(), 20 * 1024 * 1024), 0);
  ASSERT_EQ(::fchmod(file.get(), 04751), 0);
  ASSERT_EQ(::link(trees.path("from/file").c_str(), trees.path("from/second").c_str()), 0);
  ASSERT_EQ(::symlink("/etc/shadow", trees.path("from/link").c_str()), 0);
  ASSERT_EQ(::mkfifo(trees.path("from/fifo").c_str(), 0622), 0);
  const timespec times[2] = {{1000, 7}, {2000, 999999999}};
  ASSERT_EQ(::futimens(file.get(), times), 0);
  const auto copied = copy(trees);
  ASSERT_TRUE(copied) << copied.error().text;
  EXPECT_EQ(copied->entries, 4u);
  EXPECT_LE(copied->bytes, 1024u * 1024);
  struct stat st {
  }, second{};
  ASSERT_EQ(::stat(trees.path("to/file").c_str(), &st), 0);
  ASSERT_EQ(::stat(trees.path("to/second").c_str(), &second), 0);
  EXPECT_EQ(st.st_ino, second.st_ino);
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 04751));
  EXPECT_EQ(st.st_size, 20 * 1024 * 1024);
  EXPECT_LT(st.st_blocks, 4096);
  EXPECT_EQ(st.st_mtim.tv_nsec, 999999999);
  char target[64] = {};
  EXPECT_EQ(::readlink(trees.path("to/link").c_str(), target, sizeof target), 11);
  ASSERT_EQ(::lstat(trees.path("to/fifo").c_str(), &st), 0);
  EXPECT_TRUE(S_ISFIFO(st.st_mode));
}

TEST(Tree, CopyHasALimit) {
  const Trees trees;
  ASSERT_TRUE(write_atomic(trees.path("from/a"), std::string(4096, 'x')));
  EXPECT_FALSE(copy(trees, 1000));
}

// Bytes that change while size and time do not: what a database does, and what a crash leaves.
TEST(Tree, UpdateTakesWhatIsDoubtfulAgain) {
  const Trees trees;
  const auto write = [&](const char* content) {
    const Fd file(::open(trees.path("from/file").c_str(), O_WRONLY | O_CREAT, 0600));
    const timespec times[2] = {{1000, 7}, {2000, 8}};
    EXPECT_EQ(::pwrite(file.get(), content, 3, 0), 3);
    EXPECT_EQ(::futimens(file.get(), times), 0);
  };
  const auto update = [&](std::optional<timespec> since) {
    const auto done = update_tree(
        trees.from, trees.to, 1u << 20, [](const CopyCount&) {}, since);
    EXPECT_TRUE(done) << done.error().text;
    return read_file(trees.path("to/file")).value();
  };
  write("old");
  const auto copied = copy(trees);
  ASSERT_TRUE(copied) << copied.error().text;
  struct stat st {};
  ASSERT_EQ(::stat(trees.path("from/file").c_str(), &st), 0);
  EXPECT_EQ(copied->newest_change.tv_sec, st.st_ctim.tv_sec);
  EXPECT_EQ(copied->newest_change.tv_nsec, st.st_ctim.tv_nsec);
  write("new");
  EXPECT_EQ(update(std::nullopt), "old");
  EXPECT_EQ(update(timespec{st.st_ctim.tv_sec + 3600, 0}), "old");
  EXPECT_EQ(update(st.st_ctim), "new");
}

TEST(Tree, UpdateLeavesNothingInThePlaceOfADevice) {
  const Trees trees;
  ASSERT_TRUE(write_atomic(trees.path("from/node"), "x"));
  ASSERT_TRUE(copy(trees));
  ASSERT_EQ(::unlink(trees.path("from/node").c_str()), 0);
  if (::mknod(trees.path("from/node").c_str(), S_IFCHR | 0600, makedev(1, 3)) != 0) GTEST_SKIP() << "not root";
  ASSERT_TRUE(update_tree(trees.from, trees.to, 1u << 20, [](const CopyCount&) {}));
  EXPECT_TRUE(list_directory(trees.path("to"))->empty());
}

// Deeper than a path could name.
TEST(Tree, RemovesWhatIsDeep) {
  const Trees trees;
  DirFd at = open_directory(trees.path("from")).value();
  const std::string name(200, 'd');
  for (int i = 0; i < 600; ++i) {
    ASSERT_EQ(::mkdirat(at.get(), name.c_str(), 0700), 0);
    at = DirFd(::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(at);
  }
  at.reset();
  EXPECT_FALSE(copy(trees));
  const auto parent = open_directory(trees.dir.path()).value();
  for (const auto* tree : {"from", "to", "missing"}) {
    const auto removed = remove_tree(parent, tree);
    EXPECT_TRUE(removed) << removed.error().text;
  }
  EXPECT_TRUE(list_directory(trees.dir.path())->empty());
}

TEST(Tree, RemoveFollowsNoLink) {
  const Trees trees;
  ASSERT_TRUE(write_atomic(trees.path("to/kept"), "x"));
  ASSERT_EQ(::symlink((trees.dir.path() + "/to").c_str(), trees.path("from/link").c_str()), 0);
  ASSERT_TRUE(remove_tree(open_directory(trees.dir.path()).value(), "from"));
  EXPECT_TRUE(read_file(trees.path("to/kept")));
}

}  // namespace
}  // namespace virtuserns::convert
