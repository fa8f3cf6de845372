// Loop devices.
#pragma once

#include <string>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

enum class LoopAccess { kReadWrite, kReadOnly };
struct LoopDevice {
  Fd device;         // keeps the device until its first mount does
  std::string path;  // "/dev/loop3"
};
// A free loop device on `file`, with autoclear: freed by the kernel at the last close or unmount, also after kill -9.
[[nodiscard]] Result<LoopDevice> attach_loop(const std::string& file, LoopAccess access);

}  // namespace virtuserns::kernel
