// File systems whose kernel half is ours and whose other half is a process without privileges.
#pragma once

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

struct FuseFile {
  MountFd mount;  // one regular file; attached nowhere, so that nobody sees it
  Fd connection;  // for the process that serves it; when the last copy is closed, all that is asked of the file fails
};
// Whoever is given a descriptor of the file may use it, whoever that is.
[[nodiscard]] Result<FuseFile> make_fuse_file();

}  // namespace virtuserns::kernel
