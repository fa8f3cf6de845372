#include "tools/convert/fstab.h"

#include "conf/base/text.h"

namespace virtuserns::convert {

namespace {

constexpr std::size_t kMaxLines = 10000;

bool is_octal(char c) { return c >= '0' && c <= '7'; }

// getmntent(3): blanks, tabs, line ends and backslashes are written \040, \011, \012 and \134.
std::string unescape(std::string_view field) {
  std::string text;
  for (std::size_t i = 0; i < field.size(); ++i) {
    const bool is_escape = field[i] == '\\' && i + 3 < field.size() && field[i + 1] <= '3' &&
                           is_octal(field[i + 1]) && is_octal(field[i + 2]) && is_octal(field[i + 3]);
    if (!is_escape) {
      text += field[i];
      continue;
    }
    const int byte = (field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 + (field[i + 3] - '0');
    if (byte != 0) text += static_cast<char>(byte);
    i += 3;
  }
  return text;
}

}  // namespace

std::vector<FstabLine> parse_fstab(std::string_view text) {
  std::vector<FstabLine> lines;
  if (text.ends_with('\n')) text.remove_suffix(1);
  for (const auto raw : split(text, '\n')) {
    auto& line = lines.emplace_back();
    line.text = raw;
    const auto fields = split_blanks(raw);
    // Two fields are enough for mount(8); a file of more lines than this is no fstab.
    if (lines.size() > kMaxLines || fields.size() < 2 || fields[0].front() == '#') continue;
    line.is_entry = true;
    line.spec = unescape(fields[0]);
    line.target = unescape(fields[1]);
    line.type = fields.size() > 2 ? unescape(fields[2]) : "auto";
    line.options = fields.size() > 3 ? unescape(fields[3]) : "defaults";
  }
  return lines;
}

std::string format_fstab(const std::vector<FstabLine>& lines) {
  std::string text;
  for (const auto& line : lines) text += line.text + "\n";
  return text;
}

std::optional<std::string> option_of(const FstabLine& line, std::string_view name) {
  for (const auto option : split(line.options, ',')) {
    const auto equals = option.find('=');
    if (option.substr(0, equals) != name) continue;
    return equals == std::string_view::npos ? std::string() : std::string(option.substr(equals + 1));
  }
  return std::nullopt;
}

std::string tidy_target(std::string_view path) {
  std::string tidied;
  for (const auto part : split(path, '/'))
    if (!part.empty()) tidied.append("/").append(part);
  return tidied.empty() ? "/" : tidied;
}

bool is_share(const FstabLine& line) { return line.is_entry && (line.type == "9p" || line.type == "virtiofs"); }

std::vector<GuestShare> find_shares(const GuestFiles& files) {
  std::vector<GuestShare> shares;
  for (const auto& line : parse_fstab(files.read_or_empty("/etc/fstab")))
    if (is_share(line)) shares.push_back({line.spec, tidy_target(line.target)});
  return shares;
}

}  // namespace virtuserns::convert
