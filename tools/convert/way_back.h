// The machine of a cut-over as it was: on its own disks, and running if we have stopped it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tools/convert/findings.h"
#include "tools/convert/job.h"

namespace virtuserns::convert {

// An error, before anything is done: the machine has no definition any more, or one that would start without what it last wrote.
[[nodiscard]] Result<void> check_way_back(const LiveMachine& live);

// The container must not run. The machine is started if it was stopped for the container, once it is off; what it has written to the overlays
// goes into its disks, while it runs, and the overlays go. One that cannot go, since the machine is off or libvirt says no,
// stays in use and is named by a finding, and so does one that nothing uses and that has something in it. May be called again after
// a crash, of any step of the cut-over. `merging` hears of each overlay before its data goes into the disk below.
[[nodiscard]] Result<std::vector<Finding>> restore_machine(const LiveMachine& live,
                                                           const std::function<void(const std::string&)>& say,
                                                           const std::function<void(const LiveDisk&)>& merging);

}  // namespace virtuserns::convert
