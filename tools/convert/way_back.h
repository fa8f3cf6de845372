// The machine of a cut-over as it was: on its own disks, and running if we have stopped it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tools/convert/findings.h"
#include "tools/convert/job.h"

namespace virtuserns::convert {

// The container must not run. The machine is started if it was stopped for the container, once it is off; what it has written to the overlays
// goes into its disks, while it runs, and the overlays go. One that cannot go, since the machine is off or libvirt says no,
// stays in use and is named by a finding. May be called again after a crash, of any step of the cut-over.
[[nodiscard]] Result<std::vector<Finding>> restore_machine(const LiveMachine& live,
                                                           const std::function<void(const std::string&)>& say);

}  // namespace virtuserns::convert
