// The rules on trees that are laid out as Debian, Ubuntu, the RHEL family, Alpine and SUSE lay theirs out.
#include "tools/convert/rules.h"

#include <gmock/gmock.h>

#include "tests/unit/convert/systems.h"
#include "tools/convert/fstab.h"
#include "tools/convert/manifest.h"
#include "tools/convert/originals.h"

namespace virtuserns::convert {
namespace {

using testing::HasSubstr;
using testing::Not;

Manifest read_manifest(const Tree& tree) {
  std::ifstream in(tree.originals() + "/manifest.json");
  auto manifest = parse_manifest(std::string(std::istreambuf_iterator<char>(in), {}));
  return manifest ? std::move(*manifest) : Manifest{};
}

std::vector<Finding> edit(const Tree& tree, const GuestOptions& options = options_with_card()) {
  const auto root = tree.open();
  const bool is_first = !has_originals(tree.originals());
  const auto planned = plan_guest(root, options);
  const auto done = edit_guest(root, options, tree.originals());
  EXPECT_TRUE(done) << done.error().text;
  if (!done) return {};
  // Every place that was changed is named, by its path or as a unit.
  const auto manifest = read_manifest(tree);
  for (const auto& entry : manifest.entries) {
    const auto name = entry.path.substr(entry.path.rfind('/') + 1);
    EXPECT_FALSE(about(*done, name).empty()) << entry.path;
  }
  // A plan says what a conversion does.
  if (is_first) {
    EXPECT_EQ(all_of(planned), all_of(*done));
  }
  return *done;
}

// As a Debian 12 cloud image with grub, ifupdown, chrony, the agent and cloud-init, by the names of its packages.
void make_debian(const Tree& tree) {
  tree.write("/usr/lib/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n");
  tree.link("/etc/os-release", "../usr/lib/os-release");
  elf(tree, "/lib/systemd/systemd");
  tree.link("/sbin/init", "/lib/systemd/systemd");
  tree.write("/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so", "");
  tree.directory("/var/lib/dpkg");
  tree.directory("/etc/apt");
  tree.write("/etc/initramfs-tools/update-initramfs.conf", "update_initramfs=yes\n");
  tree.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
  tree.link("/var/lib/dbus/machine-id", "/etc/machine-id");
  tree.write("/etc/ssh/ssh_host_ed25519_key", "secret");
  tree.write(
      "/etc/fstab",
      "# <file system> <mount point>\nUUID=aaaa / ext4 errors=remount-ro 0 1\nUUID=bbbb /boot/efi vfat umask=0077 0 1\n"
      "UUID=cccc /home ext4 defaults,usrquota 0 2\nUUID=dddd none swap sw 0 0\n/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\n"
      "tmpfs /tmp tmpfs size=64m 0 0\nnas:/export /mnt/nas nfs defaults 0 0\n/srv/a /srv/b none bind 0 0\nproc /proc proc defaults 0 0\n");
  tree.write("/etc/network/interfaces", "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n");
  tree.write("/etc/network/interfaces.d/50-cloud-init", "allow-hotplug enp1s0\niface enp1s0 inet dhcp\n");
  tree.write("/etc/rsyslog.conf",
             "module(load=\"imuxsock\")\nmodule(load=\"imklog\")   # kernel\n*.* /var/log/syslog\n");
  units(tree, {"qemu-guest-agent.service", "chrony.service", "e2scrub_all.timer", "e2scrub_reap.service",
               "fstrim.timer", "systemd-udevd.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket",
               "systemd-udev-trigger.service", "serial-getty@.service", "ssh.service", "nginx.service",
               "cloud-init.service"});
  for (const auto* unit : {"chrony.service", "ssh.service", "nginx.service"}) enable(tree, unit);
  tree.link("/etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service",
            "/lib/systemd/system/serial-getty@.service");
  tree.write("/usr/bin/cloud-init", "");
  tree.directory("/etc/cloud");
  tree.directory("/var/lib/cloud/instance");
}

TEST(Rules, NamesAreUniqueAndSaid) {
  const char* source = std::getenv("VIRTUSERNS_SOURCE");
  ASSERT_NE(source, nullptr) << "run it by meson";
  std::ifstream in(std::string(source) + "/docs/manual/virt-userns-convert-rules.7");
  const std::string page(std::istreambuf_iterator<char>(in), {});
  std::set<std::string> names;
  for (const auto& rule : rules()) {
    EXPECT_TRUE(names.insert(rule.name).second) << rule.name;
    auto name = std::string(rule.name);
    for (std::size_t at = 0; (at = name.find('-', at)) != std::string::npos; at += 2) name.insert(at, 1, '\\');
    EXPECT_THAT(page, HasSubstr(".TP\n.B " + name + "\n"));
  }
}

TEST(Rules, DebianIsEditedAndComesBack) {
  const Tree tree;
  make_debian(tree);
  const auto fstab = tree.read("/etc/fstab"), interfaces = tree.read("/etc/network/interfaces.d/50-cloud-init");
  auto options = options_with_card();
  options.mounted_targets = {"/home"};
  const auto findings = edit(tree, options);
  EXPECT_EQ(worst(findings), Severity::kLoss) << all_of(findings);
  EXPECT_THAT(all_of(findings), HasSubstr("note system: Debian GNU/Linux 12 (bookworm), started by systemd"));

  const auto edited = tree.read("/etc/fstab");
  for (const auto* off :
       {"UUID=aaaa", "UUID=bbbb", "UUID=cccc", "UUID=dddd", "/dev/sr0", "nas:/export", "proc /proc"})
    EXPECT_THAT(edited, HasSubstr("\n#virtuserns-convert# " + std::string(off)));
  EXPECT_THAT(edited, HasSubstr("\ntmpfs /tmp tmpfs"));
  EXPECT_THAT(edited, HasSubstr("\n/srv/a /srv/b none bind"));
  ASSERT_EQ(about(findings, "quotas of users").size(), 1u);
  EXPECT_EQ(about(findings, "quotas of users")[0].rule, "fstab");
  EXPECT_EQ(tree.read("/etc/network/interfaces.d/50-cloud-init"), "auto enp1s0\niface enp1s0 inet dhcp\n");
  EXPECT_THAT(tree.read("/etc/rsyslog.conf"), HasSubstr("\n#virtuserns-convert# module(load=\"imklog\")"));
  for (const auto* unit : {"qemu-guest-agent.service", "chrony.service", "e2scrub_all.timer", "fstrim.timer",
                           "systemd-udevd.service", "systemd-udevd-kernel.socket", "serial-getty@ttyS0.service"})
    EXPECT_TRUE(is_masked(tree, unit)) << unit;
  for (const auto* unit : {"ssh.service", "nginx.service", "serial-getty@.service"})
    EXPECT_FALSE(is_masked(tree, unit)) << unit;
  EXPECT_THAT(tree.read("/etc/apt/preferences.d/virtuserns-convert"), HasSubstr("linux-image-*"));
  EXPECT_THAT(tree.read("/etc/initramfs-tools/update-initramfs.conf"), HasSubstr("\nupdate_initramfs=no\n"));
  EXPECT_TRUE(std::filesystem::exists(tree.path("/etc/cloud/cloud-init.disabled")));
  EXPECT_THAT(tree.read("/etc/machine-id"), HasSubstr("0123456789"));

  // Again over what is edited already: nothing more happens, but originals are of before the first time.
  edit(tree, options);
  EXPECT_EQ(tree.read("/etc/fstab"), edited);
  const auto undone = undo_edits(tree.open(), tree.originals());
  ASSERT_TRUE(undone) << undone.error().text;
  EXPECT_EQ(all_of(*undone), "");
  EXPECT_EQ(tree.read("/etc/fstab"), fstab);
  EXPECT_EQ(tree.read("/etc/network/interfaces.d/50-cloud-init"), interfaces);
  EXPECT_FALSE(is_masked(tree, "chrony.service"));
  EXPECT_FALSE(std::filesystem::exists(tree.path("/etc/apt/preferences.d")));
}

TEST(Rules, APlanWritesNothing) {
  const Tree tree;
  make_debian(tree);
  std::filesystem::remove(tree.path("/etc/cloud/cloud-init.disabled"));
  const auto before = tree.read("/etc/fstab");
  (void)plan_guest(tree.open(), options_with_card());
  EXPECT_EQ(tree.read("/etc/fstab"), before);
  EXPECT_FALSE(std::filesystem::exists(tree.path("/etc/apt/preferences.d")));
  EXPECT_FALSE(std::filesystem::exists(tree.originals()));
}

TEST(Rules, AVolumeThatIsMissingBlocksAndNothingIsWritten) {
  const Tree tree;
  make_debian(tree);
  const auto before = tree.read("/etc/fstab");
  const auto findings = edit(tree);  // /home is served by nobody
  ASSERT_EQ(about(findings, "fstab '/home'").size(), 2u) << all_of(findings);
  EXPECT_EQ(worst(findings), Severity::kBlock);
  EXPECT_EQ(tree.read("/etc/fstab"), before);
  EXPECT_FALSE(has_originals(tree.originals()));
  const auto forced = edit_guest(tree.open(), options_with_card(), tree.originals(), OnBlock::kEdit);
  ASSERT_TRUE(forced);
  EXPECT_THAT(tree.read("/etc/fstab"), HasSubstr("#virtuserns-convert# UUID=cccc"));
}

TEST(Rules, ACopyIsAnotherMachine) {
  const Tree tree;
  make_debian(tree);
  std::filesystem::remove(tree.path("/var/lib/dbus/machine-id"));
  tree.write("/var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n");
  tree.write(
      "/etc/netplan/50-cloud-init.yaml",
      "network:\n  ethernets:\n    enp1s0:\n      match:\n        macaddress: 52:54:00:AA:BB:01\n      set-name: enp1s0\n");
  GuestOptions options;
  options.machine_id = MachineId::kReset;
  options.mounted_targets = {"/home"};
  options.nics = {{*xml::parse_mac("52:54:00:11:22:33"), "enp1s0", xml::parse_mac("52:54:00:aa:bb:01")}};
  const auto findings = edit(tree, options);
  EXPECT_EQ(tree.read("/etc/machine-id"), "");
  EXPECT_FALSE(std::filesystem::exists(tree.path("/var/lib/dbus/machine-id")));
  EXPECT_THAT(tree.read("/etc/netplan/50-cloud-init.yaml"), HasSubstr("macaddress: 52:54:00:11:22:33\n"));
  EXPECT_THAT(all_of(findings), HasSubstr("note ssh: the copy has the host keys"));
}

TEST(Rules, UbuntuServer) {
  const Tree tree;
  make_debian(tree);
  tree.write("/usr/lib/os-release", "PRETTY_NAME=\"Ubuntu 22.04.4 LTS\"\nID=ubuntu\nID_LIKE=debian\n");
  tree.write("/etc/fstab", "/dev/mapper/ubuntu--vg-ubuntu--lv / ext4 defaults 0 1\n/swap.img none swap sw 0 0\n");
  tree.write("/etc/netplan/00-installer-config.yaml",
             "network:\n  ethernets:\n    any:\n      match:\n        driver: virtio_net\n      dhcp4: true\n");
  tree.write("/etc/crypttab", "# name\ndata /dev/vdb none luks\n");
  tree.write("/etc/sysctl.d/90-web.conf",
             "net.ipv4.ip_forward = 1\n-vm.swappiness=1\nkernel.shmmax=1\nnet/ipv4/conf/eth0.1/rp_filter=0\n");
  tree.write("/etc/sysctl.conf", "# kernel.sysrq=1\n");
  tree.write("/etc/modules-load.d/extra.conf", "br_netfilter\n# comment\nnfsd\n");
  units(tree,
        {"docker.service", "docker.socket", "nfs-server.service", "ufw.service", "libvirtd.service", "snapd.service",
         "gdm3.service", "iscsid.service", "auditd.service", "multipathd.service", "wg-quick@.service"});
  for (const auto* unit : {"docker.service", "nfs-server.service", "ufw.service", "libvirtd.service", "snapd.service",
                           "iscsid.service", "auditd.service"})
    enable(tree, unit);
  tree.link("/etc/systemd/system/multi-user.target.wants/wg-quick@wg0.service",
            "/lib/systemd/system/wg-quick@.service");
  tree.link("/etc/systemd/system/display-manager.service", "/lib/systemd/system/gdm3.service");
  tree.directory("/etc/iscsi/nodes/iqn.2026-11.example:disk");
  const auto findings = edit(tree);
  const auto text = all_of(findings);
  EXPECT_THAT(text, HasSubstr("loss /etc/netplan/00-installer-config.yaml: finds its card by 'driver: virtio_net'"));
  EXPECT_THAT(text, HasSubstr("loss crypttab 'data'"));
  EXPECT_THAT(tree.read("/etc/crypttab"), HasSubstr("#virtuserns-convert# data /dev/vdb"));
  EXPECT_THAT(text,
              HasSubstr("loss modules: the guest loads kernel modules, and cannot any more: br_netfilter, nfsd"));
  EXPECT_THAT(text, HasSubstr("loss sysctl: settings of the whole machine have no effect: vm.swappiness"));
  EXPECT_THAT(text, HasSubstr("stay at the kernel's defaults in a container: kernel.shmmax"));
  EXPECT_THAT(text,
              HasSubstr("settings of IP are applied at boot: net.ipv4.conf.eth0/1.rp_filter, net.ipv4.ip_forward"));
  EXPECT_THAT(tree.read("/etc/systemd/system/systemd-sysctl.service.d/virtuserns-convert.conf"),
              HasSubstr("/proc/sys/net/ipv4"));
  EXPECT_THAT(text, HasSubstr("loss containers inside: need user namespaces of their own: docker.service"));
  EXPECT_THAT(text, HasSubstr("loss NFS server:"));
  EXPECT_THAT(text, HasSubstr("note firewall: works in the container's own network namespace: ufw.service"));
  EXPECT_THAT(text, HasSubstr("loss virtual machines inside:"));
  EXPECT_THAT(text, HasSubstr("loss snaps:"));
  EXPECT_THAT(text, HasSubstr("loss desktop: a container has no display: gdm3.service (off)"));
  EXPECT_THAT(text, HasSubstr("loss /etc/iscsi/nodes: 1 iSCSI targets"));
  EXPECT_TRUE(is_masked(tree, "iscsid.service"));
  EXPECT_THAT(text,
              HasSubstr("loss tunnels: need /dev/net/tun, or wireguard of the host's kernel: wg-quick@wg0.service"));
  EXPECT_TRUE(is_masked(tree, "gdm3.service"));
  EXPECT_TRUE(is_masked(tree, "auditd.service"));
  EXPECT_FALSE(is_masked(tree, "docker.service"));
  EXPECT_FALSE(is_masked(tree, "libvirtd.service"));
}

TEST(Rules, RhelFamily) {
  const Tree tree;
  tree.write("/etc/os-release", "PRETTY_NAME=\"Rocky Linux 8.9\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n");
  elf(tree, "/usr/lib/systemd/systemd");
  tree.link("/usr/sbin/init", "../lib/systemd/systemd");
  tree.link("/sbin", "usr/sbin");
  tree.write("/usr/lib/systemd/libsystemd-shared-239.so", "");
  tree.write("/etc/dnf/dnf.conf", "[main]\ngpgcheck=1\n");
  tree.link("/etc/yum.conf", "dnf/dnf.conf");
  tree.write("/etc/selinux/config", "# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n");
  tree.write("/etc/fstab", "/dev/mapper/rl-root / xfs defaults 0 0\n/dev/mapper/rl-swap none swap defaults 0 0\n");
  tree.write("/etc/sysconfig/network-scripts/ifcfg-eth1", "DEVICE=eth1\nHWADDR=52:54:00:aa:bb:02\n");
  tree.write("/etc/NetworkManager/system-connections/eth0.nmconnection",
             "[connection]\nid=eth0\ninterface-name=eth0\n");
  units(tree,
        {"NetworkManager.service", "chronyd.service", "kdump.service", "firewalld.service", "rngd.service",
         "irqbalance.service"},
        "/usr/lib/systemd/system/");
  for (const auto* unit : {"NetworkManager.service", "chronyd.service", "kdump.service", "firewalld.service"})
    enable(tree, unit);
  tree.write("/etc/chrony.conf", "pool x\nallow 10.0.0.0/8\n");
  const auto findings = edit(tree, options_with_card("eth0"));
  const auto text = all_of(findings);
  EXPECT_THAT(tree.read("/etc/dnf/dnf.conf"),
              HasSubstr("[main]\nexclude=kernel* grub2* shim* dracut*\ngpgcheck=1\n"));
  EXPECT_EQ(tree.target("/etc/yum.conf"), "dnf/dnf.conf");
  EXPECT_THAT(text, HasSubstr("loss /etc/selinux/config: the guest's SELinux policy is not enforced"));
  EXPECT_THAT(text, HasSubstr("loss card 'eth1': is configured, and the container has no such card"));
  EXPECT_THAT(text, HasSubstr("loss /etc/chrony.conf: serves the time to others"));
  EXPECT_THAT(tree.read("/etc/NetworkManager/conf.d/90-virtuserns-convert.conf"),
              HasSubstr("match-device=interface-name:eth0\nmanaged=1"));
  EXPECT_TRUE(is_masked(tree, "chronyd.service"));
  EXPECT_TRUE(is_masked(tree, "kdump.service"));
  EXPECT_FALSE(is_masked(tree, "irqbalance.service"));
  EXPECT_THAT(text, HasSubstr("note firewall"));
}

TEST(Rules, RhelListThatIsThereIsLonger) {
  const Tree tree;
  elf(tree, "/usr/lib/systemd/systemd");
  tree.link("/sbin/init", "/usr/lib/systemd/systemd");
  tree.write("/etc/yum.conf", "[main]\nexclude=php*\n[other]\nx=1");
  edit(tree);
  EXPECT_EQ(tree.read("/etc/yum.conf"), "[main]\nexclude=php* kernel* grub2* shim* dracut*\n[other]\nx=1");
}

TEST(Rules, Alpine) {
  const Tree tree;
  tree.write("/etc/os-release", "NAME=\"Alpine Linux\"\nID=alpine\nPRETTY_NAME=\"Alpine Linux v3.19\"\n");
  elf(tree, "/bin/busybox");
  tree.link("/sbin/init", "/bin/busybox");
  tree.write("/sbin/openrc", "");
  for (const auto* name :
       {"/etc/runlevels/sysinit/devfs", "/etc/runlevels/sysinit/mdev", "/etc/runlevels/sysinit/hwdrivers",
        "/etc/runlevels/boot/hwclock", "/etc/runlevels/boot/modules", "/etc/runlevels/boot/swap",
        "/etc/runlevels/default/chronyd", "/etc/runlevels/default/qemu-guest-agent", "/etc/runlevels/default/sshd",
        "/etc/runlevels/boot/networking"})
    tree.link(name, "/etc/init.d/" + std::string(name).substr(std::string(name).rfind('/') + 1));
  for (const auto* name : {"mdev", "hwdrivers", "qemu-guest-agent"})
    tree.write("/etc/init.d/" + std::string(name), "");
  tree.write("/etc/inittab",
             "::sysinit:/sbin/openrc sysinit\ntty1::respawn:/sbin/getty 38400 tty1\n#ttyS9::respawn:x\n"
             "ttyS0::respawn:/sbin/getty -L 0 ttyS0 vt100\n::ctrlaltdel:/sbin/reboot\n");
  tree.write("/etc/rc.conf", "#rc_sys=\"\"\nrc_sys=\"\"\n");
  tree.directory("/etc/apk");
  tree.write("/etc/mkinitfs/mkinitfs.conf", "features=\"ata base\"\n");
  tree.write("/etc/network/interfaces", "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n");
  const auto findings = edit(tree, options_with_card("eth0"));
  EXPECT_THAT(all_of(findings), HasSubstr("Alpine Linux v3.19, started by OpenRC"));
  for (const auto* name : {"sysinit/devfs", "sysinit/mdev", "sysinit/hwdrivers", "boot/hwclock", "boot/modules",
                           "boot/swap", "default/chronyd", "default/qemu-guest-agent"})
    EXPECT_EQ(tree.target("/etc/runlevels/" + std::string(name)), "") << name;
  for (const auto* name : {"default/sshd", "boot/networking"})
    EXPECT_NE(tree.target("/etc/runlevels/" + std::string(name)), "") << name;
  const auto inittab = tree.read("/etc/inittab");
  EXPECT_THAT(inittab, HasSubstr("\n#virtuserns-convert# tty1::respawn"));
  EXPECT_THAT(inittab, HasSubstr("\n#virtuserns-convert# ttyS0::respawn"));
  EXPECT_THAT(inittab, HasSubstr("\nconsole::respawn:/sbin/getty 0 console linux\n"));
  EXPECT_EQ(tree.read("/etc/rc.conf"), "#rc_sys=\"\"\nrc_sys=\"lxc\"\n");
  EXPECT_THAT(tree.read("/etc/mkinitfs/mkinitfs.conf"), HasSubstr("disable_trigger=\"yes\""));
  EXPECT_FALSE(std::filesystem::exists(tree.path("/etc/systemd")));
  ASSERT_TRUE(undo_edits(tree.open(), tree.originals()));
  EXPECT_EQ(tree.target("/etc/runlevels/default/chronyd"), "/etc/init.d/chronyd");
}

TEST(Rules, Suse) {
  const Tree tree;
  tree.write("/etc/os-release",
             "ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\nPRETTY_NAME=\"openSUSE Leap 15.5\"\n");
  elf(tree, "/usr/lib/systemd/systemd");
  tree.link("/sbin/init", "../usr/lib/systemd/systemd");
  tree.write("/usr/lib/systemd/libsystemd-shared-249.so", "");
  tree.directory("/etc/zypp");
  tree.write(
      "/etc/fstab",
      "UUID=1 / btrfs defaults 0 0\nUUID=1 /var btrfs subvol=/@/var 0 0\nUUID=1 /home btrfs subvol=/@/home 0 0\n");
  tree.write("/etc/sysconfig/network/ifcfg-eth0", "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n");
  auto options = options_with_card("eth0");
  options.mounted_targets = {"/var", "/home"};
  const auto findings = edit(tree, options);
  EXPECT_EQ(worst(findings), Severity::kChange) << all_of(findings);
  EXPECT_THAT(tree.read("/etc/zypp/locks"), HasSubstr("solvable_name: kernel*\n"));
  EXPECT_EQ(about(findings, "no configuration").size(), 0u);
}

TEST(Rules, SysVInit) {
  const Tree tree;
  tree.write("/etc/os-release", "ID=devuan\n");
  elf(tree, "/sbin/init");
  tree.write(
      "/etc/inittab",
      "id:2:initdefault:\n1:2345:respawn:/sbin/getty --noclear 38400 tty1\nT0:23:respawn:/sbin/getty -L ttyS0 9600 vt100\n");
  tree.write("/etc/init.d/ntp", "");
  for (const auto* level : {"2", "3"}) tree.link("/etc/rc" + std::string(level) + ".d/S02ntp", "../init.d/ntp");
  tree.link("/etc/rc2.d/S01ssh", "../init.d/ssh");
  edit(tree);
  EXPECT_EQ(tree.target("/etc/rc2.d/S02ntp"), "");
  EXPECT_EQ(tree.target("/etc/rc3.d/S02ntp"), "");
  EXPECT_NE(tree.target("/etc/rc2.d/S01ssh"), "");
  EXPECT_THAT(tree.read("/etc/inittab"), HasSubstr("#virtuserns-convert# T0:23"));
  EXPECT_THAT(tree.read("/etc/inittab"), HasSubstr("co:2345:respawn:/sbin/getty --keep-baud console"));
}

TEST(Rules, MountUnitsOfDevicesAreMasked) {
  const Tree tree;
  make_debian(tree);
  tree.write("/etc/fstab", "");
  tree.write("/etc/systemd/system/srv-data.mount", "[Mount]\nWhat=/dev/vdb1\nWhere=/srv/data\n");
  tree.write("/etc/systemd/system/srv-data.automount", "[Automount]\nWhere=/srv/data\n");
  tree.write("/etc/systemd/system/srv-own.mount", "[Mount]\nWhat=UUID=1\nWhere=/srv/own/\n");
  tree.write("/etc/systemd/system/tmp.mount", "[Mount]\nWhat=tmpfs\nWhere=/tmp\nType=tmpfs\n");
  auto options = options_with_card();
  options.mounted_targets = {"/srv/own"};
  const auto findings = edit(tree, options);
  EXPECT_TRUE(is_masked(tree, "srv-data.mount"));
  EXPECT_TRUE(is_masked(tree, "srv-data.automount"));
  EXPECT_TRUE(is_masked(tree, "srv-own.mount"));
  EXPECT_FALSE(is_masked(tree, "tmp.mount"));
  EXPECT_EQ(about(findings, "srv-data.mount")[0].severity, Severity::kLoss);
  EXPECT_EQ(about(findings, "srv-own.mount")[0].severity, Severity::kChange);
}

TEST(Rules, SharesAreFoundInFstab) {
  const Tree tree;
  tree.write("/etc/fstab", "webtag /srv/web/ virtiofs defaults 0 0\nold /mnt/old 9p trans=virtio 0 0\nx /x ext4\n");
  const auto shares = find_shares(tree.files());
  ASSERT_EQ(shares.size(), 2u);
  EXPECT_EQ(shares[0].tag, "webtag");
  EXPECT_EQ(shares[0].mount_point, "/srv/web");
}

TEST(Rules, WhatIsNoSystemIsBlocked) {
  const Tree empty;
  EXPECT_THAT(all_of(plan_guest(empty.open(), {})), HasSubstr("block system: this is no root of a Linux system"));
  const Tree arm;
  elf(arm, "/sbin/init", 183);
  EXPECT_THAT(all_of(plan_guest(arm.open(), {})),
              HasSubstr("block system: its programs are for aarch64, and this host is x86_64"));
  const Tree old;
  elf(old, "/sbin/init", 3);
  EXPECT_THAT(all_of(plan_guest(old.open(), {})), Not(HasSubstr("block system")));
}

}  // namespace
}  // namespace virtuserns::convert
