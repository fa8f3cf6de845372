// The hash of a password for a container's /etc/shadow, in a form that every libc of a container knows: SHA-512, "$6$".
#pragma once

#include <string>

#include "conf/base/result.h"

namespace virtuserns::userns {

// With a new salt. `password`: as validate_password takes it.
[[nodiscard]] Result<std::string> hash_password(const std::string& password);

}  // namespace virtuserns::userns
