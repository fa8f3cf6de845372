// The input of a fuzzer as a disk.
#pragma once

#include <cstdint>
#include <string>

#include "tools/convert/block_reader.h"

inline virtuserns::convert::BlockReader disk_of(const std::uint8_t* data, std::size_t size) {
  return {size, [data](std::uint64_t offset, std::size_t bytes) -> virtuserns::Result<std::string> {
            return std::string(reinterpret_cast<const char*>(data) + offset, bytes);
          }};
}
