#include "xml/metadata.h"

#include <libxml/tree.h>

#include <algorithm>
#include <set>

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
  for (const Node child : node.children()) {
    const bool is_ours = child.uri() == kUsernsUri;
    const bool is_repeated = (child.name() == "pids" && def.pids_limit) || (child.name() == "ids" && def.id_count);
    if (is_ours && is_repeated) return child.error("<userns:" + std::string(child.name()) + "> appears twice");
    if (is_ours && child.name() == "pids")
      def.pids_limit = TRY(needed_number<std::uint64_t>(child, "limit"));
    else if (is_ours && child.name() == "ids")
      def.id_count = TRY(needed_number<std::uint32_t>(child, "count"));
    else
      return child.error("unknown element <" + std::string(child.name()) +
                         "> in <userns:domain>: known are <userns:pids limit=''/> and <userns:ids count=''/>");
  }
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
