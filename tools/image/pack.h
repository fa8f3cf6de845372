// A directory becomes an image: what unpack() makes the same directory of.
#pragma once

#include <string>

#include "conf/base/result.h"
#include "tools/image/options.h"

namespace virtuserns::image {

// `tree` alone, or as what was written over options.lowers by an overlay. `output` is new, and complete when this returns or not
// there; "-" is the standard output. The process has one thread.
[[nodiscard]] Result<Report> pack(const std::string& tree, const std::string& output, const PackOptions& options);

}  // namespace virtuserns::image
