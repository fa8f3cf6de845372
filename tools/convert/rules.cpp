#include "tools/convert/rules.h"

#include <fcntl.h>

#include "conf/base/text.h"
#include "tools/convert/guest.h"
#include "tools/convert/originals.h"
#include "tools/convert/rules_list.h"

namespace virtuserns::convert {

namespace {

// What a rule could not read is part of the answer: it may have had something to say.
void report_refused(Guest& guest) {
  for (const auto& [path, reason] : guest.files.refused())
    guest.add(Severity::kLoss, path, "was not looked at: " + reason, "look at it yourself");
}

void report_hard_links(Guest& guest) {
  for (const auto& path : guest.files.staged())
    if (guest.files.link_count(path) > 1)
      guest.add(Severity::kNote, path, "has other names (hard links), which keep what it was");
}

void apply_rules(Guest& guest) {
  for (const auto& rule : rules()) rule.apply(guest);
  report_hard_links(guest);
  report_refused(guest);
}

// A duplicate: the handle that a Guest's files keep is their own.
Result<GuestFiles> open_again(const DirFd& root) {
  DirFd copy(::fcntl(root.get(), F_DUPFD_CLOEXEC, 3));
  if (!copy) return sys_fail("open the guest's root again");
  return GuestFiles(std::move(copy));
}

}  // namespace

const std::vector<Rule>& rules() {
  static const std::vector<Rule> kRules = {
      {"system", "distribution, init and architecture are told", apply_system},
      {"machine-id", "is kept for a move and reset for a copy", apply_machine_id},
      {"labels", "SELinux and AppArmor policy of the guest is not in force", apply_labels},
      {"boot-packages", "kernel, boot loader and initramfs are held by apt, dnf, zypper or mkinitfs",
       apply_boot_packages},
      {"fstab", "lines that the host mounts, or that cannot be mounted inside, are switched off", apply_fstab},
      {"mount-units", "mount and swap units of devices are masked", apply_mount_units},
      {"crypttab", "encrypted volumes are not opened at boot", apply_crypttab},
      {"network", "ifupdown, netplan, systemd-networkd, NetworkManager, ifcfg: cards by name and MAC", apply_network},
      {"modules", "kernel modules and options that the guest loads are the host's to load", apply_modules},
      {"sysctl", "settings of the kernel that are the host's; those of IP are applied at boot", apply_sysctl},
      {"services", "services that need a machine: agents, clocks, disks, graphics, kernel servers", apply_services},
      {"consoles", "logins on serial lines and virtual terminals are moved to the console", apply_consoles},
      {"logs", "rsyslog and journald do not read the kernel's log", apply_logs},
      {"cloud-init", "is switched off where it has no seed", apply_cloud_init},
  };
  return kRules;
}

std::vector<Finding> plan_guest(const DirFd& root, const GuestOptions& options) {
  auto files = open_again(root);
  if (!files) return {{Severity::kBlock, "root", files.error().text, ""}};
  Guest guest(*files, options);
  apply_rules(guest);
  return std::move(guest.findings);
}

Result<std::vector<Finding>> edit_guest(const DirFd& root, const GuestOptions& options,
                                        const std::string& originals_dir, OnBlock on_block) {
  if (has_originals(originals_dir)) (void)TRY(undo_edits(root, originals_dir), "undo an interrupted edit");
  auto files = TRY(open_again(root));
  Guest guest(files, options);
  apply_rules(guest);
  if (worst(guest.findings) == Severity::kBlock && on_block == OnBlock::kRefuse) return std::move(guest.findings);
  TRY(files.commit(originals_dir));
  return std::move(guest.findings);
}

}  // namespace virtuserns::convert
