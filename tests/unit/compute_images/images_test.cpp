#include "driver/compute/images.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "conf/base/file.h"
#include "driver/compute/kinds.h"
#include "driver/compute/room.h"
#include "tests/support/temp_dir.h"

namespace virtuserns::compute {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Stands in for virt-userns-image: writes down what it was asked for, and does what the name of the image says.
constexpr const char* kProgram = R"(#!/bin/sh
place=$(dirname "$0")
echo "$*" >>"$place/calls"
if [ "$1" = clean ]; then
  for left in "$2"/.*.unpack "$2"/.*.remove; do [ -d "$left" ] && rm -r "$left"; done
  exit 0
fi
for last; do :; done
while [ $# -gt 2 ]; do shift; done
case $1 in
  */broken) echo 'virt-userns-image: error: image is no image' >&2; exit 1 ;;
  */slow) sleep 0.3 ;;
  */alone) mkdir "$place/alone" || exit 1; sleep 0.1; rmdir "$place/alone" ;;
  */met) # by another one
    : >"$place/met-${last##*/}"
    for _ in $(seq 400); do
      set -- "$place"/met-*
      [ $# -eq 2 ] && break
      sleep 0.05
    done
    [ $# -eq 2 ] || exit 1 ;;
  */endless) exec sleep 1000 ;;
  */killed) mkdir "$last"; kill -9 $$ ;;
  */large) echo 'virt-userns-image: error: it needs more' >&2; exit 3 ;;
  */full) # room for one base beside another
    set -- "${last%/*}"/*
    if [ $# -gt 1 ]; then echo 'virt-userns-image: error: no room' >&2; exit 4; fi ;;
esac
mkdir "$last" || exit 1
echo '{"format": "raw", "entries": 3, "bytes": 1000, "findings": []}'
)";

class Images : public testing::Test {
 protected:
  Images() {
    std::ofstream(dir_.path() + "/program") << kProgram;
    ::chmod((dir_.path() + "/program").c_str(), 0755);
    options_.folder = dir_.path() + "/store";
    options_.program = dir_.path() + "/program";
  }
  [[nodiscard]] ImageStore open() const { return ImageStore::open(options_).value(); }
  [[nodiscard]] ImageSource source(const char* name = "image") const { return {dir_.path() + "/" + name, "qcow2"}; }
  [[nodiscard]] std::string base(const std::string& key) const { return options_.folder + "/bases/" + key; }
  [[nodiscard]] int unpacks() const {
    std::ifstream calls(dir_.path() + "/calls");
    int count = 0;
    for (std::string line; std::getline(calls, line);) count += line.starts_with("unpack") ? 1 : 0;
    return count;
  }
  [[nodiscard]] std::string calls() const { return read_file(dir_.path() + "/calls").value(); }
  void used(const std::string& key, std::time_t ago) const {
    const timespec then{std::time(nullptr) - ago, 0}, times[] = {then, then};
    ASSERT_EQ(::utimensat(AT_FDCWD, (options_.folder + "/facts/" + key).c_str(), times, 0), 0);
  }
  [[nodiscard]] std::vector<std::string> keys(const ImageStore& store) const {
    std::vector<std::string> all;
    for (const auto& found : store.list().value()) all.push_back(found.key);
    return all;
  }

  test::TempDir dir_;
  StoreOptions options_;
  Uuid one_ = make_random_uuid(), other_ = make_random_uuid();
};

TEST_F(Images, IsMadeOnceAndUsedAgain) {
  const auto store = open();
  EXPECT_EQ(store.get("sha-1", source()).value(), base("sha-1"));
  EXPECT_EQ(open().get("sha-1", source()).value(), base("sha-1"));
  EXPECT_EQ(unpacks(), 1);
  EXPECT_THAT(calls(), HasSubstr("unpack --json --quiet --format qcow2 --reserve 5 -- " + dir_.path() + "/image " +
                                 base("sha-1")));
  const auto bases = store.list().value();
  ASSERT_EQ(bases.size(), 1u);
  EXPECT_EQ(bases[0].bytes, 1000u);
  EXPECT_THAT(bases[0].holders, IsEmpty());
}

TEST_F(Images, LimitsAndFittingAreSaid) {
  options_.limit_bytes = 1 << 20, options_.reserve_percent = 7;
  const auto store = open();
  auto fitted = source();
  fitted.is_fitted = true;
  ASSERT_TRUE(store.get("a", fitted));
  EXPECT_THAT(calls(), HasSubstr("--limit 1048576 --entries 256 --reserve 7 --fit -- "));
  auto own = source();
  own.limit_bytes = std::uint64_t{1} << 40;
  ASSERT_TRUE(store.get("b", own));
  EXPECT_THAT(calls(), HasSubstr("--limit 1099511627776 --entries 4000000 --reserve 7 -- "));
  own.limit_bytes = 0;
  ASSERT_TRUE(store.get("c", own));
  EXPECT_THAT(calls(), HasSubstr("--format qcow2 --reserve 7 -- "));
}

TEST_F(Images, WhatIsTooLargeIsGivenToNobody) {
  const auto store = open();
  const auto refused = [](const auto& got) { return !got && got.error().code == kImageTooLarge; };
  const auto made = store.get("a", source("large"));
  EXPECT_TRUE(refused(made));
  EXPECT_EQ(made.error().text, "the image has more entries than any may have: make base 'a': it needs more");
  EXPECT_TRUE(std::filesystem::is_empty(options_.folder + "/bases"));
  EXPECT_TRUE(std::filesystem::is_empty(options_.folder + "/locks"));
  // One that is there is held to the limit of whoever wants it now.
  auto wanted = source();
  ASSERT_TRUE(store.get("a", wanted));
  wanted.limit_bytes = 999;
  EXPECT_TRUE(refused(store.get("a", wanted)));
  // With what is to be done at its beginning, which may be all that is seen of it.
  wanted.file = source("large").file;
  wanted.limit_bytes = 5 << 20;
  EXPECT_THAT(store.get("b", wanted).error().text,
              testing::StartsWith(
                  "the image does not fit into the 5 MiB that it may have: choose a flavor with a larger disk"));
  EXPECT_TRUE(refused(store.find("a", 999)));
  EXPECT_TRUE(store.find("a", 1000).value());
  EXPECT_TRUE(store.find("a").value());
  EXPECT_FALSE(store.find("b", 1).value());
  EXPECT_EQ(unpacks(), 3);
}

TEST_F(Images, RoomIsMadeOfWhatNobodyNeeds) {
  const auto store = open();
  for (const char* key : {"held", "old", "older", "new"}) ASSERT_TRUE(store.get(key, source()));
  ASSERT_TRUE(store.hold("held", one_));
  used("held", 9000), used("older", 8000), used("old", 7000);
  // Each attempt costs no more than it may need.
  auto large = source("full");
  large.limit_bytes = 1000;
  const auto made = store.get("a", large);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().sys_errno, ENOSPC);
  EXPECT_EQ(unpacks(), 7);
  EXPECT_THAT(keys(store), ElementsAre("held", "new"));
  used("new", 700);
  ASSERT_TRUE(store.get("a", large));
  EXPECT_THAT(keys(store), ElementsAre("a", "held"));
}

TEST_F(Images, NoMoreGoesThanRoomIsNeeded) {
  const auto store = open();
  for (const char* key : {"old", "older"}) ASSERT_TRUE(store.get(key, source()));
  used("older", 8000), used("old", 7000);
  auto large = source("full");
  large.limit_bytes = 1000;
  ASSERT_TRUE(store.get("a", large));
  EXPECT_THAT(keys(store), ElementsAre("a", "old"));
}

TEST_F(Images, KeysAndFilesAreChecked) {
  const auto store = open();
  for (const char* bad : {"", ".", "..", ".x", "a/b", "a b", "-x", "a\n", "\xc3\xa4"}) {
    EXPECT_FALSE(check_image_key(bad)) << bad;
    EXPECT_FALSE(store.get(bad, source())) << bad;
    EXPECT_FALSE(store.hold(bad, one_)) << bad;
    EXPECT_FALSE(store.release(bad, one_)) << bad;
    EXPECT_FALSE(store.holders(bad)) << bad;
  }
  EXPECT_FALSE(check_image_key(std::string(201, 'a')));
  EXPECT_TRUE(check_image_key(std::string(200, 'a')));
  EXPECT_FALSE(store.get("a", {"image", "raw"}));
  EXPECT_EQ(unpacks(), 0);
}

TEST_F(Images, ManyAtOnceMakeOne) {
  const auto store = open();
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 8; ++i) threads.emplace_back([&] { good += store.get("a", source("slow")) ? 1 : 0; });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 8);
  EXPECT_EQ(unpacks(), 1);
}

// Each of them looks at the same room.
TEST_F(Images, SeveralAreMadeAtOnceWhereThereIsRoomForAll) {
  const auto store = open();
  const auto make = [&](const char* name, std::uint64_t limit_bytes) {
    std::vector<std::thread> threads;
    std::atomic<int> good = 0;
    for (const char* key : {"a", "b"})
      threads.emplace_back([&, key] {
        auto wanted = source(name);
        wanted.limit_bytes = limit_bytes;
        good += store.get(std::string(key) + "-" + name, wanted) ? 1 : 0;
      });
    for (auto& thread : threads) thread.join();
    return good.load();
  };
  EXPECT_EQ(make("met", 1 << 20), 2);
  EXPECT_EQ(make("alone", std::uint64_t{1} << 60), 2);
  for (const char* key : {"a", "b"}) (void)std::filesystem::remove_all(base(std::string(key) + "-alone"));
  EXPECT_EQ(make("alone", 0), 2);
}

TEST_F(Images, OneThatTakesLongHoldsUpNobodyForEver) {
  Room room("/tmp", 5, std::chrono::milliseconds(50));
  const Room::Turn first(room, {});
  const Room::Turn second(room, {});
}

TEST_F(Images, NobodyWaitsForRoomAtTheEnd) {
  Room room("/tmp", 5, std::chrono::hours(1));
  const Room::Turn first(room, {});
  room.stop();
  const Room::Turn second(room, {});
  const auto store = open();
  ASSERT_TRUE(store.get("a", source()));
  store.stop();
  const auto made = store.get("b", source());
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, kUnavailable);
  EXPECT_TRUE(store.get("a", source()));
}

// The bytes of both are there, the entries are not.
TEST_F(Images, EntriesAreRoomAsWell) {
  Room room("/tmp", 5, std::chrono::milliseconds(300));
  const auto begin = std::chrono::steady_clock::now();
  const Room::Turn first(room, {1 << 20, std::uint64_t{1} << 60});
  const Room::Turn second(room, {1 << 20, 1});
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(300));
}

TEST_F(Images, TwoProcessesMakeOne) {
  const auto store = open();
  const pid_t child = ::fork();
  if (child == 0) ::_exit(store.get("a", source("slow")) ? 0 : 1);
  EXPECT_TRUE(store.get("a", source("slow")));
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(unpacks(), 1);
}

TEST_F(Images, WhatCannotBeMadeSaysWhyAndMayBeTriedAgain) {
  const auto store = open();
  const auto made = store.get("a", source("broken"));
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().text, "make base 'a': image is no image");
  EXPECT_THAT(keys(store), IsEmpty());
  EXPECT_TRUE(store.get("a", source()));
}

TEST_F(Images, OneThatDoesNotEndIsKilled) {
  options_.timeout = seconds(1);
  const auto made = open().get("a", source("endless"));
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, VIR_ERR_OPERATION_TIMEOUT);
}

TEST_F(Images, WhatAKilledRunHasLeftIsNoBase) {
  const auto store = open();
  EXPECT_FALSE(store.get("a", source("killed")));
  EXPECT_TRUE(std::filesystem::exists(base("a")));
  std::filesystem::create_directory(base(".b.unpack"));
  std::ofstream(options_.folder + "/facts/c.new.1.0") << "1";
  EXPECT_THAT(keys(store), IsEmpty());
  const auto again = open();
  EXPECT_TRUE(std::filesystem::is_empty(options_.folder + "/bases"));
  EXPECT_TRUE(std::filesystem::is_empty(options_.folder + "/facts"));
  // Without a start between.
  EXPECT_FALSE(again.get("a", source("killed")));
  EXPECT_TRUE(again.get("a", source()));
  EXPECT_THAT(keys(again), ElementsAre("a"));
}

TEST_F(Images, OneThatIsBeingMadeIsLeftAlone) {
  const auto store = open();
  std::thread maker([&] { EXPECT_TRUE(store.get("a", source("slow"))); });
  while (!std::filesystem::exists(dir_.path() + "/calls")) std::this_thread::yield();
  const auto other = open();
  EXPECT_THAT(other.sweep({.max_bytes = 0}).value(), IsEmpty());
  maker.join();
  EXPECT_THAT(keys(other), ElementsAre("a"));
}

TEST_F(Images, HoldsAreDurableAndKeepABase) {
  const auto store = open();
  ASSERT_TRUE(store.hold("a", one_));
  ASSERT_TRUE(store.hold("a", one_));
  ASSERT_TRUE(store.hold("a", other_));
  ASSERT_TRUE(store.get("a", source()));
  const auto again = open();
  EXPECT_THAT(again.holders("a").value(), testing::UnorderedElementsAre(one_, other_));
  EXPECT_THAT(again.sweep({.max_bytes = 0, .max_age = seconds(0)}).value(), IsEmpty());
  ASSERT_TRUE(again.release("a", one_));
  ASSERT_TRUE(again.release("a", one_));
  EXPECT_THAT(again.sweep({.max_bytes = 0}).value(), IsEmpty());
  ASSERT_TRUE(again.release("a", other_));
  EXPECT_THAT(again.holders("a").value(), IsEmpty());
  EXPECT_THAT(again.sweep({.max_bytes = 0}).value(), ElementsAre("a"));
  EXPECT_TRUE(std::filesystem::is_empty(options_.folder + "/bases"));
  EXPECT_TRUE(std::filesystem::is_empty(options_.folder + "/holds"));
  EXPECT_TRUE(again.release("never", one_));
}

TEST_F(Images, SweepsTheOldestUntilTheLimitsAreKept) {
  const auto store = open();
  for (const char* key : {"a", "b", "c", "d"}) ASSERT_TRUE(store.get(key, source()));
  used("a", 100), used("b", 4000), used("c", 300), used("d", 200);
  EXPECT_THAT(store.sweep({}).value(), IsEmpty());
  EXPECT_THAT(store.sweep({.max_age = seconds(3600)}).value(), ElementsAre("b"));
  EXPECT_THAT(store.sweep({.max_bytes = 2999}).value(), ElementsAre("c"));
  EXPECT_THAT(store.sweep({.max_bytes = 0, .keep_unused_for = seconds(150)}).value(), ElementsAre("d"));
  EXPECT_THAT(keys(store), ElementsAre("a"));
  used("a", 100);
  ASSERT_TRUE(store.get("a", source()));  // a use
  EXPECT_THAT(store.sweep({.max_bytes = 0, .keep_unused_for = seconds(90)}).value(), IsEmpty());
}

TEST_F(Images, AFolderThatOthersMayEnterIsRefused) {
  std::filesystem::create_directory(options_.folder);
  ::chmod(options_.folder.c_str(), 0755);
  const auto store = ImageStore::open(options_);
  ASSERT_FALSE(store);
  EXPECT_THAT(store.error().text, HasSubstr("0700"));
  options_.folder = "relative";
  EXPECT_FALSE(ImageStore::open(options_));
}

}  // namespace
}  // namespace virtuserns::compute
