// Places in a guest's tree, by descriptor: for guest_files.cpp and originals.cpp only.
#pragma once

#include <string>
#include <utility>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::convert {

// "/etc//fstab" is {"etc", "fstab"}. VIR_ERR_INVALID_ARG for a path without a last component, or with a NUL, "." or "..":
// such paths come from our rules and manifests, never from a guest.
[[nodiscard]] Result<std::pair<std::string, std::string>> split_path(const std::string& path);

// openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS), close-on-exec. errno in the error.
[[nodiscard]] Result<Fd> open_in_root(const DirFd& root, const std::string& path, int flags);
// The directory, to be read and synced.
[[nodiscard]] Result<DirFd> open_directory_in_root(const DirFd& root, const std::string& path);

// A new file beside its final place, renamed over it: owner, mode, attributes and times are set before.
inline constexpr const char* kTempName = ".virtuserns-convert.tmp";

}  // namespace virtuserns::convert
