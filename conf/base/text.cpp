#include "conf/base/text.h"

#include <algorithm>

namespace virtuserns {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::string unescape_octal(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto code =
        text[i] == '\\' && i + 3 < text.size() ? parse_number<std::uint32_t>(text.substr(i + 1, 3), 8) : std::nullopt;
    if (code && *code < 256) {
      result += static_cast<char>(*code);
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

std::vector<std::string_view> split_blanks(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\n\r\v\f";
  std::vector<std::string_view> parts;
  for (;;) {
    const auto begin = text.find_first_not_of(kBlanks);
    if (begin == std::string_view::npos) return parts;
    text.remove_prefix(begin);
    const auto end = std::min(text.find_first_of(kBlanks), text.size());
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\n\r\v\f";
  const auto begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string text;
  for (const auto& part : parts) {
    if (&part != &parts.front()) text += separator;
    text += part;
  }
  return text;
}

namespace {

// The length of the well-formed UTF-8 sequence at the start of `text` (Unicode 15, table 3-7), or 0.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xc2 && first <= 0xdf   ? 2
                             : (first & 0xf0) == 0xe0         ? 3
                             : first >= 0xf0 && first <= 0xf4 ? 4
                                                              : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  const unsigned char second = byte(1);
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) || (first == 0xf0 && second < 0x90) ||
      (first == 0xf4 && second > 0x8f))
    return 0;
  return length;
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const auto length = utf8_length(text);
    if (length == 0 || text.front() == '\0') return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string printable(std::string_view text, std::size_t max_bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string result;
  while (!text.empty()) {
    if (result.size() >= max_bytes) return result + "...";
    const auto length = utf8_length(text);
    const auto first = static_cast<unsigned char>(text.front());
    // C0, DEL, and C1 (U+0080..U+009F, which terminals obey too)
    const bool is_control =
        first < 0x20 || first == 0x7f || (first == 0xc2 && length == 2 && static_cast<unsigned char>(text[1]) < 0xa0);
    if (length == 0 || is_control) {
      const std::size_t bytes = length == 0 ? 1 : length;
      for (std::size_t i = 0; i < bytes; ++i) {
        const auto c = static_cast<unsigned char>(text[i]);
        result += {'\\', 'x', kHex[c >> 4], kHex[c & 15]};
      }
      text.remove_prefix(bytes);
    } else {
      result += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return result;
}

std::string quote(std::string_view text) { return "'" + printable(text) + "'"; }

std::string quote_json(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') result += '\\';
    if (byte < 0x20)
      result += {'\\', 'u', '0', '0', kHex[byte >> 4], kHex[byte & 15]};
    else
      result += c;
  }
  return result + "\"";
}

std::string format_mac_bytes(std::span<const std::uint8_t> bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (const auto byte : bytes) {
    if (!text.empty()) text += ':';
    text += {kHex[byte >> 4], kHex[byte & 15]};
  }
  return text;
}

std::string format_hex(std::uint64_t value) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  do text.insert(text.begin(), kHex[value & 15]);
  while ((value >>= 4) != 0);
  return "0x" + text;
}

std::string format_log_line(std::time_t time, std::string_view text) {
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  char stamp[32];
  const auto length = std::strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ ", &parts);
  return std::string(stamp, length) + std::string(text) + "\n";
}

std::optional<std::vector<bool>> parse_bitmap(std::string_view text, std::size_t limit) {
  std::vector<bool> bits;
  for (auto part : split(trim(text), ',')) {
    part = trim(part);
    const bool is_negated = !part.empty() && part.front() == '^';
    if (is_negated) part.remove_prefix(1);
    const auto dash = part.find('-');
    const auto first = parse_number<std::uint32_t>(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : parse_number<std::uint32_t>(part.substr(dash + 1));
    if (!first || !last || *last < *first || *last >= limit || (is_negated && dash != std::string_view::npos))
      return std::nullopt;
    if (bits.size() <= *last) bits.resize(*last + 1);
    for (auto i = *first; i <= *last; ++i) bits[i] = !is_negated;
  }
  return bits;
}

std::string format_bitmap(const std::vector<bool>& bits) {
  std::string text;
  for (std::size_t i = 0; i < bits.size(); ++i) {
    if (!bits[i]) continue;
    auto last = i;
    while (last + 1 < bits.size() && bits[last + 1]) ++last;
    if (!text.empty()) text += ',';
    text += std::to_string(i);
    if (last != i) text += '-' + std::to_string(last);
    i = last;
  }
  return text;
}

}  // namespace virtuserns
