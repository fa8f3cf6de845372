// Capability sets of the calling thread (capabilities(7)), without libcap: only numbers are needed here.
#pragma once

#include <cstdint>

#include "conf/base/result.h"

namespace virtuserns::kernel {

// Takes everything that is not in `keep` out of the bounding set. Needs CAP_SETPCAP. Cannot be undone.
[[nodiscard]] Result<void> limit_bounding_set(std::uint64_t keep);
// Permitted and effective become `keep` as far as they are permitted now; inheritable and ambient become empty.
[[nodiscard]] Result<void> limit_capabilities(std::uint64_t keep);
// Both.
[[nodiscard]] Result<void> limit_privileges(std::uint64_t keep);
// As limit_capabilities, but as far as they are in the bounding set, exec hands them on to whatever program it runs.
[[nodiscard]] Result<void> hand_on_capabilities(std::uint64_t keep);
// As limit_capabilities, and none of them is effective until it is raised.
[[nodiscard]] Result<void> hold_capabilities(std::uint64_t keep);

// A session keyring of our own in place of the caller's, which exec would hand on (keyrings(7)). Where the kernel has no keys
// (ENOSYS) there is none to leak; where a filter around us refuses the call (EPERM: we are in a container), it refuses it to all
// that we start as well.
[[nodiscard]] Result<void> leave_session_keyring();

// Makes capabilities effective that this thread holds, until it goes. Those that it does not hold stay away: what needs
// them fails and says so.
class Raised {
 public:
  explicit Raised(std::uint64_t capabilities);
  ~Raised();
  Raised(const Raised&) = delete;
  Raised& operator=(const Raised&) = delete;

 private:
  std::uint64_t before_ = 0;
};

}  // namespace virtuserns::kernel
