#include "conf/base/text.h"

#include <gtest/gtest.h>

namespace virtuserns {
namespace {

TEST(ParseNumber, TakesTheWholeTextOrNothing) {
  EXPECT_EQ(parse_number<int>("-12"), -12);
  EXPECT_EQ(parse_number<std::uint32_t>("4294967295"), 4294967295U);
  EXPECT_FALSE(parse_number<std::uint32_t>("4294967296"));
  EXPECT_FALSE(parse_number<std::uint32_t>("-1"));
  EXPECT_FALSE(parse_number<std::uint32_t>(""));
  EXPECT_FALSE(parse_number<std::uint32_t>("1 "));
  EXPECT_FALSE(parse_number<std::uint32_t>("0x10"));
}

TEST(Printable, LeavesNoControlByte) {
  EXPECT_EQ(printable("a\x1b[31mb\n"), "a\\x1b[31mb\\x0a");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "\\xc2\\x9b31m");  // C1 CSI
  EXPECT_EQ(printable("\xff"), "\\xff");
  EXPECT_EQ(printable("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(printable("abcdef", 3), "abc...");
}

TEST(Utf8, RefusesOverlongSurrogatesAndNul) {
  EXPECT_TRUE(is_utf8("\xe2\x82\xac"));
  EXPECT_FALSE(is_utf8("\xc0\x80"));
  EXPECT_FALSE(is_utf8("\xed\xa0\x80"));
  EXPECT_FALSE(is_utf8("\xf4\x90\x80\x80"));
  EXPECT_FALSE(is_utf8(std::string_view("a\0b", 3)));
}

TEST(Format, HexAndLogLines) {
  EXPECT_EQ(format_hex(0), "0x0");
  EXPECT_EQ(format_hex(0xdeadbeef0badf00dULL), "0xdeadbeef0badf00d");
  EXPECT_EQ(format_log_line(1'795'690'680, "ended"), "2026-11-26T10:58:00Z ended\n");
  EXPECT_EQ(format_log_line(-1, ""), "1969-12-31T23:59:59Z \n");
}

TEST(Bitmap, RoundTripsAsLibvirtWritesIt) {
  EXPECT_EQ(format_bitmap(*parse_bitmap("0-3,^2,8")), "0-1,3,8");
  EXPECT_FALSE(parse_bitmap("3-1"));
  EXPECT_FALSE(parse_bitmap("0-99999999"));
  EXPECT_FALSE(parse_bitmap(""));
  EXPECT_FALSE(parse_bitmap("0,,1"));
}

}  // namespace
}  // namespace virtuserns
