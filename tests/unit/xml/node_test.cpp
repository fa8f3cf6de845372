#include "xml/node.h"

#include <gtest/gtest.h>

#include <chrono>

namespace virtuserns::xml {
namespace {

std::string error_of(const std::string& text) {
  const auto document = Document::parse(text);
  return document ? "accepted" : document.error().text;
}

std::string nested(std::size_t depth) {
  std::string text;
  for (std::size_t i = 0; i < depth; ++i) text += "<a>";
  for (std::size_t i = 0; i < depth; ++i) text += "</a>";
  return text;
}

std::string with_attributes(std::size_t count) {
  std::string text = "<a";
  for (std::size_t i = 0; i < count; ++i) text += " b" + std::to_string(i) + "='1'";
  return text + "/>";
}

TEST(Node, ReadsAttributesTextAndChildren) {
  const auto document = Document::parse("<a x='1' y=\"&lt;\">\n<b> t </b>\n<c/><b/></a>");
  ASSERT_TRUE(document);
  const Node root = document->root();
  EXPECT_EQ(root.name(), "a");
  EXPECT_EQ(root.attribute("x"), "1");
  EXPECT_EQ(root.attribute("y"), "<");
  EXPECT_EQ(root.attribute("z"), std::nullopt);
  EXPECT_EQ(root.child("b").text(), " t ");
  EXPECT_EQ(root.child("b").line(), 2);
  EXPECT_EQ(root.children("b").size(), 2u);
  EXPECT_EQ(root.children().size(), 3u);
  EXPECT_FALSE(root.child("d"));
  EXPECT_EQ(root.child("d").child("e").text(), "");
  EXPECT_EQ(root.only_child("b").error().text, "line 3: element <b> appears more than once in <a>");
}

TEST(Node, KeepsNamespacesApart) {
  const auto document = Document::parse("<a xmlns:n='urn:n'><n:b x='1' n:x='2'/><b xmlns='urn:d'/><b/></a>");
  ASSERT_TRUE(document);
  EXPECT_EQ(document->root().children("b").size(), 1u);
  const Node first = document->root().children().front();
  EXPECT_EQ(first.uri(), "urn:n");
  EXPECT_EQ(first.prefix(), "n");
  EXPECT_EQ(first.attribute("x"), "1");
}

TEST(Node, NumbersAreStrict) {
  const auto document = Document::parse("<a n='12' h='0x1f' m='-1' big='4294967296' w='1 2' e='' s=' 7 '/>");
  const Node root = document->root();
  EXPECT_EQ(**root.number<std::uint32_t>("n"), 12u);
  EXPECT_EQ(**root.number<std::uint32_t>("s"), 7u);
  EXPECT_EQ(**root.number<std::uint32_t>("h", 0), 31u);
  EXPECT_FALSE(**root.number<std::uint32_t>("n") == 0);
  EXPECT_TRUE(root.number<std::uint32_t>("none"));
  EXPECT_EQ(*root.number<std::uint32_t>("none"), std::nullopt);
  for (const auto* name : {"h", "m", "big", "w", "e"})
    EXPECT_NE(root.number<std::uint32_t>(name).error().text.find("a whole number is needed"), std::string::npos)
        << name;
}

TEST(Node, RefusesHostileTexts) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "the XML text is empty"},
      {"  \n", "the XML text is empty"},
      {"<!DOCTYPE a><a/>", "line 1: a document type declaration is not accepted"},
      {"\n<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "line 2: a document type declaration is not accepted"},
      {"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "line 1: a document type declaration is not accepted"},
      {"<a><!ENTITY x 'y'></a>", "line 1: a document type declaration is not accepted"},
      {"<a>&x;</a>", "line 1: Entity 'x' not defined"},
      {"<a>\n<b></a>", "line 2: Opening and ending tag mismatch: b line 2 and a"},
      {"<a x='1' x='2'/>", "line 1: Attribute x redefined"},
      {"<a/><b/>", "line 1: Extra content at the end of the document"},
      {"<n:a/>", "line 1: Namespace prefix n on a is not defined"},
      {"<a>\xff</a>", "the XML text is not valid UTF-8"},
      {std::string("<a>\0</a>", 8), "the XML text is not valid UTF-8"},
      {"<?xml version='1.0' encoding='UTF-16'?><a>\xc3\xa9</a>", "accepted"},
      {nested(64), "accepted"},
      {nested(65), "line 1: elements nested deeper than 64"},
      {with_attributes(200), "accepted"},
      {with_attributes(201), "line 1: more than 200 attributes in one element"},
      {"<a>" + std::string(kMaxTextBytes, 'x') + "</a>",
       "the XML text has 4194311 bytes; at most 4194304 are accepted"},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(error_of(text), expected) << text.substr(0, 60);
}

TEST(Node, BoundsAreCheckedInLinearTime) {
  std::string many = "<a>";
  for (int i = 0; i < 20001; ++i) many += "<b/>";
  many += "</a>";
  std::string depths;
  for (int i = 0; i < 300000; ++i) depths += "<a>";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_NE(error_of(with_attributes(50000)), "accepted");
  EXPECT_NE(error_of(many), "accepted");
  EXPECT_NE(error_of(depths), "accepted");
  EXPECT_NE(error_of("<a " + std::string(4000000, '"') + "/>"), "accepted");
  EXPECT_NE(error_of(std::string(4000000, '<')), "accepted");
  // A timed test only in name: the quadratic form takes many minutes, this a second.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(Node, TheScannerIsNotFooledByMarkupInOtherMarkup) {
  EXPECT_EQ(error_of("<a><!-- <b><b><!DOCTYPE x> --><![CDATA[<!DOCTYPE y><b>]]><?pi <!DOCTYPE z>?></a>"), "accepted");
  EXPECT_EQ(error_of("<a b='<c d=\"'/>").substr(0, 8), "line 1: ");
  EXPECT_EQ(error_of("<a b='/>'><c/></a>"), "accepted");
}

}  // namespace
}  // namespace virtuserns::xml
