#!/usr/bin/env python3
"""F20: what the kernel counts for each user, or for everybody together, is used up. A start does not need it, or names it.

    tests/fault/quotas.py --driver userns [-k TEST]

What one user can use up without harm to the rest of the machine is really used up, by processes of the domain's own host
uid and of its neighbour's. What would be the machine's own (namespaces, terminals) is made to fail by the tracer with the
kernel's error.
"""
import contextlib
import ctypes
import errno
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
import harness  # noqa: E402
from bench import Bench, Start, parse_options  # noqa: E402
from daemon import die_with_parent  # noqa: E402
from harness import check, contains, equal, main, matches, test  # noqa: E402
from invariants import settled  # noqa: E402
from tracer import NAMES, Plan, can_inject_errors  # noqa: E402

MOST = 100_000  # of whatever it is: it must have an end before
LIBC = ctypes.CDLL(None, use_errno=True)
NUMBER_OF = {name: number for number, name in NAMES.items()}


def use_up_inotify():
    count = 0
    while count < MOST and LIBC.inotify_init1(0) >= 0:
        count += 1
    return count, ctypes.get_errno()


def use_up_keys():
    count = 0
    while count < MOST and LIBC.syscall(NUMBER_OF["add_key"], b"user", b"k%d" % count, b"x", 1, -2) >= 0:  # process keyring
        count += 1
    return count, ctypes.get_errno()


class Hog:
    """A process of another user that has taken all there is, until the end of the block."""

    def __init__(self, uid, use_up):
        self.uid, self.use_up = uid, use_up

    def __enter__(self):
        ready, ready_in = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            die_with_parent()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.setgroups([]), os.setresgid(self.uid, self.uid, self.uid), os.setresuid(self.uid, self.uid, self.uid)
            count, code = self.use_up()
            os.write(ready_in, f"{count} {code}".encode())
            signal.pause()
        os.close(ready_in)
        self.count, self.errno = map(int, os.read(ready, 100).split())
        os.close(ready)
        return self

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def uid_of(connection, name):
    """The host uid of container root."""
    domain = connection.lookupByName(name)
    if not domain.isActive():
        domain.create()
        domain.destroy()
    lease = pathlib.Path(invariants.LEASES, domain.UUIDString()).read_text()
    return int(matches(lease, r"^uid 0 (\d+) ").group(1))


def start(bench, case):
    """The error, or nothing."""
    import libvirt
    try:
        bench.connection.lookupByName(case.name).create()
    except libvirt.libvirtError as error:
        return error.get_error_message()
    return ""


USERS_QUOTAS = {"inotify instances": (use_up_inotify, errno.EMFILE), "keys": (use_up_keys, errno.EDQUOT)}


@test(["userns"])
def those_of_the_domain_itself_and_of_its_neighbour(env):
    """F20: inotify and keys. Whatever its neighbour has taken, a domain starts; of its own it is told."""
    with Bench(env) as bench:
        for what, (use_up, code) in USERS_QUOTAS.items():
            for whose in ("neighbour", "domain"):
                case = bench.case(Start)
                case.prepare(bench.connection)
                owner = bench.neighbour.name if whose == "neighbour" else case.name
                with Hog(uid_of(bench.connection, owner), use_up) as hog:
                    equal(hog.errno, code, f"{what} have an end ({hog.count} taken)")
                    error = start(bench, case)
                    print(f"     {hog.count} {what} of the {whose}: {error or 'started'}")
                    check(not error or whose == "domain", f"{what} of the neighbour stop the domain: {error}")
                    if error:
                        contains(error, os.strerror(code))
                    wrong = settled(lambda: bench.look(case, not error))
                equal(wrong + bench.afterwards(case), [], what)


MACHINES_QUOTAS = {
    "namespaces": ({"starter"}, {"clone3"}, "", errno.ENOSPC, "a limit in /proc/sys/user is reached"),
    "terminals": ({"controller", "starter", "init"}, {"openat"}, "ptmx", errno.ENOSPC, "kernel.pty.max"),
    "session keyrings": ({"init", "starter"}, {"keyctl"}, "", errno.EDQUOT, "keyring"),
}


@test(["userns"])
def those_of_the_machine(env):
    """F20: namespaces, terminals, keyrings: refused by name, and nothing is left."""
    if not can_inject_errors():
        raise harness.Skip("errors are injected on x86_64 only (tests/support/tracer.py)")
    with Bench(env) as bench:
        for what, (roles, names, ending, code, words) in MACHINES_QUOTAS.items():
            case = bench.case(Start)
            case.prepare(bench.connection)
            report, is_acknowledged, error = bench.traced(case, Plan(roles, names=names, under=("/", "")))
            check(is_acknowledged, f"without a fault: {error}")
            calls = [number for number, call in enumerate(report.calls, 1) if call.what.endswith(ending)]
            check(calls, f"{what}: no such call among {report.calls}")
            bench.connection.lookupByName(case.name).destroy()
            report, is_acknowledged, error = bench.traced(
                case, Plan(roles, calls[0], errno=code, names=names, under=("/", "")))
            check(report.fired and not is_acknowledged, f"{what}: started all the same")
            print(f"     {what}: {error}")
            contains(error, words)
            contains(error, os.strerror(code))
            equal(settled(lambda: bench.look(case, False)) + bench.afterwards(case), [], what)


if __name__ == "__main__":
    parse_options()
    main()
