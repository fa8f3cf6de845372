#!/usr/bin/python3
"""In the machine of virtual_host.py: makes a compute host of it, and is then its sshd.

  virtual_host_guest.py PUBLIC_KEY PORT...

Services of 127.0.0.1 outside are at the same ports of 127.0.0.1 here, so that everything has the same address on both sides; of
10.0.2.2, which is what qemu calls loopback outside, nobody knows. The daemon is a service of systemd, as users have it.
"""
import os
import pathlib
import shutil
import sys

SOURCE, BUILD = pathlib.Path(__file__).resolve().parents[2], pathlib.Path(os.environ["VIRTUSERNS_BUILD"])
os.environ["VIRTUSERNS_SOURCE"] = str(SOURCE)
sys.path.insert(0, str(SOURCE / "tests/vm"))
import host_support  # noqa: E402
from host_support import did  # noqa: E402

ADDRESS, OUTSIDE = "10.0.2.15", "10.0.2.2"
RULES = """table ip outside {
  chain to { type nat hook output priority -100; ip daddr 127.0.0.1 tcp dport { %s } dnat to %s; }
  chain from { type nat hook postrouting priority 100; ip daddr %s masquerade; }
}
"""


def reach_outside(ports: list[str]) -> None:
    did("the driver of the network card", "modprobe", "virtio_net")
    did("await its link", "udevadm", "settle")
    link = next(path.name for path in pathlib.Path("/sys/class/net").iterdir() if path.name != "lo" and (path / "device").exists())
    did("address", "ip", "address", "add", f"{ADDRESS}/24", "dev", link)
    did("link", "ip", "link", "set", link, "up")
    # What comes from 127.0.0.1 may leave by a real link.
    pathlib.Path(f"/proc/sys/net/ipv4/conf/{link}/route_localnet").write_text("1")
    rules = pathlib.Path("/run/outside.nft")
    rules.write_text(RULES % (", ".join(ports), OUTSIDE, OUTSIDE))
    did("ports", "nft", "-f", str(rules))


def install_adapter() -> None:
    shutil.copy(BUILD / "driver/compute/virtuserns-compute", "/usr/sbin/virtuserns-compute")
    shutil.copy(BUILD / "tools/virtuserns-compute.service", "/etc/systemd/system/virtuserns-compute.service")


def main() -> None:
    reach_outside(sys.argv[2:])
    install_adapter()
    host_support.install()
    host_support.start_service()
    did("the initiator's daemon", "systemctl", "start", "iscsid.service")
    # Debian's asks PAM, and that the service manager, for each command.
    did("the machine's own sshd", "systemctl", "mask", "--runtime", "--now", "ssh.service")
    keys = pathlib.Path("/root/.ssh/authorized_keys")
    keys.parent.mkdir(mode=0o700, exist_ok=True)
    keys.write_text(f"{sys.argv[1]}\n")
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)
    if host_support.FAILED:
        sys.exit(1)
    sys.stdout.flush()
    os.execv("/usr/sbin/sshd", ["/usr/sbin/sshd", "-D", "-e", "-o", "UsePAM=no", "-o", "PermitRootLogin=prohibit-password",
                                "-o", "PidFile=none", "-o", "MaxSessions=100"])


main()
