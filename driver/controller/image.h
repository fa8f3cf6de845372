// The file system in an image or on a block device, as a detached mount.
//
// Other than a directory an image is not only opened but believed: whoever made it speaks to the kernel. So the kind of file
// system comes from a list, what a file system can order the kernel to do beyond itself is refused (driver/image/superblock.h)
// or overruled by options, device nodes in it open nothing, and everything that looks into it before the kernel does is in a
// jail (jail.h).
#pragma once

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/controller/plan.h"
#include "driver/controller/storage.h"

namespace virtuserns::controller {

// Where the file system is, and what it is.
struct FoundFilesystem {
  std::string type;
  std::uint64_t offset_bytes = 0, size_bytes = 0;
};
// What virtuserns-image has printed: "TYPE OFFSET SIZE\n". Refuses other types than those of the list.
[[nodiscard]] Result<FoundFilesystem> parse_found(const std::string& text);

struct ImageContext {
  const ImageHelpersStep& helpers;
  const DirFd& proc;
  const std::string& stage;
  std::vector<StorageDaemon>& running;
};
// Before the caller has a root of its own, in the groups that it is to stay in. The image is locked for as long as it is
// mounted.
[[nodiscard]] Result<MountFd> open_image(const ImageSourceStep& step, const ImageContext& context);

}  // namespace virtuserns::controller
