#include "xml/metadata.h"

#include <gtest/gtest.h>

#include "xml/domain.h"
#include "xml/nova.h"

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

// A domain with this in its <userns:domain>, whose prefix is u.
Result<DomainDef> result(const std::string& inside) {
  return parse_domain(
      "<domain type='lxc'>\n<name>x</name>\n<metadata>\n<u:domain xmlns:u='urn:virtuserns:domain:1.0'>\n" + inside +
      "</u:domain>\n</metadata>\n</domain>");
}

TEST(Metadata, SeccompIsCheckedByNameAndLine) {
  const auto error = [&](const std::string& inside) {
    const auto def = result(inside);
    return def ? std::string("accepted") : def.error().text;
  };
  const auto good = result(
      "<u:seccomp>\n<u:allow syscall='perf_event_open'/>\n<u:allow syscall='keyctl'/>\n<u:deny syscall='ptrace'/>\n"
      "</u:seccomp>\n");
  ASSERT_TRUE(good) << good.error().text;
  EXPECT_EQ(good->userns.seccomp.allow, (std::vector<std::string>{"keyctl", "perf_event_open"}));
  EXPECT_EQ(good->userns.seccomp.deny, std::vector<std::string>{"ptrace"});
  EXPECT_TRUE(good->userns.seccomp.is_logged);
  EXPECT_FALSE(good->userns.seccomp.has_nesting);

  EXPECT_EQ(error("<u:seccomp>\n<u:allow syscall='opne'/></u:seccomp>"),
            "line 6: unknown system call 'opne': use a name of syscalls(2), such as 'perf_event_open'");
  EXPECT_EQ(error("<u:seccomp>\n<u:allow syscall='bpf'/></u:seccomp>"),
            "line 6: system call 'bpf' can never be allowed (programs in the kernel of all domains): remove it");
  EXPECT_EQ(error("<u:seccomp>\n<u:deny syscall='execve'/></u:seccomp>"),
            "line 6: system call 'execve' cannot be denied: no init starts without it; remove it");
  EXPECT_NE(error("<u:seccomp><u:allow syscall='tuxcall'/></u:seccomp>").find("no longer in Linux"),
            std::string::npos);
  EXPECT_NE(error("<u:seccomp><u:allow syscall='clone3'/></u:seccomp>").find("nesting='yes'"), std::string::npos);
  EXPECT_EQ(error("<u:seccomp nesting='yes'><u:allow syscall='clone3'/></u:seccomp>"), "accepted");
  EXPECT_NE(error("<u:seccomp><u:allow syscall='ptrace'/><u:deny syscall='ptrace'/></u:seccomp>").find("twice"),
            std::string::npos);
  EXPECT_NE(error("<u:seccomp/><u:seccomp/>").find("twice"), std::string::npos);
  EXPECT_NE(error("<u:seccomp><u:allow/></u:seccomp>").find("needs syscall='NAME'"), std::string::npos);
  EXPECT_NE(error("<u:seccomp><u:allow syscall='ptrace' a='1'/></u:seccomp>").find("unknown attribute 'a'"),
            std::string::npos);
  EXPECT_NE(error("<u:seccomp log='on'/>").find("use 'yes' or 'no'"), std::string::npos);
  EXPECT_NE(error("<u:seccomp mode='1'/>").find("known are nesting"), std::string::npos);
  EXPECT_NE(error("<u:seccomp><u:kill syscall='ptrace'/></u:seccomp>").find("known are <userns:allow"),
            std::string::npos);
  EXPECT_NE(error("<u:seccomp><u:allow syscall=''/></u:seccomp>").find("unknown system call ''"), std::string::npos);
}

TEST(Metadata, OwnerIsCheckedByLine) {
  const auto result = [](const std::string& owner) {
    return parse_domain(
        "<domain type='lxc'>\n<name>x</name>\n<metadata>\n<u:domain xmlns:u='urn:virtuserns:domain:1.0'>\n" + owner +
        "</u:domain>\n</metadata>\n</domain>");
  };
  const auto named = result("<u:owner user='anna'/>"), numbered = result("<u:owner uid='1001' sources='host'/>");
  ASSERT_TRUE(named && numbered);
  EXPECT_EQ(named->userns.owner, (OwnerDef{"anna", {}, false}));
  EXPECT_EQ(numbered->userns.owner, (OwnerDef{"", 1001, true}));
  EXPECT_EQ(parse_domain(format_domain(*numbered, FormatKind::kInactive))->userns.owner, numbered->userns.owner);
  const std::pair<const char*, const char*> bad[] = {
      {"<u:owner/>", "line 5: <userns:owner> needs user='NAME' or uid='N'"},
      {"<u:owner user='anna' uid='1001'/>", "and not both"},
      {"<u:owner uid='0'/>", "root owns no domain"},
      {"<u:owner uid='x'/>", "uid"},
      {"<u:owner uid='-1'/>", "uid"},
      {"<u:owner uid='4294967296'/>", "uid"},
      {"<u:owner user='1001'/>", "use uid='N'"},
      {"<u:owner user='anna' sources='all'/>", "use 'host'"},
      {"<u:owner user='anna' group='x'/>", "unknown attribute 'group'"},
      {"<u:owner user='anna'><u:x/></u:owner>", "has no elements"},
      {"<u:owner user='anna'/><u:owner user='elsa'/>", "twice"},
  };
  for (const auto& [owner, part] : bad) {
    const auto def = result(owner);
    ASSERT_FALSE(def) << owner;
    EXPECT_NE(def.error().text.find(part), std::string::npos) << def.error().text;
  }
}

