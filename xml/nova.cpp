#include "xml/nova.h"

#include <algorithm>

#include "conf/validate.h"
#include "xml/node.h"

namespace virtuserns::xml {

namespace {

// The only one of this name, or null.
Node only(const Node& node, std::string_view name) {
  Node found;
  for (const Node child : node.children()) {
    if (child.uri() != kNovaUri || child.name() != name) continue;
    if (found) return {};
    found = child;
  }
  return found;
}

}  // namespace

std::string nova_project(const DomainDef& def) {
  const auto element = std::find_if(def.metadata.begin(), def.metadata.end(),
                                    [](const MetadataElement& candidate) { return candidate.uri == kNovaUri; });
  if (element == def.metadata.end()) return {};
  const auto document = Document::parse(element->xml);
  if (!document || document->root().name() != "instance") return {};
  const Node project = only(only(document->root(), "owner"), "project");
  const std::string uuid = project.attribute_or("uuid");
  return validate_id_group(uuid) ? uuid : "";
}

}  // namespace virtuserns::xml
