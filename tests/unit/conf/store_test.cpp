#include "conf/store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "tests/support/temp_dir.h"

using namespace virtuserns;

namespace {

struct Stored : testing::Test {
  test::TempDir dir;
  Store store{dir.path() + "/defs", ".xml"};
  std::string path(const std::string& file) { return dir.path() + "/defs/" + file; }
};

TEST_F(Stored, SavesReplacesMarksAndRemoves) {
  ASSERT_TRUE(store.load());
  ASSERT_TRUE(store.save("a", "one"));
  ASSERT_TRUE(store.save("a", "two"));
  ASSERT_TRUE(store.save("b", "three"));
  ASSERT_TRUE(store.set_autostart("b", true));
  ASSERT_TRUE(store.set_autostart("b", true));
  auto loaded = store.load();
  ASSERT_TRUE(loaded);
  ASSERT_EQ(loaded->items.size(), 2u);
  EXPECT_EQ(loaded->items[0].content, "two");
  EXPECT_FALSE(loaded->items[0].autostart);
  EXPECT_TRUE(loaded->items[1].autostart);
  ASSERT_TRUE(store.remove("b"));
  ASSERT_TRUE(store.remove("b"));
  EXPECT_EQ(store.load()->items.size(), 1u);
  EXPECT_EQ(list_directory(path("autostart"))->size(), 0u);
}

TEST_F(Stored, RefusesNamesThatLeaveTheDirectory) {
  for (const char* name : {"", "..", "../x", "a/b", ".hidden"}) EXPECT_FALSE(store.save(name, "x")) << name;
}

TEST_F(Stored, BadFilesAreSetAsideAndNeverFatal) {  // F15
  ASSERT_TRUE(store.load());
  ASSERT_TRUE(store.save("good", "<domain/>"));
  ASSERT_TRUE(write_atomic(path("empty.xml"), ""));
  ASSERT_TRUE(write_atomic(path("nul.xml"), std::string("a\0b", 3)));
  ASSERT_TRUE(write_atomic(path("big.xml"), std::string(kMaxStoredBytes + 1, 'x')));
  ASSERT_EQ(::mkfifo(path("fifo.xml").c_str(), 0600), 0);
  ASSERT_EQ(::symlink("/etc/shadow", path("link.xml").c_str()), 0);
  ASSERT_EQ(::mkdir(path("dir.xml").c_str(), 0700), 0);
  ASSERT_TRUE(write_atomic(path("torn.xml.new.99.0"), "<dom"));
  ASSERT_TRUE(write_atomic(path("notes.txt"), "mine"));
  const auto loaded = store.load();
  ASSERT_TRUE(loaded);
  ASSERT_EQ(loaded->items.size(), 1u);
  EXPECT_EQ(loaded->problems.size(), 6u);
  EXPECT_EQ(::access(path("notes.txt").c_str(), F_OK), 0) << "a file that is not ours stays";
  EXPECT_NE(::access(path("torn.xml.new.99.0").c_str(), F_OK), 0);
  const auto again = store.load();
  EXPECT_EQ(again->problems.size(), 0u);
}

TEST_F(Stored, WhatACrashLeftOfARemovalGoes) {
  ASSERT_TRUE(store.load());
  ASSERT_TRUE(store.save("a", "one"));
  ASSERT_TRUE(store.set_autostart("a", true));
  ASSERT_EQ(::unlink(path("a.xml").c_str()), 0);  // and then it was killed
  ASSERT_TRUE(write_atomic(path("b.xml.new.kept"), "old"));
  ASSERT_TRUE(store.load());
  ASSERT_TRUE(store.save("a", "another of that name"));
  const auto loaded = store.load();
  ASSERT_EQ(loaded->items.size(), 1u);
  EXPECT_FALSE(loaded->items[0].autostart);
  EXPECT_EQ(list_directory(dir.path() + "/defs")->size(), 2u) << "a.xml and autostart";
}

TEST_F(Stored, AForeignOwnersFileIsSetAside) {  // F15
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  ASSERT_TRUE(store.load());
  ASSERT_TRUE(store.save("a", "one"));
  ASSERT_EQ(::chown(path("a.xml").c_str(), 12345, 12345), 0);
  const auto loaded = store.load();
  EXPECT_EQ(loaded->items.size(), 0u);
  EXPECT_EQ(loaded->problems.size(), 1u);
}

TEST_F(Stored, AFailedChangeLeavesTheOldState) {  // F13
  ASSERT_TRUE(store.load());
  ASSERT_TRUE(store.save("a", "one"));
  // A file where the directory of marks should be: the second half of a removal fails.
  ASSERT_EQ(::rmdir(path("autostart").c_str()), 0);
  ASSERT_TRUE(write_atomic(path("autostart"), ""));
  EXPECT_FALSE(store.remove("a"));
  EXPECT_EQ(*read_file(path("a.xml")), "one");
  EXPECT_NE(::access(path("a.xml.new.kept").c_str(), F_OK), 0);
}

}  // namespace
