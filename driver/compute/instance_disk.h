// What one instance has on the disk of this host, whatever its kind of guest makes of that.
#pragma once

#include <cstdint>
#include <string>

#include "conf/base/result.h"

namespace virtuserns::compute {

class InstanceDisk {
 public:
  virtual ~InstanceDisk() = default;

  [[nodiscard]] virtual std::string image() const = 0;  // the file that goes with the instance to another host
  [[nodiscard]] virtual bool exists() const = 0;
  [[nodiscard]] virtual Result<bool> is_mounted() const = 0;
  // In use by the instance, or about to be; nothing when it is already. A kind that mounts nothing has nothing to do.
  [[nodiscard]] virtual Result<void> mount() const = 0;
  // Nothing when it is not. What still uses it keeps it until then.
  [[nodiscard]] virtual Result<void> unmount() const = 0;
  // Writing waits, until thaw(). Each does nothing when it is so already, or not mounted.
  [[nodiscard]] virtual Result<void> freeze() const = 0;
  [[nodiscard]] virtual Result<void> thaw() const = 0;
  // A greater one, mounted or not. VIR_ERR_OPERATION_UNSUPPORTED: it would have to shrink.
  [[nodiscard]] virtual Result<void> grow(std::uint64_t bytes) const = 0;
  [[nodiscard]] virtual Result<std::uint64_t> size_bytes() const = 0;
  [[nodiscard]] virtual Result<void> remove() const = 0;  // unmounted and gone; nothing when there is none
  // A copy with its holes, while it is not mounted.
  [[nodiscard]] virtual Result<void> copy_to(const std::string& path) const = 0;
};

}  // namespace virtuserns::compute
