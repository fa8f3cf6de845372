// Disk images: what a file says that it is, and the files behind it, before any program believes it.
//
// The headers are read by ourselves, because a program that opens an image opens whatever the image names: a backing
// file /etc/shadow, data on another host, a device that starts when it is opened.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::convert {

// A file of a chain, as it was when it was looked at: what changes of it is said later.
struct Image {
  std::string path;    // absolute, without links
  std::string format;  // qcow2, raw, vmdk, vdi, vhdx, vpc
  std::uint64_t inode = 0, bytes = 0;
  std::int64_t changed_s = 0, changed_ns = 0;  // mtime
  bool operator==(const Image&) const = default;
};

inline constexpr std::size_t kMaxChain = 32;

// The image and what it is based on, itself first. `format`: as the XML or a person says; empty: by its first bytes.
// Every backing file is a regular file or block device below one of `folders` (the folder of the first image is always
// one), its format is written down in the image before it, and no name is a URL or JSON.
[[nodiscard]] Result<std::vector<Image>> read_chain(const std::string& path, const std::string& format,
                                                    const std::vector<std::string>& folders);
// An image that is complete by itself: one whose header names a backing file or data elsewhere is refused, and what it names
// is not opened.
[[nodiscard]] Result<Image> read_whole_image(const std::string& path, const std::string& format);
// The file alone, whatever it is based on.
[[nodiscard]] Result<Image> read_image(const std::string& path, const std::string& format);
// An error: the file is not what it was.
[[nodiscard]] Result<void> check_unchanged(const Image& image);

// A vmdk in one file of its own; else an error. `start` has its descriptor, if there is one within 64 KiB.
[[nodiscard]] Result<void> check_vmdk_header(std::string_view start);
// By its first bytes; "raw" for everything else.
[[nodiscard]] std::string guess_format(std::string_view start);

}  // namespace virtuserns::convert
