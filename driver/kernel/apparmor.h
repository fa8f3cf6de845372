// AppArmor by its files in procfs and securityfs: apparmor(7), Documentation/admin-guide/LSM/apparmor.rst. Without AppArmor
// there is none of them.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "conf/base/fd.h"
#include "conf/base/result.h"

namespace virtuserns::kernel {

struct ApparmorLabel {
  std::string profile;  // "unconfined" too
  bool is_enforced = false;
};

// The profiles that are loaded; none where AppArmor is off.
[[nodiscard]] std::set<std::string> read_apparmor_profiles(const std::string& sys);
// nullopt: it cannot be told, or AppArmor is off.
[[nodiscard]] std::optional<ApparmorLabel> read_apparmor_label(const std::string& proc, pid_t pid);
// What the calling thread becomes at its next exec, and what a child that it clones before becomes at its own. `proc`: a
// procfs in which the caller is seen.
[[nodiscard]] Result<void> set_exec_profile(const DirFd& proc, const std::string& profile);
// What it is from now on.
[[nodiscard]] Result<void> change_profile(const DirFd& proc, const std::string& profile);

// "virtuserns-container (enforce)", "unconfined".
[[nodiscard]] std::optional<ApparmorLabel> parse_apparmor_label(std::string_view text);

}  // namespace virtuserns::kernel
