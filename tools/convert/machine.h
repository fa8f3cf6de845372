// A machine, looked at without writing anything: its disks are written by nobody meanwhile.
#pragma once

#include <string>
#include <vector>

#include "conf/base/result.h"
#include "tools/convert/guest_mount.h"
#include "tools/convert/settings.h"

namespace virtuserns::convert {

struct Machine {
  SourceVm vm;
  Layout layout;
  std::uint64_t volume_bytes = 0;  // of all that is placed
  std::uint64_t file_bytes = 0;    // of the files in them
  std::vector<GuestNic> nics;
  std::vector<GuestShare> shares;
  std::vector<Finding> findings;       // of disks, volumes, names, files; not those of the rules
  std::vector<Finding> rule_findings;  // what the rules would do
};

[[nodiscard]] Result<Machine> study_machine(SourceVm vm, const Settings& settings, const std::string& workplace);
[[nodiscard]] GuestOptions guest_options(const Machine& machine, const Settings& settings);
// The definition that serves the guest's places by `filesystems` and `parts`, and what comes of each element of the VM's.
[[nodiscard]] Result<Mapped> map_machine(const Machine& machine, const Settings& settings,
                                         std::vector<FilesystemDef> filesystems,
                                         const std::vector<ImagePartDef>& parts);
// What the files of a container will be called, whether they are there or not.
struct Parts {
  std::vector<FilesystemDef> filesystems;
  std::vector<ImagePartDef> parts;
};
// `folder`: of the job. kBlock among `findings`: it cannot be done in this mode.
[[nodiscard]] Parts make_parts(const Machine& machine, Mode mode, const std::string& folder,
                               std::vector<Finding>& findings);
// "vda1.qcow2", of the overlay that serves this place.
[[nodiscard]] std::string overlay_name(const Placed& place);

}  // namespace virtuserns::convert
