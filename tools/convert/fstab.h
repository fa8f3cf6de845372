// fstab(5): lines as they are written, so that an edit changes nothing else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace virtuserns::convert {

struct FstabLine {
  std::string text;                         // the line, without its end
  bool is_entry = false;                    // else a comment, a blank or something unreadable
  std::string spec, target, type, options;  // with \040 and its like resolved
  std::uint32_t pass = 0;
};

// Never fails: what cannot be understood is no entry. At most 10000 lines.
[[nodiscard]] std::vector<FstabLine> parse_fstab(std::string_view text);
[[nodiscard]] std::string format_fstab(const std::vector<FstabLine>& lines);
// "a,b=c": the value of option `name` ("" when it has none), or nothing.
[[nodiscard]] bool has_option(const FstabLine& line, std::string_view name, std::string* value = nullptr);

}  // namespace virtuserns::convert
