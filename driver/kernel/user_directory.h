// Directories that a user has named, opened with that user's rights.
#pragma once

#include <sys/types.h>

#include <string>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

// An O_PATH handle of the directory at `path`, followed as the user, who is in no group but `gid`: the supplementary groups of this
// process are gone afterwards. No link of /proc is followed, and nothing of the kernel's own file systems (proc, sysfs, cgroup,
// devpts, ...) is accepted, in which files belong to users that lead elsewhere. errno of the open is in the error.
[[nodiscard]] Result<DirFd> open_directory_as(const std::string& path, uid_t uid, gid_t gid);

}  // namespace virtuserns::kernel
