// Which images there are: the format= of <driver> and of <userns:backing>.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace virtuserns {

// By qemu's names. All but "raw" are read by qemu-storage-daemon.
inline constexpr std::string_view kImageFormats[] = {"raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc"};
inline constexpr std::size_t kMaxImageChain = 32;  // an overlay and what is below it

[[nodiscard]] constexpr bool is_image_format(std::string_view name) {
  for (const auto format : kImageFormats)
    if (format == name) return true;
  return false;
}
[[nodiscard]] std::string image_format_names();  // for errors; conf/validate_image.cpp

}  // namespace virtuserns
