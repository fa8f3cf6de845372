// showinfo files: whose files are.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "tools/showinfo/table.h"

namespace virtuserns::showinfo {

struct FileRow {
  std::string name;  // may hold any byte
  std::uint32_t uid = 0, gid = 0;
  mode_t mode = 0;  // with the kind of file
};

// "-rw-r--r--", as ls -l writes it.
[[nodiscard]] std::string format_mode(mode_t mode);

struct FileRows {
  std::vector<FileRow> rows;
  std::vector<std::string> problems;  // one for each path that could not be looked at
};
// Of each path itself (a link is not followed), of a directory what is in it without hidden names; none: the current one.
[[nodiscard]] FileRows read_files(const std::vector<std::string>& paths);

[[nodiscard]] std::string format_files(const std::vector<FileRow>& rows, const Names& names);
[[nodiscard]] std::string format_files_json(const std::vector<FileRow>& rows, const Names& names);

}  // namespace virtuserns::showinfo
