// The bytes of a disk image as a file (served by qemu-storage-daemon in the jail of driver/controller/jail.h), and parts of
// it as block devices (loop). All of it ends with this process, however it ends.
//
// What is mounted from it is in a mount namespace of ours, where the daemon is not: when this process is killed the kernel
// unmounts while the daemon still answers. A daemon that was the last one in the namespace would wait for itself, for ever.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/kernel/device.h"
#include "tools/convert/block_reader.h"
#include "tools/convert/image.h"
#include "driver/kernel/program.h"

namespace virtuserns::convert {

// Once, before anything else is mounted or exported: a private mount namespace, and a folder in it that nobody else
// sees. The process must have one thread.
[[nodiscard]] Result<std::string> make_workplace();

enum class Access { kRead, kWrite };

// One image, open. Not to be written by us while another process has it open, nor the other way round: qemu's locks say
// so of the image and of everything that it is based on. What is not raw may not be a block device.
class OpenDisk {
 public:
  // kWrite: only chain[0] is written. `workplace` is make_workplace()'s.
  [[nodiscard]] static Result<OpenDisk> open(const std::vector<Image>& chain, Access access,
                                             const std::string& workplace);
  [[nodiscard]] const Fd& file() const { return file_; }
  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] BlockReader reader() const { return file_reader(file_, size_); }
  // Everything written is on the disk when this returns. All devices of it must be gone.
  [[nodiscard]] Result<void> close();

 private:
  kernel::Running daemon_;
  Fd file_;
  std::uint64_t size_ = 0;
  std::string image_;
};

// An empty qcow2 on top of `base`, durable. The file must not exist. With its `size` (OpenDisk) the base is not opened, which
// qemu-img does outside of a jail.
[[nodiscard]] Result<Image> make_overlay(const std::string& path, const Image& base,
                                         std::optional<std::uint64_t> size = std::nullopt);
// An empty one on top of nothing.
[[nodiscard]] Result<Image> make_disk(const std::string& path, std::uint64_t size);
// qcow2 only: its tables, without reading data; by qemu-img, in the jail as well.
[[nodiscard]] Result<void> check_image(const Image& image, const std::string& workplace);
// What is in [offset, offset + size) of `from`, to the start of `to`, which is empty: zeroes are not written.
[[nodiscard]] Result<void> copy_part(const OpenDisk& from, std::uint64_t offset, std::uint64_t size,
                                     const OpenDisk& to);

// A block device over a part of the file; it goes when it is neither open nor mounted.
[[nodiscard]] Result<kernel::LoopDevice> attach_part(const Fd& file, std::uint64_t offset, std::uint64_t size,
                                                     Access access);

}  // namespace virtuserns::convert
