#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "tools/drill/probes/probe.h"

namespace drill {

namespace {

struct Extent {
  unsigned long long inside, outside, count;
};

std::vector<Extent> extents(const char* path) {
  std::vector<Extent> found;
  for (const auto& line : lines_of(read_text(path))) {
    std::istringstream in(line);
    Extent extent{};
    if (in >> extent.inside >> extent.outside >> extent.count) found.push_back(extent);
  }
  return found;
}

// The number that stands for every id without a place in the map is none of the container's, unless it has so many.
bool is_mapped(unsigned long long id, const char* path) {
  constexpr unsigned long long kOverflow = 65534;
  if (id == kOverflow) return false;
  for (const auto& extent : extents(path))
    if (id >= extent.inside && id < extent.inside + extent.count) return true;
  return false;
}

std::string unescape(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      result += static_cast<char>(std::strtol(text.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace

std::string error_text(int err) {
  const char* name = ::strerrorname_np(err);
  return name ? name : std::to_string(err);
}

std::string read_text(const std::string& path, std::size_t limit) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return {};
  std::string text;
  char buffer[4096];
  ssize_t got = 0;
  while (text.size() < limit && (got = ::read(fd, buffer, sizeof buffer)) > 0)
    text.append(buffer, static_cast<std::size_t>(got));
  ::close(fd);
  return text;
}

std::string link_text(const std::string& path) {
  char text[4096];
  const auto size = ::readlink(path.c_str(), text, sizeof text);
  return size > 0 ? std::string(text, static_cast<std::size_t>(size)) : std::string();
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  DIR* open = ::opendir(directory.c_str());
  if (!open) return names;
  while (const auto* entry = ::readdir(open)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  ::closedir(open);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> words;
  std::istringstream in(line);
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

std::vector<pid_t> processes() {
  std::vector<pid_t> found;
  for (const auto& name : names_in("/proc"))
    if (name.find_first_not_of("0123456789") == std::string::npos) found.push_back(std::atoi(name.c_str()));
  return found;
}

bool is_mapped_uid(uid_t id) { return is_mapped(id, "/proc/self/uid_map"); }
bool is_mapped_gid(gid_t id) { return is_mapped(id, "/proc/self/gid_map"); }

bool is_host_namespace() {
  const auto map = extents("/proc/self/uid_map");
  return map.size() == 1 && map[0].inside == 0 && map[0].outside == 0 && map[0].count == 4294967295u;
}

std::vector<MountLine> mounts() {
  std::vector<MountLine> found;
  for (const auto& line : lines_of(read_text("/proc/self/mountinfo", 1 << 20))) {
    const auto words = words_of(line);
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 6 || words.end() - dash < 4) continue;
    found.push_back({unescape(words[4]), words[5], dash[1], dash[3]});
  }
  return found;
}

std::string leave_mounts_alone() {
  if (::unshare(CLONE_NEWNS) != 0) return "unshare: " + error_text(errno);
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return "make private: " + error_text(errno);
  return {};
}

std::string scratch_directory() {
  for (const char* place : {"/tmp", "/mnt", "/run", "/var"}) {
    if (::mount("drill", place, "tmpfs", 0, "mode=755") != 0) continue;
    const std::string directory = std::string(place) + "/drill";
    if (::mkdir(directory.c_str(), 0755) == 0) return directory;
  }
  return {};
}

}  // namespace drill
