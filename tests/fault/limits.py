#!/usr/bin/env python3
"""Not enough for anybody: F7 (the kernel kills for want of memory) and F19 (limits of the daemon) of the faults.

    tests/fault/limits.py --driver userns [-k TEST]
"""
import contextlib
import os
import pathlib
import resource
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
from bench import PREFIX, Bench, Destroy, parse_options  # noqa: E402
from harness import check, contains, equal, eventually, main, matches, test  # noqa: E402
from invariants import controllers, known, settled  # noqa: E402

MIB = 1 << 20
CGROUPS = pathlib.Path("/sys/fs/cgroup")


class MemoryGroup:
    """A group of this run, with a limit, that is nobody's but the process's which is put there."""

    def __init__(self, env, limit_bytes):
        self.is_v1 = (CGROUPS / "memory/memory.limit_in_bytes").exists()
        parent = CGROUPS / ("memory" if self.is_v1 else "") / env.daemon.cgroup
        parent.mkdir(exist_ok=True)
        if not self.is_v1:
            for folder in (CGROUPS, parent):
                (folder / "cgroup.subtree_control").write_text("+memory")
        self.path = parent / "narrow"
        self.path.mkdir()
        (self.path / ("memory.limit_in_bytes" if self.is_v1 else "memory.max")).write_text(str(limit_bytes))

    def take(self, pid):
        # v1: what a process has already is not counted against its new group.
        (self.path / "cgroup.procs").write_text(str(pid))

    def kills(self):
        text = (self.path / ("memory.oom_control" if self.is_v1 else "memory.events")).read_text()
        return int(matches(text, r"^oom_kill (\d+)$").group(1))

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        if failure is None:
            eventually(self.remove, "nobody is in the narrow group")
        else:
            self.leave()

    def leave(self):
        """With whoever is in it: what failed is to be told, not what follows from it."""
        for pid in (self.path / "cgroup.procs").read_text().split():
            (self.path.parent / "cgroup.procs").write_text(pid)
        self.remove()

    def remove(self):
        with contextlib.suppress(OSError):
            self.path.rmdir()
        return not self.path.exists()


def flood(env, seconds):
    """Clients that announce the longest message and send a half of it, until the daemon is dead or the time is over."""
    kept = []
    deadline = time.monotonic() + seconds
    while env.daemon.is_running() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(0.5)
            kept.append(client)
            client.connect(env.daemon.socket)
            # To be let in at all a message is short; then as long as they may be.
            client.sendall(open_frames(env.uri) + struct.pack(">I", 32 * MIB))
            client.recv(4096)
            client.sendall(b"\0" * (16 * MIB))
    for client in kept:
        client.close()


def open_frames(uri):
    from raw_rpc import optional_string, u32
    return frame(66, b"", 1) + frame(1, optional_string(uri) + u32(0), 2)


def frame(procedure, payload, serial):
    return struct.pack(">IIIiiIi", 28 + len(payload), 0x20008086, 1, procedure, 0, serial, 0) + payload


# ---- F7 ------------------------------------------------------------------------------------------------------------------

@test(["userns"])
def the_daemon_is_chosen(env):
    """F7: as F1: what ran runs on, and the next daemon finds it."""
    import libvirt
    with Bench(env, is_served=False) as bench:
        case = bench.case(Destroy)
        case.prepare(bench.connection)
        before = controllers(case.name)
        with MemoryGroup(env, 8 * MIB) as group:
            group.take(env.daemon.process.pid)
            flood(env, 20)
            env.daemon.process.wait(5)
            equal(env.daemon.process.returncode, -signal.SIGKILL)
            check(group.kills() > 0, "it was not killed for want of memory")
        bench.restart()
        bench.reconnect()
        wrong = settled(lambda: bench.look(case, True))
        equal(controllers(case.name), before, "the controller of the domain that ran")
        equal(known(bench.connection)[case.name][0], libvirt.VIR_DOMAIN_RUNNING)
        equal(wrong + bench.afterwards(case), [])


@test(["userns"])
def a_controller_is_chosen(env):
    """F7: by a packet as large as they may be, for which it has no room; and while it boots its container again."""
    import libvirt
    with Bench(env, is_served=False) as bench:
        for push in ("packet", "reset"):
            case = bench.case(Destroy)
            case.prepare(bench.connection)
            uuid = known(bench.connection)[case.name][2]
            pid = controllers(case.name)[case.name][0]
            with MemoryGroup(env, 64 << 10) as group:
                for half in (pid, *invariants.stems(pid)):
                    group.take(half)
                if push == "packet":
                    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
                        client.connect(f"/run/libvirt/userns/{uuid}.sock")
                        client.sendall(b"\0" * 200_000)
                        eventually(lambda: not invariants.is_alive(pid), "the controller is dead")
                else:
                    with contextlib.suppress(libvirt.libvirtError):
                        bench.connection.lookupByName(case.name).reset()
                check(group.kills() > 0, f"nobody was killed by a {push}")
                wrong = settled(lambda: bench.look(case, True))
                if push == "packet":
                    equal(known(bench.connection)[case.name][0], libvirt.VIR_DOMAIN_SHUTOFF)
                wrong += bench.afterwards(case)
            equal(wrong, [], push)


HOG = "busybox dd if=/dev/zero of=/dev/null bs=400M count=1"


