#include "xml/kept.h"

#include <libxml/tree.h>

#include <algorithm>

#include "xml/writer.h"

namespace virtuserns::xml {

namespace {

std::string_view view(const xmlChar* text) {
  return text ? std::string_view(reinterpret_cast<const char*>(text)) : std::string_view();
}

// Attributes whose order libvirt fixes, of elements that are kept yet common.
constexpr std::string_view kPortProfile[] = {"managerid",  "typeid",      "typeidversion",
                                             "instanceid", "interfaceid", "profileid"};
constexpr std::string_view kCatchup[] = {"threshold", "slew", "limit"};
constexpr std::string_view kBandwidth[] = {"average", "peak", "floor", "burst"};

Order attribute_order(std::string_view element) {
  if (element == "parameters") return kPortProfile;
  if (element == "catchup") return kCatchup;
  if (element == "inbound" || element == "outbound") return kBandwidth;
  return {};
}

constexpr std::string_view kBandwidthChildren[] = {"inbound", "outbound"};
constexpr std::string_view kMemoryBacking[] = {"hugepages", "nosharepages", "locked", "source",
                                               "access",    "allocation",   "discard"};

Order child_order(std::string_view element) {
  if (element == "bandwidth") return kBandwidthChildren;
  if (element == "memoryBacking") return kMemoryBacking;
  return {};
}

bool is_blank(std::string_view text) { return trim(text).empty(); }

class Printer {
 public:
  explicit Printer(Dialect dialect) : dialect_(dialect) {}

