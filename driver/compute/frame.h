// Frames of the compute API: four bytes, big-endian, of length, and as many bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::compute {

inline constexpr std::size_t kMaxFrame = 16 * 1024 * 1024;

// Blocks. nullopt: the other side has closed, between frames. A longer frame, or an end in the middle of one, is an error: the
// connection cannot go on. Memory is taken as bytes arrive, not as the length promises.
[[nodiscard]] Result<std::optional<std::string>> read_frame(const Fd& socket);
[[nodiscard]] Result<void> write_frame(const Fd& socket, std::string_view content);

}  // namespace virtuserns::compute