TEST(Metadata, IdsAreACountOrAGroupOrBoth) {
  DomainDef def;
  const auto set = [&](const std::string& attributes) {
    const auto result = set_metadata(def, "<domain><ids " + attributes + "/></domain>", "userns", kUsernsUri);
    return result ? std::string() : result.error().text;
  };
  EXPECT_EQ(set("group='shop'"), "");
  EXPECT_EQ(def.userns.id_group, "shop");
  EXPECT_FALSE(def.userns.id_count);
  EXPECT_EQ(set("count='7' group='shop'"), "");
  EXPECT_EQ(def.userns.id_count, 7u);
  EXPECT_EQ(set("count='7'"), "");
  EXPECT_EQ(def.userns.id_group, "");
  for (const char* bad : {"", "count='0'", "count='0' group='shop'", "group=''", "group='a/b'", "group='../x'",
                          "count='x' group='a'", "group='a' who='b'"})
    EXPECT_EQ(set(bad).find("metadata: line 2: "), 0u) << bad << ": " << set(bad);
}

TEST(Metadata, ProjectOfNova) {
  const auto project = [](const std::string& inside, const std::string& uri = std::string(kNovaUri)) {
    const auto def = parse_domain(
        "<domain type='lxc'><name>a</name><memory>1</memory><os><type>exe</type></os><metadata>"
        "<nova:instance xmlns:nova='" +
        uri + "'>" + inside + "</nova:instance></metadata></domain>");
    return def ? nova_project(*def) : def.error().text;
  };
  const std::string id = "0123456789abcdef0123456789abcdef";
  // As Nova writes it.
  EXPECT_EQ(
      project("<nova:package version='26.2.2'/><nova:name>web</nova:name><nova:owner><nova:user uuid='" +
              id.substr(1) + "0'>admin</nova:user><nova:project uuid='" + id + "'>shop</nova:project></nova:owner>"),
      id);
  for (const char* bad : {"", "a/b", "../../etc", "a b", "a'b"})
    EXPECT_EQ(project(std::string("<nova:owner><nova:project uuid=\"") + bad + "\"/></nova:owner>"), "") << bad;
  EXPECT_EQ(project("<nova:owner><nova:project uuid='" + std::string(65, 'a') + "'/></nova:owner>"), "");
  EXPECT_EQ(project("<nova:owner/>"), "");
  EXPECT_EQ(project("<nova:project uuid='" + id + "'/>"), "") << "not the owner's";
  EXPECT_EQ(project("<owner><project uuid='" + id + "'/></owner>"), "") << "of no namespace";
  const std::string one = "<nova:project uuid='" + id + "'/>";
  EXPECT_EQ(project("<nova:owner>" + one + one + "</nova:owner>"), "") << "two are none";
  EXPECT_EQ(project("<nova:owner>" + one + "</nova:owner>", "urn:not-nova"), "");
  EXPECT_EQ(nova_project({}), "");
}

TEST(Metadata, DropsWhatHasNoNamespaceAndRepeats) {
  const auto document =
      Document::parse("<metadata><a/><b xmlns='urn:1'/><c xmlns='urn:1'/><d xmlns='urn:2'/></metadata>");
  const auto list = parse_metadata(document->root());
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].xml, "<b xmlns=\"urn:1\"/>");
  EXPECT_EQ(list[1].uri, "urn:2");
}

