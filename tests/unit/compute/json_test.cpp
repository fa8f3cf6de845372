#include "driver/compute/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace virtuserns::compute {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

std::string refusal(std::string_view text) {
  const auto parsed = parse_json(text);
  return parsed ? "" : parsed.error().text;
}

std::string nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(Json, IsParsedOnlyWhole) {
  EXPECT_TRUE(parse_json(R"({"a": [1, "x", null, true]})"));
  for (const char* bad :
       {"", " ", "{", "{} {}", "nul", "{'a': 1}", "[1,]", "\xff", "\"\xed\xa0\x80\"", "\"\\ud800\"", "01", "NaN"})
    EXPECT_THAT(refusal(bad), HasSubstr("no JSON")) << bad;
}

TEST(Json, DepthIsBounded) {
  EXPECT_TRUE(parse_json(nested(kMaxJsonDepth)));
  EXPECT_THAT(refusal(nested(kMaxJsonDepth + 2)), HasSubstr("nested more than 32"));
  EXPECT_THAT(refusal(std::string(1'000'000, '[')), HasSubstr("nested"));
}

TEST(Json, SaysNothingTwice) {
  EXPECT_THAT(refusal(R"({"a": 1, "b": {"c": 1, "c": 2}})"), HasSubstr("says 'c' twice"));
  EXPECT_THAT(refusal(R"({"a": {"c": 1}, "a": 2})"), HasSubstr("says 'a' twice"));
  EXPECT_TRUE(parse_json(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})"));
}

TEST(Json, WhatIsNoUtf8IsReplaced) { EXPECT_EQ(format_json(Json{{"a", "x\xff"}}), "{\"a\":\"x\xef\xbf\xbd\"}"); }

class Members : public testing::Test {
 protected:
  [[nodiscard]] Object object() const { return Object::of(json_, "params").value(); }

  Json json_ = Json::parse(
      R"({"text": "words", "null": null, "number": 5, "negative": -1, "real": 1.5, "large": 18446744073709551615,
    "flag": true, "object": {"x": 1}, "list": [{"y": 1}, {}], "mixed": [{}, 1], "words": ["a", "b"], "bytes": "aGk=",
    "settings": {"a": "1", "b": 2, "c": true}, "deep": {"a": []}})");
};

TEST_F(Members, AreAskedForByTheirTypes) {
  EXPECT_EQ(object().text("text").value(), "words");
  EXPECT_EQ(object().text("number").error().text, "params.number: needs a string");
  EXPECT_EQ(object().text("missing").error().text, "params.missing is missing: needs a string");
  EXPECT_EQ(object().text("null").error().text, "params.null is missing: needs a string");
  EXPECT_EQ(object().text("text", 4).error().text, "params.text: needs at most 4 bytes");
}

TEST_F(Members, NumbersHaveBounds) {
  EXPECT_EQ(object().number("number", 5, 5).value(), 5u);
  EXPECT_EQ(object().number("large", 0, ~std::uint64_t{0}).value(), ~std::uint64_t{0});
  EXPECT_EQ(object().number("number", 6, 9).error().text, "params.number: needs a number from 6 to 9");
  for (const char* key : {"negative", "real", "large", "text", "flag", "null", "object"})
    EXPECT_FALSE(object().number(key, 0, 10)) << key;
  EXPECT_EQ(object().number_or("null", 7, 0, 10).value(), 7u);
  EXPECT_FALSE(object().number_or("negative", 7, 0, 10));
}

TEST_F(Members, FlagsAndObjects) {
  EXPECT_TRUE(object().flag("flag").value());
  EXPECT_FALSE(object().flag("number"));
  EXPECT_TRUE(object().flag_or("null", true).value());
  EXPECT_FALSE(object().flag_or("text", true));
  EXPECT_EQ(object().object("object").value().path(), "params.object");
  EXPECT_EQ(object().object("text").error().text, "params.text: needs an object");
  EXPECT_FALSE(object().object_or_none("null").value());
  EXPECT_TRUE(object().object_or_none("object").value());
}

TEST_F(Members, ListsAreBoundedAndNameTheirItems) {
  EXPECT_EQ(object().objects("list", 2).value()[1].path(), "params.list[1]");
  EXPECT_TRUE(object().objects("missing", 2).value().empty());
  EXPECT_FALSE(object().objects("list", 1));
  EXPECT_EQ(object().objects("mixed", 2).error().text, "params.mixed[1]: needs an object");
  EXPECT_THAT(object().texts("words", 2).value(), ElementsAre("a", "b"));
  EXPECT_FALSE(object().texts("words", 1));
  EXPECT_FALSE(object().texts("list", 9));
}

TEST_F(Members, SettingsBecomeText) {
  EXPECT_THAT(object().settings("settings", 3).value(),
              ElementsAre(Pair("a", "1"), Pair("b", "2"), Pair("c", "true")));
  EXPECT_FALSE(object().settings("settings", 2));
  EXPECT_FALSE(object().settings("deep", 9));
  EXPECT_FALSE(object().settings("list", 9));
}

TEST_F(Members, TextIsUtf8WithoutNul) {
  json_["bad"] = "a\xc0\xaf";
  json_["nul"] = std::string("a\0b", 3);
  json_["bads"] = Json::array({"a\xff"});
  for (const char* key : {"bad", "nul"}) EXPECT_THAT(object().text(key).error().text, HasSubstr("UTF-8 without NUL"));
  EXPECT_FALSE(object().texts("bads", 2));
}

TEST_F(Members, Base64) {
  EXPECT_EQ(object().bytes("bytes", 2).value(), "hi");
  EXPECT_FALSE(object().bytes("text", 100));
  json_["long"] = encode_base64(std::string(100, 'x'));
  EXPECT_FALSE(object().bytes("long", 50));
}

// RFC 4648, section 10.
TEST(Base64, IsThatOfTheRfc) {
  const std::pair<const char*, const char*> known[] = {{"", ""},
                                                       {"f", "Zg=="},
                                                       {"fo", "Zm8="},
                                                       {"foo", "Zm9v"},
                                                       {"foob", "Zm9vYg=="},
                                                       {"fooba", "Zm9vYmE="},
                                                       {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : known) {
    EXPECT_EQ(encode_base64(bytes), text);
    EXPECT_EQ(decode_base64(text), bytes);
  }
  for (const char* bad : {"Z", "Zg", "Zg=", "====", "=Zg=", "Z===", "Zm9v\n", "Zm-v", "Zg==Zg==", "Z g="})
    EXPECT_FALSE(decode_base64(bad)) << bad;
}

TEST(Base64, EveryByteComesBack) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  for (std::size_t size = 0; size <= all.size(); ++size)
    EXPECT_EQ(decode_base64(encode_base64(all.substr(0, size))), all.substr(0, size));
}

}  // namespace
}  // namespace virtuserns::compute
