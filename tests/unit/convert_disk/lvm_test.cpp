#include "tools/convert/lvm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/convert_disk/disk_bytes.h"
#include "tools/convert/lvm_text.h"

namespace virtuserns::convert {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kExtent = 4 * 1024 * 1024, kStart = 1024 * 1024;

// The corpus has the beginning of a physical volume of 64 MiB.
std::string physical_volume() {
  auto disk = corpus("lvm/physical");
  disk.resize(64 * 1024 * 1024);
  return disk;
}

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  const auto at = text.find(what);
  return at == std::string::npos ? "not found" : text.replace(at, what.size(), by);
}

TEST(Lvm, ReadsWhatLvm2Writes) {
  const auto disk = physical_volume();
  const auto physical = read_lvm_physical(disk_of(disk));
  ASSERT_TRUE(physical) << physical.error().text;
  ASSERT_TRUE(*physical);
  EXPECT_EQ((*physical)->metadata, corpus("lvm/metadata"));
  const auto volumes = parse_lvm_metadata((*physical)->metadata);
  ASSERT_TRUE(volumes) << volumes.error().text;
  ASSERT_EQ(volumes->size(), 2u);
  EXPECT_EQ((*volumes)[0].name, "root");
  EXPECT_EQ((*volumes)[1].name, "home-dir");
  ASSERT_EQ((*volumes)[1].segments.size(), 1u);
  EXPECT_EQ((*volumes)[1].segments[0].pv, (*physical)->uuid);
  EXPECT_EQ((*volumes)[1].segments[0].offset, kStart + 8 * kExtent);
  EXPECT_EQ((*volumes)[1].segments[0].size, 4 * kExtent);
}

TEST(Lvm, OtherDisksAreNone) {
  const std::string empty(8192, '\0');
  const auto physical = read_lvm_physical(disk_of(empty));
  ASSERT_TRUE(physical);
  EXPECT_FALSE(*physical);
}

TEST(Lvm, RefusesALabelThatLies) {
  const auto good = physical_volume();
  auto disk = good;
  put(disk, 4096 + 40, 1ull << 40, 8);
  put(disk, 4096, crc32(std::string_view(disk).substr(4100, 508), 0xf597a6cf, 0), 4);
  auto physical = read_lvm_physical(disk_of(disk));
  ASSERT_FALSE(physical);
  EXPECT_THAT(physical.error().text, HasSubstr("not within its area"));
  disk = good;
  disk[4096 + 3072] = 'x';  // of the text
  physical = read_lvm_physical(disk_of(disk));
  ASSERT_FALSE(physical);
  EXPECT_THAT(physical.error().text, HasSubstr("checksum"));
}

TEST(Lvm, WhatIsNotLinearIsNamed) {
  const auto text = replaced(corpus("lvm/metadata"), "type = \"striped\"", "type = \"thin\"");
  const auto volumes = parse_lvm_metadata(text);
  ASSERT_TRUE(volumes) << volumes.error().text;
  EXPECT_EQ((*volumes)[0].problem, "of type 'thin'");
  EXPECT_EQ((*volumes)[1].problem, "");
}

TEST(Lvm, RefusesSegmentsOutside) {
  const auto good = corpus("lvm/metadata");
  for (const auto& [from, to] : {std::pair("\"pv0\", 8", "\"pv0\", 14"), std::pair("\"pv0\", 8", "\"pv1\", 8"),
                                 std::pair("extent_size = 8192", "extent_size = 99999999999"),
                                 std::pair("pe_start = 2048", "pe_start = 18446744073709551615"),
                                 std::pair("start_extent = 0", "start_extent = 1")}) {
    const auto volumes = parse_lvm_metadata(replaced(good, from, to));
    EXPECT_FALSE(volumes) << to;
  }
}

TEST(Lvm, TextHasBounds) {
  std::string deep, wide = "a {\n";
  for (int i = 0; i < 100; ++i) deep += "a { ";
  for (int i = 0; i < 30000; ++i) wide += "b = 1\n";
  EXPECT_FALSE(parse_lvm_text(deep));
  EXPECT_FALSE(parse_lvm_text(wide + "}"));
  for (const auto* text : {"a", "a {", "a = ", "a = [1", "a = \"x", "}", "= 1"})
    EXPECT_FALSE(parse_lvm_text(text)) << text;
}

}  // namespace
}  // namespace virtuserns::convert
