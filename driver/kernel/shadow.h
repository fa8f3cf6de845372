// A password in a container's own /etc/shadow.
//
// Done on whatever lies there: by container root in the mount namespace of a container that runs (controller/plug_mounts.h), or by root in
// the tree of one that is off (compute/tree.h). What is no regular file, too long, or changes meanwhile is an error, and nobody but the
// container has to do with what becomes of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

inline constexpr std::size_t kMaxShadowBytes = 1024 * 1024;

// `text` with the second field of the user's first line replaced, and the third, the day of the last change, where that line has one;
// all else as it was. VIR_ERR_INVALID_ARG: there is no such line.
[[nodiscard]] Result<std::string> replace_hash(std::string_view text, std::string_view user, std::string_view hash,
                                               std::uint32_t day);
// Under the lock of lckpwdf(3), which is waited for at most `patience_ms` (VIR_ERR_RESOURCE_BUSY); a new file of the old one's mode and owner takes its
// place, so that whoever reads sees one or the other. VIR_ERR_OPERATION_UNSUPPORTED: there is none.
[[nodiscard]] Result<void> set_password_below(const DirFd& root, const std::string& user, const std::string& hash,
                                              int patience_ms = 3'000);

}  // namespace virtuserns::kernel
