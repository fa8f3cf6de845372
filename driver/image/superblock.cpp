#include "driver/image/superblock.h"

#include <unistd.h>

#include <array>
#include <span>

namespace virtuserns::image {

namespace {

// The kernel's fs/ext4/ext4.h, struct ext4_super_block. Little-endian, as btrfs.
constexpr std::uint64_t kExtAt = 1024;
constexpr std::size_t kExtCompatible = 0x5c, kExtIncompatible = 0x60, kExtJournalInode = 0xe0,
                      kExtJournalDevice = 0xe4, kExtMountOptions = 0x200;
constexpr std::uint32_t kHasJournal = 0x4, kIsJournal = 0x8;
// include/uapi/linux/btrfs_tree.h, struct btrfs_super_block.
constexpr std::uint64_t kBtrfsAt = 65536;
constexpr std::size_t kBtrfsDevices = 0x88;

using Block = std::array<std::uint8_t, 1024>;

std::uint64_t number(const Block& block, std::size_t at, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = size; i-- > 0;) value = value << 8 | block[at + i];
  return value;
}

Result<Block> read_block(const Fd& image, std::uint64_t at) {
  Block block{};
  if (::pread(image.get(), block.data(), block.size(), static_cast<off_t>(at)) != static_cast<ssize_t>(block.size()))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "the image is too short for its file system");
  return block;
}

Error refuse(const char* what) { return fail(VIR_ERR_CONFIG_UNSUPPORTED, what); }

Result<void> check_ext(const Block& block) {
  const auto compatible = number(block, kExtCompatible, 4);
  if ((number(block, kExtIncompatible, 4) & kIsJournal) != 0)
    return refuse("it is the journal of another ext4 file system, and none itself");
  const bool is_elsewhere = number(block, kExtJournalDevice, 4) != 0 ||
                            ((compatible & kHasJournal) != 0 && number(block, kExtJournalInode, 4) == 0);
  if (is_elsewhere)
    return refuse(
        "the ext4 file system has its journal on another device, whose number it names: it is not followed; give "
        "it one of its own (tune2fs -O ^has_journal, then -j)");
  if (block[kExtMountOptions] != 0)
    return refuse(
        "the ext4 file system brings options of mount along, which could name devices of the host: remove them "
        "(tune2fs -E mount_opts=)");
  return {};
}

}  // namespace

Result<void> check_superblock(const Fd& image, std::string_view type, std::uint64_t offset_bytes) {
  if (type == "ext2" || type == "ext3" || type == "ext4")
    return check_ext(TRY(read_block(image, offset_bytes + kExtAt)));
  if (type == "btrfs" && number(TRY(read_block(image, offset_bytes + kBtrfsAt)), kBtrfsDevices, 8) != 1)
    return refuse("the btrfs is spread over several devices, which is not supported");
  return {};
}

}  // namespace virtuserns::image
