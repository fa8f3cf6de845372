// Programs that make an image of what an instance has. A tree may take hours, so there is no limit of time, but one of standing still; and
// whoever is about to destroy the instance ends them.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::compute {

// Paths of a storage that failed are given up within minutes, and the program goes on then.
inline constexpr std::chrono::seconds kPackPatience{600};

// Writes anew to `output`, a regular file, which is its descriptor 1; it is empty after an error. VIR_ERR_NO_DOMAIN: `stop` could be
// read. VIR_ERR_OPERATION_TIMEOUT: for `patience` it has written nothing, nor used the processor, as looking through a tree does.
[[nodiscard]] Result<void> run_packing(const std::vector<std::string>& argv, const Fd& output, const Fd& stop,
                                       std::chrono::seconds patience = kPackPatience);

}  // namespace virtuserns::compute
