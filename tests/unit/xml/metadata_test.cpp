#include "xml/metadata.h"

#include <gtest/gtest.h>

#include "xml/domain.h"

namespace virtuserns::xml {
namespace {

TEST(Metadata, IsSetUnderTheKeyAndReadWithoutIt) {
  DomainDef def;
  ASSERT_TRUE(
      set_metadata(def, "<order id='1'><item>two\nlines</item><other xmlns='urn:o'/></order>", "shop", "urn:shop"));
  ASSERT_EQ(def.metadata.size(), 1u);
  EXPECT_EQ(def.metadata[0].xml,
            "<shop:order xmlns:shop=\"urn:shop\" id=\"1\">\n  <shop:item>two&#10;lines</shop:item>\n  <other "
            "xmlns=\"urn:o\"/>\n</shop:order>");
  EXPECT_EQ(*extract_metadata(def, "urn:shop"),
            "<order id=\"1\">\n  <item>two\nlines</item>\n  <other xmlns=\"urn:o\"/>\n</order>");
}

TEST(Metadata, IsReplacedAndRemoved) {
  DomainDef def;
  ASSERT_TRUE(set_metadata(def, "<a/>", "k", "urn:1"));
  ASSERT_TRUE(set_metadata(def, "<b/>", "k", "urn:2"));
  ASSERT_TRUE(set_metadata(def, "<c/>", "other", "urn:1"));
  EXPECT_EQ(def.metadata.size(), 2u);
  EXPECT_EQ(*extract_metadata(def, "urn:1"), "<c/>");
  remove_metadata(def, "urn:1");
  remove_metadata(def, "urn:none");
  const auto gone = extract_metadata(def, "urn:1");
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, VIR_ERR_NO_DOMAIN_METADATA);
  EXPECT_EQ(*extract_metadata(def, "urn:2"), "<b/>");
}

TEST(Metadata, RefusesWhatCouldNotBeFoundAgain) {
  DomainDef def;
  const auto error = [&](const std::string& text, const std::string& key, const std::string& uri) {
    const auto result = set_metadata(def, text, key, uri);
    return result ? std::string("accepted") : result.error().text;
  };
  EXPECT_EQ(error("<a/>", "1k", "urn:x"), "metadata key '1k' is not a valid XML prefix: use letters and digits");
  EXPECT_EQ(error("<a/>", "", "urn:x"), "metadata key '' is not a valid XML prefix: use letters and digits");
  EXPECT_EQ(error("<a/>", "k", ""), "metadata namespace '' is not a valid URI");
  EXPECT_EQ(error("<a", "k", "urn:x").find("metadata: line 1: "), 0u);
  EXPECT_EQ(error("<a xmlns='urn:other'/>", "k", "urn:x"),
            "metadata: the element is in namespace 'urn:other', not in 'urn:x'");
  EXPECT_EQ(error("<a xmlns:k='urn:other'/>", "k", "urn:x"),
            "metadata: prefix 'k' is already taken in the element: use another key");
  EXPECT_EQ(error("<k:a xmlns:k='urn:x'/>", "k", "urn:x"), "accepted");
  EXPECT_EQ(*extract_metadata(def, "urn:x"), "<a/>");
}

TEST(Metadata, OfOursIsReadAnew) {
  DomainDef def;
  ASSERT_TRUE(set_metadata(def, "<domain><pids limit='9'/></domain>", "userns", kUsernsUri));
  EXPECT_EQ(def.userns.pids_limit, 9u);
  const auto before = def;
  EXPECT_FALSE(set_metadata(def, "<domain><pids limit='0'/></domain>", "userns", kUsernsUri));
  EXPECT_FALSE(set_metadata(def, "<domain><what/></domain>", "userns", kUsernsUri));
  EXPECT_EQ(def, before);
  const auto again = parse_domain(format_domain(
      [&] {
        auto d = def;
        d.name = "x";
        return d;
      }(),
      FormatKind::kInactive));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->userns.pids_limit, 9u);
  remove_metadata(def, kUsernsUri);
  EXPECT_FALSE(def.userns.pids_limit);
}

TEST(Metadata, DropsWhatHasNoNamespaceAndRepeats) {
  const auto document =
      Document::parse("<metadata><a/><b xmlns='urn:1'/><c xmlns='urn:1'/><d xmlns='urn:2'/></metadata>");
  const auto list = parse_metadata(document->root());
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].xml, "<b xmlns=\"urn:1\"/>");
  EXPECT_EQ(list[1].uri, "urn:2");
}

}  // namespace
}  // namespace virtuserns::xml
