// The files of a disk image, by what virt-userns-convert opens disks with.
#pragma once

#include <string>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "tools/convert/image.h"
#include "tools/image/options.h"

namespace virtuserns::image {

// Into the empty directory `to`. Journals are replayed in `work`, not in the image. `workplace`: of convert::make_workplace().
[[nodiscard]] Result<Report> copy_disk(const convert::Image& image, const UnpackOptions& options, const DirFd& to,
                                       const std::string& work, const std::string& workplace);

// The disk itself, as the raw file kWholeDisk of the empty directory `to`. Zeroes are not written.
inline constexpr const char* kWholeDisk = "disk";
[[nodiscard]] Result<Report> copy_whole(const convert::Image& image, const UnpackOptions& options, const DirFd& to,
                                        const std::string& workplace);

}  // namespace virtuserns::image
