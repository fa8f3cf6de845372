// Block devices of the host, as the nodes of volumes.
#pragma once

#include <cstdint>
#include <string>

#include "conf/base/result.h"

namespace virtuserns::compute {

// A loop device has to be told that its file has another size; others know.
[[nodiscard]] Result<void> notice_size(const std::string& device);
// Every byte, holes staying holes where both can; durable. VIR_ERR_INVALID_ARG: `target` is smaller. Nobody may write to either meanwhile.
[[nodiscard]] Result<void> copy_blocks(const std::string& source, const std::string& target);
// e2fsck, which repairs what needs no decision. VIR_ERR_OPERATION_FAILED: it is no ext file system, or a damaged one.
[[nodiscard]] Result<void> check_filesystem(const std::string& device);

// The ext4 of a device that is mounted somewhere: writing waits from freeze_ to thaw_, in whatever mounts there are (ioctl_fsfreeze).
// Each does nothing when it is so already. Not of a device that is mounted nowhere: it would be, for a moment.
[[nodiscard]] Result<void> freeze_filesystem(const std::string& device);
[[nodiscard]] Result<void> thaw_filesystem(const std::string& device);

}  // namespace virtuserns::compute
