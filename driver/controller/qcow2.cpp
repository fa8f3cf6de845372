#include "driver/controller/qcow2.h"

#include <unistd.h>

#include <cstdint>

namespace virtuserns::controller {

namespace {

// qemu's docs/interop/qcow2.txt. Numbers are big-endian.
constexpr std::string_view kMagic{"QFI\xfb", 4};
constexpr std::size_t kVersionAt = 4, kBackingOffsetAt = 8, kBackingSizeAt = 16, kEncryptionAt = 32;
constexpr std::size_t kBytesOfVersion2 = 72, kIncompatibleAt = 72, kHeaderSizeAt = 100, kBytesOfVersion3 = 104;
constexpr std::uint64_t kDirtyBit = 1, kCorruptBit = 2, kDataFileBit = 4;
constexpr std::uint64_t kEndOfExtensions = 0, kBackingFormat = 0xe2792aca;
constexpr std::uint64_t kMaxName = 1023;

std::uint64_t number(std::string_view bytes, std::size_t at, std::size_t size) {
  std::uint64_t value = 0;
  for (const char byte : bytes.substr(at, size)) value = value << 8 | static_cast<std::uint8_t>(byte);
  return value;
}

Error damaged(const std::string& how) { return fail(VIR_ERR_CONFIG_UNSUPPORTED, "its header is damaged: " + how); }

Result<std::string> find_backing_format(std::string_view extensions) {
  for (std::size_t at = 0; at + 8 <= extensions.size();) {
    const auto type = number(extensions, at, 4), bytes = number(extensions, at + 4, 4);
    if (type == kEndOfExtensions) return std::string();
    if (bytes > extensions.size() - at - 8) break;
    if (type == kBackingFormat) return std::string(extensions.substr(at + 8, bytes));
    at += 8 + (bytes + 7) / 8 * 8;
  }
  return damaged("its extensions do not end");
}

// Of version 3, which says so itself; its flags go to `header`.
Result<std::size_t> read_version_3(std::string_view start, Qcow2Header& header) {
  if (start.size() < kBytesOfVersion3) return damaged("it is cut short");
  const auto features = number(start, kIncompatibleAt, 8);
  header.is_unclean = (features & kDirtyBit) != 0;
  header.is_corrupt = (features & kCorruptBit) != 0;
  header.has_data_file = (features & kDataFileBit) != 0;
  const auto bytes = number(start, kHeaderSizeAt, 4);
  if (bytes < kBytesOfVersion3 || bytes > start.size()) return damaged("it is cut short");
  return bytes;
}

}  // namespace

Result<Qcow2Header> parse_qcow2_header(std::string_view start) {
  if (start.size() < kBytesOfVersion2 || !start.starts_with(kMagic))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "it is no qcow2 image");
  const auto version = number(start, kVersionAt, 4);
  if (version != 2 && version != 3)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "it is a qcow2 image of unknown version " + std::to_string(version));
  Qcow2Header header;
  const std::size_t header_bytes = version == 3 ? TRY(read_version_3(start, header)) : kBytesOfVersion2;
  header.is_encrypted = number(start, kEncryptionAt, 4) != 0;
  const auto offset = number(start, kBackingOffsetAt, 8), length = number(start, kBackingSizeAt, 4);
  if (offset == 0) return header;
  // Extensions are before the name, the name within the first cluster.
  if (length == 0 || length > kMaxName || offset < header_bytes || offset > start.size() ||
      length > start.size() - offset)
    return damaged("the name of its backing file is not within it");
  header.backing = start.substr(offset, length);
  header.backing_format = TRY(find_backing_format(start.substr(header_bytes, offset - header_bytes)));
  return header;
}

Result<Qcow2Header> read_qcow2_header(const Fd& image) {
  std::string start(kQcow2HeaderBytes, '\0');
  const auto size = ::pread(image.get(), start.data(), start.size(), 0);
  if (size < 0) return sys_fail("read its header");
  return parse_qcow2_header(std::string_view(start).substr(0, static_cast<std::size_t>(size)));
}

}  // namespace virtuserns::controller
