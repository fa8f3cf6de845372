// XML on its way out: a small tree that prints as libvirt prints (two spaces, single quotes, virBufferEscapeString).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "conf/domain.h"

namespace virtuserns::xml {

// Escapes < > & ' " and drops the control characters that libvirt drops. Unlike libvirt a carriage return becomes
// &#13; so that it survives the next parser; for attributes also tab and newline.
[[nodiscard]] std::string escape_text(std::string_view text);
[[nodiscard]] std::string escape_attribute(std::string_view text);

// The order in which libvirt prints attributes or children of one element; names not in it come last, in the order
// in which they were added.
using Order = std::span<const std::string_view>;

class Element {
 public:
  explicit Element(std::string name) : name_(std::move(name)) {}

  Element& attribute(std::string_view name, std::string_view value);
  Element& attribute(std::string_view name, std::integral auto value) {
    return attribute(name, std::to_string(value));
  }
  Element& attribute_if(std::string_view name, std::string_view value);  // nothing for an empty value
  Element& text(std::string_view text);
  Element& child(Element element);
  Element& child_if(Element element);  // nothing for an element without attributes, text and children
  // <name>text</name>
  Element& child(std::string_view name, std::string_view text);
  Element& child(std::string_view name, std::integral auto value) { return child(name, std::to_string(value)); }
  Element& child_if(std::string_view name, std::string_view text);
  // A canonical element, from column 0 (KeptXml::xml).
  Element& raw(std::string_view name, std::string_view xml);
  // Those kept items that belong here: with the prefix "source/", "source/@portid" is an attribute and
  // "source/slices" a child; deeper ones belong to someone else.
  Element& kept(const std::vector<KeptXml>& items, std::string_view prefix = {});
  // Sorts what was added so far; stable.
  Element& sort(Order attributes, Order children);

  [[nodiscard]] bool is_empty() const { return attributes_.empty() && children_.empty() && text_.empty(); }
  // With a trailing newline.
  [[nodiscard]] std::string to_string(std::size_t depth = 0) const;

 private:
  struct Attribute {
    std::string name, value;
  };
  void append_to(std::string& out, std::size_t depth) const;

  std::string name_, text_, raw_;
  std::vector<Attribute> attributes_;
  std::vector<Element> children_;
};

// Appends a canonical element (see kept.h) at a depth; line ends inside texts and comments do not gain blanks.
void append_canonical(std::string& out, std::string_view xml, std::size_t depth);

}  // namespace virtuserns::xml
