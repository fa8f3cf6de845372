// A tree that is read: one directory, or several as an overlay shows them.
#pragma once

#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::image {

// A detached, read-only mount of `layers` (the uppermost first) as one tree; marks of what is gone, of trusted.overlay, are
// understood, and none of them leads to another name below. `ids`: every layer is idmapped by it, if there is one.
[[nodiscard]] Result<MountFd> mount_layers(const std::vector<std::string>& layers, const NsFd* ids,
                                           const std::string& workplace);

}  // namespace virtuserns::image
