// cgroups(7), "Cgroups version 1".
#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/cgroup.h"
#include "driver/kernel/pidfd.h"

namespace virtuserns::kernel::v1 {

// A new cpuset has no cpu and no memory node, and nothing may enter it until it has (cpuset(7)).
Result<void> prepare_child(const CgroupSpec& spec, const DirFd& parent, const DirFd& child) {
  if (std::find(spec.controllers.begin(), spec.controllers.end(), "cpuset") == spec.controllers.end()) return {};
  for (const char* file : {"cpuset.cpus", "cpuset.mems"}) {
    if (!trim(TRY(read_kernel_file_at(child, file, 65536))).empty()) continue;
    TRY(write_kernel_file_at(child, file, std::string(trim(TRY(read_kernel_file_at(parent, file, 65536))))));
  }
  return {};
}

void kill_processes(const DirFd& dir) {
  const auto listed = [&] {
    auto text = read_kernel_file_at(dir, "cgroup.procs");
    auto pids = text ? parse_pids(*text) : Result<std::vector<pid_t>>(std::vector<pid_t>());
    return pids ? std::move(pids).value() : std::vector<pid_t>();
  };
  std::vector<std::pair<pid_t, PidFd>> opened;
  for (const auto pid : listed()) {
    if (opened.size() >= 256) break;  // the caller comes again
    if (auto process = open_process(pid)) opened.emplace_back(pid, std::move(process).value());
  }
  // Listed again after it was opened: what the pidfd names is in the group, whoever had the number before.
  const auto still = listed();
  for (const auto& [pid, process] : opened)
    if (std::find(still.begin(), still.end(), pid) != still.end()) (void)send_signal(process, SIGKILL);
}

Result<FreezerState> parse_freezer_state(const std::string& text) {
  const auto word = trim(text);
  if (word == "THAWED") return FreezerState::kThawed;
  if (word == "FREEZING") return FreezerState::kFreezing;
  if (word == "FROZEN") return FreezerState::kFrozen;
  return fail(VIR_ERR_INTERNAL_ERROR, "freezer state " + quote(word) + " is not known");
}

}  // namespace virtuserns::kernel::v1
