// Frames of the compute API: four bytes, big-endian, of length, and as many bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::compute {

inline constexpr std::size_t kMaxFrame = 16 * 1024 * 1024;

// Blocks. nullopt: the other side has closed, between frames. A longer frame, or an end in the middle of one, is an error: the
// connection cannot go on. Memory is taken as bytes arrive, not as the length promises.
[[nodiscard]] Result<std::optional<std::string>> read_frame(const Fd& socket);
// SIGPIPE is ignored in programs that call this.
[[nodiscard]] Result<void> write_frame(const Fd& socket, std::string_view content);
// The same over a unix socket, with a descriptor (SCM_RIGHTS); none came: it is empty.
[[nodiscard]] Result<void> write_frame_with(const Fd& socket, std::string_view content, const Fd& passed);
[[nodiscard]] Result<std::pair<std::string, Fd>> read_frame_with(const Fd& socket);

}  // namespace virtuserns::compute
