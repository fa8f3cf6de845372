#!/usr/bin/env python3
"""The daemon as an administrator has it: from the shipped units, in the host's own namespaces, under its systemd.

Only for tests/vm: it installs units and changes settings of the machine's service manager. One line for each check.
"""
import os
import pathlib
import re
import subprocess
import sys
import time

SOURCE = pathlib.Path(os.environ["VIRTUSERNS_SOURCE"])
BUILD = pathlib.Path(os.environ["VIRTUSERNS_BUILD"])
FACTOR = float(os.environ.get("VIRTUSERNS_TIME_FACTOR", "1"))
URI = "userns:///system"
MEMORY_BYTES = 128 * 1024 * 1024
CGROUPS = pathlib.Path("/sys/fs/cgroup")
FAILED = []


def check(is_so, what, detail=""):
    print(f"{'ok  ' if is_so else 'FAIL'} {what}" + (f": {detail}" if detail and not is_so else ""), flush=True)
    if not is_so:
        FAILED.append(what)
    return is_so


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=60 * FACTOR)


def did(what, *argv):
    result = run(*argv)
    return check(result.returncode == 0, what, (result.stderr + result.stdout).strip())


def virsh(*words):
    return run("virsh", "-c", URI, *words)


def eventually(condition):
    deadline = time.monotonic() + 10 * FACTOR
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


# ---- what the machine says -------------------------------------------------------------------------------------------

def init_pid():
    found = re.search(r"^\s*(\d+)\s+web\s", virsh("list").stdout, re.MULTILINE)
    if not found:
        return None
    children = pathlib.Path(f"/proc/{found[1]}/task/{found[1]}/children").read_text().split()
    return int(children[0]) if children else None


def groups_of(pid):
    """controllers ("" is v2) -> group"""
    lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}


def limit_of(pid):
    """The memory limit that holds for the process, wherever it has got to."""
    groups = groups_of(pid)
    if "memory" in groups:
        file = CGROUPS / "memory" / groups["memory"].lstrip("/") / "memory.limit_in_bytes"
    else:
        file = CGROUPS / groups[""].lstrip("/") / "memory.max"
    return file.read_text().strip() if file.exists() else f"no {file}"


def is_held(pid, what):
    """In its own group of every controller that limits it, with its limits."""
    wanted = {"memory", "pids", "cpu,cpuacct", "cpuset", "devices", "freezer", "blkio", "name=systemd"}
    groups = groups_of(pid)
    limited = {name: path for name, path in groups.items() if name in wanted or (name == "" and path != "/")}
    strayed = {name: path for name, path in limited.items() if "/virtuserns-" not in path}
    check(limited and not strayed, f"{what}: in its own groups", str(strayed))
    check(limit_of(pid) == str(MEMORY_BYTES), f"{what}: memory is limited", limit_of(pid))


