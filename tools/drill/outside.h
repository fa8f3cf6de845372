// What the host sees of a container: checks that nothing inside can forge.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "conf/base/result.h"
#include "tools/drill/finding.h"

namespace virtuserns::drill {

struct Subject {
  pid_t process = 0;               // pid 1 of a container, or any process in one, by the host's number
  std::vector<pid_t> supervisors;  // its domain's controller, and what that has beside the container
  std::string uuid;                // of the domain, as its control groups are named; or empty
};

// By the children of a domain's controller: init is the one that is pid 1 in a namespace.
[[nodiscard]] Result<Subject> find_subject(pid_t controller, const std::string& uuid);

// In a process of its own with a time limit: a container may hold up whoever reads the memory of its processes.
[[nodiscard]] Result<Findings> look_from_outside(const Subject& subject);

}  // namespace virtuserns::drill
