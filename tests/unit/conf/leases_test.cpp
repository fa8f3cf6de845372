#include "conf/leases.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "tests/support/temp_dir.h"

using namespace virtuserns;

namespace {

Lease lease(std::uint32_t first, const std::string& name = "web") {
  return {name, {{{0, first, 65'536}}, {{0, first, 65'536}}}};
}
Uuid uuid(std::uint8_t n) { return Uuid{{n, 1}}; }

struct Leases : testing::Test {
  test::TempDir dir;
  std::string path(const Uuid& id) { return dir.path() + "/" + format_uuid(id); }
  Result<Ledger::Opened> open(std::vector<Uuid> live = {}) { return Ledger::open(dir.path(), live); }
};

TEST_F(Leases, TextIsAFixpointAndEveryFlippedByteIsNoticed) {
  const auto text = format_lease(lease(2'000'000, "a\nb"));
  ASSERT_TRUE(parse_lease(text));
  EXPECT_EQ(format_lease(*parse_lease(text)), text);
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto flipped = text;
    flipped[i] = static_cast<char>(flipped[i] ^ 4);
    EXPECT_FALSE(parse_lease(flipped)) << i;
    EXPECT_FALSE(parse_lease(text.substr(0, i))) << i;
  }
}

TEST_F(Leases, SurvivesTheDaemon) {
  {
    auto opened = open();
    ASSERT_TRUE(opened);
    ASSERT_TRUE(opened->ledger.write(uuid(1), lease(2'000'000)));
    ASSERT_TRUE(opened->ledger.write(uuid(2), lease(2'065'536)));
    opened->ledger.remove(uuid(2));
  }
  auto again = open();
  ASSERT_TRUE(again);
  ASSERT_EQ(again->ledger.all().size(), 1u);
  EXPECT_EQ(again->ledger.all().at(uuid(1)), lease(2'000'000));
}

TEST_F(Leases, OfGroupsSurviveToo) {
  {
    auto opened = open();
    ASSERT_TRUE(opened->ledger.write_group("shop", lease(2'000'000).maps));
    ASSERT_TRUE(opened->ledger.write_group("other", lease(2'065'536).maps));
    ASSERT_TRUE(opened->ledger.write(uuid(1), lease(2'131'072)));
    opened->ledger.remove_group("other");
  }
  auto again = open();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->ledger.all().size(), 1u);
  ASSERT_EQ(again->ledger.groups().size(), 1u);
  EXPECT_EQ(again->ledger.groups().at("shop"), lease(2'000'000, "shop"));
}

// Of two that overlap: what runs is not robbed, and then the many are not for the one.
TEST_F(Leases, OfGroupsThatOverlapOrAreTornAreSetAside) {
  ASSERT_TRUE(write_atomic(path(uuid(1)), format_lease(lease(2'000'000))));
  ASSERT_TRUE(write_atomic(dir.path() + "/group-robber", format_lease(lease(2'000'000))));
  ASSERT_TRUE(write_atomic(path(uuid(2)), format_lease(lease(3'000'000))));
  ASSERT_TRUE(write_atomic(dir.path() + "/group-shop", format_lease(lease(3'000'000))));
  ASSERT_TRUE(write_atomic(dir.path() + "/group-torn", "virtuserns-lease 1\nname"));
  ASSERT_TRUE(write_atomic(dir.path() + "/group-no.name", format_lease(lease(4'000'000))));
  ASSERT_TRUE(write_atomic(dir.path() + "/group-shop.new.7.0", "half"));
  const auto opened = open({uuid(1)});
  ASSERT_TRUE(opened);
  EXPECT_TRUE(opened->ledger.all().count(uuid(1)));
  EXPECT_FALSE(opened->ledger.all().count(uuid(2)));
  ASSERT_EQ(opened->ledger.groups().size(), 1u);
  EXPECT_TRUE(opened->ledger.groups().count("shop"));
  EXPECT_EQ(opened->problems.size(), 3u);
  EXPECT_NE(::access((dir.path() + "/group-shop.new.7.0").c_str(), F_OK), 0);
}

TEST_F(Leases, SecondDaemonIsRefused) {  // F16
  const auto first = open();
  ASSERT_TRUE(first);
  const auto second = open();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, VIR_ERR_RESOURCE_BUSY);
}

TEST_F(Leases, BrokenFilesAreSetAsideAndTheOthersLoad) {  // F15
  {
    auto opened = open();
    ASSERT_TRUE(opened->ledger.write(uuid(1), lease(2'000'000)));
  }
  ASSERT_TRUE(write_atomic(path(uuid(2)), "virtuserns-lease 1\nname x\nuid 0 2"));
  ASSERT_TRUE(write_atomic(path(uuid(3)), ""));
  ASSERT_EQ(::mkfifo(path(uuid(4)).c_str(), 0600), 0);
  ASSERT_EQ(::symlink("/etc/passwd", path(uuid(5)).c_str()), 0);
  ASSERT_EQ(::mkdir(path(uuid(6)).c_str(), 0700), 0);
  ASSERT_TRUE(write_atomic(path(uuid(7)), std::string(100'000, 'x')));
  ASSERT_TRUE(write_atomic(path(uuid(8)), std::string("virtuserns-lease 1\n\0\0sum 0123456789abcdef\n", 42)));
  ASSERT_TRUE(write_atomic(path(uuid(9)) + ".new.12.0", "half"));
  const auto opened = open();
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->ledger.all().size(), 1u);
  EXPECT_EQ(opened->problems.size(), 7u);
  EXPECT_NE(::access((path(uuid(9)) + ".new.12.0").c_str(), F_OK), 0);
  EXPECT_EQ(::access((dir.path() + "/.broken-" + format_uuid(uuid(2))).c_str(), F_OK), 0);
}

TEST_F(Leases, DangerousAndOverlappingOnesAreSetAside) {  // F17
  ASSERT_TRUE(write_atomic(path(uuid(1)), format_lease(lease(2'000'000))));
  ASSERT_TRUE(write_atomic(path(uuid(2)), format_lease(lease(2'000'001))));      // overlaps
  ASSERT_TRUE(write_atomic(path(uuid(3)), format_lease(lease(0))));              // host root
  ASSERT_TRUE(write_atomic(path(uuid(4)), format_lease(lease(4'294'950'000))));  // beyond 2^32
  ASSERT_TRUE(write_atomic(path(uuid(5)),
                           format_lease({"x", {{{0, 3'000'000, 5}, {3, 4'000'000, 5}}, {{0, 3'000'000, 5}}}})));
  const auto opened = open({uuid(2)});
  ASSERT_TRUE(opened);
  ASSERT_EQ(opened->ledger.all().size(), 1u);
  EXPECT_TRUE(opened->ledger.all().count(uuid(2))) << "the lease of the running domain stays";
  EXPECT_EQ(opened->problems.size(), 4u);
}

}  // namespace
