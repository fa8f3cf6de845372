// What a qcow2 header says of other files.
#include <gtest/gtest.h>

#include "driver/controller/qcow2.h"
#include "tests/support/memory_file.h"

namespace virtuserns::controller {
namespace {

using Bytes = std::vector<std::uint8_t>;

void put(Bytes& bytes, std::size_t at, std::uint64_t value, std::size_t size) {
  for (std::size_t i = size; i-- > 0; value >>= 8) bytes[at + i] = static_cast<std::uint8_t>(value);
}

Bytes header(const std::string& backing = {}) {
  Bytes bytes(512);
  put(bytes, 0, 0x514649fb, 4);
  put(bytes, 4, 3, 4);
  put(bytes, 100, 104, 4);
  if (backing.empty()) return bytes;
  put(bytes, 8, 256, 8);
  put(bytes, 16, backing.size(), 4);
  std::copy(backing.begin(), backing.end(), bytes.begin() + 256);
  return bytes;
}

std::string error_of(const Bytes& bytes) {
  const auto read = read_qcow2_header(test::memory_file(bytes));
  return read ? std::string() : read.error().text;
}

TEST(Qcow2Header, SaysWhatItLiesOn) {
  EXPECT_EQ(read_qcow2_header(test::memory_file(header()))->backing, "");
  EXPECT_EQ(read_qcow2_header(test::memory_file(header("/etc/shadow")))->backing, "/etc/shadow");
}

TEST(Qcow2Header, SaysThatItsDataIsElsewhere) {
  auto bytes = header();
  EXPECT_FALSE(read_qcow2_header(test::memory_file(bytes))->has_data_file);
  put(bytes, 72, 4, 8);
  EXPECT_TRUE(read_qcow2_header(test::memory_file(bytes))->has_data_file);
  put(bytes, 4, 2, 4);  // version 2 has no such field
  EXPECT_FALSE(read_qcow2_header(test::memory_file(bytes))->has_data_file);
}

TEST(Qcow2Header, SaysHowItIs) {
  auto bytes = header();
  put(bytes, 72, 1, 8);
  EXPECT_TRUE(read_qcow2_header(test::memory_file(bytes))->is_unclean);
  put(bytes, 72, 2, 8);
  EXPECT_TRUE(read_qcow2_header(test::memory_file(bytes))->is_corrupt);
  put(bytes, 32, 1, 4);
  EXPECT_TRUE(read_qcow2_header(test::memory_file(bytes))->is_encrypted);
}

TEST(Qcow2Header, DamagedOnesAreRefused) {
  EXPECT_NE(error_of({}).find("no qcow2"), std::string::npos);
  EXPECT_NE(error_of(Bytes(512)).find("no qcow2"), std::string::npos);
  auto bytes = header("base");
  put(bytes, 4, 4, 4);
  EXPECT_NE(error_of(bytes).find("version 4"), std::string::npos);
  for (const auto& [at, value, size] : {std::tuple{16u, 0ull, 4u},
                                        {16u, 1024ull, 4u},
                                        {16u, 0xffffffffull, 4u},
                                        {100u, 103ull, 4u},
                                        {100u, 513ull, 4u},
                                        {8u, 103ull, 8u},
                                        {8u, 510ull, 8u},
                                        {8u, ~0ull, 8u},
                                        {8u, 1ull << 63, 8u}}) {
    bytes = header("base");
    put(bytes, at, value, size);
    EXPECT_NE(error_of(bytes).find("damaged"), std::string::npos) << at << " " << value;
  }
  bytes = header("base");
  for (std::size_t length = 0; length < 260; ++length)
    EXPECT_NE(error_of(Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length))), "") << length;
}

}  // namespace
}  // namespace virtuserns::controller
