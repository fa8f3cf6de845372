// The text format of LVM's metadata: "name = value", "name { ... }", lists, comments.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"

namespace virtuserns::convert {

// A section, or one value: strings lose their quotes, numbers stay text.
struct LvmNode {
  std::string name;
  bool is_section = false;
  std::vector<std::string> values;
  std::vector<LvmNode> children;

  [[nodiscard]] const LvmNode* child(std::string_view child_name) const;
  [[nodiscard]] std::optional<std::uint64_t> number(std::string_view child_name) const;
  [[nodiscard]] std::string text(std::string_view child_name) const;
  [[nodiscard]] bool has_value(std::string_view child_name, std::string_view value) const;
};

// A section without a name that holds all. At most 8 levels and 20000 nodes and values.
[[nodiscard]] Result<LvmNode> parse_lvm_text(std::string_view text);

}  // namespace virtuserns::convert
