#include "tools/convert/announce.h"

#include <gtest/gtest.h>

namespace virtuserns::convert {
namespace {

std::string hex(const std::string& bytes) {
  std::string text;
  for (const char c : bytes) {
    constexpr const char* kDigits = "0123456789abcdef";
    text += kDigits[static_cast<unsigned char>(c) >> 4];
    text += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return text;
}

constexpr Mac kMac{0x52, 0x54, 0, 0x12, 0x34, 0x56};

TEST(Announce, ArpAsksForTheAddressThatAsks) {
  EXPECT_EQ(hex(arp_announcement(kMac, {192, 0, 2, 2})),
            "ffffffffffff5254001234560806"
            "0001080006040001"
            "525400123456c0000202"
            "000000000000c0000202");
}

// The checksum by hand: 2001+0db8+0001+ff02+0001+0020+003a+8800+2000+2001+0db8+0001+0201+5254+0012+3456 is 28b8e.
TEST(Announce, AdvertisementGoesToAllNodes) {
  const std::array<std::uint8_t, 16> address{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  EXPECT_EQ(hex(neighbour_advertisement(kMac, address)),
            "33330000000152540012345686dd"
            "6000000000203aff"
            "20010db8000000000000000000000001"
            "ff020000000000000000000000000001"
            "8800"
            "746f"
            "20000000"
            "20010db8000000000000000000000001"
            "0201525400123456");
}

}  // namespace
}  // namespace virtuserns::convert
