// Where in an image a file system is, and of which kind: partition tables and magic numbers by libblkid.
#pragma once

#include <cstdint>
#include <string>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::image {

struct Wanted {
  std::uint32_t partition = 0;                     // 0: from offset_bytes on
  std::uint64_t offset_bytes = 0, size_bytes = 0;  // size 0: to the end
};
struct Found {
  std::string type;  // of what the kernel can mount: "ext4" also for ext2 and ext3
  std::uint64_t offset_bytes = 0, size_bytes = 0;
};
// Errors name what is there instead.
[[nodiscard]] Result<Found> find_filesystem(const Fd& image, const Wanted& wanted);

}  // namespace virtuserns::image
