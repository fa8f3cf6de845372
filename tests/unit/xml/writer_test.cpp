#include "xml/writer.h"

#include <gtest/gtest.h>

#include "xml/kept.h"

namespace virtuserns::xml {
namespace {

std::string canonical_of(const std::string& text, Dialect dialect = Dialect::kLibvirt) {
  const auto document = Document::parse(text);
  return document ? canonical(document->root(), dialect) : "error: " + document.error().text;
}

TEST(Writer, EscapesAsLibvirt) {
  EXPECT_EQ(escape_text("<a> & 'b' \"c\"\n\t"), "&lt;a&gt; &amp; &apos;b&apos; &quot;c&quot;\n\t");
  EXPECT_EQ(escape_text("a\x01\x1f\x7f"
                        "b\xc3\xa9"),
            "a\x7f"
            "b\xc3\xa9");
  EXPECT_EQ(escape_text("a\rb"), "a&#13;b");
  EXPECT_EQ(escape_attribute("a\r\n\tb"), "a&#13;&#10;&#9;b");
}

TEST(Writer, PrintsATree) {
  Element root("a");
  root.attribute("x", "1'2").attribute_if("y", "").child("b", "t<").child(Element("c"));
  Element inner("d");
  inner.child("e", 7);
  root.child(std::move(inner)).child_if(Element("nothing"));
  EXPECT_EQ(root.to_string(), "<a x='1&apos;2'>\n  <b>t&lt;</b>\n  <c/>\n  <d>\n    <e>7</e>\n  </d>\n</a>\n");
  EXPECT_EQ(Element("a").to_string(2), "    <a/>\n");
}

TEST(Writer, SortsByAnOrderAndPutsTheUnknownLast) {
  static constexpr std::string_view kOrder[] = {"a", "b", "c"};
  Element root("r");
  root.child(Element("z"))
      .child(Element("c"))
      .child(Element("a"))
      .child("b", "1")
      .child("b", "2")
      .child(Element("y"));
  root.sort({}, kOrder);
  EXPECT_EQ(root.to_string(), "<r>\n  <a/>\n  <b>1</b>\n  <b>2</b>\n  <c/>\n  <z/>\n  <y/>\n</r>\n");
}

TEST(Writer, PutsKeptItemsWhereTheyStood) {
  const std::vector<KeptXml> kept = {{"@a", "1"}, {"b", "<b/>"}, {"s/@c", "2"}, {"s/d", "<d/>"}, {"s/t/@e", "3"}};
  Element root("r"), child("s");
  child.kept(kept, "s/");
  root.kept(kept).child(std::move(child));
  EXPECT_EQ(root.to_string(), "<r a='1'>\n  <b/>\n  <s c='2'>\n    <d/>\n  </s>\n</r>\n");
}

TEST(Canonical, LaysOutElementsAndLeavesTextAlone) {
  EXPECT_EQ(canonical_of("<a  x = \"1\" ><b/>  <c>  t  </c><d> </d><!-- no --></a>"),
            "<a x='1'>\n  <b/>\n  <c>  t  </c>\n  <d> </d>\n</a>");
  EXPECT_EQ(canonical_of("<a>one <b>two</b> <c/> three</a>"), "<a>one <b>two</b> <c/> three</a>");
  EXPECT_EQ(canonical_of("<a><![CDATA[<x>]]></a>"), "<a>&lt;x&gt;</a>");
  EXPECT_EQ(canonical_of("<a>l1\nl2</a>"), "<a>l1&#10;l2</a>");
}

TEST(Canonical, DeclaresWhatItNeeds) {
  const auto document =
      Document::parse("<r xmlns:p='urn:p' xmlns='urn:d'><p:a><p:b c='1' p:d='2'/><e xmlns=''/></p:a></r>");
  EXPECT_EQ(canonical(document->root().children().front()),
            "<p:a xmlns:p='urn:p'>\n  <p:b c='1' p:d='2'/>\n  <e/>\n</p:a>");
  EXPECT_EQ(canonical_of("<a xmlns='urn:d'><b xmlns=''/></a>"), "<a xmlns='urn:d'>\n  <b xmlns=''/>\n</a>");
}

TEST(Canonical, MetadataIsAsLibxml2PrintsIt) {
  EXPECT_EQ(canonical_of("<a x='&quot;&apos;&#10;'>\"q\" 'a' &amp;<!-- c --></a>", Dialect::kMetadata),
            "<a x=\"&quot;'&#10;\">\"q\" 'a' &amp;<!-- c --></a>");
}

TEST(Canonical, IndentsLayoutOnly) {
  std::string out;
  append_canonical(out, "<a>\n  <b x='1>\n2'>l1&#10;l2</b>\n  <!-- c1\nc2 -->\n</a>", 1);
  EXPECT_EQ(out, "  <a>\n    <b x='1>\n  2'>l1\nl2</b>\n    <!-- c1\nc2 -->\n  </a>\n");
}

TEST(KeepRest, NamesAttributesAndChildren) {
  const auto document = Document::parse("<a k='1' u='2' xmlns:n='urn:n' n:z='3'><k/><u x='1'/><n:k/></a>");
  std::vector<KeptXml> kept;
  keep_rest(document->root(), {"k"}, {"k"}, kept, "p/");
  EXPECT_EQ(kept, (std::vector<KeptXml>{{"p/@u", "2"}, {"p/u", "<u x='1'/>"}, {"p/n:k", "<n:k xmlns:n='urn:n'/>"}}));
}

}  // namespace
}  // namespace virtuserns::xml
