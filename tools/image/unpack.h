// An image becomes a directory.
#pragma once

#include <string>

#include "conf/base/result.h"
#include "tools/image/options.h"

namespace virtuserns::image {

// The directory is complete and on the disk when this returns, or not there. The process has one thread.
[[nodiscard]] Result<Report> unpack(const std::string& source, const std::string& directory, UnpackOptions options);

}  // namespace virtuserns::image
