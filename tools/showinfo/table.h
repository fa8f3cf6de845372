// Columns, as the talk's slides have them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace virtuserns::showinfo {

enum class Align { kLeft, kRight };

struct Column {
  std::string title;
  Align align = Align::kLeft;
};

// A line of titles, then one for each row; one blank between columns, none at the end of a line. Cells are made printable.
[[nodiscard]] std::string format_table(const std::vector<Column>& columns,
                                       const std::vector<std::vector<std::string>>& rows);

// Names of the host's accounts where it knows them, numbers else.
class Names {
 public:
  virtual ~Names() = default;
  [[nodiscard]] virtual std::string user(std::uint32_t uid) const = 0;
  [[nodiscard]] virtual std::string group(std::uint32_t gid) const = 0;
};

// Of the name service switch of this machine.
class HostNames final : public Names {
 public:
  [[nodiscard]] std::string user(std::uint32_t uid) const override;
  [[nodiscard]] std::string group(std::uint32_t gid) const override;
};

}  // namespace virtuserns::showinfo
