// What is looked for in a guest and what is changed in it: a table of rules. A rule detects, says so by findings, and
// stages edits; plan and edit run the same rules, so that a plan says what a conversion will do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/base/result.h"
#include "conf/domain.h"
#include "tools/convert/findings.h"
#include "tools/convert/guest_files.h"

namespace virtuserns::convert {

enum class MachineId { kKeep, kReset };  // a move keeps who it is; a copy must not be the same machine twice

struct GuestNic {
  MacAddress mac;                        // that the definition gives it
  std::string guest_dev;                 // its name inside (nics.h); the definition has the same
  std::optional<MacAddress> former_mac;  // of the machine, where a copy gets another
};

struct GuestOptions {
  MachineId machine_id = MachineId::kKeep;
  std::vector<GuestNic> nics;
  std::string host_arch = "x86_64";
  // Mount points that the definition's <filesystem>s serve, also those of shares: "/home". "/" is always one.
  std::vector<std::string> mounted_targets;
};

class Guest;  // the rules' view of it: guest.h

struct Rule {
  const char* name;  // "fstab"; stays for ever: findings and virt-userns-convert-rules(7) have it
  void (*apply)(Guest& guest);
};
[[nodiscard]] const std::vector<Rule>& rules();

// What edit_guest would find and change. Writes nothing.
[[nodiscard]] std::vector<Finding> plan_guest(const DirFd& root, const GuestOptions& options);

enum class OnBlock { kRefuse, kEdit };
// Changes the guest; `originals_dir` (originals.h), outside of it, has the way back: undo_edits(). Originals that are there
// already, of a run that was interrupted, are brought back first. Where a finding is kBlock nothing is changed, unless
// `on_block` says so.
[[nodiscard]] Result<std::vector<Finding>> edit_guest(const DirFd& root, const GuestOptions& options,
                                                      const std::string& originals_dir,
                                                      OnBlock on_block = OnBlock::kRefuse);

}  // namespace virtuserns::convert
