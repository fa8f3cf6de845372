#!/usr/bin/env python3
"""The daemon as an administrator has it: from the shipped units, in the host's own namespaces, under its systemd. One line
for each check."""
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from host_support import (URI, check, did, eventually, finish, groups_left, init_pid, install, is_held,  # noqa: E402
                          make_domain, mounts, run, start_service, virsh)


# ---- checks --------------------------------------------------------------------------------------------------------------

def systemd_keeps_its_hands_off(pid):
    """What an administrator does to units makes systemd go through its groups, and must not reach ours."""
    for what, argv in {
        "daemon-reload": ["systemctl", "daemon-reload"],
        "limits of the daemon's service": ["systemctl", "set-property", "--runtime", "virtusernsd.service", "MemoryHigh=900M"],
        "a weight of its slice": ["systemctl", "set-property", "--runtime", "system.slice", "CPUWeight=50"],
        "machine.slice starts": ["systemctl", "start", "machine.slice"],
        "a weight of machine.slice": ["systemctl", "set-property", "--runtime", "machine.slice", "CPUWeight=50"],
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
    did("start a daemon by hand", "systemd-run", "--unit=by-hand", "-p", "KillMode=process", "/usr/sbin/virtusernsd")
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
    begun = time.strftime("%Y-%m-%d %H:%M:%S")
    before = mounts()
    propagation = run("findmnt", "-n", "-o", "PROPAGATION", "/").stdout.strip()
    check(propagation == "shared", "the host's root is shared, as systemd makes it", propagation)
    start_service()
    check(run("systemctl", "is-active", "virtusernsd.service").stdout.strip() == "active", "its service is active",
          run("systemctl", "status", "virtusernsd.service").stdout)
    make_domain()
    if did("start it", "virsh", "-c", URI, "start", "web"):
        pid = init_pid()
        is_held(pid, "started")
        check(mounts() == before, "none of its mounts is the host's", str(set(mounts()) ^ set(before)))
        did("mount something on the host", "mount", "-t", "tmpfs", "none", "/mnt")
        theirs = pathlib.Path(f"/proc/{pid}/mountinfo").read_text()
        check("/mnt" not in theirs and "shared:" not in theirs and "master:" not in theirs,
              "and no mount of the host is its", theirs)
        did("unmount it", "umount", "/mnt")
        systemd_keeps_its_hands_off(pid)
        restarts(pid)
        did("destroy it", "virsh", "-c", URI, "destroy", "web")
        left = groups_left()
        check(not left, "no group is left", str(left))
        check(mounts() == before, "the host's mounts are as before", str(set(mounts()) ^ set(before)))
    by_hand()
    said = run("journalctl", "-b", "-q", "--since", begun, "--grep", 'apparmor="DENIED"').stdout.strip()
    check(not said, "AppArmor denied nothing", said)
    return finish("service")


if __name__ == "__main__":
    sys.exit(main())
