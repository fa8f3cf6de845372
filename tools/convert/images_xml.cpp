#include "tools/convert/images_xml.h"

#include <algorithm>

#include "xml/metadata.h"

namespace virtuserns::convert {
namespace {

std::string attribute(const std::string& name, const std::string& value) {
  std::string escaped;
  for (const char c : value)
    escaped += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '\'' ? "&apos;" : std::string(1, c);
  return " " + name + "='" + escaped + "'";
}

// Of text that xml:: wrote itself: elements are closed one way or the other, and nothing of them is nested in its like.
void erase_images(std::string& text) {
  for (auto at = text.find("<image "); at != std::string::npos; at = text.find("<image ", at)) {
    const auto close = text.find('>', at);
    if (close == std::string::npos) return;
    auto end = close + 1;
    if (text[close - 1] != '/') {
      end = text.find("</image>", close);
      if (end == std::string::npos) return;
      end += 8;
    }
    text.erase(at, end - at);
  }
}

}  // namespace

std::string format_part(const ImagePartDef& part) {
  std::string text = "<image" + attribute("target", part.target);
  if (part.partition) text += attribute("partition", std::to_string(*part.partition));
  if (part.offset_bytes) text += attribute("offset", std::to_string(*part.offset_bytes));
  if (part.size_bytes) text += attribute("size", std::to_string(*part.size_bytes));
  if (!part.subvolume.empty()) text += attribute("subvolume", part.subvolume);
  text += ">";
  for (const auto& backing : part.backings)
    text += "<backing" + attribute("file", backing.file) + attribute("format", backing.format) + "/>";
  return text + "</image>";
}

Result<void> set_images(DomainDef& def, const std::vector<ImagePartDef>& parts) {
  const bool has_element = std::any_of(def.metadata.begin(), def.metadata.end(),
                                       [](const auto& element) { return element.uri == kUsernsUri; });
  std::string text = has_element ? TRY(xml::extract_metadata(def, kUsernsUri)) : "<domain/>";
  erase_images(text);
  std::string added;
  for (const auto& part : parts) added += format_part(part);
  if (const auto end = text.rfind("</domain>"); end != std::string::npos)
    text.insert(end, added);
  else if (const auto empty = text.rfind("/>"); empty != std::string::npos)
    text.replace(empty, 2, ">" + added + "</domain>");
  return xml::set_metadata(def, text, "userns", kUsernsUri);
}

}  // namespace virtuserns::convert
