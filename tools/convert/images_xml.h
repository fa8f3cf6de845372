// <userns:image> in a definition that is there already.
#pragma once

#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"

namespace virtuserns::convert {

// <image> of <userns:domain>, without a prefix.
[[nodiscard]] std::string format_part(const ImagePartDef& part);
// Puts these in the place of all <userns:image> elements; the other children of <userns:domain> stay.
[[nodiscard]] Result<void> set_images(DomainDef& def, const std::vector<ImagePartDef>& parts);

}  // namespace virtuserns::convert
