#include "driver/userns/scope.h"

#include <algorithm>
#include <set>

#include "conf/base/text.h"

namespace virtuserns::userns {

namespace {

bool is_letter_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

// systemd-escape(1) of one part of a path.
std::string escape_part(std::string_view part) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string escaped;
  for (const char c : part) {
    const bool is_plain = is_letter_or_digit(c) || c == ':' || c == '_' || (c == '.' && !escaped.empty());
    const auto byte = static_cast<unsigned char>(c);
    escaped += is_plain ? std::string(1, c) : std::string("\\x") + kHex[byte >> 4] + kHex[byte & 15];
  }
  return escaped;
}

// systemd puts '_' before the name of a group that the kernel could take for a file of its own ("cpu.slice").
std::string group_of_unit(const std::string& unit) {
  static const std::set<std::string, std::less<>> kTaken = {
      "cgroup", "cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids", "freezer", "bpf-firewall"};
  const bool is_taken =
      unit.starts_with('_') || unit.starts_with('.') || kTaken.count(unit.substr(0, unit.find('.'))) != 0;
  return is_taken ? "_" + unit : unit;
}

}  // namespace

std::string Scope::group() const {
  // "machine-a-b.slice" is in "machine-a.slice", and that in "machine.slice".
  std::string path = root.empty() ? "" : root + "/";
  const std::string stem = slice.substr(0, slice.size() - std::string_view(".slice").size());
  for (auto end = stem.find('-');; end = stem.find('-', end + 1)) {
    path += group_of_unit(stem.substr(0, end) + ".slice") + "/";
    if (end == std::string::npos) break;
  }
  return path + group_of_unit(unit);
}

std::string slice_of_partition(const std::string& partition) {
  std::string slice;
  for (const auto part : split(partition, '/'))
    if (!part.empty()) slice += (slice.empty() ? "" : "-") + escape_part(part);
  return (slice.empty() ? "machine" : slice) + ".slice";
}

Scope make_scope(const DomainDef& def, std::uint64_t life, CgroupMode mode) {
  return {"virtuserns-" + format_uuid(def.uuid) + "-" + std::to_string(life) + ".scope",
          slice_of_partition(def.resource.partition),
          mode == CgroupMode::kV2 ? Controllers::kV2 : Controllers::kV1Too};
}

bool is_systemds(const CgroupHierarchy& hierarchy) {
  if (hierarchy.is_v2) return hierarchy.mount == "/sys/fs/cgroup" || hierarchy.mount == "/sys/fs/cgroup/unified";
  static const std::set<std::string> kKnown = {"name=systemd", "cpu",     "cpuacct", "blkio",
                                               "memory",       "devices", "pids"};
  return std::any_of(hierarchy.controllers.begin(), hierarchy.controllers.end(),
                     [](const std::string& controller) { return kKnown.count(controller) != 0; });
}

std::string machine_name(pid_t controller, const std::string& name) {
  std::string machine = "userns-" + std::to_string(controller) + "-";
  for (const char c : name)
    if ((is_letter_or_digit(c) || c == '-' || (c == '.' && machine.back() != '.')) && machine.size() < 64)
      machine += c;
  while (machine.back() == '-' || machine.back() == '.') machine.pop_back();
  return machine;
}

}  // namespace virtuserns::userns
