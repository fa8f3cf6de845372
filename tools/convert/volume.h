// What the disks of a machine hold: file systems, on whole disks, in partitions and in logical volumes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "tools/convert/block_reader.h"
#include "tools/convert/findings.h"

namespace virtuserns::convert {

struct Volume {
  std::string disk;                    // "vda": which one it is on
  std::uint64_t offset = 0, size = 0;  // bytes of that disk
  std::string type;                    // ext4, xfs, btrfs, swap, vfat, crypto_LUKS, ...; "": unknown
  std::string uuid, label;             // of the file system
  std::string name;                    // vda, vda1, vg/lv
  std::string part_uuid, part_label;
  std::uint32_t partition = 0;  // 0: a whole disk or a logical volume
  bool operator==(const Volume&) const = default;
};

// A disk that is open. What it names outlives it.
struct DiskView {
  std::string name;
  const Fd* file = nullptr;
  BlockReader bytes;
};

struct Volumes {
  std::vector<Volume> all;
  std::vector<Finding> findings;  // encrypted, not linear, on a disk that is not there
};

// An error: a label that lies.
[[nodiscard]] Result<Volumes> find_volumes(std::span<const DiskView> disks);
// ext2, ext3, ext4, xfs, btrfs: what a container's root can be.
[[nodiscard]] bool is_mountable(const Volume& volume);
// What the guest calls it in fstab: UUID=, LABEL=, PARTUUID=, PARTLABEL=, /dev/disk/by-*/, /dev/vda1, /dev/sda1 of a
// disk that is vda here, /dev/vg/lv, /dev/mapper/vg-lv. nullptr: none of them.
[[nodiscard]] const Volume* resolve_spec(std::span<const Volume> volumes, std::string_view spec);

}  // namespace virtuserns::convert