@test(["userns"])
def the_hog_dies_alone_and_then_init(env):
    """F7: the domain's own limit. Who takes the memory dies; when that is init, the domain has crashed."""
    import libvirt
    name = f"{PREFIX}hog"
    xml = env.domain_xml(name)
    root = pathlib.Path(matches(xml, r"<source dir='([^']+)'/><target dir='/'/>").group(1))
    (root / "sbin/init").write_text(f"#!/bin/sh\ntrap '{HOG} >/hog 2>&1; echo $? >/tmp/hog' USR1\ntrap 'exec {HOG}' USR2\n"
                                    "echo >/tmp/ready\nwhile :; do sleep 1000 & wait $!; done\n")
    (root / "tmp").chmod(0o777)
    connection = env.open()
    domain = connection.defineXML(xml)
    domain.create()
    eventually((root / "tmp/ready").exists, "init is ready")
    pid = controllers(name)[name][0]
    inits = invariants.inits(pid)
    domain.sendProcessSignal(1, libvirt.VIR_DOMAIN_PROCESS_SIGNAL_USR1)
    eventually(lambda: (root / "tmp/hog").exists() and (root / "tmp/hog").read_text(), "the hog has ended")
    equal((root / "tmp/hog").read_text().strip(), "137", "how the hog ended")
    equal(invariants.inits(pid), inits, "init")
    equal(env.state(name), ("running", "booted"))
    domain.sendProcessSignal(1, libvirt.VIR_DOMAIN_PROCESS_SIGNAL_USR2)
    eventually(lambda: not domain.isActive(), "the domain has ended")
    equal(env.state(name), ("shut off", "crashed"))
    equal(settled(lambda: invariants.disagreements(known(connection), PREFIX, env.daemon.cgroup, must=[name])), [])
    domain.create()
    domain.destroy()
    del domain
    connection.close()


# ---- F19 -----------------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def limited(env, which, value):
    """A daemon that is limited while domains run already: they must not notice."""
    with Bench(env, is_served=False) as bench:
        before = resource.prlimit(env.daemon.process.pid, which)
        # Not the hard limit: not everybody who is root may raise it again.
        resource.prlimit(env.daemon.process.pid, which, (value, before[1]))
        try:
            yield bench
        finally:
            if env.daemon.is_running():
                resource.prlimit(env.daemon.process.pid, which, before)
        equal(bench.neighbour.noticed(), [])


def starts(bench, case):
    import libvirt
    try:
        bench.connection.lookupByName(case.name).create()
    except libvirt.libvirtError as error:
        contains(error.get_error_message(), "Too many open files")
        return False
    return True


@test(["userns"])
def sixty_four_descriptors(env):
    """F19: starts until there are no more descriptors: then refused, with the cause; what runs can be ended."""
    import libvirt
    with limited(env, resource.RLIMIT_NOFILE, 64) as bench:
        cases, errors = [], []
        while len(cases) < 60 and not errors:
            cases.append(bench.case(Destroy))
            bench.connection.defineXML(bench.xml(cases[-1].name))
            try:
                bench.connection.lookupByName(cases[-1].name).create()
            except libvirt.libvirtError as error:
                errors.append(error.get_error_message())
        check(errors, f"{len(cases)} domains in 64 descriptors?")
        print(f"     {len(cases) - 1} domains, then: {errors[0]}")
        check("Too many open files" in errors[0], f"the cause is not named: {errors[0]}")
        equal(known(bench.connection)[cases[-1].name][0], libvirt.VIR_DOMAIN_SHUTOFF)
        wrong = settled(lambda: invariants.disagreements(
            known(bench.connection), PREFIX, env.daemon.cgroup, must=[case.name for case in cases] + [bench.neighbour.name]))
        # Still at the limit: an end needs no more than there is.
        for case in cases[:4]:
            domain = bench.connection.lookupByName(case.name)
            if domain.isActive():
                domain.destroy()
            del domain
        eventually(lambda: starts(bench, cases[-1]), "with descriptors free again a domain starts")
        equal(wrong + bench.afterwards(cases[0]), [])


@test(["userns"])
def one_process(env):
    """F19: RLIMIT_NPROC is of the domain's own uid once its starter has taken it."""
    import libvirt
    with limited(env, resource.RLIMIT_NPROC, 1) as bench:
        case = bench.case(Destroy)
        case.is_running = False
        case.prepare(bench.connection)
        domain = bench.connection.lookupByName(case.name)
        error = ""
        try:
            domain.create()
        except libvirt.libvirtError as refused:
            error = refused.get_error_message()
        print(f"     a start: {error or 'made in spite of it'}")
        check(not error or "Resource temporarily unavailable" in error, f"the cause is not named: {error}")
        wrong = settled(lambda: bench.look(case, True))
        del domain
        equal(wrong + bench.afterwards(case), [])


@test(["userns"])
def sixteen_mebibytes(env):
    """F19: a daemon born into so little serves, and when clients take more than that, only the daemon dies."""
    with Bench(env, is_served=False) as bench:
        env.daemon.kill()
        with MemoryGroup(env, 16 * MIB) as group:
            group.take(os.getpid())
            try:
                env.daemon.start()
            finally:
                (group.path.parent / "cgroup.procs").write_text(str(os.getpid()))
            bench.reconnect()
            equal(bench.neighbour.noticed(), [])
            case = bench.case(Destroy)
            case.prepare(bench.connection)
            wrong = settled(lambda: bench.look(case, True))
            kills = group.kills()
            equal(kills, 0, "killed for want of memory by one start")
            flood(env, 20)
            check(env.daemon.is_running() == (group.kills() == 0), "the daemon ended, but not for want of memory")
            print(f"     {'is served' if env.daemon.is_running() else 'dies of clients, not of domains'}")
            bench.restart()
            bench.reconnect()
            wrong += settled(lambda: bench.look(case, True))
            equal(wrong + bench.afterwards(case), [])


if __name__ == "__main__":
    parse_options()
    main()
