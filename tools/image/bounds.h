// How much an image may have, and what is said of one that has more.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::image {

struct Bound {
  std::uint64_t most;
  bool is_room = false;  // it is what the file system can spare, and nobody's wish
};

struct Limits {
  Bound bytes{std::numeric_limits<std::uint64_t>::max()};  // on the disk
  Bound entries{4'000'000};
};

// The code of an error of an image that is larger than it may be anywhere. Of one that there is no room for here the errno is ENOSPC.
inline constexpr int kTooLarge = VIR_ERR_OVERFLOW;
// `has`: "it needs"; `unit`: "bytes".
[[nodiscard]] Error exceeds(const Bound& bound, std::string_view has, std::string_view unit);

// No image takes the last of what the file system of `root` has (spare_of()).
[[nodiscard]] Result<void> bound_by_room(Limits& limits, const DirFd& root, unsigned reserve_percent);

}  // namespace virtuserns::image
