// Images of other formats than raw: qemu-storage-daemon, in a jail, as the other half of a FUSE file system that consists of the
// disk as one file.
#pragma once

#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/controller/plan.h"
#include "driver/kernel/device.h"

namespace virtuserns::controller {

// Lives as long as the domain, and not longer than whoever started it. When it has ended, its disk answers EIO.
struct StorageDaemon {
  PidFd process;
  Fd errors;  // what it prints; empty: nobody listens any more
  std::string image;
  std::size_t told = 0;  // times that it was listened to
};

// A file of the host that is there still when something else has its name.
struct OpenImage {
  Fd file;                // by which it can be opened; O_PATH
  bool is_block = false;  // else a regular file
};
// Neither a FIFO nor anything else that does something when it is opened.
[[nodiscard]] Result<OpenImage> find_image(const std::string& path);
// What is behind an O_PATH descriptor or a mount of one file; `flags` as of open(2).
[[nodiscard]] Result<Fd> reopen(const DirFd& proc, const Fd& place, int flags);

[[nodiscard]] constexpr kernel::Access access_of(const ImageSourceStep& step) {
  return step.is_readonly ? kernel::Access::kReadOnly : kernel::Access::kReadWrite;
}

// The disk in `step.chain` as an open file. What serves it is added to `running`. What the image's own header names is not
// looked at, but for saying that it is needed: all that the daemon has are the files of `chain`.
[[nodiscard]] Result<Fd> serve_disk(const ImageSourceStep& step, const ImageHelpersStep& helpers, const DirFd& proc,
                                    const std::string& stage, std::vector<StorageDaemon>& running);
// After what was mounted from it is unmounted. It writes what it holds, and ends.
void end_storage(std::vector<StorageDaemon>& running);

}  // namespace virtuserns::controller
