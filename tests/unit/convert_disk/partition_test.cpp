#include "tools/convert/partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/convert_disk/disk_bytes.h"

namespace virtuserns::convert {
namespace {

using testing::HasSubstr;

constexpr std::size_t kHeader = 512, kEntries = 1024, kEntryBytes = 128;

std::string refusal(const std::string& disk) {
  const auto partitions = read_partitions(disk_of(disk));
  return partitions ? "" : partitions.error().text;
}

// The checksums again, after a change of what they cover.
void seal(std::string& disk) {
  put(disk, kHeader + 88, crc32(std::string_view(disk).substr(kEntries, kEntryBytes * 128)), 4);
  put(disk, kHeader + 16, 0, 4);
  put(disk, kHeader + 16, crc32(std::string_view(disk).substr(kHeader, 92)), 4);
}

TEST(Partition, ReadsWhatSfdiskWrites) {
  const auto disk = corpus("partition/gpt");
  const auto partitions = read_partitions(disk_of(disk));
  ASSERT_TRUE(partitions) << partitions.error().text;
  ASSERT_EQ(partitions->size(), 2u);
  EXPECT_EQ((*partitions)[0].offset, 40u * 512);
  EXPECT_EQ((*partitions)[1].size, 60u * 512);
  EXPECT_EQ((*partitions)[1].number, 2u);
  EXPECT_EQ((*partitions)[1].label, "root");
  EXPECT_EQ((*partitions)[1].uuid.size(), 36u);
}

TEST(Partition, ReadsTheSecondCopy) {
  auto disk = corpus("partition/gpt");
  disk[kHeader] = 'x';
  const auto partitions = read_partitions(disk_of(disk));
  ASSERT_TRUE(partitions) << partitions.error().text;
  EXPECT_EQ(partitions->size(), 2u);
}

TEST(Partition, ReadsLogicalOnes) {
  const auto disk = corpus("partition/mbr-logical");
  const auto partitions = read_partitions(disk_of(disk));
  ASSERT_TRUE(partitions) << partitions.error().text;
  ASSERT_EQ(partitions->size(), 3u);
  EXPECT_EQ((*partitions)[1].number, 5u);
  EXPECT_EQ((*partitions)[1].offset, 32u * 512);
  EXPECT_EQ((*partitions)[2].number, 6u);
  EXPECT_EQ((*partitions)[2].size, 20u * 512);
  EXPECT_EQ((*partitions)[0].uuid, "ea8e050c-01");
}

TEST(Partition, ADiskWithoutATableHasNone) {
  for (const auto& disk : {std::string(), std::string(100, 'x'), std::string(1 << 20, '\0')}) {
    const auto partitions = read_partitions(disk_of(disk));
    ASSERT_TRUE(partitions);
    EXPECT_TRUE(partitions->empty());
  }
}

TEST(Partition, RefusesATableThatLies) {
  const auto good = corpus("partition/gpt");
  auto disk = good;
  put(disk, kEntries + 40, 1u << 30, 8);  // ends far behind the disk
  seal(disk);
  EXPECT_THAT(refusal(disk), HasSubstr("partition 1 is not within the disk"));
  disk = good;
  put(disk, kEntries + 32, 70, 8);
  seal(disk);
  EXPECT_THAT(refusal(disk), HasSubstr("partition 1 is not within the disk"));  // it ends before it begins
  disk = good;
  put(disk, kEntries + 40, 80, 8);
  seal(disk);
  EXPECT_THAT(refusal(disk), HasSubstr("overlaps"));
  disk = good;
  put(disk, kEntries + 40, 50, 8);
  EXPECT_THAT(refusal(disk), HasSubstr("checksum"));
  disk = good;
  put(disk, kHeader + 80, 0xffffffff, 4);
  seal(disk);
  EXPECT_THAT(refusal(disk), HasSubstr("entries of 128 bytes"));
  disk = good;
  put(disk, kHeader + 72, ~0ull, 8);
  seal(disk);
  EXPECT_THAT(refusal(disk), HasSubstr("entries are not within the disk"));
}

TEST(Partition, RefusesAProtectiveTableAlone) {
  auto disk = corpus("partition/gpt");
  disk[kHeader] = disk[disk.size() - 512] = 'x';
  EXPECT_THAT(refusal(disk), HasSubstr("promises a GPT"));
}

TEST(Partition, AChainOfLogicalOnesEnds) {
  auto disk = corpus("partition/mbr-logical");
  const std::size_t first = 30 * 512;
  put(disk, first + 446 + 16 + 8, 0, 4);  // the next is this one
  EXPECT_THAT(refusal(disk), HasSubstr("chain of logical partitions"));
  disk = corpus("partition/mbr-logical");
  put(disk, first + 446 + 8, 0xfffffff0, 4);
  EXPECT_THAT(refusal(disk), HasSubstr("not within the disk"));
}

}  // namespace
}  // namespace virtuserns::convert
