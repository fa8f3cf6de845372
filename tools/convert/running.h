// A machine while it runs, by libvirt's own client library: moved onto overlays, so that its disks stay what they are, and
// shut off.
#pragma once

#include <string>
#include <vector>

#include "tools/convert/domains.h"
#include "tools/convert/job.h"

namespace virtuserns::convert {

struct RunningMachine {
  SourceDomain domain;
  std::string live_xml;
};
// An error: it does not run (paused is not running), or has no definition that outlives it.
[[nodiscard]] Result<RunningMachine> read_running(const std::string& uri, const std::string& name);

// From one moment on the machine writes to the overlays, which libvirt makes; its other disks are left alone. True: an agent
// in the guest had its file systems written out for that moment. After an error or a crash restore_machine() knows what of it
// was done.
[[nodiscard]] Result<bool> move_to_overlays(const LiveMachine& live);

enum class OnTimeout { kGiveUp, kDestroy };
[[nodiscard]] Result<bool> runs_machine(const LiveMachine& live);
// Asks the guest to power off, and waits until it has. False: it was ended, by us as was wanted. One that somebody else has ended
// or saved, or that died, is an error.
[[nodiscard]] Result<bool> shut_down(const LiveMachine& live, std::uint32_t limit_s, OnTimeout on_timeout);

}  // namespace virtuserns::convert
