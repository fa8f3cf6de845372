#include "conf/toml.h"

#include <algorithm>
#include <string_view>

#include "conf/base/text.h"

namespace virtuserns {
namespace {

constexpr unsigned kMostDots = 64;  // of a line

// Behind the string that begins there; the end of its line, when it does not end before.
std::size_t end_of_string(std::string_view text, std::size_t begin) {
  const char quote = text[begin];
  const std::string three(3, quote);
  const bool is_long = text.substr(begin, 3) == three;
  for (auto i = begin + (is_long ? 3 : 1); i < text.size(); ++i) {
    if (quote == '"' && text[i] == '\\')
      ++i;
    else if (is_long && text.substr(i, 3) == three)
      return std::min({text.find_first_not_of(quote, i), i + 5, text.size()});  // up to two more belong to it
    else if (!is_long && text[i] == quote)
      return i + 1;
    else if (!is_long && text[i] == '\n')
      return i;
  }
  return text.size();
}

// Each dot of a key is a table deeper, and a hundred thousand of them are more than the stack has room for when they are removed.
Result<void> check_depth(std::string_view text, const std::string& file_name) {
  unsigned dots = 0;
  for (std::size_t i = 0, next = 0; i < text.size(); i = next) {
    const char c = text[i];
    next = i + 1;
    if (c == '#') next = std::min(text.find('\n', i), text.size());
    if (c == '"' || c == '\'') next = end_of_string(text, i);
    if (c == '\n') dots = 0;
    if (c != '.' || ++dots <= kMostDots) continue;
    const auto line = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(i), '\n') + 1;
    return error_at(file_name, {static_cast<toml::source_index>(line), 1},
                    "more than " + std::to_string(kMostDots) + " dots outside of strings");
  }
  return {};
}

}  // namespace

Error error_at(const std::string& file_name, const toml::source_position& at, const std::string& what) {
  return fail(VIR_ERR_CONF_SYNTAX, file_name + ":" + std::to_string(at.line) + ": " + what);
}

Result<toml::table> parse_toml(const std::string& text, const std::string& file_name) {
  TRY(check_depth(text, file_name));
  toml::parse_result parsed = toml::parse(text, file_name);
  if (!parsed) return error_at(file_name, parsed.error().source().begin, printable(parsed.error().description()));
  return std::move(parsed).table();
}

}  // namespace virtuserns
