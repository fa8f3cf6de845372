// Whether somebody in a container answers, as its neighbours would ask.
#pragma once

#include <cstdint>
#include <string>

#include "conf/base/result.h"

namespace virtuserns::convert {

// Tries again and again to connect to that TCP port of an address that the container has. False: not within `limit_ms`.
[[nodiscard]] Result<bool> wait_for_port(const std::string& uri, const std::string& uuid, std::uint16_t port,
                                         std::uint32_t limit_ms);

}  // namespace virtuserns::convert
