// libvirt's own RELAX NG schemas, where they are installed.
#pragma once

#include <string>

#include "conf/base/result.h"
#include "xml/node.h"

namespace virtuserns::xml {

// VIR_ERR_XML_INVALID_SCHEMA with the first complaint; VIR_ERR_OPERATION_UNSUPPORTED when the schema is not there.
// `file` is a name below `directory`. Reads files; takes some tens of milliseconds.
[[nodiscard]] Result<void> validate_schema(const Document& document, const std::string& file,
                                           const std::string& directory = "/usr/share/libvirt/schemas");

}  // namespace virtuserns::xml
