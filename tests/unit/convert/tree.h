// A guest's root directory, made for one test.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "conf/base/fd.h"
#include "tests/support/temp_dir.h"
#include "tools/convert/findings.h"
#include "tools/convert/guest_files.h"

namespace virtuserns::convert {

class Tree {
 public:
  Tree() { std::filesystem::create_directory(root()); }

  [[nodiscard]] std::string root() const { return dir_.path() + "/root"; }
  [[nodiscard]] std::string originals() const { return dir_.path() + "/originals"; }
  [[nodiscard]] std::string outside() const { return dir_.path(); }
  [[nodiscard]] std::string path(const std::string& name) const { return root() + name; }

  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(path(name)).parent_path());
    std::ofstream(path(name), std::ios::binary) << text;
  }
  void link(const std::string& name, const std::string& target) const {
    std::filesystem::create_directories(std::filesystem::path(path(name)).parent_path());
    ASSERT_EQ(::symlink(target.c_str(), path(name).c_str()), 0) << name;
  }
  void directory(const std::string& name) const { std::filesystem::create_directories(path(name)); }
  void fifo(const std::string& name) const { ASSERT_EQ(::mkfifo(path(name).c_str(), 0600), 0); }
  [[nodiscard]] std::string read(const std::string& name) const {
    std::ifstream in(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  [[nodiscard]] std::string target(const std::string& name) const {
    std::error_code ignored;
    return std::filesystem::read_symlink(path(name), ignored).string();
  }
  [[nodiscard]] DirFd open() const { return DirFd(::open(root().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)); }
  [[nodiscard]] GuestFiles files() const { return GuestFiles(open()); }

 private:
  test::TempDir dir_;
};

// The findings whose object or text has `words` in it.
inline std::vector<Finding> about(const std::vector<Finding>& findings, const std::string& words) {
  std::vector<Finding> found;
  std::copy_if(findings.begin(), findings.end(), std::back_inserter(found), [&](const Finding& f) {
    return f.object.find(words) != std::string::npos || f.text.find(words) != std::string::npos;
  });
  return found;
}

inline std::string all_of(const std::vector<Finding>& findings) {
  std::string text;
  for (const auto& f : findings) text += std::string(word_of(f.severity)) + " " + f.object + ": " + f.text + "\n";
  return text;
}

}  // namespace virtuserns::convert
