// The disk of an instance that is a container: an ext4 of the flavor's size in a sparse file, so that the instance can fill it and nothing
// else. What the instance writes is in a directory of it (an overlay over the image's base), config drive and console log lie beside it.
//
//   <instance>/disk.img   the file system
//   <instance>/disk       where it is mounted while the instance is on, or is looked at; nodev
//   <instance>/disk/root, <instance>/disk/rescue   sources of overlays, made by the hypervisor's driver
//
// Called by the adapter as the machine's root, in the host's mount namespace: the hypervisor's daemon opens these paths. What is mounted stays
// when the adapter dies, and is found again. Loop devices end with their mounts.
#pragma once

#include <cstdint>
#include <string>

#include "conf/base/result.h"
#include "driver/compute/instance_disk.h"

namespace virtuserns::compute {

class Disk final : public InstanceDisk {
 public:
  explicit Disk(std::string folder) : folder_(std::move(folder)) {}

  [[nodiscard]] std::string image() const override { return folder_ + "/disk.img"; }
  [[nodiscard]] std::string place() const { return folder_ + "/disk"; }
  [[nodiscard]] std::string root() const { return place() + "/root"; }
  [[nodiscard]] std::string rescue() const { return place() + "/rescue"; }

  [[nodiscard]] bool exists() const override;
  // A new one; durable. Undone by remove().
  [[nodiscard]] Result<void> create(std::uint64_t bytes) const;
  [[nodiscard]] Result<bool> is_mounted() const override;
  // Mounted, with root() and rescue() there; nothing when it is already.
  [[nodiscard]] Result<void> mount() const override;
  // "/dev/loop3", while it is mounted; else empty.
  [[nodiscard]] Result<std::string> device() const;
  // Nothing when it is not. What still uses it keeps it until then.
  [[nodiscard]] Result<void> unmount() const override;
  // Writing waits, until thaw(); FIFREEZE of ioctl_fsfreeze. Each does nothing when it is so already, or not mounted.
  [[nodiscard]] Result<void> freeze() const override;
  [[nodiscard]] Result<void> thaw() const override;
  // A greater one, mounted or not. VIR_ERR_OPERATION_UNSUPPORTED: it would have to shrink.
  [[nodiscard]] Result<void> grow(std::uint64_t bytes) const override;
  [[nodiscard]] Result<std::uint64_t> size_bytes() const override;
  [[nodiscard]] Result<void> remove() const override;  // unmounted and gone; nothing when there is none
  // A copy with its holes, while it is not mounted.
  [[nodiscard]] Result<void> copy_to(const std::string& path) const override;

 private:
  std::string folder_;
};

// A new sparse file with an empty file system; durable, but for its name. When it fails there is none.
[[nodiscard]] Result<void> format_disk(const std::string& path, std::uint64_t bytes);

// rm -r, never through a link or into another mount; nothing when it is not there.
[[nodiscard]] Result<void> remove_tree(const std::string& path);

}  // namespace virtuserns::compute
