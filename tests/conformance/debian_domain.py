"""A domain whose init is Debian's systemd, of a tree that tests/support/make-debian-tree makes."""
import os
import pathlib
import re
import shutil
import subprocess

from harness import Skip, daemon_module, equal, eventually

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
TELL = """[Unit]
Description=says how far the start has got
After=multi-user.target
[Service]
Type=exec
ExecStart=/bin/sh -c 'systemctl is-system-running --wait > /told.new; systemctl --failed --plain --no-legend >> /told.new; \
  systemctl --failed --quiet | grep -q . && journalctl -b -p warning --no-pager | tail -n 20 >> /told.new; \
  mv /told.new /told; exec sleep infinity'
"""


def archive():
    path = pathlib.Path(os.environ.get("VIRTUSERNS_DEBIAN_TREE") or SOURCE / "build-check/debian.tar")
    if not path.exists():
        raise Skip(f"there is no {path}: tests/support/make-debian-tree makes it, as root")
    return path


class Debian:
    """Its systemd is up when this is made."""

    def __init__(self, env, name, source):
        xml = env.domain_xml(name, init="/lib/systemd/systemd", memory_kib=1048576)
        self.env, self.name = env, name
        self.root = pathlib.Path(re.search(r"source dir='([^']+)'", xml).group(1))
        shutil.rmtree(self.root)
        if source.is_dir():
            subprocess.run(["cp", "-a", "--reflink=auto", source, self.root], check=True)
        else:
            self.root.mkdir()
            subprocess.run(["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", source, "-C", self.root],
                           check=True)
        self.root.chmod(0o755)
        wants = self.root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True, exist_ok=True)
        (wants.parent / "tell.service").write_text(TELL)
        (wants / "tell.service").symlink_to("../tell.service")
        env.virsh("define", env.write_xml(xml)).ok()
        env.virsh("start", name).ok()
        self.wait()

    def wait(self):
        told = self.root / "told"
        eventually(told.exists, "systemd says how far it has got", 60)
        equal(told.read_text(), "running\n", "what systemd says, and its failed units")
        told.unlink()

    def init(self):
        controller = int(self.env.virsh("domid", self.name).ok().out)
        return int(pathlib.Path(f"/proc/{controller}/task/{controller}/children").read_text().split()[0])

    def refusals(self):
        log = pathlib.Path(f"/var/log/libvirt/userns/{self.name}.log").read_text(errors="replace")
        return [line for line in log.splitlines() if " refused " in line]

    def run(self, command):
        """Its output and the exit status."""
        tool = os.path.join(self.env.daemon.build, "driver", "exec", "virt-userns-exec")
        done = subprocess.run([tool, "-c", self.env.uri, self.name, "--", "/bin/sh", "-c", command], capture_output=True,
                              text=True, timeout=60 * daemon_module.TIME_FACTOR, stdin=subprocess.DEVNULL)
        return done.stdout + done.stderr, done.returncode
