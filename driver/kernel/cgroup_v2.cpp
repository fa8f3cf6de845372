// cgroups(7), "Cgroups version 2"; Documentation/admin-guide/cgroup-v2.rst.
#include <algorithm>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/cgroup.h"

namespace virtuserns::kernel {

namespace v2 {

// A controller exists in a group only when its parent's cgroup.subtree_control names it.
Result<void> prepare_parent(const CgroupSpec& spec, const DirFd& parent) {
  if (spec.controllers.empty()) return {};
  const std::string text = TRY(read_kernel_file_at(parent, "cgroup.subtree_control", 4096));
  const auto enabled = split_blanks(text);
  for (const auto& controller : spec.controllers) {
    if (std::find(enabled.begin(), enabled.end(), controller) != enabled.end()) continue;
    TRY(write_kernel_file_at(parent, "cgroup.subtree_control", "+" + controller));
  }
  return {};
}

void kill_processes(const DirFd& dir) {
  // cgroup.kill (Linux 5.14) takes the whole subtree at once, forks in flight included.
  if (write_kernel_file_at(dir, "cgroup.kill", "1")) return;
  v1::kill_processes(dir);
}

Result<FreezerState> parse_events(const std::string& text, bool is_wanted) {
  for (const auto line : split(text, '\n')) {
    const auto words = split_blanks(line);
    if (words.size() != 2 || words[0] != "frozen") continue;
    if (words[1] == "1") return FreezerState::kFrozen;
    return is_wanted ? FreezerState::kFreezing : FreezerState::kThawed;
  }
  return fail(VIR_ERR_INTERNAL_ERROR, "cgroup.events is malformed");
}

}  // namespace v2

}  // namespace virtuserns::kernel
