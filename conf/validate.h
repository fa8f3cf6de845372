// Every rule about a definition that needs nothing but the definition. One function per element; errors are
// VIR_ERR_XML_ERROR, VIR_ERR_CONFIG_UNSUPPORTED or VIR_ERR_INVALID_ARG and name the element, its value and the remedy.
#pragma once

#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"

namespace virtuserns {

[[nodiscard]] Result<void> validate(const DomainDef& def);
[[nodiscard]] Result<void> validate_device(const DeviceDef& device);
[[nodiscard]] Result<void> validate_idmap(const IdMapDef& map);  // conf/idmap.cpp
[[nodiscard]] Result<void> validate_name(const std::string& name);

// conf/validate_image.cpp. This one is called by the parser, because metadata come alone too.
[[nodiscard]] Result<void> validate_images(const std::vector<ImagePartDef>& images);
[[nodiscard]] bool is_image(const FilesystemDef& fs);
// What says which part of an image it is, or null.
[[nodiscard]] const ImagePartDef* find_image_part(const DomainDef& def, const FilesystemDef& fs);
[[nodiscard]] std::vector<std::string> unused_image_parts(const DomainDef& def);  // their targets

// One line for each element that is kept but not honoured: what `virsh dominfo` prints as messages.
[[nodiscard]] std::vector<std::string> unhonoured(const DomainDef& def);

}  // namespace virtuserns
