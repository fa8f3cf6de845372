// One place of a guest's tree: what stands there, all of it that can be kept, and putting it there. For originals.cpp.
#pragma once

#include <string>
#include <string_view>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "tools/convert/manifest.h"

namespace virtuserns::convert {

inline constexpr std::size_t kMaxOriginalBytes = 16 * 1024 * 1024;

struct Place {
  PlaceState state;
  std::string content;  // of a file
};

// `name` in `parent`, not followed. VIR_ERR_OPERATION_UNSUPPORTED for what is neither a file, a link nor nothing, and
// for a file of more than kMaxOriginalBytes.
[[nodiscard]] Result<Place> read_place(const DirFd& parent, const std::string& name);

// kAll: as `state` says. kOwner: owner, mode and attributes, with times of now. Written beside it under kTempName and
// renamed, so that the place holds the old or the new at any time; not yet durable.
enum class Keep { kAll, kOwner };
[[nodiscard]] Result<void> put_place(const DirFd& parent, const std::string& name, const PlaceState& state,
                                     std::string_view content, Keep keep);

}  // namespace virtuserns::convert
