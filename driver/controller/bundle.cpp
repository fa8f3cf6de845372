#include "driver/controller/bundle.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace virtuserns::controller {
namespace {

constexpr std::size_t kBlock = 512;
constexpr std::size_t kMostName = 99;

// POSIX.1-1988, "ustar Interchange Format": numbers are octal digits with a NUL.
void put_number(char* field, std::size_t size, std::uint64_t value) {
  field[size - 1] = '\0';
  for (std::size_t i = size - 1; i-- > 0; value >>= 3) field[i] = static_cast<char>('0' + (value & 7));
}

std::array<char, kBlock> header_of(const std::string& name, std::size_t size, std::uint64_t at) {
  std::array<char, kBlock> header{};
  std::memcpy(header.data(), name.data(), name.size());
  put_number(&header[100], 8, 0600);
  put_number(&header[108], 8, 0);
  put_number(&header[116], 8, 0);
  put_number(&header[124], 12, size);
  put_number(&header[136], 12, at);
  std::memset(&header[148], ' ', 8);
  header[156] = '0';
  std::memcpy(&header[257], "ustar\00000", 8);
  unsigned sum = 0;
  for (const char byte : header) sum += static_cast<unsigned char>(byte);
  put_number(&header[148], 7, sum);
  return header;
}

std::uint64_t padded(std::size_t size) { return (size + kBlock - 1) / kBlock * kBlock; }

Result<void> write_all(const Fd& output, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto written = ::write(output.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return sys_fail("write the bundle");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

}  // namespace

Result<void> Bundle::put(const std::string& name, std::string_view content) {
  if (name.empty() || name.size() > kMostName) return fail(VIR_ERR_INTERNAL_ERROR, "a name that no tar has");
  const auto header = header_of(name, content.size(), at_);
  TRY(write_all(output_, {header.data(), header.size()}));
  TRY(write_all(output_, content));
  const std::string padding(padded(content.size()) - content.size(), '\0');
  return write_all(output_, padding);
}

Result<bool> Bundle::add(const std::string& name, std::string_view content) {
  const auto needed = kBlock + padded(content.size());
  if (is_full_ || needed > limit_ - size_) {
    is_full_ = true;
    return false;
  }
  TRY(put(name, content));
  size_ += needed;
  return true;
}

Result<void> Bundle::finish(const std::string& name, std::string_view content) {
  TRY(put(name, content));
  const std::string end(2 * kBlock, '\0');
  return write_all(output_, end);
}

}  // namespace virtuserns::controller
