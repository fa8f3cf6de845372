#include "xml/writer.h"

#include <algorithm>

namespace virtuserns::xml {

namespace {

enum class Place { kText, kAttribute };

std::string escape(std::string_view text, Place place) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '\'':
        out += "&apos;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\r':
        out += "&#13;";
        break;
      case '\n':
      case '\t':
        if (place == Place::kText)
          out += c;
        else
          out += c == '\n' ? "&#10;" : "&#9;";
        break;
      default:
        if (byte >= 0x20) out += c;
    }
  }
  return out;
}

std::size_t rank(Order order, std::string_view name) {
  return static_cast<std::size_t>(std::find(order.begin(), order.end(), name) - order.begin());
}

}  // namespace

std::string escape_text(std::string_view text) { return escape(text, Place::kText); }
std::string escape_attribute(std::string_view text) { return escape(text, Place::kAttribute); }

Element& Element::attribute(std::string_view name, std::string_view value) {
  attributes_.push_back({std::string(name), std::string(value)});
  return *this;
}

Element& Element::attribute_if(std::string_view name, std::string_view value) {
  return value.empty() ? *this : attribute(name, value);
}

Element& Element::text(std::string_view text) {
  text_ = text;
  return *this;
}

Element& Element::child(Element element) {
  children_.push_back(std::move(element));
  return *this;
}

Element& Element::child_if(Element element) { return element.is_empty() ? *this : child(std::move(element)); }

Element& Element::child(std::string_view name, std::string_view text) {
  return child(std::move(Element(std::string(name)).text(text)));
}

Element& Element::child_if(std::string_view name, std::string_view text) {
  return text.empty() ? *this : child(name, text);
}

Element& Element::raw(std::string_view name, std::string_view xml) {
  Element element{std::string(name)};
  element.raw_ = xml;
  return child(std::move(element));
}

Element& Element::kept(const std::vector<KeptXml>& items, std::string_view prefix) {
  for (const auto& item : items) {
    std::string_view name = item.name;
    if (!name.starts_with(prefix)) continue;
    name.remove_prefix(prefix.size());
    if (name.empty() || name.find('/') != std::string_view::npos) continue;
    if (name.front() == '@')
      attribute(name.substr(1), item.xml);
    else
      raw(name, item.xml);
  }
  return *this;
}

Element& Element::sort(Order attributes, Order children) {
  const auto by = [](Order order) {
    return [order](const auto& a, const auto& b) { return rank(order, a.name_) < rank(order, b.name_); };
  };
  if (!attributes.empty())
    std::stable_sort(attributes_.begin(), attributes_.end(), [attributes](const Attribute& a, const Attribute& b) {
      return rank(attributes, a.name) < rank(attributes, b.name);
    });
  if (!children.empty()) std::stable_sort(children_.begin(), children_.end(), by(children));
  return *this;
}

std::string Element::to_string(std::size_t depth) const {
  std::string out;
  append_to(out, depth);
  return out;
}

void Element::append_to(std::string& out, std::size_t depth) const {
  if (!raw_.empty()) return append_canonical(out, raw_, depth);
  out.append(2 * depth, ' ').append("<").append(name_);
  for (const auto& a : attributes_)
    out.append(" ").append(a.name).append("='").append(escape_attribute(a.value)).append("'");
  if (children_.empty() && text_.empty()) {
    out += "/>\n";
    return;
  }
  out += '>';
  if (children_.empty()) {
    out += escape_text(text_);
  } else {
    out += '\n';
    for (const auto& c : children_) c.append_to(out, depth + 1);
    out.append(2 * depth, ' ');
  }
  out.append("</").append(name_).append(">\n");
}

void append_canonical(std::string& out, std::string_view xml, std::size_t depth) {
  // In the canonical form a raw line end outside a comment is layout, and a line end of the text is "&#10;".
  const std::string indent(2 * depth, ' ');
  char quote = 0;
  bool in_tag = false;
  while (!xml.empty() && xml.back() == '\n') xml.remove_suffix(1);
  out += indent;
  for (std::size_t i = 0; i < xml.size(); ++i) {
    const char c = xml[i];
    if (!in_tag && xml.substr(i).starts_with("<!--")) {
      const auto end = std::min(xml.find("-->", i + 4), xml.size());
      out.append(xml.substr(i, end - i));
      i = end - 1;
      continue;
    }
    if (in_tag) {
      if (quote != 0)
        quote = c == quote ? '\0' : quote;
      else if (c == '"' || c == '\'')
        quote = c;
      else if (c == '>')
        in_tag = false;
    } else if (c == '<') {
      in_tag = true;
    } else if (c == '&' && xml.substr(i).starts_with("&#10;")) {
      out += '\n';
      i += 4;
      continue;
    }
    out += c;
    if (c == '\n') out += indent;
  }
  out += '\n';
}

}  // namespace virtuserns::xml
