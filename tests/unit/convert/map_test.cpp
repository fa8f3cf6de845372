// The table of elements against libvirt's own schema; what a copy is; XML of somebody who means harm.
#include "tools/convert/map_domain.h"

#include <libxml/parser.h>
#include <libxml/tree.h>

#include <deque>
#include <map>
#include <memory>
#include <set>

#include "tests/unit/convert/tree.h"
#include "tools/convert/map_table.h"
#include "xml/devices.h"
#include "xml/domain.h"

namespace virtuserns::convert {
namespace {

constexpr const char* kSchemas = "/usr/share/libvirt/schemas/";

std::string text_of(const xmlChar* text) { return text ? reinterpret_cast<const char*>(text) : ""; }

// A RELAX NG schema, as far as the names of elements go.
class Schema {
 public:
  bool load(const std::string& file) {
    if (!seen_.insert(file).second) return true;
    const auto* doc =
        docs_.emplace_back(xmlReadFile((kSchemas + file).c_str(), nullptr, XML_PARSE_NONET), xmlFreeDoc).get();
    return doc != nullptr && scan(xmlDocGetRootElement(doc));
  }

  // Every path of elements below <domain>, as deep as `wants_more` says.
  template <class Visitor>
  void visit(const Visitor& wants_more) {
    for (const auto* definition : defines_["domain"]) walk(definition, "", wants_more);
  }
  [[nodiscard]] std::size_t definitions() const { return defines_.size(); }

 private:
  bool scan(const xmlNode* node) {
    bool is_good = true;
    for (const xmlNode* n = node->children; n; n = n->next) {
      const auto name = text_of(n->name);
      if (name == "define") defines_[attribute(n, "name")].push_back(n);
      if (name == "include") is_good &= load(attribute(n, "href"));
      if (name == "include" || name == "div") is_good &= scan(n);
    }
    return is_good;
  }

  static std::string attribute(const xmlNode* node, const char* name) {
    for (const xmlAttr* a = node->properties; a; a = a->next)
      if (text_of(a->name) == name) return a->children ? text_of(a->children->content) : "";
    return {};
  }

  // `<element name=''>`, or <name>s and <anyName> below it.
  static std::vector<std::string> names_of(const xmlNode* element) {
    if (const auto name = attribute(element, "name"); !name.empty()) return {name};
    std::vector<std::string> names;
    for (const xmlNode* n = element->children; n; n = n->next) {
      if (text_of(n->name) == "name" && n->children) names.push_back(text_of(n->children->content));
      if (text_of(n->name) == "choice")
        for (const auto& name : names_of(n)) names.push_back(name);
      if (text_of(n->name) == "anyName" || text_of(n->name) == "nsName") names.emplace_back("any");
    }
    return names;
  }

  template <class Visitor>
  void walk(const xmlNode* node, const std::string& path, const Visitor& wants_more) {
    if (!walked_.insert({node, path}).second) return;
    for (const xmlNode* n = node->children; n; n = n->next) {
      const auto kind = text_of(n->name);
      if (kind == "ref") {
        for (const auto* definition : defines_[attribute(n, "name")]) walk(definition, path, wants_more);
      } else if (kind == "element") {
        for (const auto& name : names_of(n)) {
          const auto below = path.empty() && name == "domain" ? "" : path.empty() ? name : path + "/" + name;
          if (below.empty() || wants_more(below)) walk(n, below, wants_more);
        }
      } else {
        walk(n, path, wants_more);
      }
    }
  }

