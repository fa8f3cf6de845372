#include "tools/showinfo/files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdio>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "tools/showinfo/json.h"

namespace virtuserns::showinfo {

namespace {

char kind_letter(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return 'd';
    case S_IFLNK:
      return 'l';
    case S_IFCHR:
      return 'c';
    case S_IFBLK:
      return 'b';
    case S_IFIFO:
      return 'p';
    case S_IFSOCK:
      return 's';
    default:
      return '-';
  }
}

bool add_file(FileRows& found, const std::string& path, const std::string& shown) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) {
    found.problems.push_back(sys_fail("look at " + quote(path)).text);
    return false;
  }
  found.rows.push_back({shown, st.st_uid, st.st_gid, st.st_mode});
  return S_ISDIR(st.st_mode);
}

void add_directory(FileRows& found, const std::string& path, const std::string& prefix) {
  const auto names = list_directory(path);
  if (!names) {
    found.problems.push_back(names.error().text);
    return;
  }
  for (const auto& name : *names)
    if (!name.starts_with('.')) (void)add_file(found, path + "/" + name, prefix + name);
}

}  // namespace

std::string format_mode(mode_t mode) {
  std::string text(1, kind_letter(mode));
  for (int shift = 6; shift >= 0; shift -= 3) {
    const auto bits = mode >> shift;
    text += {bits & 4 ? 'r' : '-', bits & 2 ? 'w' : '-', bits & 1 ? 'x' : '-'};
  }
  if (mode & S_ISUID) text[3] = mode & S_IXUSR ? 's' : 'S';
  if (mode & S_ISGID) text[6] = mode & S_IXGRP ? 's' : 'S';
  if (mode & S_ISVTX) text[9] = mode & S_IXOTH ? 't' : 'T';
  return text;
}

FileRows read_files(const std::vector<std::string>& paths) {
  FileRows found;
  if (paths.empty()) add_directory(found, ".", "");
  for (const auto& path : paths) {
    FileRows one;
    if (add_file(one, path, path)) {
      one.rows.clear();
      add_directory(one, path, path.ends_with('/') ? path : path + "/");
    }
    found.rows.insert(found.rows.end(), one.rows.begin(), one.rows.end());
    found.problems.insert(found.problems.end(), one.problems.begin(), one.problems.end());
  }
  return found;
}

std::string format_files(const std::vector<FileRow>& rows, const Names& names) {
  std::vector<std::vector<std::string>> cells;
  for (const auto& row : rows)
    cells.push_back({row.name, names.user(row.uid), names.group(row.gid), format_mode(row.mode)});
  return format_table({{"fname"}, {"uid"}, {"gid"}, {"mode"}}, cells);
}

std::string format_files_json(const std::vector<FileRow>& rows, const Names& names) {
  JsonList list;
  for (const auto& row : rows) {
    char octal[8];
    std::snprintf(octal, sizeof octal, "%04o", row.mode & 07777);
    list.add(JsonObject()
                 .set("fname", row.name)
                 .set("uid", row.uid)
                 .set("user", names.user(row.uid))
                 .set("gid", row.gid)
                 .set("group", names.group(row.gid))
                 .set("mode", octal)
                 .set("shown_mode", format_mode(row.mode)));
  }
  return Json(JsonObject().set("schema", 1).set("files", list)).format() + "\n";
}

}  // namespace virtuserns::showinfo
