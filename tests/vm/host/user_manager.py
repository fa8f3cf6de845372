#!/usr/bin/env python3
"""A user's own daemon as a unit of the user's own systemd, which delegates groups to it: domains of userns:///session, their limits,
and what stops, restarts and logouts do to them. One line for each check."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from host_support import (BUILD, CGROUPS, FACTOR, MEMORY_BYTES, SOURCE, cgroup_mounts, check, did, eventually, finish,  # noqa: E402
                          groups_of, install, limit_of, run)

UID, HOME, RUN = 1234, pathlib.Path("/home/berta"), pathlib.Path("/run/user/1234")
INIT = "#!/bin/sh\ntrap 'exit 0' TERM INT PWR USR2\nwhile :; do sleep 1000 & wait $!; done\n"


def as_berta(*argv):
    environment = {"HOME": str(HOME), "USER": "berta", "LOGNAME": "berta", "XDG_RUNTIME_DIR": str(RUN), "LC_ALL": "C",
                   "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=60 * FACTOR, cwd=HOME, user=UID,
                          group=UID, extra_groups=[UID], env=environment)


def berta_did(what, *argv):
    result = as_berta(*argv)
    return check(result.returncode == 0, what, (result.stderr + result.stdout).strip())


def virsh(*words):
    return as_berta("virsh", "-c", "userns:///session", *words)


def controller():
    found = re.search(r"^\s*(\d+)\s+web\s", virsh("list").stdout, re.MULTILINE)
    return int(found[1]) if found else None


def init_pid():
    """Of the domain: a descendant of the controller's that has the namespace of a user and the number 1 in its own."""
    waiting = [controller()]
    while waiting and waiting[0]:
        pid = waiting.pop()
        try:
            if re.search(r"^NSpid:\s.*\s1$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
                return pid
            waiting += [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            pass
    return None


def set_up():
    """Her account, her ids, the shipped units, a root filesystem of hers, a definition."""
    install()
    shutil.copy(SOURCE / "tools/virt-userns-rootfs", "/usr/local/bin/virt-userns-rootfs")
    units = pathlib.Path("/etc/systemd/user")
    shutil.copy(SOURCE / "tools/data/user/virtusernsd.socket", units)
    shutil.copy(BUILD / "tools/virtusernsd.user.service", units / "virtusernsd.service")
    # passt takes over addresses of the host: this machine has none, but these.
    for words in (("link", "add", "out0", "type", "dummy"), ("address", "add", "192.0.2.2/24", "dev", "out0"), ("link", "set", "out0", "up"),
                  ("route", "add", "default", "via", "192.0.2.1")):
        did(f"a way out: {words[0]}", "ip", *words)
    did("an account", "useradd", "--create-home", "--uid", str(UID), "--user-group", "berta")
    for name in ("subuid", "subgid"):
        lines = [line for line in pathlib.Path("/etc", name).read_text().splitlines() if not line.startswith("berta:")]
        pathlib.Path("/etc", name).write_text("\n".join([*lines, "berta:2000000:1000000", ""]))
    did("a systemd of her own", "loginctl", "enable-linger", "berta")
    check(eventually((RUN / "systemd/private").exists), "and it is there")
    plain = pathlib.Path("/run/plain")
    for part in ("bin", "sbin", "proc", "sys", "dev", "tmp", "etc"):
        (plain / part).mkdir(parents=True)
    shutil.copy("/bin/busybox", plain / "bin/busybox")
    for name in ("sh", "sleep"):
        (plain / "bin" / name).symlink_to("busybox")
    (plain / "sbin/init").write_text(INIT)
    (plain / "sbin/init").chmod(0o755)
    run("chown", "-R", "berta:", str(plain))
    berta_did("a root filesystem", "virt-userns-rootfs", "create", "--from", plain, HOME / "web")
    xml = pathlib.Path("/run/session-web.xml")
    xml.write_text(f"<domain type='lxc'><name>web</name><memory unit='b'>{MEMORY_BYTES}</memory><os><type>exe</type>"
                   f"<init>/sbin/init</init></os><devices><filesystem type='mount'><source dir='{HOME}/web'/>"
                   "<target dir='/'/></filesystem><interface type='user'/><console type='pty'/></devices></domain>")
    berta_did("start the socket", "systemctl", "--user", "start", "virtusernsd.socket")
    berta_did("the first call starts the daemon", "virsh", "-c", "userns:///session", "define", xml)
    state = as_berta("systemctl", "--user", "is-active", "virtusernsd.service").stdout.strip()
    check(state == "active", "as a unit of hers", state)


def helpers_are_beside(what):
    """The network's keeper and both passt are the controller's: with it, not with the daemon, and not in the domain's limits."""
    names = ("virtuserns-net", "pasta", "passt")
    places = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip()
            if name.startswith(names) and process.stat().st_uid >= UID:
                places[f"{name} {process.name}"] = groups_of(process.name).get("", "none")
        except OSError:
            pass
    check(len(places) >= 3 and all(re.search(r"/virtuserns-[^/]*\.scope/supervisor$", place) for place in places.values()),
          f"{what}: its network's helpers are beside the controller", str(places))


def is_held(pid, what):
    """Where she has groups (v2 with its controllers), in one of her own with the limit; else it is said that there is none."""
    groups = groups_of(pid)
    is_unified = len(cgroup_mounts()) == 1
    service = f"/user.slice/user-{UID}.slice/user@{UID}.service/"
    place = groups.get("") or groups.get("name=systemd") or "none"
    if is_unified:
        check(place.startswith(service), f"{what}: below her systemd's groups", place)
        check(limit_of(pid) == str(MEMORY_BYTES), f"{what}: memory is limited", limit_of(pid))
        check(os.stat(CGROUPS / place.lstrip("/")).st_uid != 0, f"{what}: and the group is not host root's")
    else:
        said = virsh("dominfo", "web").stdout
        check("memory" in said.partition("Messages:")[2], f"{what}: dominfo says that memory is not limited", said)


def main():
    delegated = {path: path.read_text() for path in (pathlib.Path("/etc", name) for name in ("subuid", "subgid"))}
    try:
        return check_all()
    finally:
        run("ip", "link", "del", "out0")
        run("loginctl", "disable-linger", "berta")
        run("systemctl", "stop", f"user@{UID}.service")
        # Where they are hers, domains of the system may not have ids of them.
        for path, text in delegated.items():
            path.write_text(text)


def check_all():
    set_up()
    if not berta_did("start it", "virsh", "-c", "userns:///session", "start", "web"):
        print(as_berta("journalctl", "--user", "--no-pager", "-n", "20").stdout)
        return finish("user_manager")
    pid = init_pid()
    check(pid is not None, "init runs")
    is_held(pid, "started")
    if len(cgroup_mounts()) == 1:
        helpers_are_beside("started")
    for verb in ("restart", "stop", "start"):
        berta_did(f"{verb} her service", "systemctl", "--user", verb, "virtusernsd.service")
        check(pathlib.Path(f"/proc/{pid}").exists(), f"after {verb}: init is there")
        if verb != "stop":
            check(eventually(lambda: init_pid() == pid), f"after {verb}: the same init runs", str(init_pid()))
            is_held(pid, f"after {verb}")
    for what, argv in {"daemon-reload of hers": ["systemctl", "--user", "daemon-reload"],
                       "a limit of her service": ["systemctl", "--user", "set-property", "--runtime", "virtusernsd.service",
                                                  "MemoryHigh=900M"]}.items():
        berta_did(what, *argv)
        is_held(pid, f"after {what}")
    did("daemon-reload of the machine", "systemctl", "daemon-reload")
    is_held(pid, "after daemon-reload of the machine")
    if len(cgroup_mounts()) == 1:
        check(virsh("suspend", "web").returncode == 0 and virsh("resume", "web").returncode == 0, "suspend and resume")
    else:
        refused = virsh("suspend", "web")
        check(refused.returncode != 0 and "freeze" in refused.stderr, "what cannot be frozen is not suspended", refused.stderr)
    # A logout: her systemd ends, and everything of hers with it. The next one finds the domain shut off.
    did("she logs out", "systemctl", "stop", f"user@{UID}.service")
    check(eventually(lambda: not pathlib.Path(f"/proc/{pid}").exists()), "the domain has ended with it")
    did("she comes again", "systemctl", "start", f"user@{UID}.service")
    berta_did("her socket", "systemctl", "--user", "start", "virtusernsd.socket")
    state = virsh("domstate", "web")
    check(state.stdout.strip() == "shut off", "it is shut off", state.stdout + state.stderr)
    berta_did("start it again", "virsh", "-c", "userns:///session", "start", "web")
    pid = init_pid()
    is_held(pid, "started again")
    place = CGROUPS / groups_of(pid).get("", "none").lstrip("/")
    berta_did("destroy it", "virsh", "-c", "userns:///session", "destroy", "web")
    check(eventually(lambda: not pathlib.Path(f"/proc/{pid}").exists()), "init has ended")
    if len(cgroup_mounts()) == 1:
        check(eventually(lambda: not place.exists()), "and its group is gone", str(place))
    berta_did("undefine it", "virsh", "-c", "userns:///session", "undefine", "web")
    return finish("user_manager")


if __name__ == "__main__":
    sys.exit(main())