  std::set<std::string> seen_;
  std::deque<std::unique_ptr<xmlDoc, void (*)(xmlDoc*)>> docs_;
  std::map<std::string, std::vector<const xmlNode*>> defines_;
  std::set<std::pair<const xmlNode*, std::string>> walked_;
};

TEST(MapTable, EveryElementOfLibvirtsSchemaHasAFate) {
  if (!std::filesystem::exists(std::string(kSchemas) + "domain.rng"))
    GTEST_SKIP() << "libvirt's schemas are not installed";
  Schema schema;
  ASSERT_TRUE(schema.load("domain.rng"));
  ASSERT_GT(schema.definitions(), 300u);
  std::set<std::string> missing, met;
  schema.visit([&](const std::string& path) {
    const auto* row = find_row(path);
    if (row == nullptr) {
      missing.insert(path);
      return false;
    }
    met.insert(row->path);
    return row->fate == Fate::kMapped && !row->is_whole;
  });
  for (const auto& path : missing) ADD_FAILURE() << "<" << path << "> has no row in map_table.cpp";
  EXPECT_GT(met.size(), 120u);
}

TEST(MapTable, WhatIsNotInItIsNotFound) {
  EXPECT_EQ(find_row("devices/flux-capacitor"), nullptr);
  EXPECT_EQ(find_row(""), nullptr);
  EXPECT_EQ(find_row("devices/interface/source/x/y"), nullptr);
  EXPECT_NE(find_row("devices/interface/source/address"), nullptr);
}

constexpr const char* kSmall =
    "<domain type='kvm'><name>web</name><uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid><memory unit='MiB'>512</memory><genid/>"
    "<devices><interface type='bridge'><mac address='52:54:00:aa:bb:01'/><source bridge='br0'/><target dev='web0'/></interface>"
    "</devices></domain>";

MapOptions small_options() {
  MapOptions options;
  FilesystemDef root;
  root.source = "/srv/web", root.target = "/";
  options.filesystems = {root};
  return options;
}

TEST(MapDomain, ACopyIsAnotherDomain) {
  auto options = small_options();
  options.identity = Identity::kCopy;
  options.name = "web-copy";
  options.nics = {{*xml::parse_mac("52:54:00:11:22:33"), "enp1s0", xml::parse_mac("52:54:00:aa:bb:01")}};
  const auto copy = map_domain(kSmall, options);
  ASSERT_TRUE(copy) << copy.error().text;
  EXPECT_EQ(copy->def.name, "web-copy");
  EXPECT_NE(format_uuid(copy->def.uuid), "c7a5fdbd-edaf-9455-926a-d65c16db1809");
  EXPECT_TRUE(is_valid_uuid(copy->def.uuid));
  ASSERT_EQ(copy->def.interfaces.size(), 1u);
  EXPECT_EQ(xml::format_mac(*copy->def.interfaces[0].mac), "52:54:00:11:22:33");
  EXPECT_EQ(copy->def.interfaces[0].guest_dev, "enp1s0");
  EXPECT_EQ(copy->def.interfaces[0].target_dev, "");
  EXPECT_TRUE(copy->def.kept.empty());

  options.nics.clear();  // nobody has made an address: it is not the machine's all the same
  const auto bare = map_domain(kSmall, options);
  ASSERT_TRUE(bare) << bare.error().text;
  ASSERT_TRUE(bare->def.interfaces[0].mac);
  EXPECT_NE(xml::format_mac(*bare->def.interfaces[0].mac), "52:54:00:aa:bb:01");

  const auto moved = map_domain(kSmall, small_options());
  ASSERT_TRUE(moved) << moved.error().text;
  EXPECT_EQ(format_uuid(moved->def.uuid), "c7a5fdbd-edaf-9455-926a-d65c16db1809");
  EXPECT_EQ(moved->def.interfaces[0].target_dev, "web0");
  EXPECT_EQ(moved->def.kept.size(), 1u);
}

TEST(MapDomain, IdsAndOtherExtensions) {
  auto options = small_options();
  options.id_count = 200000;
  options.userns_children = "<pids limit='500'/>";
  const auto mapped = map_domain(kSmall, options);
  ASSERT_TRUE(mapped) << mapped.error().text;
  EXPECT_EQ(mapped->def.userns.id_count, 200000u);
  EXPECT_EQ(mapped->def.userns.pids_limit, 500u);
  const auto again = xml::parse_domain(xml::format_domain(mapped->def, xml::FormatKind::kInactive));
  ASSERT_TRUE(again) << again.error().text;
  EXPECT_EQ(again->userns, mapped->def.userns);
}

TEST(MapDomain, AShareCannotTakeThePlaceOfAnother) {
  const std::string share = "<filesystem type='mount'><source dir='/srv/x'/><target dir='";
  const auto text = "<domain type='kvm'><name>x</name><memory>1000</memory><devices>" + share + "a'/></filesystem>" +
                    share + "b'/></filesystem>" + share + "c'/></filesystem>" + share +
                    "d'/></filesystem></devices></domain>";
  auto options = small_options();
  options.shares = {{"a", "/"}, {"b", "/mnt"}, {"c", "/mnt"}, {"d", "/proc/sys"}};
  const auto mapped = map_domain(text, options);
  ASSERT_TRUE(mapped) << mapped.error().text;
  ASSERT_EQ(mapped->def.filesystems.size(), 2u);
  EXPECT_EQ(mapped->def.filesystems[1].target, "/mnt");
  EXPECT_EQ(about(mapped->findings, "is left out").size(), 3u);
}

TEST(MapDomain, AFileThatIsAppendedToIsNotCutOff) {
  const auto append_of = [](const std::string& attribute) {
    const auto mapped = map_domain(
        "<domain type='kvm'><name>x</name><memory>1000</memory><devices><serial type='file'>"
        "<source path='/var/log/x'" +
            attribute + "/></serial></devices></domain>",
        small_options());
    EXPECT_TRUE(mapped && mapped->def.consoles.size() == 1 && mapped->def.consoles[0].log_file == "/var/log/x");
    return mapped ? mapped->def.consoles.at(0).log_append : std::nullopt;
  };
  EXPECT_EQ(append_of(" append='on'"), true);
  EXPECT_EQ(append_of(" append='off'"), false);
  EXPECT_EQ(append_of(""), std::nullopt);
}

TEST(MapDomain, QuotaIsForAllProcessors) {
  const auto quota_of = [](const std::string& tune) {
    auto mapped =
        map_domain("<domain type='kvm'><name>x</name><memory>1000000</memory><vcpu current='3'>8</vcpu><cputune>" +
                       tune + "</cputune></domain>",
                   small_options());
    EXPECT_TRUE(mapped) << mapped.error().text;
    return mapped ? std::pair(mapped->def.cputune.period_us.value_or(0), mapped->def.cputune.quota_us.value_or(0))
                  : std::pair(0ul, 0l);
  };
  EXPECT_EQ(quota_of("<period>50000</period><quota>25000</quota>"), std::pair(50000ul, 75000l));
  EXPECT_EQ(quota_of("<quota>-1</quota>"), std::pair(0ul, -1l));
  EXPECT_EQ(quota_of("<quota>17592186044415</quota>"), std::pair(0ul, 17592186044415l));
  EXPECT_EQ(quota_of("<global_period>100000</global_period><global_quota>150000</global_quota>"),
            std::pair(100000ul, 150000l));
  EXPECT_EQ(quota_of("<quota>10000</quota><global_quota>150000</global_quota>"), std::pair(0ul, 30000l));
}

TEST(MapDomain, WhatIsNoMachineIsRefused) {
  auto options = small_options();
  for (const auto* bad : {"", "<domain", "<network/>", "<domain type='lxc'><name>x</name><memory>1</memory></domain>",
                          "<domain type='kvm'><name>a/b</name><memory>1000</memory></domain>",
                          "<domain type='kvm'><name>x</name></domain>",
                          "<domain type='kvm'><name>x</name><memory>many</memory></domain>",
                          "<!DOCTYPE d [<!ENTITY a 'aaaa'>]><domain type='kvm'><name>&a;</name></domain>"})
    EXPECT_FALSE(map_domain(bad, options)) << bad;
  options.filesystems.clear();
  EXPECT_FALSE(map_domain(kSmall, options));
  const auto arm = map_domain(
      "<domain type='kvm'><name>x</name><memory>1000</memory><os><type arch='aarch64'>hvm</type></os></domain>",
      small_options());
  ASSERT_TRUE(arm);
  EXPECT_EQ(worst(arm->findings), Severity::kBlock);
}

TEST(MapDomain, BombsAreBounded) {
  std::string deep = "<domain type='kvm'><name>x</name>", wide = deep;
  for (int i = 0; i < 5000; ++i) deep += "<devices>";
  for (int i = 0; i < 100000; ++i) wide += "<disk/>";
  EXPECT_FALSE(map_domain(deep, small_options()));
  EXPECT_FALSE(map_domain(wide + "</domain>", small_options()));
  EXPECT_FALSE(read_kvm_domain(wide + "</domain>"));
  std::string unknown = "<domain type='kvm'><name>x</name><memory>1000</memory>";
  for (int i = 0; i < 9000; ++i) unknown += "<e" + std::to_string(i) + "/>";
  const auto mapped = map_domain(unknown + "</domain>", small_options());
  ASSERT_TRUE(mapped) << mapped.error().text;
  EXPECT_LE(mapped->findings.size(), 60u);
}

TEST(ReadKvmDomain, DisksAndCards) {
  const auto domain = read_kvm_domain(
      "<domain type='kvm'><name>web</name><os><type arch='x86_64'>hvm</type></os><devices>"
      "<disk type='file' device='disk'><driver type='qcow2'/><source file='/a'/><target dev='vda'/><shareable/></disk>"
      "<disk type='block'><source dev='/dev/b'/><target dev='vdb'/><readonly/><encryption format='luks'/></disk>"
      "<disk type='file' device='cdrom'><target dev='sda'/></disk>"
      "<interface type='bridge'><mac address='52:54:00:aa:bb:01'/><address type='pci' bus='0x0a' slot='0x01' function='0x2'/></interface>"
      "<interface type='bridge'/></devices></domain>");
  ASSERT_TRUE(domain) << domain.error().text;
  ASSERT_EQ(domain->disks.size(), 3u);
  EXPECT_EQ(domain->disks[0].format, "qcow2");
  EXPECT_TRUE(domain->disks[0].is_shared);
  EXPECT_EQ(domain->disks[1].source, "/dev/b");
  EXPECT_TRUE(domain->disks[1].has_encryption);
  EXPECT_EQ(domain->disks[2].device, "cdrom");
  ASSERT_EQ(domain->nics.size(), 1u);
  EXPECT_EQ(domain->nics[0].pci->bus, 10u);
  EXPECT_EQ(domain->nics[0].pci->function, 2u);
}

}  // namespace
}  // namespace virtuserns::convert
