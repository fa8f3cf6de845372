#!/usr/bin/env python3
"""The clock of the whole machine jumps ten years ahead and twenty back while a domain runs and clients wait. One line for
each check. (F21 of docs/faults.md; what a process sees by libfaketime is in tests/fault/clock.py.)"""
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from host_support import (FACTOR, URI, check, did, eventually, finish, init_pid, install, make_domain, show,  # noqa: E402
                          start_service, virsh)

TEN_YEARS_S = 10 * 365 * 24 * 3600


def jump(seconds):
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)


def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def daemon_pid():
    return int(show("virtusernsd.service", "MainPID"))


def all_is_well(pid, watcher, what):
    check(init_pid() == pid, f"{what}: the same init runs", str(init_pid()))
    started = time.monotonic()
    check(virsh("suspend", "web").returncode == 0 and virsh("resume", "web").returncode == 0, f"{what}: suspend and resume")
    check(time.monotonic() - started < 10 * FACTOR, f"{what}: at once", f"{time.monotonic() - started:.1f} s")
    check(watcher.poll() is None, f"{what}: who waits for events still does")
    before = cpu_s(daemon_pid())
    time.sleep(3)
    used = cpu_s(daemon_pid()) - before
    check(used < 1.5, f"{what}: no storm of timers", f"{used} s of 3")


def main():
    # What the machine itself does once a day would all be due at once, and be what everybody waits for.
    did("the machine's own timers rest", "systemctl", "stop", "*.timer")
    install()
    start_service()
    make_domain()
    if not did("start it", "virsh", "-c", URI, "start", "web"):
        return finish("wallclock")
    pid = init_pid()
    # With keepalive messages, whose clock must not be the one that jumps.
    events = pathlib.Path("/run/wallclock-events")
    with events.open("w") as output:
        watcher = subprocess.Popen(["virsh", "-k", "1", "-K", "8", "-c", URI, "event", "--all", "--loop", "--timestamp"],
                                   stdout=output, stderr=subprocess.STDOUT)
    moved = 0
    try:
        # Again and again: the first ones may come before it listens.
        check(eventually(lambda: virsh("suspend", "web").returncode == 0 and virsh("resume", "web").returncode == 0 and
                         "Suspended" in events.read_text()), "events arrive")
        for seconds, what in ((TEN_YEARS_S, "ten years ahead"), (-2 * TEN_YEARS_S, "ten years back")):
            jump(seconds)
            moved += seconds
            all_is_well(pid, watcher, what)
            did(f"{what}: restart the daemon", "systemctl", "restart", "virtusernsd.service")
            check(eventually(lambda: init_pid() == pid), f"{what}: the next daemon has it")
            if watcher.poll() is None:
                watcher.kill()
            watcher.wait()
            with events.open("w") as output:
                watcher = subprocess.Popen(["virsh", "-k", "1", "-K", "8", "-c", URI, "event", "--all", "--loop"], stdout=output,
                                           stderr=subprocess.STDOUT)
        did("it ends when it is told to", "virsh", "-c", URI, "shutdown", "web")
        check(eventually(lambda: "shut off" in virsh("domstate", "web").stdout), "and has ended")
    finally:
        watcher.kill()
        watcher.wait()
        jump(-moved)
        virsh("destroy", "web")
        events.unlink(missing_ok=True)
    return finish("wallclock")


if __name__ == "__main__":
    sys.exit(main())
