#include "xml/metadata.h"

#include <libxml/tree.h>

#include <algorithm>
#include <set>

#include "conf/owner.h"
#include "conf/system_calls.h"
#include "conf/validate.h"
#include "xml/kept.h"
#include "xml/writer.h"

namespace virtuserns::xml {

namespace {

std::string_view view(const xmlChar* text) {
  return text ? std::string_view(reinterpret_cast<const char*>(text)) : std::string_view();
}

// The recursion is bounded by kMaxDepth.
template <class Visitor>
void for_each_element(xmlNode* node, const Visitor& visit) {
  visit(node);
  for (xmlNode* n = node->children; n; n = n->next)
    if (n->type == XML_ELEMENT_NODE) for_each_element(n, visit);
}

auto find(const DomainDef& def, std::string_view uri) {
  return std::find_if(def.metadata.begin(), def.metadata.end(),
                      [&](const MetadataElement& e) { return e.uri == uri; });
}

template <std::integral T>
Result<T> needed_number(const Node& node, std::string_view attribute) {
  const auto value = TRY(node.number<T>(attribute));
  if (!value || *value == 0)
    return node.error("<userns:" + std::string(node.name()) + "> needs " + std::string(attribute) +
                      "='N' with N above 0");
  for (const auto& a : node.attributes())
    if (a.name != attribute)
      return node.error("unknown attribute " + quote(a.name) + " in <userns:" + std::string(node.name()) + ">");
  return *value;
}

Result<void> only_attributes(const Node& node, std::initializer_list<std::string_view> known) {
  for (const auto& a : node.attributes())
    if (std::find(known.begin(), known.end(), a.name) == known.end())
      return node.error("unknown attribute " + quote(a.name) + " in <userns:" + std::string(node.name()) + ">");
  return {};
}

Result<bool> yes_no(const Node& node, std::string_view attribute, bool otherwise) {
  const auto value = node.attribute(attribute);
  if (!value) return otherwise;
  if (*value != "yes" && *value != "no")
    return node.error("invalid value " + quote(*value) + " for attribute '" + std::string(attribute) +
                      "' of <userns:" + std::string(node.name()) + ">: use 'yes' or 'no'");
  return *value == "yes";
}

// With the line in front: the rules are the table's.
Result<std::string> parse_call(const Node& node, const SeccompDef& def) {
  const auto call = node.attribute("syscall");
  if (!call) return node.error("<userns:" + std::string(node.name()) + "> needs syscall='NAME'");
  for (const auto& a : node.attributes())
    if (a.name != "syscall")
      return node.error("unknown attribute " + quote(a.name) + " in <userns:" + std::string(node.name()) + ">");
  const bool is_allowed = node.name() == "allow";
  const auto is_possible = is_allowed ? check_allowed_call(*call, def.has_nesting) : check_denied_call(*call);
  if (!is_possible) return node.error(is_possible.error().code, is_possible.error().text);
  for (const auto* list : {&def.allow, &def.deny})
    if (std::find(list->begin(), list->end(), *call) != list->end())
      return node.error("system call " + quote(*call) + " appears twice in <userns:seccomp>: once is enough");
  return std::string(*call);
}

Result<SeccompDef> parse_seccomp(const Node& node) {
  SeccompDef def;
  for (const auto& a : node.attributes())
    if (a.name != "nesting" && a.name != "log")
      return node.error("unknown attribute " + quote(a.name) +
                        " in <userns:seccomp>: known are nesting='yes|no' and log='yes|no'");
  def.has_nesting = TRY(yes_no(node, "nesting", def.has_nesting));
  def.is_logged = TRY(yes_no(node, "log", def.is_logged));
  for (const Node child : node.children()) {
    const bool is_ours = child.uri() == kUsernsUri;
    if (!is_ours || (child.name() != "allow" && child.name() != "deny"))
      return child.error("unknown element <" + std::string(child.name()) +
                         "> in <userns:seccomp>: known are <userns:allow syscall=''/> and <userns:deny syscall=''/>");
    (child.name() == "allow" ? def.allow : def.deny).push_back(TRY(parse_call(child, def)));
  }
  std::sort(def.allow.begin(), def.allow.end());
  std::sort(def.deny.begin(), def.deny.end());
  return def;
}

Result<void> parse_ids(const Node& node, UsernsDef& def) {
  TRY(only_attributes(node, {"count", "group"}));
  const auto group = node.attribute("group");
  if (group) {
    if (const auto valid = validate_id_group(*group); !valid)
      return node.error(valid.error().code, valid.error().text);
    def.id_group = *group;
  }
  def.id_count = TRY(node.number<std::uint32_t>("count"));
  if (def.id_count ? *def.id_count == 0 : !group)
    return node.error("<userns:ids> needs count='N' with N above 0, group='NAME' or both");
  return {};
}

Result<OwnerDef> parse_owner(const Node& node) {
  OwnerDef def;
  for (const auto& a : node.attributes())
    if (a.name != "user" && a.name != "uid" && a.name != "sources")
      return node.error("unknown attribute " + quote(a.name) +
                        " in <userns:owner>: known are user='NAME', uid='N' and sources='host'");
  def.user = node.attribute_or("user");
  def.uid = TRY(node.number<std::uint32_t>("uid"));
  if (const auto sources = node.attribute("sources")) {
    if (*sources != "host")
      return node.error("invalid value " + quote(*sources) +
                        " for attribute 'sources' of <userns:owner>: use 'host'");
    def.has_host_sources = true;
  }
  if (!node.children().empty()) return node.error("<userns:owner> has no elements");
  if (const auto valid = validate_owner(def); !valid) return node.error(valid.error().code, valid.error().text);
  return def;
}

// Shape only: what the values may be is conf/validate_image.cpp's to say.
Result<ImagePartDef> parse_image(const Node& node) {
  ImagePartDef def;
  TRY(only_attributes(node, {"target", "partition", "offset", "size", "subvolume"}));
  def.target = node.attribute_or("target");
  if (def.target.empty()) return node.error("<userns:image> needs target='DIR', that of a <filesystem>");
  def.partition = TRY(node.number<std::uint32_t>("partition"));
  def.offset_bytes = TRY(node.number<std::uint64_t>("offset"));
  def.size_bytes = TRY(node.number<std::uint64_t>("size"));
  def.subvolume = node.attribute_or("subvolume");
  for (const Node child : node.children()) {
    if (child.uri() != kUsernsUri || child.name() != "backing")
      return child.error("unknown element <" + std::string(child.name()) +
                         "> in <userns:image>: known is <userns:backing file='' format=''/>");
    TRY(only_attributes(child, {"file", "format"}));
    def.backings.push_back({child.attribute_or("file"), child.attribute_or("format")});
  }
  return def;
}

// The same: conf/validate_overlay.cpp.
Result<OverlayDef> parse_overlay(const Node& node) {
  OverlayDef def;
  TRY(only_attributes(node, {"target"}));
  def.target = node.attribute_or("target");
  if (def.target.empty()) return node.error("<userns:overlay> needs target='DIR', that of a <filesystem>");
  for (const Node child : node.children()) {
    if (child.uri() != kUsernsUri || child.name() != "lower")
      return child.error("unknown element <" + std::string(child.name()) +
                         "> in <userns:overlay>: known is <userns:lower dir=''/>");
    TRY(only_attributes(child, {"dir"}));
    def.lowers.push_back(child.attribute_or("dir"));
  }
  return def;
}

}  // namespace

std::vector<MetadataElement> parse_metadata(const Node& node) {
  std::vector<MetadataElement> list;
  std::set<std::string_view> seen;
  for (const Node child : node.children()) {
    if (child.uri().empty() || !seen.insert(child.uri()).second) continue;
    list.push_back({std::string(child.uri()), canonical(child, Dialect::kMetadata)});
  }
  return list;
}

Result<UsernsDef> parse_userns(const Node& node) {
  UsernsDef def;
  if (node.name() != "domain")
    return node.error("unknown element <userns:" + std::string(node.name()) +
                      "> in <metadata>: known is <userns:domain>");
  if (!node.attributes().empty())
    return node.error("unknown attribute " + quote(node.attributes().front().name) + " in <userns:domain>");
  std::set<std::string_view> seen;
  for (const Node child : node.children()) {
    const bool is_ours = child.uri() == kUsernsUri;
    if (is_ours && child.name() == "image") {
      def.images.push_back(TRY(parse_image(child)));
      continue;
    }
    if (is_ours && child.name() == "overlay") {
      def.overlays.push_back(TRY(parse_overlay(child)));
      continue;
    }
    const bool is_repeated = is_ours && !seen.insert(child.name()).second;
    if (is_repeated) return child.error("<userns:" + std::string(child.name()) + "> appears twice");
    if (is_ours && child.name() == "pids")
      def.pids_limit = TRY(needed_number<std::uint64_t>(child, "limit"));
    else if (is_ours && child.name() == "ids")
      TRY(parse_ids(child, def));
    else if (is_ours && child.name() == "seccomp")
      def.seccomp = TRY(parse_seccomp(child));
    else if (is_ours && child.name() == "owner")
      def.owner = TRY(parse_owner(child));
    else
      return child.error(
          "unknown element <" + std::string(child.name()) +
          "> in <userns:domain>: known are <userns:pids limit=''/>, <userns:ids count='' group=''/>, "
          "<userns:seccomp>, <userns:image target=''>, <userns:overlay target=''> and <userns:owner user=''/>");
  }
  if (const auto valid = validate_images(def.images); !valid)
    return node.error(valid.error().code, valid.error().text);
  if (const auto valid = validate_overlays(def.overlays); !valid)
    return node.error(valid.error().code, valid.error().text);
  return def;
}

Result<MetadataElement> parse_metadata_element(std::string_view text, std::string_view key, std::string_view uri) {
  const std::string prefix(key), name(uri);
  if (xmlValidateNCName(reinterpret_cast<const xmlChar*>(prefix.c_str()), 0) != 0)
    return fail(VIR_ERR_INVALID_ARG,
                "metadata key " + quote(key) + " is not a valid XML prefix: use letters and digits");
  if (name.empty() || !is_utf8(name))
    return fail(VIR_ERR_INVALID_ARG, "metadata namespace " + quote(uri) + " is not a valid URI");
  const auto document = TRY(Document::parse(text), "metadata");
  xmlNode* root = document.root().get();
  xmlNs* ns = xmlNewNs(root, reinterpret_cast<const xmlChar*>(name.c_str()),
                       reinterpret_cast<const xmlChar*>(prefix.c_str()));
  // The element may declare the prefix itself, which is well if it means the same.
  for (xmlNs* own = root->nsDef; own && !ns; own = own->next)
    if (view(own->prefix) == key && view(own->href) == uri) ns = own;
  if (!ns)
    return fail(VIR_ERR_INVALID_ARG,
                "metadata: prefix " + quote(key) + " is already taken in the element: use another key");
  for_each_element(root, [&](xmlNode* node) {
    if (!node->ns) xmlSetNs(node, ns);
  });
  // virXMLInjectNamespace leaves elements of other namespaces alone, and so a root in one would never be found again.
  if (view(root->ns->href) != uri)
    return fail(VIR_ERR_INVALID_ARG,
                "metadata: the element is in namespace " + quote(view(root->ns->href)) + ", not in " + quote(uri));
  return MetadataElement{name, canonical(Node(root), Dialect::kMetadata)};
}

Result<std::string> extract_metadata(const DomainDef& def, std::string_view uri) {
  const auto found = find(def, uri);
  if (found == def.metadata.end())
    return fail(VIR_ERR_NO_DOMAIN_METADATA, "requested metadata element is not present: namespace " + quote(uri));
  const auto document = TRY(Document::parse(found->xml), "metadata");
  xmlNode* root = document.root().get();
  for_each_element(root, [&](xmlNode* node) {
    if (node->ns && view(node->ns->href) == uri) node->ns = nullptr;
  });
  // The declaration goes too, but is still what an attribute of that namespace points to: freed with the document.
  xmlNs* unused = nullptr;
  for (xmlNs** link = &root->nsDef; *link;) {
    xmlNs* ns = *link;
    if (view(ns->href) != uri) {
      link = &ns->next;
      continue;
    }
    *link = ns->next;
    ns->next = unused;
    unused = ns;
  }
  const std::string stored = canonical(Node(root), Dialect::kMetadata);
  xmlFreeNsList(unused);
  std::string text;
  append_canonical(text, stored, 0);
  text.pop_back();  // libvirt's has no line end
  return text;
}

Result<void> set_metadata(DomainDef& def, std::string_view text, std::string_view key, std::string_view uri) {
  auto element = TRY(parse_metadata_element(text, key, uri));
  if (uri == kUsernsUri) {
    const auto document = TRY(Document::parse(element.xml), "metadata");
    def.userns = TRY(parse_userns(document.root()), "metadata");
  }
  const auto found = find(def, uri);
  if (found != def.metadata.end()) def.metadata.erase(found);
  def.metadata.push_back(std::move(element));
  return {};
}

void remove_metadata(DomainDef& def, std::string_view uri) {
  const auto found = find(def, uri);
  if (found == def.metadata.end()) return;
  def.metadata.erase(found);
  if (uri == kUsernsUri) def.userns = {};
}

}  // namespace virtuserns::xml
