#include "xml/node.h"

#include <libxml/parser.h>
#include <libxml/tree.h>

#include <algorithm>
#include <mutex>

namespace virtuserns::xml {

namespace {

std::string_view view(const xmlChar* text) {
  return text ? std::string_view(reinterpret_cast<const char*>(text)) : std::string_view();
}

struct FreeXmlText {
  void operator()(xmlChar* text) const { xmlFree(text); }
};
using XmlText = std::unique_ptr<xmlChar, FreeXmlText>;

struct FreeContext {
  void operator()(xmlParserCtxt* context) const { xmlFreeParserCtxt(context); }
};

// Walks the markup once. It need not understand malformed XML, libxml2 refuses that; it must only never count less
// than libxml2 would build.
class BoundsScanner {
 public:
  explicit BoundsScanner(std::string_view text) : text_(text) {}

  Result<void> scan() {
    while ((at_ = text_.find('<', at_)) != std::string_view::npos) TRY(scan_markup());
    return {};
  }

 private:
  [[nodiscard]] Error refuse(const std::string& what) const {
    const auto line =
        1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(std::min(at_, text_.size())), '\n');
    return fail(VIR_ERR_XML_ERROR, "line " + std::to_string(line) + ": " + what);
  }

  void skip_past(std::string_view end) {
    const auto found = text_.find(end, at_);
    at_ = found == std::string_view::npos ? text_.size() : found + end.size();
  }

  Result<void> scan_markup() {
    const auto rest = text_.substr(at_);
    if (rest.starts_with("<!--")) return at_ += 4, skip_past("-->"), Result<void>();
    if (rest.starts_with("<![CDATA[")) return at_ += 9, skip_past("]]>"), Result<void>();
    if (rest.starts_with("<?")) return at_ += 2, skip_past("?>"), Result<void>();
    if (rest.starts_with("<!")) return refuse("a document type declaration is not accepted");
    if (rest.starts_with("</")) {
      if (depth_ > 0) --depth_;
      return skip_past(">"), Result<void>();
    }
    return scan_start_tag();
  }

  Result<void> scan_start_tag() {
    std::size_t attributes = 0;
    bool is_empty = false;
    for (++at_; at_ < text_.size() && text_[at_] != '>'; ++at_) {
      const char c = text_[at_];
      if (c == '"' || c == '\'') {
        ++attributes;
        at_ = std::min(text_.find(c, at_ + 1), text_.size());
        if (at_ == text_.size()) break;
      }
      is_empty = text_[at_] == '/';
    }
    nodes_ += 1 + attributes;
    if (attributes > kMaxAttributes)
      return refuse("more than " + std::to_string(kMaxAttributes) + " attributes in one element");
    if (nodes_ > kMaxNodes) return refuse("more than " + std::to_string(kMaxNodes) + " elements and attributes");
    if (++depth_ > kMaxDepth) return refuse("elements nested deeper than " + std::to_string(kMaxDepth));
    if (is_empty) --depth_;
    return {};
  }

  std::string_view text_;
  std::size_t at_ = 0, depth_ = 0, nodes_ = 0;
};

// The first complaint is the cause; what follows it is libxml2 losing its way.
struct FirstError {
  std::string text;
  static void keep(void* context, xmlErrorPtr error) {
    auto& text = static_cast<FirstError*>(static_cast<xmlParserCtxt*>(context)->_private)->text;
    if (text.empty() && error && error->message)
      text = "line " + std::to_string(error->line) + ": " + printable(trim(error->message));
  }
};

}  // namespace

Result<void> check_bounds(std::string_view text) {
  if (text.size() > kMaxTextBytes)
    return fail(VIR_ERR_XML_ERROR, "the XML text has " + std::to_string(text.size()) + " bytes; at most " +
                                       std::to_string(kMaxTextBytes) + " are accepted");
  if (!is_utf8(text)) return fail(VIR_ERR_XML_ERROR, "the XML text is not valid UTF-8");
  return BoundsScanner(text).scan();
}

