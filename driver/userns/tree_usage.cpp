#include "driver/userns/tree_usage.h"

#include <algorithm>
#include <vector>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/controller/protocol.h"

namespace virtuserns::userns {

namespace {

constexpr std::size_t kMostProcesses = 32'768;
constexpr std::uint64_t kNsPerTick = 10'000'000;  // USER_HZ is 100 on every Linux

// proc(5), /proc/pid/stat: utime, stime, cutime, cstime are fields 14 to 17. The name in field 2 may hold anything.
void add_times(const std::string& stat, bool is_ours, TreeUsage& usage) {
  const auto fields =
      split_blanks(std::string_view(stat).substr(std::min(stat.size(), stat.rfind(')') + std::size_t{1})));
  const auto ticks = [&](std::size_t field) {
    return field < fields.size() ? parse_number<std::uint64_t>(fields[field]).value_or(0) : 0;
  };
  usage.user_ns += ((is_ours ? 0 : ticks(11)) + ticks(13)) * kNsPerTick;
  usage.system_ns += ((is_ours ? 0 : ticks(12)) + ticks(14)) * kNsPerTick;
}

void add_memory(const std::string& status, TreeUsage& usage) {
  for (const auto line : split(status, '\n')) {
    if (!line.starts_with("RssAnon:") && !line.starts_with("RssShmem:")) continue;
    const auto words = split_blanks(line);
    if (words.size() == 3) usage.memory_kib += parse_number<std::uint64_t>(words[1]).value_or(0);
  }
}

void append_children(const std::string& process, std::vector<pid_t>& to) {
  const auto threads = list_directory(process + "/task");
  if (!threads) return;
  for (const auto& thread : *threads) {
    const auto text = read_kernel_file(process + "/task/" + thread + "/children", 1024 * 1024);
    if (!text) continue;
    for (const auto word : split_blanks(*text))
      if (const auto pid = parse_number<pid_t>(word)) to.push_back(*pid);
  }
}

}  // namespace

TreeUsage usage_of_tree(const std::string& proc, pid_t controller) {
  TreeUsage usage;
  std::vector<pid_t> found = {controller};
  for (std::size_t next = 0; next < found.size() && next < kMostProcesses; ++next) {
    const std::string process = proc + "/" + std::to_string(found[next]);
    const auto stat = read_kernel_file(process + "/stat", 4096);
    if (!stat) continue;
    // Its stem has its name from birth. (One of the container's that takes it hides what it takes itself, from its own domain.)
    const auto has_name = [&](const char* name) {
      return stat->find(std::string("(") + name + ")") != std::string::npos;
    };
    const bool is_keeper = has_name(controller::kKeeperName);
    const bool is_ours = next == 0 || is_keeper || has_name(controller::kStemName);
    add_times(*stat, is_ours, usage);
    if (const auto status = read_kernel_file(process + "/status", 64 * 1024); status && !is_ours)
      add_memory(*status, usage);
    if (!is_keeper) append_children(process, found);  // whose children are the host's side of a network
  }
  return usage;
}

}  // namespace virtuserns::userns
