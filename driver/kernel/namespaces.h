// How namespaces belong to one another (ioctl_ns(2)). None of this enters one.
#pragma once

#include <cstdint>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

// The inode, which is what /proc/PID/ns shows: two handles are of one namespace when theirs is the same.
[[nodiscard]] Result<std::uint64_t> id_of_namespace(const NsFd& ns);
// Of a user or pid namespace. Error::sys_errno is EPERM when the parent is none of the caller's namespace or below it.
[[nodiscard]] Result<NsFd> parent_of_namespace(const NsFd& ns);
// The user namespace that owns `ns`; EPERM as above.
[[nodiscard]] Result<NsFd> owner_of_namespace(const NsFd& ns);

}  // namespace virtuserns::kernel
