// The maps of a user namespace (user_namespaces(7)).
#pragma once

#include <sys/types.h>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "conf/idmap.h"

namespace virtuserns::kernel {

// Writes uid_map and gid_map of `pid`: one write(2) each, as the kernel accepts only one. The caller is privileged over
// the parent namespace, so setgroups stays allowed and any host id may be mapped. Not undone: dies with the namespace.
[[nodiscard]] Result<void> write_id_maps(const DirFd& proc, pid_t pid, const IdMaps& maps);
// A user namespace with these maps and nobody in it: for mounts (set_mount_idmap), and for who enters it later. The caller has
// one thread.
[[nodiscard]] Result<NsFd> make_map_namespace(const DirFd& proc, const IdMaps& maps);

}  // namespace virtuserns::kernel
