// Services that need a machine, its kernel or its devices.
#include <algorithm>

#include "conf/base/text.h"
#include "tools/convert/rules_list.h"

namespace virtuserns::convert {

namespace {

// kPresent: switched off wherever it is there, since something else starts it; kEnabled: only where it would start.
enum class When { kPresent, kEnabled };
enum class Action { kDisable, kTell };

struct ServiceGroup {
  const char* object;
  When when;
  Action action;
  Severity severity;
  const char* text;
  const char* remedy;
  // A name that ends with '@' is every instance of that template. Services of other inits are named as units too.
  std::vector<std::string> units;
};

const std::vector<ServiceGroup>& groups() {
  static const std::vector<ServiceGroup> kGroups = {
      {"guest agents",
       When::kPresent,
       Action::kDisable,
       Severity::kChange,
       "they talk to a hypervisor that is not there any more",
       "",
       {"qemu-guest-agent.service",
        "qemu-ga.service",
        "spice-vdagentd.service",
        "spice-vdagentd.socket",
        "spice-vdagent.service",
        "open-vm-tools.service",
        "vgauth.service",
        "vmtoolsd.service",
        "vgauthd.service",
        "hypervkvpd.service",
        "hypervvssd.service",
        "hypervfcopyd.service",
        "hv-kvp-daemon.service",
        "hv-vss-daemon.service",
        "hv-fcopy-daemon.service",
        "xe-daemon.service",
        "xe-linux-distribution.service",
        "walinuxagent.service",
        "waagent.service",
        "vboxadd.service",
        "vboxadd-service.service",
        "vboxservice.service"}},
      {"clocks",
       When::kEnabled,
       Action::kDisable,
       Severity::kChange,
       "the clock is the host's, and the host keeps it",
       "",
       {"chrony.service",
        "chronyd.service",
        "chrony-wait.service",
        "ntp.service",
        "ntpd.service",
        "ntpsec.service",
        "ntpsec-wait.service",
        "ntpdate.service",
        "openntpd.service",
        "busybox-ntpd.service",
        "systemd-timesyncd.service",
        "systemd-time-wait-sync.service",
        "hwclock.service",
        "hwclock.sh.service",
        "hwclock-save.service",
        "fake-hwclock.service",
        "fake-hwclock-load.service",
        "fake-hwclock-save.timer",
        "ptp4l.service",
        "phc2sys.service"}},
      {"udev",
       When::kPresent,
       Action::kDisable,
       Severity::kChange,
       "a container's devices do not come and go",
       "",
       {"systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
        "systemd-udev-trigger.service", "systemd-udev-settle.service", "udev.service", "udev-trigger.service",
        "udev-settle.service", "udev-postmount.service", "eudev.service", "mdev.service", "hwdrivers.service"}},
      {"OpenRC's boot",
       When::kEnabled,
       Action::kDisable,
       Severity::kChange,
       "the host has done this before",
       "",
       {"devfs.service", "dmesg.service", "modules.service", "modloop.service", "swap.service", "fsck.service",
        "root.service", "numlock.service", "swclock.service", "osclock.service", "mtab.service", "keymaps.service",
        "consolefont.service", "termencoding.service"}},
      {"care of disks",
       When::kPresent,
       Action::kDisable,
       Severity::kChange,
       "the host looks after disks",
       "",
       {"fstrim.timer",         "e2scrub_all.timer",       "e2scrub_reap.service",   "xfs_scrub_all.timer",
        "btrfs-balance.timer",  "btrfs-scrub.timer",       "btrfs-trim.timer",       "btrfs-defrag.timer",
        "smartd.service",       "smartmontools.service",   "hdparm.service",         "lvm2-monitor.service",
        "lvm2-lvmpolld.socket", "lvm2-lvmetad.socket",     "dm-event.socket",        "blk-availability.service",
        "mdmonitor.service",    "mdmonitor-oneshot.timer", "mdcheck_start.timer",    "mdcheck_continue.timer",
        "raid-check.timer",     "mdadm.service",           "mdadm-waitidle.service", "fwupd.service",
        "fwupd-refresh.timer",  "udisks2.service",         "cryptdisks.service",     "cryptdisks-early.service",
        "iscsid.service",       "iscsid.socket",           "iscsi.service",          "open-iscsi.service",
        "multipathd.service",   "multipathd.socket",       "multipath-tools.service"}},
      {"care of hardware",
       When::kEnabled,
       Action::kDisable,
       Severity::kChange,
       "the host looks after its hardware",
       "",
       {"irqbalance.service",
        "acpid.service",
        "acpid.socket",
        "acpid.path",
        "thermald.service",
        "lm-sensors.service",
        "lm_sensors.service",
        "cpufrequtils.service",
        "cpupower.service",
        "rng-tools.service",
        "rng-tools-debian.service",
        "rngd.service",
        "watchdog.service",
        "wd_keepalive.service",
        "ModemManager.service",
        "bluetooth.service",
        "kdump.service",
        "kdump-tools.service",
        "ksm.service",
        "ksmtuned.service",
        "mcelog.service",
        "rasdaemon.service",
        "numad.service",
        "alsa-restore.service",
        "alsa-state.service",
        "gpm.service",
        "keyboard-setup.service",
        "console-setup.service",
        "setvtrgb.service",
        "grub-common.service",
        "grub-initrd-fallback.service",
        "grub2-systemd-integration.service",
        "systemd-boot-update.service",
        "dracut-shutdown.service",
        "plymouth.service",
        "microcode.service"}},
      {"quotas",
       When::kEnabled,
       Action::kDisable,
       Severity::kChange,
       "quotas are not kept in a container",
       "",
       {"quota.service", "quotarpc.service", "quotaon.service", "systemd-quotacheck.service"}},
      {"swap",
       When::kEnabled,
       Action::kDisable,
       Severity::kLoss,
       "swap is the host's",
       "allow it by <swap_hard_limit> of <memtune>",
       {"dphys-swapfile.service", "zramswap.service", "zram-config.service", "zram-init.service", "swapfile.service",
        "swapspace.service"}},
      {"users of raw disks",
       When::kEnabled,
       Action::kDisable,
       Severity::kLoss,
       "a container has no disks of its own",
       "leave them on a machine, or give them a device by <hostdev mode='capabilities' type='storage'>",
       {"drbd.service", "ceph-osd.target", "ceph-osd@", "target.service", "tgt.service", "zfs-import-cache.service",
        "zfs-import-scan.service", "zfs-mount.service", "zfs-zed.service", "oracleasm.service", "glusterd.service",
        "nbd-client.service", "dlm.service", "bcache.service"}},
      {"NFS server",
       When::kEnabled,
       Action::kDisable,
       Severity::kLoss,
       "the kernel's NFS server does not run in a user namespace",
       "export from the host, or use nfs-ganesha",
       {"nfs-kernel-server.service", "nfs-server.service", "nfs-mountd.service", "nfs-blkmap.service",
        "nfsdcld.service", "nfsserver.service", "nfs.service", "rpc-svcgssd.service"}},
      {"automounter",
       When::kEnabled,
       Action::kDisable,
       Severity::kLoss,
       "nothing remote is mounted inside",
       "mount it on the host and add a <filesystem>",
       {"autofs.service"}},
      {"audit",
       When::kEnabled,
       Action::kDisable,
       Severity::kLoss,
       "the kernel's audit log is the host's",
       "run auditd on the host",
       {"auditd.service"}},
      {"binary formats",
       When::kEnabled,
       Action::kDisable,
       Severity::kLoss,
       "they are the host's to register",
       "register them on the host, with the flag F",
       {"binfmt-support.service", "binfmt.service"}},
      {"desktop",
       When::kEnabled,
       Action::kDisable,
       Severity::kLoss,
       "a container has no display",
       "use a remote desktop (xrdp, a VNC server)",
       {"display-manager.service", "gdm.service", "gdm3.service", "lightdm.service", "sddm.service", "xdm.service",
        "lxdm.service", "slim.service", "greetd.service", "nodm.service"}},
      {"firewall",
       When::kEnabled,
       Action::kTell,
       Severity::kNote,
       "works in the container's own network namespace",
       "the modules that its rules need must be loaded on the host (nf_tables, ip_tables, nf_conntrack, ...)",
       {"nftables.service", "iptables.service", "ip6tables.service", "netfilter-persistent.service", "ufw.service",
        "firewalld.service", "shorewall.service", "shorewall6.service", "SuSEfirewall2.service", "ferm.service",
        "awall.service"}},
      {"containers inside",
       When::kEnabled,
       Action::kTell,
       Severity::kLoss,
       "need user namespaces of their own",
       "allow them by <userns:seccomp nesting='yes'/>, see virtuserns-domain-xml(5)",
       {"docker.service", "docker.socket", "containerd.service", "podman.socket", "podman.service", "crio.service",
        "lxc.service", "lxc-net.service", "lxd.service", "incus.service", "snap.lxd.daemon.service", "k3s.service",
        "kubelet.service"}},
      {"virtual machines inside",
       When::kEnabled,
       Action::kTell,
       Severity::kLoss,
       "a container has no /dev/kvm",
       "leave them on a machine, or give it /dev/kvm by <hostdev mode='capabilities' type='misc'>",
       {"libvirtd.service", "libvirtd.socket", "virtqemud.service", "virtqemud.socket", "libvirt-guests.service",
        "qemu-kvm.service", "xen.service", "vboxdrv.service"}},
      {"tunnels",
       When::kEnabled,
       Action::kTell,
       Severity::kLoss,
       "need /dev/net/tun, or wireguard of the host's kernel",
       "give it /dev/net/tun by <hostdev mode='capabilities' type='misc'>; load wireguard on the host",
       {"openvpn.service", "openvpn@", "openvpn-client@", "openvpn-server@", "wg-quick@", "tinc.service",
        "tailscaled.service", "zerotier-one.service", "strongswan.service", "strongswan-starter.service",
        "ipsec.service"}},
      {"snaps",
       When::kEnabled,
       Action::kTell,
       Severity::kLoss,
       "are images that need loop devices and squashfs",
       "install the programs as packages",
       {"snapd.service", "snapd.socket"}},
      {"devices of a machine",
       When::kEnabled,
       Action::kTell,
       Severity::kLoss,
       "are not there in a container",
       "give it those that it needs by <hostdev>",
       {"pcscd.service", "pcscd.socket", "gpsd.service", "gpsd.socket", "cups-browsed.service", "apcupsd.service",
        "nut-driver.target", "nvidia-persistenced.service", "usbmuxd.service", "wpa_supplicant@"}},
  };
  return kGroups;
}

std::vector<std::string> matching(const Guest& guest, const std::string& unit) {
  if (!unit.ends_with("@")) return {unit};
  std::vector<std::string> instances;
  for (const auto& enabled : guest.enabled_units())
    if (enabled.starts_with(unit)) instances.push_back(enabled);
  return instances;
}

void apply_group(Guest& guest, const ServiceGroup& group) {
  std::string names;
  for (const auto& pattern : group.units) {
    for (const auto& unit : matching(guest, pattern)) {
      if (group.when == When::kEnabled && !guest.is_enabled(unit)) continue;
      if (group.action == Action::kDisable && !guest.disable(unit)) continue;
      names += (names.empty() ? "" : ", ") + unit;
    }
  }
  if (names.empty()) return;
  const char* what = group.action == Action::kDisable ? " (off)" : "";
  guest.add(group.severity, group.object, std::string(group.text) + ": " + names + what, group.remedy);
}

// A clock that others are served from is more than one that follows.
void report_time_server(Guest& guest) {
  if (!guest.is_enabled("chrony.service") && !guest.is_enabled("chronyd.service")) return;
  for (const auto* path : {"/etc/chrony/chrony.conf", "/etc/chrony.conf"})
    for (const auto& line : config_lines(guest.files.read_or_empty(path)))
      if (line == "allow" || line.starts_with("allow ")) {
        guest.add(Severity::kLoss, path, "serves the time to others, which it will not do any more",
                  "let the host serve it, or unmask chrony and run it as 'chronyd -x'");
        return;
      }
}

// The service is on in many a distribution; that somebody uses it shows in what it logs in to.
void report_iscsi(Guest& guest) {
  for (const auto* path : {"/etc/iscsi/nodes", "/var/lib/iscsi/nodes"})
    if (const auto targets = guest.files.list(path).size(); targets > 0)
      guest.add(Severity::kLoss, path,
                std::to_string(targets) + " iSCSI targets, which a container does not log in to",
                "log in on the host, and add their file systems to the domain");
}

void report_exports(Guest& guest) {
  if (!config_lines(guest.files.read_or_empty("/etc/exports")).empty() &&
      !guest.is_enabled("nfs-kernel-server.service") && !guest.is_enabled("nfs-server.service"))
    guest.add(Severity::kNote, "/etc/exports", "names directories, and no NFS server is on");
}

}  // namespace

void apply_services(Guest& guest) {
  report_time_server(guest);
  report_exports(guest);
  report_iscsi(guest);
  for (const auto& group : groups()) apply_group(guest, group);
  if (guest.init() != InitSystem::kOpenRc) return;
  // What OpenRC leaves out in containers it leaves out by this.
  constexpr const char* kConf = "/etc/rc.conf";
  std::string edited;
  const auto text = guest.files.read_or_empty(kConf);
  for (const auto line : split(trim(text), '\n'))
    if (!trim(line).starts_with("rc_sys=")) edited.append(line).append("\n");
  if (guest.replace(kConf, edited + "rc_sys=\"lxc\"\n"))
    guest.add(Severity::kChange, kConf, "OpenRC is told that it runs in a container");
}

}  // namespace virtuserns::convert
