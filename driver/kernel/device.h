// Loop devices, and the right to use what is below them.
#pragma once

#include <cstdint>
#include <string>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

enum class Access { kReadWrite, kReadOnly };

// Of an image: its descriptor. The lock belongs to what `image` refers to (fcntl(2), open file description locks), so that a
// loop device on it keeps the lock for exactly as long as there is the loop device, whoever dies. VIR_ERR_RESOURCE_BUSY when
// another one uses the file; qemu's locks, of a running virtual machine, count too, and qemu sees ours. Readers share.
[[nodiscard]] Result<void> lock_image(const Fd& image, Access access);

struct LoopRequest {
  const Fd& backing;  // opened for what `access` says
  std::string name;   // for losetup(8)
  Access access = Access::kReadWrite;
  std::uint64_t offset_bytes = 0, size_bytes = 0;  // size 0: to the end
};
struct LoopDevice {
  Fd device;         // keeps the device until its first mount does
  std::string path;  // "/dev/loop3"
};
// A free loop device, with autoclear: freed by the kernel at the last close or unmount, also after kill -9. Without a page
// cache of its own where the file below can do that.
[[nodiscard]] Result<LoopDevice> attach_loop(const LoopRequest& request);

}  // namespace virtuserns::kernel
