#include "conf/base/xdr.h"

#include <gtest/gtest.h>

namespace virtuserns::xdr {
namespace {

using Value = std::variant<std::int32_t, std::string>;
struct Inner {
  std::uint32_t a = 0;
  std::optional<std::string> b;
};
struct Outer {
  std::array<std::uint8_t, 6> mac{};
  std::vector<Inner> inners;
  Text<4> name;
  Value value;
  bool flag = false;
  double number = 0;
  std::vector<std::uint8_t> blob;
  CharArray<8> chars;
};

TEST(Xdr, RoundTrip) {
  Outer in{{1, 2, 3, 4, 5, 6}, {{7, "x"}, {8, std::nullopt}}, Text<4>("abc"), "str", true, 1.5, {9, 9, 9}, {"cpu"}};
  const auto bytes = encode(in);
  EXPECT_EQ(bytes.size() % 4, 0U);
  const auto out = decode_exact<Outer>(bytes);
  ASSERT_TRUE(out) << out.error().text;
  EXPECT_EQ(out->mac, in.mac);
  EXPECT_EQ(out->inners[0].b, "x");
  EXPECT_FALSE(out->inners[1].b);
  EXPECT_EQ(out->name, "abc");
  EXPECT_EQ(std::get<1>(out->value), "str");
  EXPECT_EQ(out->number, 1.5);
  EXPECT_EQ(out->chars.text, "cpu");
}

TEST(Xdr, EveryPrefixIsRefused) {
  const auto bytes = encode(Outer{{}, {{7, "x"}}, Text<4>("abc"), 1, true, 1.5, {9}, {"cpu"}});
  for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(decode<Outer>(std::span(bytes).first(n))) << n;
}

TEST(Xdr, RefusesBeforeItAllocates) {
  std::vector<std::uint8_t> bytes;
  Writer(bytes).u32(1'000'000);  // a list that claims a million entries in no bytes
  EXPECT_NE(decode<std::vector<Inner>>(bytes).error().text.find("claims more"), std::string::npos);
  const auto many = encode(std::vector<std::uint32_t>(1000));
  EXPECT_NE((decode<std::vector<std::uint32_t>>(many, 100).error().text.find("memory")), std::string::npos);
  EXPECT_FALSE((decode<List<std::uint32_t, 999>>(many)));
}

TEST(Xdr, RefusesNulLongTextAndUnknownArms) {
  EXPECT_FALSE(decode<std::string>(encode(std::string("a\0b", 3))));
  EXPECT_FALSE(decode<Text<4>>(encode(std::string("abcde"))));
  std::vector<std::uint8_t> bytes;
  Writer(bytes).u32(2);
  Writer(bytes).u32(0);
  EXPECT_FALSE(decode<Value>(bytes));
  bytes[0] = 0xff;
  EXPECT_FALSE(decode<Value>(bytes));
}

TEST(Xdr, TakesAnyNonZeroFlag) {
  std::vector<std::uint8_t> bytes;
  Writer(bytes).u32(0x01000000);
  Writer(bytes).u32(5);
  EXPECT_EQ(decode<std::optional<std::uint32_t>>(bytes).value(), 5U);
}

TEST(Xdr, TrailingBytesAreTheCallersChoice) {
  const std::vector<std::uint8_t> bytes(8);
  EXPECT_TRUE(decode<std::uint32_t>(bytes));
  EXPECT_FALSE(decode_exact<std::uint32_t>(bytes));
}

}  // namespace
}  // namespace virtuserns::xdr