Result<Document> Document::parse(std::string_view text) {
  static std::once_flag once;
  std::call_once(once, xmlInitParser);
  TRY(check_bounds(text));
  if (trim(text).empty()) return fail(VIR_ERR_XML_ERROR, "the XML text is empty");
  const std::unique_ptr<xmlParserCtxt, FreeContext> context(xmlNewParserCtxt());
  if (!context) return fail(VIR_ERR_NO_MEMORY, "create an XML parser");
  FirstError first;
  context->_private = &first;
  context->sax->serror = FirstError::keep;
  // The encoding is fixed: what is_utf8 has checked is what the scanner has seen is what libxml2 reads.
  constexpr int kOptions = XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_BIG_LINES |
                           XML_PARSE_NOCDATA | XML_PARSE_IGNORE_ENC;
  Document document(
      xmlCtxtReadMemory(context.get(), text.data(), static_cast<int>(text.size()), nullptr, "UTF-8", kOptions));
  if (!document.doc_ || !context->wellFormed || !context->nsWellFormed) {
    if (first.text.empty()) return fail(VIR_ERR_XML_ERROR, "the text is not well-formed XML");
    return fail(VIR_ERR_XML_DETAIL, std::move(first.text));
  }
  if (!document.root()) return fail(VIR_ERR_XML_ERROR, "the XML text has no element");
  if (document.doc_->intSubset) return fail(VIR_ERR_XML_ERROR, "a document type declaration is not accepted");
  return document;
}

void Document::Free::operator()(_xmlDoc* doc) const { xmlFreeDoc(doc); }

Node Document::root() const { return Node(xmlDocGetRootElement(doc_.get())); }

std::string_view Node::name() const { return node_ ? view(node_->name) : std::string_view(); }
std::string_view Node::uri() const { return node_ && node_->ns ? view(node_->ns->href) : std::string_view(); }
std::string_view Node::prefix() const { return node_ && node_->ns ? view(node_->ns->prefix) : std::string_view(); }
long Node::line() const { return node_ ? xmlGetLineNo(node_) : 0; }

std::optional<std::string> Node::attribute(std::string_view attribute_name) const {
  if (!node_) return std::nullopt;
  for (const xmlAttr* a = node_->properties; a; a = a->next) {
    if (a->ns || view(a->name) != attribute_name) continue;
    const XmlText value(xmlNodeListGetString(node_->doc, a->children, 1));
    return std::string(view(value.get()));
  }
  return std::nullopt;
}

std::string Node::attribute_or(std::string_view attribute_name, std::string fallback) const {
  return attribute(attribute_name).value_or(std::move(fallback));
}

std::vector<Node::Attribute> Node::attributes() const {
  std::vector<Attribute> list;
  if (!node_) return list;
  for (const xmlAttr* a = node_->properties; a; a = a->next) {
    const XmlText value(xmlNodeListGetString(node_->doc, a->children, 1));
    std::string full(view(a->name));
    if (a->ns && a->ns->prefix) full.insert(0, std::string(view(a->ns->prefix)) + ":");
    list.push_back({std::move(full), std::string(view(value.get())), a->ns != nullptr});
  }
  return list;
}

std::string Node::text() const {
  if (!node_) return {};
  const XmlText content(xmlNodeGetContent(node_));
  return std::string(view(content.get()));
}

std::vector<Node> Node::children() const {
  std::vector<Node> list;
  if (!node_) return list;
  for (xmlNode* n = node_->children; n; n = n->next)
    if (n->type == XML_ELEMENT_NODE) list.emplace_back(n);
  return list;
}

std::vector<Node> Node::children(std::string_view element_name) const {
  std::vector<Node> list;
  for (const Node n : children())
    if (n.is(element_name)) list.push_back(n);
  return list;
}

Node Node::child(std::string_view element_name) const {
  if (!node_) return {};
  for (xmlNode* n = node_->children; n; n = n->next)
    if (n->type == XML_ELEMENT_NODE && Node(n).is(element_name)) return Node(n);
  return {};
}

Result<Node> Node::only_child(std::string_view element_name) const {
  const auto list = children(element_name);
  if (list.size() > 1)
    return list[1].error("element <" + std::string(element_name) + "> appears more than once in <" +
                         std::string(name()) + ">");
  return list.empty() ? Node() : list.front();
}

Error Node::error(int code, const std::string& text) const {
  return fail(code, "line " + std::to_string(line()) + ": " + text);
}

namespace {

Result<std::optional<bool>> two_words(const Node& node, std::string_view attribute_name, std::string_view on,
                                      std::string_view off) {
  const auto value = node.attribute(attribute_name);
  if (!value) return std::optional<bool>();
  if (*value == on) return std::optional<bool>(true);
  if (*value == off) return std::optional<bool>(false);
  return node.error("invalid value " + quote(*value) + " for attribute '" + std::string(attribute_name) + "' of <" +
                    std::string(node.name()) + ">: '" + std::string(on) + "' or '" + std::string(off) +
                    "' is needed");
}

}  // namespace

Result<std::optional<bool>> Node::yes_no(std::string_view attribute_name) const {
  return two_words(*this, attribute_name, "yes", "no");
}

Result<std::optional<bool>> Node::on_off(std::string_view attribute_name) const {
  return two_words(*this, attribute_name, "on", "off");
}

}  // namespace virtuserns::xml
