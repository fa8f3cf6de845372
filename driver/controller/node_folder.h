// A place for device nodes that the container does not see.
#pragma once

#include <fcntl.h>
#include <sys/mount.h>

#include "conf/base/text.h"
#include "conf/base/undo.h"
#include "driver/controller/host.h"
#include "driver/kernel/mount.h"

namespace virtuserns::controller {

// A file system with devices, for as long as the mount of a node that is made in it is attached: the kernel attaches none of what has been
// removed meanwhile.
class NodeFolder {
 public:
  static Result<NodeFolder> make() {
    NodeFolder folder;
    const MountFd tmpfs =
        TRY(kernel::make_filesystem("tmpfs", {{"size", "16k"}, {"mode", "0700"}}, MOUNT_ATTR_NOSUID));
    const Fd place(::open(kPlugNodes, O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!place) return sys_fail("open " + quote(kPlugNodes));
    TRY(kernel::attach_mount(tmpfs, place));
    folder.undo_.add([] { ::umount2(kPlugNodes, MNT_DETACH); });
    folder.dir_ = DirFd(::open(kPlugNodes, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder.dir_) return sys_fail("open " + quote(kPlugNodes));
    return folder;
  }
  [[nodiscard]] const DirFd& dir() const { return dir_; }

 private:
  Undo undo_;
  DirFd dir_;
};

}  // namespace virtuserns::controller
