// What the guest mounts at boot: fstab, units, encrypted volumes.
#include <algorithm>
#include <array>

#include "conf/base/text.h"
#include "tools/convert/fstab.h"
#include "tools/convert/rules_list.h"

namespace virtuserns::convert {

namespace {

constexpr const char* kOff = "#virtuserns-convert# ";

// The container has them already, or has no use for them.
constexpr std::array kPseudo = {"proc",       "sysfs",   "devpts",    "devtmpfs",    "cgroup",   "cgroup2",
                                "securityfs", "debugfs", "tracefs",   "configfs",    "efivarfs", "pstore",
                                "bpf",        "mqueue",  "hugetlbfs", "binfmt_misc", "fusectl",  "rpc_pipefs",
                                "selinuxfs",  "nfsd",    "usbfs"};
// A user namespace may mount these itself.
constexpr std::array kInside = {"tmpfs", "ramfs", "overlay"};
constexpr std::array kRemote = {"nfs",       "nfs4",  "cifs", "smb3",   "smbfs", "ceph",
                                "glusterfs", "davfs", "afs",  "lustre", "gfs2",  "ocfs2"};
// Without these a machine boots no less.
constexpr std::array kBootOnly = {"/boot", "/boot/efi", "/efi", "/boot/firmware"};

template <std::size_t size>
bool has(const std::array<const char*, size>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool is_mounted_outside(const Guest& guest, const std::string& target) {
  const auto& targets = guest.options.mounted_targets;
  return target == "/" || std::find(targets.begin(), targets.end(), target) != targets.end();
}

bool has_bind(const FstabLine& line) { return option_of(line, "bind") || option_of(line, "rbind"); }

void report_quotas(Guest& guest, const FstabLine& line) {
  for (const auto* option : {"quota", "usrquota", "grpquota", "usrjquota", "grpjquota", "prjquota", "uquota",
                             "gquota", "pquota", "uqnoenforce"})
    if (option_of(line, option)) {
      guest.add(Severity::kLoss, "fstab " + quote(line.target),
                "quotas of users and groups are not kept in a container");
      return;
    }
}

Finding volume_finding(const FstabLine& line) {
  const auto object = "fstab " + quote(line.target);
  const auto what = quote(line.spec) + " of type " + quote(line.type);
  if (has(kBootOnly, tidy_target(line.target)))
    return {Severity::kChange, object, what + " is for booting a machine: it is not mounted", ""};
  if (line.type.find("iso9660") != std::string::npos || line.spec.starts_with("/dev/sr") ||
      line.spec.starts_with("/dev/cdrom") || line.spec.starts_with("/dev/fd"))
    return {Severity::kChange, object, what + " is a removable drive, which a container has not", ""};
  if (option_of(line, "noauto") || option_of(line, "nofail"))
    return {Severity::kLoss, object, what + " is no volume of this conversion: it is not mounted", ""};
  return {Severity::kBlock, object, what + " is no volume that was found: the guest needs it at boot",
          "convert the disk that has it too, or take the line out of the machine's fstab"};
}

// What becomes of a line that is an entry; nothing: it stays.
std::optional<Finding> judge(const Guest& guest, const FstabLine& line) {
  const auto object = "fstab " + quote(line.target);
  const auto target = tidy_target(line.target);
  if (line.type == "swap")
    return Finding{Severity::kLoss, object.substr(0, 5) + " swap",
                   quote(line.spec) + " is not used: swap is the host's",
                   "allow it by <swap_hard_limit> of <memtune>"};
  if (has_bind(line)) return std::nullopt;
  if (is_mounted_outside(guest, target))
    return Finding{Severity::kChange, object, quote(line.spec) + " is mounted by the host", ""};
  if (line.type == "hugetlbfs")
    return Finding{Severity::kLoss, object, "huge pages are the host's: it is not mounted", ""};
  if (has(kPseudo, line.type))
    return Finding{Severity::kChange, object, quote(line.type) + " is the container's own", ""};
  if (has(kInside, line.type)) return std::nullopt;
  if (is_share(line))
    return Finding{Severity::kLoss, object,
                   "share " + quote(line.spec) + " of the machine is not mounted by the guest",
                   "add <filesystem type='mount'> with this target to the domain"};
  if (has(kRemote, line.type))
    return Finding{Severity::kLoss, object,
                   quote(line.spec) + " of type " + quote(line.type) + " cannot be mounted inside a user namespace",
                   "mount it on the host and add <filesystem type='mount'> with this target to the domain"};
  if (line.type.starts_with("fuse") || line.spec.starts_with("fuse"))
    return Finding{Severity::kLoss, object, quote(line.spec) + " needs /dev/fuse: it is not mounted",
                   "add a <hostdev> of /dev/fuse and switch the line on again"};
  return volume_finding(line);
}

// What="..." and Where="..." of a mount unit.
std::string unit_value(const std::string& text, std::string_view key) {
  for (const auto& line : config_lines(text))
    if (line.starts_with(std::string(key) + "="))
      return std::string(trim(std::string_view(line).substr(key.size() + 1)));
  return {};
}

}  // namespace

void apply_fstab(Guest& guest) {
  const auto text = guest.files.read("/etc/fstab");
  if (!text) return;
  auto lines = parse_fstab(*text);
  bool is_changed = false;
  for (auto& line : lines) {
    if (!line.is_entry) continue;
    report_quotas(guest, line);
    auto finding = judge(guest, line);
    if (!finding) continue;
    guest.findings.push_back(std::move(*finding));
    line.text.insert(0, kOff);
    is_changed = true;
  }
  if (is_changed) guest.replace("/etc/fstab", format_fstab(lines));
}

void apply_mount_units(Guest& guest) {
  if (guest.init() != InitSystem::kSystemd) return;
  const std::string dir = "/etc/systemd/system";
  for (const auto& name : guest.files.list(dir)) {
    const bool is_mount = name.ends_with(".mount"), is_swap = name.ends_with(".swap");
    if (!is_mount && !is_swap) continue;
    const auto text = guest.files.read_or_empty(dir + "/" + name);
    const auto what = unit_value(text, "What"), type = unit_value(text, "Type");
    const auto where = tidy_target(unit_value(text, "Where"));
    if (is_mount && (what.empty() || has(kInside, type) || has(kPseudo, type))) continue;
    const bool is_served = is_mount && is_mounted_outside(guest, where);
    if (!guest.disable(name)) continue;
    if (is_mount) guest.disable(name.substr(0, name.size() - 5) + "automount");
    guest.add(is_served ? Severity::kChange : Severity::kLoss, "unit " + quote(name),
              is_served ? quote(where) + " is mounted by the host"
                        : quote(what) + " is not mounted by the guest: the unit is masked",
              is_served || is_swap ? "" : "mount it on the host and add a <filesystem> to the domain");
  }
}

void apply_crypttab(Guest& guest) {
  const auto text = guest.files.read("/etc/crypttab");
  if (!text) return;
  std::string edited;
  bool is_changed = false;
  for (const auto line : split(*text, '\n')) {
    const auto fields = split_blanks(line);
    const bool is_entry = fields.size() >= 2 && fields[0].front() != '#';
    if (is_entry) {
      guest.add(Severity::kLoss, "crypttab " + quote(fields[0]),
                "encrypted volume " + quote(fields[1]) + " is not opened in a container",
                "open it on the host and add its <filesystem> to the domain");
      edited += kOff;
      is_changed = true;
    }
    edited.append(line).append("\n");
  }
  if (is_changed) guest.replace("/etc/crypttab", edited.substr(0, edited.size() - 1));
}

}  // namespace virtuserns::convert
