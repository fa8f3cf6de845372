// What a file system says of itself that it must not order the kernel to do.
#pragma once

#include <string_view>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::image {

// `type`: libblkid's name of the file system that begins at `offset_bytes` of `image`. VIR_ERR_CONFIG_UNSUPPORTED when it
// reaches for another device of the host (ext4's external journal, a btrfs of several devices), or brings options of mount along.
[[nodiscard]] Result<void> check_superblock(const Fd& image, std::string_view type, std::uint64_t offset_bytes);

}  // namespace virtuserns::image
