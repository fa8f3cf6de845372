"""A whole Debian as a domain: its systemd gets up without a failed unit, in groups of its own, and its programs run.

The tree is an archive that tests/support/make-debian-tree makes: build-check/debian.tar of the source, where tools/check
makes it, or what VIRTUSERNS_DEBIAN_TREE names (an archive or a directory).
"""
import pathlib

from debian_domain import Debian, archive
from harness import check, contains, equal, eventually, main, matches, test

PROGRAMS = [
    "apt-get --version", "perl -e 1", "perl -MSocket -MPOSIX -e 'fork // die; wait'", "dpkg -l", "tar -C /etc -cf /dev/null .",
    "su -c true nobody -s /bin/sh", "systemctl status --no-pager", "busctl status", "systemd-run --wait true",
    "systemd-run --wait -p MemoryMax=64M -p TasksMax=20 true", "journalctl -b -n 1", "hostnamectl status",
    "python3 -c 'import asyncio, ctypes, multiprocessing as m, threading, ssl; asyncio.run(asyncio.sleep(0)); "
    "t = threading.Thread(target=print); t.start(); p = m.Process(target=print); p.start(); p.join(); assert p.exitcode == 0'",
]


def v2_group(pid):
    return matches(pathlib.Path(f"/proc/{pid}/cgroup").read_text(), r"(?m)^0::(.*)$").group(1)


@test(("userns",))
def systemd_runs_and_so_do_its_programs(env):
    debian = Debian(env, "debian", archive())
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
