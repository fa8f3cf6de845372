// XML text from strangers, read within bounds: RAII over libxml2.
//
// No DOCTYPE, no entities, no network, no files: a text that has a document type is refused whole. The bounds are
// checked by one linear scan before libxml2 sees the text, because some of libxml2's own work is quadratic (the
// search for a repeated attribute). Every error carries the line: "line 12: ...".
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"
#include "conf/base/text.h"

struct _xmlDoc;
struct _xmlNode;

namespace virtuserns::xml {

inline constexpr std::size_t kMaxTextBytes = 4 * 1024 * 1024;
inline constexpr std::size_t kMaxDepth = 64;
inline constexpr std::size_t kMaxNodes = 20000;     // elements and attributes together
inline constexpr std::size_t kMaxAttributes = 200;  // of one element

// A view of one element; valid as long as its Document. A null Node answers every question with "nothing".
class Node {
 public:
  Node() = default;
  explicit Node(_xmlNode* node) : node_(node) {}
  explicit operator bool() const { return node_ != nullptr; }
  [[nodiscard]] _xmlNode* get() const { return node_; }

  [[nodiscard]] std::string_view name() const;  // local name
  [[nodiscard]] std::string_view uri() const;   // namespace, or empty
  [[nodiscard]] std::string_view prefix() const;
  [[nodiscard]] long line() const;
  [[nodiscard]] bool is(std::string_view element_name) const {
    return node_ && uri().empty() && name() == element_name;
  }

  // An attribute without a namespace.
  [[nodiscard]] std::optional<std::string> attribute(std::string_view attribute_name) const;
  [[nodiscard]] std::string attribute_or(std::string_view attribute_name, std::string fallback = {}) const;
  struct Attribute {
    std::string name, value;  // name as written, with its prefix
    bool has_namespace = false;
  };
  [[nodiscard]] std::vector<Attribute> attributes() const;

  // All the text below, as XPath's string().
  [[nodiscard]] std::string text() const;
  [[nodiscard]] std::vector<Node> children() const;  // elements only
  [[nodiscard]] std::vector<Node> children(std::string_view element_name) const;
  [[nodiscard]] Node child(std::string_view element_name) const;  // the first, or null
  // The child, null when there is none, an error when there are several: libvirt silently takes the first.
  [[nodiscard]] Result<Node> only_child(std::string_view element_name) const;

  // "line N: text"
  [[nodiscard]] Error error(int code, const std::string& text) const;
  [[nodiscard]] Error error(const std::string& text) const { return error(VIR_ERR_XML_ERROR, text); }

  // Strict numbers; absent is not an error. Base 0 accepts 0x.
  template <std::integral T>
  [[nodiscard]] Result<std::optional<T>> number(std::string_view attribute_name, int base = 10) const {
    const auto value = attribute(attribute_name);
    if (!value) return std::optional<T>();
    std::string_view digits = trim(*value);
    if (base == 0) {
      base = 10;
      if (digits.starts_with("0x") || digits.starts_with("0X")) digits.remove_prefix(2), base = 16;
    }
    const auto parsed = parse_number<T>(digits, base);
    if (!parsed)
      return error("invalid value " + quote(*value) + " for attribute '" + std::string(attribute_name) + "' of <" +
                   std::string(name()) + ">: a whole number is needed");
    return parsed;
  }
  template <std::integral T>
  [[nodiscard]] Result<T> text_number() const {
    const auto content = text();
    const auto parsed = parse_number<T>(trim(content));
    if (!parsed)
      return error("invalid value " + quote(content) + " in <" + std::string(name()) + ">: a whole number is needed");
    return *parsed;
  }
  // "yes"/"no" (or "on"/"off"); absent is not an error.
  [[nodiscard]] Result<std::optional<bool>> yes_no(std::string_view attribute_name) const;
  [[nodiscard]] Result<std::optional<bool>> on_off(std::string_view attribute_name) const;

 private:
  _xmlNode* node_ = nullptr;
};

class Document {
 public:
  // VIR_ERR_XML_ERROR for text that is not well-formed UTF-8 XML or passes a bound; VIR_ERR_XML_DETAIL with libxml2's
  // reason where the parser gave one.
  [[nodiscard]] static Result<Document> parse(std::string_view text);
  [[nodiscard]] Node root() const;
  [[nodiscard]] _xmlDoc* get() const { return doc_.get(); }

 private:
  struct Free {
    void operator()(_xmlDoc* doc) const;
  };
  explicit Document(_xmlDoc* doc) : doc_(doc) {}
  std::unique_ptr<_xmlDoc, Free> doc_;
};

// Only the bounds of Document::parse, without parsing: for fuzzing and tests.
[[nodiscard]] Result<void> check_bounds(std::string_view text);

}  // namespace virtuserns::xml
