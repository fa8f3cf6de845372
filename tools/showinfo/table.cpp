#include "tools/showinfo/table.h"

#include <grp.h>
#include <pwd.h>

#include <algorithm>
#include <array>

#include "conf/base/text.h"

namespace virtuserns::showinfo {

namespace {

constexpr std::size_t kMaxAccountBytes = 64 * 1024;  // a group with many members

// As a terminal counts them, as far as this needs: UTF-8 sequences, not bytes.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

std::string format_table(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::vector<std::string>> cells(1);
  std::vector<std::size_t> widths;
  for (const auto& column : columns) {
    cells[0].push_back(column.title);
    widths.push_back(width_of(column.title));
  }
  for (const auto& row : rows) {
    auto& line = cells.emplace_back();
    for (std::size_t i = 0; i < columns.size(); ++i) {
      line.push_back(printable(row[i], 4096));
      widths[i] = std::max(widths[i], width_of(line.back()));
    }
  }
  std::string text;
  for (const auto& line : cells) {
    std::string shown;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const std::string blanks(widths[i] - width_of(line[i]), ' ');
      if (i > 0) shown += ' ';
      shown += columns[i].align == Align::kRight ? blanks + line[i] : line[i] + blanks;
    }
    shown.resize(shown.find_last_not_of(' ') + 1);
    text += shown + "\n";
  }
  return text;
}

std::string HostNames::user(std::uint32_t uid) const {
  std::array<char, kMaxAccountBytes> buffer;
  passwd entry{};
  passwd* found = nullptr;
  const bool is_known = ::getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr;
  return is_known && *found->pw_name != '\0' ? std::string(found->pw_name) : std::to_string(uid);
}

std::string HostNames::group(std::uint32_t gid) const {
  std::array<char, kMaxAccountBytes> buffer;
  ::group entry{};
  ::group* found = nullptr;
  const bool is_known = ::getgrgid_r(gid, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr;
  return is_known && *found->gr_name != '\0' ? std::string(found->gr_name) : std::to_string(gid);
}

}  // namespace virtuserns::showinfo
