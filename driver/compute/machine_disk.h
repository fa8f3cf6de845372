// The disk of an instance that is a machine: a qcow2 over its image, which is raw and linked beside it, so that the hypervisor's user needs no
// way into the cache, and the name in the header means the same on every host.
//
//   <instance>/disk.qcow2     what the machine has written, over
//   <instance>/base.raw       the image, another name of the cache's file
//   <instance>/rescue.qcow2, <instance>/rescue-base.raw   while it is rescued
//
// The header is ours: qemu-img writes it without opening what is below, and a guest reaches what is behind it only.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "driver/compute/instance_disk.h"

namespace virtuserns::compute {

class MachineDisk final : public InstanceDisk {
 public:
  // `name`: "disk" or "rescue"; `base`: the name of its image beside it.
  MachineDisk(std::string folder, const std::string& name, std::string base)
      : folder_(std::move(folder)), image_(folder_ + "/" + name + ".qcow2"), base_(std::move(base)) {}
  static MachineDisk own(const std::string& folder) { return {folder, "disk", "base.raw"}; }
  static MachineDisk rescue(const std::string& folder) { return {folder, "rescue", "rescue-base.raw"}; }

  // A new one of `bytes` over the file `image` of the cache, which stays root's, and which `readers` may read. kImageTooLarge: the image is larger. Undone by remove().
  [[nodiscard]] Result<void> create(const std::string& image, std::uint64_t bytes,
                                    std::optional<gid_t> readers) const;
  [[nodiscard]] std::string base() const { return folder_ + "/" + base_; }

  [[nodiscard]] std::string image() const override { return image_; }
  [[nodiscard]] bool exists() const override;
  [[nodiscard]] Result<bool> is_mounted() const override { return false; }
  [[nodiscard]] Result<void> mount() const override { return {}; }
  [[nodiscard]] Result<void> unmount() const override { return {}; }
  [[nodiscard]] Result<void> freeze() const override { return {}; }
  [[nodiscard]] Result<void> thaw() const override { return {}; }
  [[nodiscard]] Result<void> grow(std::uint64_t bytes) const override;
  [[nodiscard]] Result<std::uint64_t> size_bytes() const override;
  [[nodiscard]] Result<void> remove() const override;
  [[nodiscard]] Result<void> copy_to(const std::string& path) const override;

 private:
  std::string folder_, image_, base_;
};

}  // namespace virtuserns::compute
