#include "driver/controller/qcow2.h"

#include <unistd.h>

#include <cstdint>
#include <span>

namespace virtuserns::controller {

namespace {

// qemu's docs/interop/qcow2.txt. Numbers are big-endian.
constexpr std::size_t kHeaderBytes = 80;
constexpr std::uint64_t kMagic = 0x514649fb, kDataFileBit = 1u << 2;
constexpr std::size_t kVersionAt = 4, kBackingOffsetAt = 8, kBackingSizeAt = 16, kIncompatibleAt = 72;
constexpr std::uint64_t kMaxName = 1023;

std::uint64_t number(std::span<const std::uint8_t> bytes, std::size_t at, std::size_t size) {
  std::uint64_t value = 0;
  for (const auto byte : bytes.subspan(at, size)) value = value << 8 | byte;
  return value;
}

}  // namespace

Result<Qcow2Header> read_qcow2_header(const Fd& image) {
  std::uint8_t bytes[kHeaderBytes] = {};
  const auto size = ::pread(image.get(), bytes, sizeof bytes, 0);
  if (size < 0) return sys_fail("read its header");
  if (static_cast<std::size_t>(size) < kIncompatibleAt || number(bytes, 0, 4) != kMagic)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "it is no qcow2 image");
  const auto version = number(bytes, kVersionAt, 4);
  if (version != 2 && version != 3)
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "it is a qcow2 image of unknown version " + std::to_string(version));
  Qcow2Header header;
  header.has_data_file = version == 3 && (number(bytes, kIncompatibleAt, 8) & kDataFileBit) != 0;
  const auto offset = number(bytes, kBackingOffsetAt, 8), length = number(bytes, kBackingSizeAt, 4);
  if (offset == 0) return header;
  if (length == 0 || length > kMaxName || offset > (std::uint64_t{1} << 32))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "its header is damaged: the name of its backing file");
  header.backing.resize(length);
  if (::pread(image.get(), header.backing.data(), length, static_cast<off_t>(offset)) != static_cast<ssize_t>(length))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, "its header is damaged: the name of its backing file is not there");
  return header;
}

}  // namespace virtuserns::controller
