#include "driver/kernel/apparmor.h"

#include "conf/base/file.h"
#include "conf/base/text.h"

namespace virtuserns::kernel {

namespace {
constexpr std::size_t kMaxProfiles = 4 * 1024 * 1024;

// Of the calling thread.
Result<void> write_attribute(const DirFd& proc, const std::string& name, const std::string& word) {
  auto written = write_kernel_file_at(proc, "thread-self/attr/apparmor/" + name, word);
  if (written || written.error().sys_errno != ENOENT) return written;
  // ENOENT: the profile is not loaded, or the kernel is older than 5.8 and knows only the other name.
  if (write_kernel_file_at(proc, "thread-self/attr/" + name, word)) return {};
  return written;
}

}  // namespace

std::optional<ApparmorLabel> parse_apparmor_label(std::string_view text) {
  const auto end = text.find_first_of(std::string_view("\n\0", 2));
  const auto line = trim(text.substr(0, end));
  if (line.empty()) return std::nullopt;
  const auto mode = line.rfind(" (");
  if (mode == std::string_view::npos || line.back() != ')') return ApparmorLabel{std::string(line), false};
  return ApparmorLabel{std::string(line.substr(0, mode)), line.substr(mode) == " (enforce)"};
}

std::set<std::string> read_apparmor_profiles(const std::string& sys) {
  std::set<std::string> names;
  const auto enabled = read_kernel_file(sys + "/module/apparmor/parameters/enabled", 16);
  if (!enabled || trim(*enabled) != "Y") return names;
  const auto text = read_kernel_file(sys + "/kernel/security/apparmor/profiles", kMaxProfiles);
  for (const auto line : text ? split(*text, '\n') : std::vector<std::string_view>())
    if (const auto label = parse_apparmor_label(line)) names.insert(label->profile);
  return names;
}

std::optional<ApparmorLabel> read_apparmor_label(const std::string& proc, pid_t pid) {
  const auto text = read_kernel_file(proc + "/" + std::to_string(pid) + "/attr/apparmor/current", 4096);
  return text ? parse_apparmor_label(*text) : std::nullopt;
}

Result<void> set_exec_profile(const DirFd& proc, const std::string& profile) {
  return write_attribute(proc, "exec", "exec " + profile);
}

Result<void> change_profile(const DirFd& proc, const std::string& profile) {
  return write_attribute(proc, "current", "changeprofile " + profile);
}

}  // namespace virtuserns::kernel
