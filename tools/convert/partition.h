// Partition tables, read by ourselves: what they say is hostile, and the kernel is not asked to believe it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/convert/block_reader.h"

namespace virtuserns::convert {

struct Partition {
  std::uint32_t number = 0;            // from 1, as in vda1
  std::uint64_t offset = 0, size = 0;  // bytes, within the disk
  std::string uuid;                    // PARTUUID, in lower case
  std::string label;                   // PARTLABEL (GPT), or ""
};

inline constexpr std::size_t kMaxPartitions = 256;

// GPT (also from its second copy, also with sectors of 4096 bytes) or MBR with logical partitions. Empty: there is no
// table. An error: there is one that lies: checksums, ranges outside the disk, partitions that overlap, chains
// without an end.
[[nodiscard]] Result<std::vector<Partition>> read_partitions(const BlockReader& disk);

}  // namespace virtuserns::convert
