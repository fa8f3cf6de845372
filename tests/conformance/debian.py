"""A whole Debian as a domain: its systemd gets up without a failed unit, in groups of its own, and its programs run.

The tree is an archive that tests/support/make-debian-tree makes: build-check/debian.tar of the source, where tools/check
makes it, or what VIRTUSERNS_DEBIAN_TREE names (an archive or a directory).
"""
import os
import pathlib
import re
import shutil
import subprocess

from harness import Skip, check, contains, daemon_module, equal, eventually, main, matches, test

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
TELL = """[Unit]
Description=says how far the start has got
After=multi-user.target
[Service]
Type=exec
ExecStart=/bin/sh -c 'systemctl is-system-running --wait > /told.new; systemctl --failed --plain --no-legend >> /told.new; \
  mv /told.new /told; exec sleep infinity'
"""
PROGRAMS = [
    "apt-get --version", "perl -e 1", "perl -MSocket -MPOSIX -e 'fork // die; wait'", "dpkg -l", "tar -C /etc -cf /dev/null .",
    "su -c true nobody -s /bin/sh", "systemctl status --no-pager", "busctl status", "systemd-run --wait true",
    "systemd-run --wait -p MemoryMax=64M -p TasksMax=20 true", "journalctl -b -n 1", "hostnamectl status",
    "python3 -c 'import asyncio, ctypes, multiprocessing as m, threading, ssl; asyncio.run(asyncio.sleep(0)); "
    "t = threading.Thread(target=print); t.start(); p = m.Process(target=print); p.start(); p.join(); assert p.exitcode == 0'",
]


def archive():
    path = pathlib.Path(os.environ.get("VIRTUSERNS_DEBIAN_TREE") or SOURCE / "build-check/debian.tar")
    if not path.exists():
        raise Skip(f"there is no {path}: tests/support/make-debian-tree makes it, as root")
    return path


class Debian:
    """Its systemd is up when this is made."""

    def __init__(self, env, name):
        source = archive()
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


def v2_group(pid):
    return matches(pathlib.Path(f"/proc/{pid}/cgroup").read_text(), r"(?m)^0::(.*)$").group(1)


@test(("userns",))
def systemd_runs_and_so_do_its_programs(env):
    debian = Debian(env, "debian")
    init = debian.init()
    contains(v2_group(init), "/init.scope")
    # What it made it made below its own, as container root, and sees as its whole tree.
    equal(debian.run("cat /proc/1/cgroup | grep ^0::")[0], "0::/init.scope\n")
    contains(debian.run("systemctl show -p ControlGroup tell.service")[0], "ControlGroup=/system.slice/tell.service")
    contains(debian.run("cat /sys/fs/cgroup/system.slice/tell.service/cgroup.procs && echo read")[0], "read")
    equal(debian.run("stat -f -c %T /sys/fs/cgroup")[0], "cgroup2fs\n")
    for command in PROGRAMS:
        output, status = debian.run(command)
        equal(status, 0, f"exit status of {command}: {output}")
    for line in debian.refusals():
        print(f"     {line}")
    env.virsh("reboot", "debian").ok()
    eventually(lambda: not pathlib.Path(f"/proc/{init}").exists(), "the first init is gone", 30)
    debian.wait()
    check(debian.init() != init, "the same init as before the reboot")
    env.virsh("shutdown", "debian").ok()
    eventually(lambda: env.state("debian")[0] == "shut off", "systemd powers off", 30)


main()
