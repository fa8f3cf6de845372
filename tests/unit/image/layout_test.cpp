// Where a file system is, and what it must not say of itself. Super blocks are the few bytes that libblkid looks at; real
// ones: conformance images.
#include <gtest/gtest.h>

#include "driver/image/layout.h"
#include "driver/image/superblock.h"
#include "tests/support/memory_file.h"

namespace virtuserns::image {
namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr std::size_t kSector = 512, kPart = 64 * 1024, kSize = 256 * 1024;

void put(Bytes& bytes, std::size_t at, std::uint64_t value, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i, value >>= 8) bytes[at + i] = static_cast<std::uint8_t>(value);
}

// An ext4 with a journal of its own.
void put_ext4(Bytes& bytes, std::size_t at) {
  const std::size_t super = at + 1024;
  put(bytes, super + 0x04, 64, 4);      // blocks, of 1 KiB
  put(bytes, super + 0x38, 0xef53, 2);  // magic
  put(bytes, super + 0x4c, 1, 4);       // revision
  put(bytes, super + 0x5c, 0x4, 4);     // has_journal
  put(bytes, super + 0x60, 0x42, 4);    // extents, file types
  put(bytes, super + 0x68, 1, 4);       // some UUID
  put(bytes, super + 0xe0, 8, 4);       // journal inode
}

// A table of the kind of DOS: partition 2.
Bytes disk(std::uint32_t start = kPart / kSector, std::uint32_t sectors = kPart / kSector) {
  Bytes bytes(kSize);
  const std::size_t entry = 446 + 16;
  put(bytes, 510, 0xaa55, 2);
  put(bytes, entry + 4, 0x83, 1);
  put(bytes, entry + 8, start, 4);
  put(bytes, entry + 12, sectors, 4);
  put_ext4(bytes, kPart);
  return bytes;
}

std::string error_of(const Bytes& bytes, const Wanted& wanted) {
  const auto found = find_filesystem(test::memory_file(bytes), wanted);
  return found ? "found " + found->type : found.error().text;
}

TEST(FindFilesystem, OfAPartition) {
  const auto found = find_filesystem(test::memory_file(disk()), {2});
  ASSERT_TRUE(found) << found.error().text;
  EXPECT_EQ(found->type, "ext4");
  EXPECT_EQ(found->offset_bytes, kPart);
  EXPECT_EQ(found->size_bytes, kPart);
}

TEST(FindFilesystem, OfARegion) {
  const auto found = find_filesystem(test::memory_file(disk()), {0, kPart, 0});
  ASSERT_TRUE(found) << found.error().text;
  EXPECT_EQ(found->offset_bytes, kPart);
  EXPECT_EQ(found->size_bytes, kSize - kPart);
}

TEST(FindFilesystem, SaysWhatIsThereInstead) {
  EXPECT_NE(error_of(disk(), {}).find("partition='N'"), std::string::npos) << error_of(disk(), {});
  EXPECT_NE(error_of(disk(), {3}).find("no partition 3, only 2"), std::string::npos);
  EXPECT_NE(error_of(Bytes(kSize), {1}).find("no partition table"), std::string::npos);
  EXPECT_NE(error_of(Bytes(kSize), {}).find("no file system"), std::string::npos);
  EXPECT_NE(error_of({}, {}).find("ends before byte 0"), std::string::npos);
  EXPECT_NE(error_of(disk(), {0, kSize, 0}).find("ends before"), std::string::npos);
  EXPECT_NE(error_of(disk(), {0, kPart, kSize}).find("has not"), std::string::npos);
  EXPECT_NE(error_of(disk(), {0, ~std::uint64_t{511}, 512}).find("ends before"), std::string::npos);
}

TEST(FindFilesystem, PartitionsThatLieAreRefused) {
  for (const auto& [start, sectors] : {std::pair{0xfffffff0u, 16u}, {128u, 0xffffffffu}, {512u, 1u}, {511u, 2u}})
    EXPECT_NE(error_of(disk(start, sectors), {2}).find("partition"), std::string::npos) << start << " " << sectors;
}

TEST(CheckSuperblock, ExtFilesystemsReachForNothingElse) {
  const auto with = [](std::size_t at, std::uint64_t value, std::size_t size) {
    Bytes bytes(4096);
    put_ext4(bytes, 0);
    put(bytes, 1024 + at, value, size);
    const auto checked = check_superblock(test::memory_file(bytes), "ext4", 0);
    return checked ? std::string() : checked.error().text;
  };
  EXPECT_EQ(with(0, 0, 0), "");
  EXPECT_NE(with(0xe0, 0, 4).find("journal on another device"), std::string::npos);
  EXPECT_NE(with(0xe4, 0x800, 4).find("journal on another device"), std::string::npos);
  EXPECT_NE(with(0x60, 0x8, 4).find("is the journal"), std::string::npos);
  EXPECT_NE(with(0x200, 'x', 1).find("options of mount"), std::string::npos);
  EXPECT_FALSE(check_superblock(test::memory_file(Bytes(1100)), "ext3", 0));
}

TEST(CheckSuperblock, ABtrfsIsOnOneDevice) {
  for (const std::uint64_t devices : {0, 1, 2}) {
    Bytes bytes(65536 + 4096);
    put(bytes, 65536 + 0x88, devices, 8);
    EXPECT_EQ(static_cast<bool>(check_superblock(test::memory_file(bytes), "btrfs", 0)), devices == 1);
  }
  EXPECT_TRUE(check_superblock(test::memory_file({}), "xfs", 0));
}

}  // namespace
}  // namespace virtuserns::image
