// What the guest is, who it is, and what keeps it bootable as a machine.
#include <algorithm>

#include "conf/base/text.h"
#include "tools/convert/rules_list.h"

namespace virtuserns::convert {

namespace {

constexpr const char* kHeldDebian =
    "linux-image-* linux-headers-* linux-modules-* grub* shim* initramfs-tools* dracut*";
constexpr const char* kHeldRpm = "kernel* grub2* shim* dracut*";
constexpr unsigned kFirstWithCgroup2 = 226, kLastWithCgroup1 = 257;

// e_machine of an ELF file's head, and how its architecture is called; "" when it is none.
std::string elf_arch(std::string_view head) {
  if (head.size() < 20 || !head.starts_with("\x7f"
                                            "ELF"))
    return {};
  const bool is_big = head[5] == 2;
  const auto low = static_cast<unsigned char>(head[is_big ? 19 : 18]);
  const auto high = static_cast<unsigned char>(head[is_big ? 18 : 19]);
  constexpr std::pair<unsigned, const char*> kMachines[] = {{62, "x86_64"},      {3, "i686"},      {183, "aarch64"},
                                                            {40, "armv7l"},      {243, "riscv64"}, {22, "s390x"},
                                                            {258, "loongarch64"}};
  const unsigned machine = high * 256u + low;
  if (machine == 21) return is_big ? "ppc64" : "ppc64le";
  for (const auto& [number, name] : kMachines)
    if (number == machine) return name;
  return "machine " + std::to_string(machine);
}

// libsystemd-shared-252.so lies beside systemd since 231.
unsigned systemd_version(const GuestFiles& files) {
  for (const std::string dir : {"/usr/lib/systemd", "/lib/systemd", "/usr/lib/x86_64-linux-gnu/systemd",
                                "/usr/lib/aarch64-linux-gnu/systemd", "/usr/lib64/systemd"}) {
    for (const auto& name : files.list(dir)) {
      constexpr std::string_view kPrefix = "libsystemd-shared-";
      if (!name.starts_with(kPrefix)) continue;
      const auto digits = name.substr(kPrefix.size());
      if (const auto version = parse_number<unsigned>(digits.substr(0, digits.find_first_not_of("0123456789"))))
        return *version;
    }
  }
  return 0;
}

const char* name_of(InitSystem init) {
  switch (init) {
    case InitSystem::kSystemd:
      return "systemd";
    case InitSystem::kOpenRc:
      return "OpenRC";
    case InitSystem::kSysV:
      return "SysV init";
    case InitSystem::kBusybox:
      return "busybox init";
    case InitSystem::kOther:
      return "an init that no rule knows";
    case InitSystem::kNone:
      break;
  }
  return "no init";
}

void check_arch(Guest& guest) {
  auto head = guest.files.read_head("/sbin/init", 64);
  if (!head) head = guest.files.read_head("/usr/sbin/init", 64);
  const auto arch = head ? elf_arch(*head) : std::string();
  const auto& host = guest.options.host_arch;
  const bool is_32_on_64 = arch == "i686" && host == "x86_64";
  if (!arch.empty() && arch != host && !is_32_on_64)
    guest.add(Severity::kBlock, "system", "its programs are for " + arch + ", and this host is " + host,
              "convert it on a host of that architecture");
}

void check_systemd(Guest& guest) {
  const auto version = systemd_version(guest.files);
  const auto what = "systemd " + (version == 0 ? std::string("of before 231") : std::to_string(version));
  if (version < kFirstWithCgroup2)
    guest.add(Severity::kLoss, "system", what + " may not know cgroup v2",
              "run it on a host with cgroup v1 or hybrid, or upgrade the guest first");
  else if (version > kLastWithCgroup1)
    guest.add(Severity::kNote, "system", what + " needs cgroup v2", "run it on a host with cgroup v2");
}

}  // namespace

void apply_system(Guest& guest) {
  const auto& os = guest.os();
  if (guest.init() == InitSystem::kNone) {
    guest.add(Severity::kBlock, "system",
              os.id.empty() ? "this is no root of a Linux system: neither os-release nor /sbin/init is there"
                            : "there is no /sbin/init to start",
              "name the volume that has the root filesystem");
    return;
  }
  std::string name = os.pretty_name.empty() ? os.id : os.pretty_name;
  if (name.empty()) name = "an unknown distribution";
  guest.add(Severity::kNote, "system", name + ", started by " + name_of(guest.init()));
  check_arch(guest);
  if (guest.init() == InitSystem::kSystemd) check_systemd(guest);
  if (guest.init() == InitSystem::kOther)
    guest.add(Severity::kLoss, "system", "its init is not one that the rules know: its services are not looked at",
              "look after its services yourself");
}

void apply_machine_id(Guest& guest) {
  auto& files = guest.files;
  const auto keys = guest.list_paths("/etc/ssh", "_key");
  if (guest.options.machine_id == MachineId::kKeep) {
    if (!keys.empty()) guest.add(Severity::kNote, "ssh", "the host keys are those of the machine");
    return;
  }
  bool is_changed = false;
  if (!files.read_or_empty("/etc/machine-id").empty()) is_changed |= guest.replace("/etc/machine-id", "");
  // A link to /etc/machine-id follows it; what is left out here is made anew at boot.
  for (const auto* path :
       {"/var/lib/dbus/machine-id", "/var/lib/systemd/random-seed", "/var/lib/systemd/credential.secret"})
    if (files.type(path) == GuestType::kFile) is_changed |= guest.remove(path);
  if (is_changed)
    guest.add(Severity::kChange, "/etc/machine-id", "is reset: the copy makes its own at its first boot");
  if (!keys.empty())
    guest.add(Severity::kNote, "ssh", "the copy has the host keys of the machine",
              "inside: rm /etc/ssh/ssh_host_*_key*; ssh-keygen -A");
}

void apply_labels(Guest& guest) {
  for (const auto& line : config_lines(guest.files.read_or_empty("/etc/selinux/config"))) {
    if (!line.starts_with("SELINUX=")) continue;
    const auto mode = line.substr(8);
    if (mode == "enforcing")
      guest.add(Severity::kLoss, "/etc/selinux/config", "the guest's SELinux policy is not enforced in a container",
                "labels of files are kept; rely on the container's own walls");
    else if (mode != "disabled")
      guest.add(Severity::kNote, "/etc/selinux/config",
                "SELinux is " + mode + ": labels are kept, no policy is loaded");
  }
  if (guest.is_enabled("apparmor.service"))
    guest.add(Severity::kNote, "service 'apparmor'", "the guest's AppArmor profiles are not loaded in a container");
}

namespace {

void hold_debian(Guest& guest) {
  constexpr const char* kPin = "/etc/apt/preferences.d/virtuserns-convert";
  constexpr const char* kKeep = "/etc/apt/apt.conf.d/99virtuserns-convert";
  if (guest.replace(kPin, std::string("Package: ") + kHeldDebian + "\nPin: release *\nPin-Priority: -1\n"))
    guest.add(Severity::kChange, kPin, "kernel, boot loader and initramfs packages are held: nothing boots by them",
              "remove the file to change them");
  if (guest.replace(kKeep,
                    "APT::NeverAutoRemove { \"^linux-image-.*\"; \"^linux-modules-.*\"; \"^grub.*\"; "
                    "\"^initramfs-tools.*\"; };\n"))
    guest.add(Severity::kChange, kKeep,
              "'apt autoremove' leaves kernels: the running one, which it keeps, is the host's");
  constexpr const char* kInitramfs = "/etc/initramfs-tools/update-initramfs.conf";
  if (guest.files.type(kInitramfs) == GuestType::kFile &&
      guest.replace(kInitramfs,
                    guest.files.read_or_empty(kInitramfs) + "\n# of virt-userns-convert\nupdate_initramfs=no\n"))
    guest.add(Severity::kChange, kInitramfs, "no initramfs is made");
}

// "exclude=" of dnf and yum, in [main]: the list that is there grows, or a new one follows the section's name.
void hold_rpm(Guest& guest, const std::string& path) {
  const auto text = guest.files.read_or_empty(path);
  const auto is_list = [](std::string_view line) {
    return trim(line).starts_with("exclude=") || trim(line).starts_with("excludepkgs=");
  };
  const auto lines = split(text, '\n');
  const bool has_list = std::any_of(lines.begin(), lines.end(), is_list);
  std::string edited;
  bool is_done = false;
  for (const auto line : lines) {
    edited += line;
    if (!is_done && has_list && is_list(line)) edited.append(" ").append(kHeldRpm), is_done = true;
    if (!is_done && !has_list && trim(line) == "[main]") edited.append("\nexclude=").append(kHeldRpm), is_done = true;
    edited += '\n';
  }
  edited.pop_back();
  if (is_done && guest.replace(path, edited))
    guest.add(Severity::kChange, path, "kernel, boot loader and initramfs packages are excluded from upgrades");
}

void hold_suse(Guest& guest) {
  std::string text = guest.files.read_or_empty("/etc/zypp/locks");
  for (const auto name : split_blanks(kHeldRpm))
    text += "\ntype: package\nmatch_type: glob\ncase_sensitive: on\nsolvable_name: " + std::string(name) + "\n";
  if (guest.replace("/etc/zypp/locks", text))
    guest.add(Severity::kChange, "/etc/zypp/locks", "kernel, boot loader and initramfs packages are locked");
}

void hold_alpine(Guest& guest) {
  constexpr const char* kConf = "/etc/mkinitfs/mkinitfs.conf";
  if (guest.files.type(kConf) == GuestType::kFile &&
      guest.replace(kConf,
                    guest.files.read_or_empty(kConf) + "\n# of virt-userns-convert\ndisable_trigger=\"yes\"\n"))
    guest.add(Severity::kChange, kConf, "no initramfs is made when the kernel package changes");
}

}  // namespace

void apply_boot_packages(Guest& guest) {
  const auto& files = guest.files;
  if (files.exists("/etc/apt") && files.exists("/var/lib/dpkg")) hold_debian(guest);
  if (files.exists("/etc/zypp")) hold_suse(guest);
  if (files.exists("/etc/apk")) hold_alpine(guest);
  for (const auto* path : {"/etc/dnf/dnf.conf", "/etc/yum.conf"})
    // /etc/yum.conf is a link to the other where there is dnf.
    if (files.type(path) == GuestType::kFile) hold_rpm(guest, path);
}

}  // namespace virtuserns::convert
