// Bytes of a disk, as the parsers of its labels see them: a size, and a function that reads.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::convert {

inline constexpr std::size_t kMaxRead = 4 * 1024 * 1024;

struct BlockReader {
  std::uint64_t size = 0;
  // Exactly `bytes` from `offset`. Only read_at() calls it.
  std::function<Result<std::string>(std::uint64_t offset, std::size_t bytes)> read;
};

// Exactly `bytes`, or an error: also where the range is not within the disk or beyond kMaxRead.
[[nodiscard]] Result<std::string> read_at(const BlockReader& disk, std::uint64_t offset, std::size_t bytes);
// Of an open file or device, which must outlive it.
[[nodiscard]] BlockReader file_reader(const Fd& file, std::uint64_t size);
// A part of another one, which must outlive it. The range is within it.
[[nodiscard]] BlockReader part_reader(const BlockReader& disk, std::uint64_t offset, std::uint64_t size);

// Little-endian numbers of a text that is long enough: the caller has checked.
[[nodiscard]] std::uint16_t le16(std::string_view text, std::size_t at);
[[nodiscard]] std::uint32_t le32(std::string_view text, std::size_t at);
[[nodiscard]] std::uint64_t le64(std::string_view text, std::size_t at);
// The CRC-32 of GPT (`seed` and `final_xor` all ones) and of LVM (its own seed, none).
[[nodiscard]] std::uint32_t crc32(std::string_view text, std::uint32_t seed = 0xffffffff,
                                  std::uint32_t final_xor = 0xffffffff);

}  // namespace virtuserns::convert
