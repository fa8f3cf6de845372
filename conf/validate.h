// Every rule about a definition that needs nothing but the definition. One function per element; errors are
// VIR_ERR_XML_ERROR, VIR_ERR_CONFIG_UNSUPPORTED or VIR_ERR_INVALID_ARG and name the element, its value and the remedy.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"

namespace virtuserns {

[[nodiscard]] Result<void> validate(const DomainDef& def);
[[nodiscard]] Result<void> validate_device(const DeviceDef& device);
[[nodiscard]] Result<void> validate_idmap(const IdMapDef& map);  // conf/idmap.cpp
[[nodiscard]] Result<void> validate_name(const std::string& name);
// conf/validate_ids.cpp: letters, digits, '-' and '_', at most kMaxIdGroupBytes. Called by the parser, because metadata come
// alone too; what goes with a group and what does not, by validate.
inline constexpr std::size_t kMaxIdGroupBytes = 64;
[[nodiscard]] Result<void> validate_id_group(const std::string& name);
[[nodiscard]] Result<void> validate_ids(const DomainDef& def);

// conf/validate_image.cpp. This one is called by the parser, because metadata come alone too.
[[nodiscard]] Result<void> validate_images(const std::vector<ImagePartDef>& images);
[[nodiscard]] bool is_image(const FilesystemDef& fs);
// What says which part of an image it is, or null.
[[nodiscard]] const ImagePartDef* find_image_part(const DomainDef& def, const FilesystemDef& fs);
[[nodiscard]] std::vector<std::string> unused_image_parts(const DomainDef& def);  // their targets

// conf/validate_overlay.cpp. The first one is called by the parser, as above; the second one by validate.
inline constexpr std::size_t kMaxOverlayLowers = 32;
[[nodiscard]] Result<void> validate_overlays(const std::vector<OverlayDef>& overlays);
[[nodiscard]] Result<void> validate_overlay_sources(const DomainDef& def);
// What an overlay at this <filesystem> lies over, or null: it is none.
[[nodiscard]] const OverlayDef* find_overlay(const DomainDef& def, const FilesystemDef& fs);
// A directory of an overlay of `reader`, below it or what it writes to, that `writer` would write to as it is; by their names.
[[nodiscard]] std::optional<std::string> find_written_base(const DomainDef& reader, const DomainDef& writer);
[[nodiscard]] std::vector<std::string> unused_overlays(const DomainDef& def);  // their targets

// One line for each element that is kept but not honoured: what `virsh dominfo` prints as messages.
[[nodiscard]] std::vector<std::string> unhonoured(const DomainDef& def);

}  // namespace virtuserns