TEST(Metadata, ImagesAreCheckedByName) {
  const auto good = result(
      "<u:image target='/' partition='3' subvolume='@'><u:backing file='/a' format='qcow2'/>"
      "<u:backing file='/b' format='raw'/></u:image><u:image target='/data' offset='512' size='1024'/>");
  ASSERT_TRUE(good) << good.error().text;
  const auto& images = good->userns.images;
  ASSERT_EQ(images.size(), 2u);
  EXPECT_EQ(images[0], (ImagePartDef{"/", 3, {}, {}, "@", {{"/a", "qcow2"}, {"/b", "raw"}}}));
  EXPECT_EQ(images[1], (ImagePartDef{"/data", {}, 512, 1024, "", {}}));
  for (const auto& [inside, said] : {
           std::pair{"<u:image/>", "needs target"},
           {"<u:image target='data'/>", "absolute path"},
           {"<u:image target='/'/><u:image target='//'/>", "appears twice"},
           {"<u:image target='/' partition='0'/>", "between 1 and 256"},
           {"<u:image target='/' partition='257'/>", "between 1 and 256"},
           {"<u:image target='/' partition='-1'/>", "whole number"},
           {"<u:image target='/' partition='1' size='512'/>", "leave out"},
           {"<u:image target='/' offset='100'/>", "multiple of 512"},
           {"<u:image target='/' offset='18446744073709551104'/>", "multiple of 512"},
           {"<u:image target='/' size='0'/>", "must not be 0"},
           {"<u:image target='/' subvolume='a/../b'/>", "without '..'"},
           {"<u:image target='/' sector='1'/>", "unknown attribute 'sector'"},
           {"<u:image target='/'><u:backing file='a' format='raw'/></u:image>", "absolute path"},
           {"<u:image target='/'><u:backing file='/a' format='nbd'/></u:image>", "known are 'raw', 'qcow2'"},
           {"<u:image target='/'><u:backing file='/a' format='raw' x=''/></u:image>", "unknown attribute 'x'"},
           {"<u:image target='/'><u:under/></u:image>", "unknown element <under>"},
       }) {
    const auto def = result(inside);
    ASSERT_FALSE(def) << inside;
    EXPECT_NE(def.error().text.find(said), std::string::npos) << def.error().text;
  }
}

TEST(Metadata, OverlaysAreCheckedByName) {
  const auto good = result(
      "<u:overlay target='/'><u:lower dir='/a,b:c\\d'/><u:lower dir='/base'/></u:overlay>"
      "<u:overlay target='/srv'><u:lower dir='/base'/></u:overlay>");
  ASSERT_TRUE(good) << good.error().text;
  const auto& overlays = good->userns.overlays;
  ASSERT_EQ(overlays.size(), 2u);
  EXPECT_EQ(overlays[0], (OverlayDef{"/", {"/a,b:c\\d", "/base"}}));
  EXPECT_EQ(overlays[1], (OverlayDef{"/srv", {"/base"}}));
  std::string many;
  for (int i = 0; i < 32; ++i) many += "<u:lower dir='/" + std::to_string(i) + "'/>";
  EXPECT_TRUE(result("<u:overlay target='/'>" + many + "</u:overlay>"));
  for (
      const auto& [inside, said] : {
          std::pair<std::string, const char*>{"<u:overlay><u:lower dir='/a'/></u:overlay>", "needs target"},
          {"<u:overlay target='x'><u:lower dir='/a'/></u:overlay>", "absolute path"},
          {"<u:overlay target='/'/>", "has nothing below"},
          {"<u:overlay target='/'><u:lower/></u:overlay>", "absolute path"},
          {"<u:overlay target='/'><u:lower dir='a'/></u:overlay>", "absolute path"},
          {"<u:overlay target='/'><u:lower dir='/a&#10;b'/></u:overlay>", "control character"},
          {"<u:overlay target='/'><u:lower dir='/a/../b'/></u:overlay>", "must not have '..'"},
          {"<u:overlay target='/'><u:lower dir='//.'/></u:overlay>", "host's own root directory"},
          {"<u:overlay target='/'><u:lower dir='/a'/><u:lower dir='/a/'/></u:overlay>", "appears twice"},
          {"<u:overlay target='/'>" + many + "<u:lower dir='/a'/></u:overlay>",
           "has 33 directories below: at most 32"},
          {"<u:overlay target='/'><u:lower dir='/a'/></u:overlay><u:overlay target='//'><u:lower dir='/a'/></u:overlay>",
           "appears twice"},
          {"<u:overlay target='/' x='1'><u:lower dir='/a'/></u:overlay>", "unknown attribute 'x'"},
          {"<u:overlay target='/'><u:lower dir='/a' x=''/></u:overlay>", "unknown attribute 'x'"},
          {"<u:overlay target='/'><u:upper dir='/a'/></u:overlay>", "unknown element <upper>"},
      }) {
    const auto def = result(inside);
    ASSERT_FALSE(def) << inside;
    EXPECT_NE(def.error().text.find(said), std::string::npos) << def.error().text;
  }
}

}  // namespace
}  // namespace virtuserns::xml
