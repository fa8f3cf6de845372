#include "tools/convert/block_reader.h"

#include <unistd.h>

#include <array>

namespace virtuserns::convert {
namespace {

std::uint64_t little_endian(std::string_view text, std::size_t at, std::size_t bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes; i-- > 0;) value = value << 8 | static_cast<unsigned char>(text[at + i]);
  return value;
}

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
    table[i] = value;
  }
  return table;
}
constexpr auto kCrcTable = make_crc_table();

}  // namespace

Result<std::string> read_at(const BlockReader& disk, std::uint64_t offset, std::size_t bytes) {
  if (bytes > kMaxRead || offset > disk.size || bytes > disk.size - offset)
    return fail(VIR_ERR_OPERATION_FAILED, "bytes " + std::to_string(offset) + " to +" + std::to_string(bytes) +
                                              " are not within its " + std::to_string(disk.size));
  auto text = TRY(disk.read(offset, bytes));
  if (text.size() != bytes) return fail(VIR_ERR_OPERATION_FAILED, "it ends before its size");
  return text;
}

BlockReader file_reader(const Fd& file, std::uint64_t size) {
  return {size, [fd = file.get()](std::uint64_t offset, std::size_t bytes) -> Result<std::string> {
            std::string text(bytes, '\0');
            std::size_t done = 0;
            while (done < bytes) {
              const auto got = ::pread(fd, text.data() + done, bytes - done, static_cast<off_t>(offset + done));
              if (got < 0 && errno == EINTR) continue;
              if (got < 0) return sys_fail("read");
              if (got == 0) break;
              done += static_cast<std::size_t>(got);
            }
            text.resize(done);
            return text;
          }};
}

BlockReader part_reader(const BlockReader& disk, std::uint64_t offset, std::uint64_t size) {
  return {size, [&disk, offset](std::uint64_t at, std::size_t bytes) { return read_at(disk, offset + at, bytes); }};
}

std::uint16_t le16(std::string_view text, std::size_t at) {
  return static_cast<std::uint16_t>(little_endian(text, at, 2));
}
std::uint32_t le32(std::string_view text, std::size_t at) {
  return static_cast<std::uint32_t>(little_endian(text, at, 4));
}
std::uint64_t le64(std::string_view text, std::size_t at) { return little_endian(text, at, 8); }

std::uint32_t crc32(std::string_view text, std::uint32_t seed, std::uint32_t final_xor) {
  std::uint32_t crc = seed;
  for (const char c : text) crc = kCrcTable[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ crc >> 8;
  return crc ^ final_xor;
}

}  // namespace virtuserns::convert
