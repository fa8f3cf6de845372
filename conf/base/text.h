// Small text tools: strict numbers, splitting, quoting of foreign text for messages and logs.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <span>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace virtuserns {

// The whole of `text` as a number in base `base`: no sign for unsigned types, no blanks, no overflow.
template <std::integral T>
[[nodiscard]] std::optional<T> parse_number(std::string_view text, int base = 10) {
  T value{};
  const char* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, value, base);
  if (error != std::errc() || stop != end || text.empty()) return std::nullopt;
  return value;
}

[[nodiscard]] std::vector<std::string_view> split(std::string_view text, char separator);  // keeps empty parts
// What /proc writes of a path: blank, tab, newline and backslash are \ooo (proc_pid_mountinfo(5)).
[[nodiscard]] std::string unescape_octal(std::string_view text);
[[nodiscard]] std::vector<std::string_view> split_blanks(std::string_view text);  // drops empty parts
[[nodiscard]] std::string_view trim(std::string_view text);
[[nodiscard]] std::string join(const std::vector<std::string>& parts, std::string_view separator);
// For messages and logs: control characters and invalid UTF-8 become \xNN, cut at `max_bytes` with "...".
[[nodiscard]] std::string printable(std::string_view text, std::size_t max_bytes = 256);
// "text", as JSON writes it. `text` is UTF-8 already, or whoever reads it must bear with that.
[[nodiscard]] std::string quote_json(std::string_view text);
[[nodiscard]] bool is_utf8(std::string_view text);          // no NUL, no surrogates, no overlong forms
[[nodiscard]] std::string quote(std::string_view text);     // 'printable(text)'
[[nodiscard]] std::string format_hex(std::uint64_t value);  // 0x1f
[[nodiscard]] std::string format_mac_bytes(std::span<const std::uint8_t> bytes);  // 52:54:00:12:34:56
// "2026-11-26T10:58:00Z TEXT\n": a line of a domain's log, to which daemon and controller both write.
[[nodiscard]] std::string format_log_line(std::time_t time, std::string_view text);

// "0-3,^2,8" <-> set of cpu or node numbers, as in libvirt's cpuset attributes. At most `limit` numbers.
[[nodiscard]] std::optional<std::vector<bool>> parse_bitmap(std::string_view text, std::size_t limit = 16384);
[[nodiscard]] std::string format_bitmap(const std::vector<bool>& bits);

}  // namespace virtuserns
