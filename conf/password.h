// A password that is to be set in a domain: what may be asked for, and its hash.
#pragma once

#include <string>

#include "conf/base/result.h"

namespace virtuserns {

enum class PasswordForm { kPlain, kHashed };

// As a line of /etc/shadow takes them. VIR_ERR_INVALID_ARG, never with the password in it.
[[nodiscard]] Result<void> validate_password(const std::string& user, const std::string& password, PasswordForm form);

// Of a plain one, for a container's /etc/shadow, with a new salt, in a form that every libc of a container knows: SHA-512, "$6$".
[[nodiscard]] Result<std::string> hash_password(const std::string& password);

}  // namespace virtuserns
