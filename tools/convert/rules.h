// What is looked for in a guest and what is changed in it: a table of rules. A rule detects, says so by findings, and
// stages edits; plan and edit run the same rules, so that a plan says what a conversion will do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"
#include "tools/convert/findings.h"
#include "tools/convert/guest_files.h"

namespace virtuserns::convert {

enum class MachineId { kKeep, kReset };  // a move keeps who it is; a copy must not be the same machine twice

struct GuestNic {
  MacAddress mac;
  std::string guest_dev;  // its name inside (nics.h); the definition has the same
};

struct GuestOptions {
  MachineId machine_id = MachineId::kKeep;
  std::vector<GuestNic> nics;
  std::uint32_t id_count = 65536;
  // Mount points of fstab that the definition's <filesystem>s serve ("/", "/home"), and those disks that found no
  // place. Lines of fstab for either are switched off; others of block devices are reported as unknown.
  std::vector<std::string> mounted_targets;
  // Keep what seeds cloud-init from a disk (a NoCloud seed in /var/lib/cloud/seed is always kept).
  bool has_cloud_seed = false;
};

struct Guest;  // the rules' view of it: rules_guest.h

struct Rule {
  const char* name;  // "fstab"; stays for ever: reports and the manual page name it
  const char* what;  // one line of the manual page
  void (*apply)(Guest& guest);
};
[[nodiscard]] const std::vector<Rule>& rules();

// Writes nothing.
[[nodiscard]] Result<std::vector<Finding>> plan_guest(const DirFd& root, const GuestOptions& options);
// Stages, and commits to the guest with its originals in `originals_dir`. With a finding kBlock nothing is written,
// unless `force`. undo_edits() undoes it.
enum class Blocked { kRefuse, kEditAnyway };
[[nodiscard]] Result<std::vector<Finding>> edit_guest(const DirFd& root, const GuestOptions& options,
                                                      const std::string& originals_dir,
                                                      Blocked blocked = Blocked::kRefuse);

}  // namespace virtuserns::convert
