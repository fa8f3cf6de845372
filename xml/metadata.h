// <metadata>: foreign elements, one for each namespace, and our own among them (UsernsDef).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"
#include "xml/node.h"

namespace virtuserns::xml {

// As virXMLNodeSanitizeNamespaces: children without a namespace are not kept, and of several with one namespace only
// the first is.
[[nodiscard]] std::vector<MetadataElement> parse_metadata(const Node& node);
// What <userns:domain> says. An unknown child or attribute there is an error: it is our own namespace.
[[nodiscard]] Result<UsernsDef> parse_userns(const Node& node);

// virDomainSetMetadata's element: the whole of `text` is put into namespace `uri` with the prefix `key`.
[[nodiscard]] Result<MetadataElement> parse_metadata_element(std::string_view text, std::string_view key,
                                                             std::string_view uri);
// virDomainGetMetadata: the element of `uri` without that namespace. VIR_ERR_NO_DOMAIN_METADATA when there is none.
[[nodiscard]] Result<std::string> extract_metadata(const DomainDef& def, std::string_view uri);
// Replaces the element of its namespace, and reads DomainDef::userns anew when it is ours. Unchanged after an error.
[[nodiscard]] Result<void> set_metadata(DomainDef& def, std::string_view text, std::string_view key,
                                        std::string_view uri);
// Nothing to remove is not an error, as with libvirt.
void remove_metadata(DomainDef& def, std::string_view uri);

}  // namespace virtuserns::xml