  // `is_inline`: inside mixed content, where every blank counts and nothing is laid out.
  void element(const xmlNode* node, std::size_t depth, bool is_inline) {
    const auto scopes = in_scope_.size();
    const auto name = qualified(node->ns, node->name);
    out.append("<").append(name);
    declare(node);
    auto attributes = Node(const_cast<xmlNode*>(node)).attributes();
    if (const auto order = dialect_ == Dialect::kLibvirt ? attribute_order(name) : Order(); !order.empty()) {
      const auto rank = [&](const Node::Attribute& a) {
        return std::find(order.begin(), order.end(), a.name) - order.begin();
      };
      std::stable_sort(attributes.begin(), attributes.end(),
                       [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
    }
    for (const auto& a : attributes) attribute(a.name, a.value);
    content(node, depth, is_inline, name);
    in_scope_.resize(scopes);
  }

  std::string out;

 private:
  struct Scope {
    std::string prefix, uri;
  };

  static std::string qualified(const xmlNs* ns, const xmlChar* name) {
    std::string text(view(name));
    if (ns && ns->prefix) text.insert(0, std::string(view(ns->prefix)) + ":");
    return text;
  }

  void attribute(std::string_view name, std::string_view value) {
    const std::string_view mark = dialect_ == Dialect::kLibvirt ? "'" : "\"";
    out.append(" ").append(name).append("=").append(mark).append(escaped(value, true)).append(mark);
  }

  [[nodiscard]] std::string escaped(std::string_view text, bool is_attribute) const {
    std::string result;
    for (const char c : text) {
      // libxml2 leaves quotes alone where they do no harm.
      const bool is_plain_quote = dialect_ == Dialect::kMetadata && (c == '\'' || (c == '"' && !is_attribute));
      if (is_plain_quote)
        result += c;
      else if (c == '\n')
        result += "&#10;";
      else
        result += is_attribute ? escape_attribute({&c, 1}) : escape_text({&c, 1});
    }
    return result;
  }

  [[nodiscard]] bool is_declared(std::string_view prefix, std::string_view uri) const {
    const auto found =
        std::find_if(in_scope_.rbegin(), in_scope_.rend(), [&](const Scope& s) { return s.prefix == prefix; });
    return found == in_scope_.rend() ? prefix.empty() && uri.empty() : found->uri == uri;
  }

  void declare_one(const xmlNs* ns) {
    const std::string prefix(ns ? view(ns->prefix) : ""), uri(ns ? view(ns->href) : "");
    if (prefix == "xml" || is_declared(prefix, uri)) return;
    in_scope_.push_back({prefix, uri});
    attribute(prefix.empty() ? "xmlns" : "xmlns:" + prefix, uri);
  }

  void declare(const xmlNode* node) {
    for (const xmlNs* ns = node->nsDef; ns; ns = ns->next) declare_one(ns);
    declare_one(node->ns);
    for (const xmlAttr* a = node->properties; a; a = a->next)
      if (a->ns) declare_one(a->ns);
  }

  [[nodiscard]] bool is_shown(const xmlNode* node) const {
    return node->type == XML_ELEMENT_NODE || node->type == XML_TEXT_NODE || node->type == XML_CDATA_SECTION_NODE ||
           (node->type == XML_COMMENT_NODE && dialect_ == Dialect::kMetadata);
  }

  [[nodiscard]] std::vector<const xmlNode*> ordered_children(const xmlNode* node, std::string_view name,
                                                             bool is_mixed) const {
    std::vector<const xmlNode*> list;
    for (const xmlNode* n = node->children; n; n = n->next)
      if (is_shown(n)) list.push_back(n);
    const auto order = is_mixed || dialect_ == Dialect::kMetadata ? Order() : child_order(name);
    const auto rank = [&](const xmlNode* n) {
      return std::find(order.begin(), order.end(), view(n->name)) - order.begin();
    };
    if (!order.empty())
      std::stable_sort(list.begin(), list.end(),
                       [&](const xmlNode* a, const xmlNode* b) { return rank(a) < rank(b); });
    return list;
  }

  void content(const xmlNode* node, std::size_t depth, bool is_inline, const std::string& name) {
    bool has_text = false, has_child = false, has_blank = false;
    for (const xmlNode* n = node->children; n; n = n->next) {
      if (!is_shown(n)) continue;
      if (n->type == XML_ELEMENT_NODE || n->type == XML_COMMENT_NODE)
        has_child = true;
      else
        (is_blank(view(n->content)) ? has_blank : has_text) = true;
    }
    // Blanks next to elements are layout; blanks alone are a text.
    const bool is_mixed = is_inline || has_text || (has_blank && !has_child);
    if (!has_child && !has_text && !has_blank) {
      out += "/>";
      return;
    }
    out += '>';
    for (const xmlNode* n : ordered_children(node, name, is_mixed)) {
      const bool is_text = n->type == XML_TEXT_NODE || n->type == XML_CDATA_SECTION_NODE;
      if (is_text && !is_mixed) continue;
      if (!is_mixed) out.append("\n").append(2 * (depth + 1), ' ');
      if (is_text)
        out += escaped(view(n->content), false);
      else if (n->type == XML_COMMENT_NODE)
        out.append("<!--").append(view(n->content)).append("-->");
      else
        element(n, depth + 1, is_mixed);
    }
    if (!is_mixed) out.append("\n").append(2 * depth, ' ');
    out.append("</").append(name).append(">");
  }

  Dialect dialect_;
  std::vector<Scope> in_scope_;
};

bool has(Names names, std::string_view name) { return std::find(names.begin(), names.end(), name) != names.end(); }

}  // namespace

std::string canonical(const Node& node, Dialect dialect) {
  Printer printer(dialect);
  if (node) printer.element(node.get(), 0, false);
  return std::move(printer.out);
}

void keep_rest(const Node& node, Names attributes, Names children, std::vector<KeptXml>& out,
               std::string_view prefix) {
  for (const auto& a : node.attributes())
    // A foreign attribute would need its namespace declared far away from it: libvirt drops those too.
    if (!a.has_namespace && !has(attributes, a.name)) out.push_back({std::string(prefix) + "@" + a.name, a.value});
  for (const Node child : node.children()) {
    if (child.uri().empty() && has(children, child.name())) continue;
    std::string name(child.name());
    if (!child.prefix().empty()) name.insert(0, std::string(child.prefix()) + ":");
    out.push_back({std::string(prefix) + name, canonical(child)});
  }
}

}  // namespace virtuserns::xml
