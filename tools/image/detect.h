// What an image is, by its first bytes.
#pragma once

#include <string>
#include <string_view>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "tools/image/root_tar.h"

namespace virtuserns::image {

inline constexpr const char* kRootTar = "root-tar";

struct Detected {
  std::string format;  // "raw", "qcow2", ..., kRootTar
  Compression compression = Compression::kNone;
};

// `wanted`: as the cloud's catalogue calls it (raw, qcow2, vmdk, vdi, vhd, vhdx, root-tar); an error where `start` is something
// else. Empty: by `start` alone, which are the first kStartBytes of the file, if there are as many.
inline constexpr std::size_t kStartBytes = 512;
[[nodiscard]] Result<Detected> detect(std::string_view start, const std::string& wanted);

}  // namespace virtuserns::image
