// LVM's labels and metadata (its text format), read by ourselves: enough for linear volumes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/convert/block_reader.h"

namespace virtuserns::convert {

// A run of bytes of a logical volume on one physical volume.
struct LvmSegment {
  std::string pv;  // uuid without dashes
  std::uint64_t offset = 0, size = 0;
};

struct LvmVolume {
  std::string vg, name;
  std::vector<LvmSegment> segments;  // in order; those that touch are one
  std::string problem;               // it is not linear: "striped over 2", "of type 'thin'"
};

struct LvmPhysical {
  std::string uuid;      // without dashes
  std::string metadata;  // the newest text, or "": the group's other volumes have it
};

inline constexpr std::size_t kMaxLvmText = 1024 * 1024;
inline constexpr std::size_t kMaxLvmVolumes = 1024;

// nullopt: no physical volume. An error: its label is right and what follows lies.
[[nodiscard]] Result<std::optional<LvmPhysical>> read_lvm_physical(const BlockReader& volume);
// The visible logical volumes of a group.
[[nodiscard]] Result<std::vector<LvmVolume>> parse_lvm_metadata(std::string_view text);

}  // namespace virtuserns::convert
