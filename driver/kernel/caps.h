// Capability sets of the calling thread (capabilities(7)), without libcap: only numbers are needed here.
#pragma once

#include <cstdint>

#include "conf/base/result.h"

namespace virtuserns::kernel {

// Takes everything that is not in `keep` out of the bounding set. Needs CAP_SETPCAP. Cannot be undone.
[[nodiscard]] Result<void> limit_bounding_set(std::uint64_t keep);
// Permitted and effective become `keep` as far as they are permitted now; inheritable and ambient become empty.
[[nodiscard]] Result<void> limit_capabilities(std::uint64_t keep);

}  // namespace virtuserns::kernel
