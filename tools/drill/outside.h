// What the host sees of a container: checks that nothing inside can forge.
#pragma once

#include <sys/types.h>

#include <string>

#include "conf/base/result.h"
#include "tools/drill/finding.h"

namespace virtuserns::drill {

struct Subject {
  pid_t process = 0;     // pid 1 of a container, or any process in one, by the host's number
  pid_t supervisor = 0;  // its domain's controller, or 0
  std::string uuid;      // of the domain, as its control groups are named; or empty
};

// The child of a domain's controller that is the container's init.
[[nodiscard]] Result<pid_t> find_init(pid_t controller);

// In a process of its own with a time limit: a container may hold up whoever reads the memory of its processes.
[[nodiscard]] Result<Findings> look_from_outside(const Subject& subject);

}  // namespace virtuserns::drill
