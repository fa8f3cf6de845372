// What rules about several elements are made of. Internal to conf.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "conf/base/result.h"

namespace virtuserns {

[[nodiscard]] inline Error xml_error(std::string text) { return fail(VIR_ERR_XML_ERROR, std::move(text)); }
[[nodiscard]] inline Error unsupported(std::string text) { return fail(VIR_ERR_CONFIG_UNSUPPORTED, std::move(text)); }

[[nodiscard]] bool has_control(std::string_view text);
[[nodiscard]] bool has_dot_dot(std::string_view path);
// "/a//b/" is "/a/b".
[[nodiscard]] std::string tidy_path(std::string_view path);
// `what` is how the error calls it.
[[nodiscard]] Result<void> validate_absolute(const std::string& path, const std::string& what);

}  // namespace virtuserns
