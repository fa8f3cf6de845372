// Disks that are in memory.
#pragma once

#include <string>

#include "conf/base/file.h"
#include "tools/convert/block_reader.h"

namespace virtuserns::convert {

// `bytes` outlives it.
inline BlockReader disk_of(const std::string& bytes) {
  return {bytes.size(), [&bytes](std::uint64_t offset, std::size_t count) -> Result<std::string> {
            return bytes.substr(offset, count);
          }};
}

// What sfdisk, lvm2 and qemu-img have written.
inline std::string corpus(const std::string& name) {
  auto text = read_file(std::string(CORPUS) + "/" + name);
  return text ? *text : "";
}

inline void put(std::string& bytes, std::size_t at, std::uint64_t value, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) bytes[at + i] = static_cast<char>(value >> 8 * i & 0xff);
}

}  // namespace virtuserns::convert
