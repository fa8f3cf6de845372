#!/usr/bin/env python3
"""F21: the wall clock is set ten years ahead and back, and everything stands still for a while, as when a machine sleeps.

    tests/fault/clock.py --driver userns

The daemon's clock is libfaketime's, whose offset a file says; the machine's clock is never set, nor is the monotonic one
touched, which a real step does not move either. tests/vm/host sets the clock of a whole machine.
"""
import functools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from xml.etree import ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
import harness  # noqa: E402
from bench import Bench, Destroy, Start, parse_options  # noqa: E402
from harness import check, equal, main, test  # noqa: E402
from invariants import RUN, controllers, known, settled  # noqa: E402

LIBRARY = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
TEN_YEARS_S = 10 * 365 * 24 * 3600
KEEPALIVE = "keepalive_interval = 1\nkeepalive_count = 1\n"


@functools.cache
def start_loop():
    """A client that answers the daemon's pings."""
    import libvirt
    libvirt.virEventRegisterDefaultImpl()
    libvirt.virEventAddTimeout(100, lambda *_: None, None)
    threading.Thread(target=lambda: [libvirt.virEventRunDefaultImpl() for _ in iter(int, 1)], daemon=True).start()


def cpu_s(pid):
    fields = invariants.stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quiet(env, seconds):
    """Lets the time go by, in which a daemon with nothing to do does nothing."""
    before = cpu_s(env.daemon.process.pid)
    time.sleep(seconds)
    used = cpu_s(env.daemon.process.pid) - before
    check(used < 0.2 * seconds, f"the daemon took {used:.2f} s of processor time in {seconds} s")


def status_of(bench, name):
    return ElementTree.parse(f"{RUN}/{known(bench.connection)[name][2]}.status").getroot()


def configure(env, text):
    path = pathlib.Path("/etc/libvirt/virtusernsd.conf")
    was = path.read_text()
    path.write_text(was + text)
    return lambda: path.write_text(was)


@test(["userns"])
def ten_years_ahead_and_back(env):
    """F21: no timer storm, no client is taken for dead, domains live and die as ever; also for a daemon that starts then."""
    if LIBRARY is None:
        raise harness.Skip("libfaketime is not installed")
    import libvirt
    start_loop()
    restore = configure(env, KEEPALIVE)
    clock = pathlib.Path(env.folder, "clock")
    clock.write_text("+0\n")
    # The library leaves files there, which go with this.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], check=True)
    env.daemon.environment = {"LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(clock),
                              "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}
    try:
        with Bench(env, is_served=False) as bench:
            case = bench.case(Destroy)
            case.prepare(bench.connection)
            was = controllers(case.name)
            for offset_s in (TEN_YEARS_S, -TEN_YEARS_S):
                clock.write_text(f"{offset_s:+d}\n")
                quiet(env, 2.5)  # longer than an unanswered ping would be waited for
                check(bench.connection.isAlive(), f"the client was taken for dead at {offset_s:+d} s")
                equal(known(bench.connection)[case.name][0], libvirt.VIR_DOMAIN_RUNNING)
                another = bench.case(Start)
                another.prepare(bench.connection)
                another.act(bench.connection)
                bench.restart()
                bench.reconnect()
                # The judge judged: it does have that clock.
                said = status_of(bench, another.name).attrib["started"]
                check(abs(int(said) / 1000 - time.time() - offset_s) < 60, f"it was started at {said}")
                equal(controllers(case.name), was, "the controller")
                check(another.name in controllers(another.name), "what was started then is found again")
                bench.connection.lookupByName(another.name).destroy()
                bench.clean(another)
                wrong = settled(lambda: bench.look(case, True))
                equal(wrong, [], f"at {offset_s:+d} s")
            # The library keeps a file of its own open.
            equal([line for line in bench.afterwards(case) if "/faketime_" not in line], [])
    finally:
        env.daemon.environment = {}
        restore()
        env.daemon.kill()
        subprocess.run(["umount", "/dev/shm"], check=True)
        env.daemon.start()


@test(["userns"])
def everything_stood_still(env):
    """F21: the daemon and a controller stop for longer than a client may be silent, as in a machine that sleeps (there even
    the clock by which that is measured stands still)."""
    start_loop()
    restore = configure(env, KEEPALIVE)
    try:
        with Bench(env) as bench:
            case = bench.case(Destroy)
            case.prepare(bench.connection)
            pids = [env.daemon.process.pid, *controllers(case.name)[case.name]]
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(3)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            quiet(env, 2.5)
            check(bench.connection.isAlive(), "the client was taken for dead")
            equal(settled(lambda: bench.look(case, True)) + bench.afterwards(case), [])
    finally:
        restore()
        env.daemon.kill()
        env.daemon.start()


if __name__ == "__main__":
    parse_options()
    main()
