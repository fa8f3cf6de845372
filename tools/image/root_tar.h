// Archives of a root file system, read and written by libarchive in a confined child (confined.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "tools/image/options.h"

namespace virtuserns::image {

enum class Compression { kNone, kGzip, kXz, kZstd, kBzip2 };

// Everything of a tar archive into the directory that is this process's root. Called in the child only.
[[nodiscard]] Result<std::string> extract_archive(const Fd& archive, Compression compression, const Limits& limits);
// The directory that is this process's root as a PAX archive. Both answer what Tally::decode() reads.
[[nodiscard]] Result<std::string> create_archive(const Fd& output);

}  // namespace virtuserns::image