def mounts():
    return sorted(line.split(" ", 4)[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines())


def cgroup_mounts():
    return [line for line in mounts() if " - cgroup" in line]


# ---- set-up ------------------------------------------------------------------------------------------------------------

def install():
    units = pathlib.Path("/etc/systemd/system")
    for name in ("virtusernsd.socket", "virtusernsd-ro.socket"):
        (units / name).write_text((SOURCE / "tools/data" / name).read_text())
    (units / "virtusernsd.service").write_text((BUILD / "tools/virtusernsd.service").read_text())
    pathlib.Path("/usr/sbin/virtusernsd").symlink_to(BUILD / "driver/virtusernsd")
    pathlib.Path("/etc/libvirt").mkdir(exist_ok=True)
    pathlib.Path("/etc/libvirt/virtusernsd.conf").write_text("")
    pathlib.Path("/etc/default/virtusernsd").write_text(
        f'VIRTUSERNSD_ARGS="--module-dir {BUILD}/driver/userns --controller {BUILD}/driver/controller/virtuserns-controller"\n')
    did("reload systemd", "systemctl", "daemon-reload")


def make_domain():
    root = pathlib.Path("/var/lib/web")
    for part in ("bin", "sbin", "proc", "sys", "dev", "tmp", "etc"):
        (root / part).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(pathlib.Path("/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for name in ("sh", "sleep", "poweroff"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "sbin/init").write_text("#!/bin/sh\ntrap 'exit 0' TERM INT PWR USR2\nwhile :; do sleep 1000 & wait $!; done\n")
    (root / "sbin/init").chmod(0o755)
    xml = pathlib.Path("/run/web.xml")
    xml.write_text(f"<domain type='lxc'><name>web</name><memory unit='b'>{MEMORY_BYTES}</memory><os><type>exe</type>"
                   f"<init>/sbin/init</init></os><devices><filesystem type='mount'><source dir='{root}'/>"
                   f"<target dir='/'/></filesystem><console type='pty'/></devices></domain>")
    did("define a domain", "virsh", "-c", URI, "define", str(xml))


# ---- checks --------------------------------------------------------------------------------------------------------------

def systemd_keeps_its_hands_off(pid):
    """What an administrator does to units makes systemd go through its groups, and must not reach ours."""
    for what, argv in {
        "daemon-reload": ["systemctl", "daemon-reload"],
        "limits of the daemon's service": ["systemctl", "set-property", "--runtime", "virtusernsd.service", "MemoryHigh=900M"],
        "a weight of its slice": ["systemctl", "set-property", "--runtime", "system.slice", "CPUWeight=50"],
        "machine.slice starts": ["systemctl", "start", "machine.slice"],
        "a weight of machine.slice": ["systemctl", "set-property", "--runtime", "machine.slice", "CPUWeight=50"],
        "machine.slice stops": ["systemctl", "stop", "machine.slice"],
    }.items():
        did(what, *argv)
        is_held(pid, f"after {what}")


def restarts(pid):
    for verb in ("restart", "stop", "start"):
        did(f"{verb} the daemon's service", "systemctl", verb, "virtusernsd.service")
        if verb != "stop":
            check(eventually(lambda: init_pid() == pid), f"after {verb}: the same init runs", str(init_pid()))
        is_held(pid, f"after {verb}")


def by_hand():
    """Without delegation, as from a shell: systemd then takes every process of the unit for its own."""
    did("stop the service", "systemctl", "stop", "virtusernsd.socket", "virtusernsd.service")
    options = pathlib.Path("/etc/default/virtusernsd").read_text().split('"')[1].split()
    did("start a daemon by hand", "systemd-run", "--unit=by-hand", "-p", "KillMode=process", "/usr/sbin/virtusernsd", *options)
    eventually(lambda: virsh("list").returncode == 0)
    if did("start the domain by hand", "virsh", "-c", URI, "start", "web"):
        pid = init_pid()
        is_held(pid, "by hand")
        for setting in ("MemoryHigh=900M", "MemoryMax=950M", "CPUWeight=50", "TasksMax=5000", "IOWeight=50"):
            did(setting, "systemctl", "set-property", "--runtime", "by-hand.service", setting)
            is_held(pid, f"by hand, after {setting}")
        did("destroy it by hand", "virsh", "-c", URI, "destroy", "web")
    did("stop the daemon by hand", "systemctl", "stop", "by-hand.service")


def main():
    install()
    before = mounts()
    did("start the sockets", "systemctl", "start", "virtusernsd.socket", "virtusernsd-ro.socket")
    did("the first call starts the daemon", "virsh", "-c", URI, "list", "--all")
    check(run("systemctl", "is-active", "virtusernsd.service").stdout.strip() == "active", "its service is active",
          run("systemctl", "status", "virtusernsd.service").stdout)
    make_domain()
    if did("start it", "virsh", "-c", URI, "start", "web"):
        pid = init_pid()
        is_held(pid, "started")
        systemd_keeps_its_hands_off(pid)
        restarts(pid)
        did("destroy it", "virsh", "-c", URI, "destroy", "web")
        left = [str(path) for path in CGROUPS.rglob("virtuserns-????????-*")]
        check(not left, "no group is left", str(left))
        check(mounts() == before, "the host's mounts are as before", str(set(mounts()) ^ set(before)))
    by_hand()
    said = run("journalctl", "-b", "-q", "--grep", 'apparmor="DENIED"').stdout.strip()
    check(not said, "AppArmor denied nothing", said)
    if FAILED:
        print(run("journalctl", "-b", "-q", "-u", "virtusernsd.service", "--lines", "30").stdout)
        print("\n".join(cgroup_mounts()))
    print(f"host service: {len(FAILED)} failed")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
