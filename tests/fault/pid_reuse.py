#!/usr/bin/env python3
"""F6: the pids of a dead controller and of its init belong to somebody else by now, who must not be touched.

    tests/fault/pid_reuse.py --driver userns

In a pid namespace of its own, where pids are chosen by writing kernel.ns_last_pid: of everybody else's the machine's are.
"""
import contextlib
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
from bench import Bench, Destroy, none, parse_options  # noqa: E402
from harness import check, equal, eventually, main, test  # noqa: E402
from invariants import controllers, settled  # noqa: E402

LAST_PID = pathlib.Path("/proc/sys/kernel/ns_last_pid")


class Stranger:
    """A process of exactly this pid, that did nothing to anybody."""

    def __init__(self, pid, argv=("sleep", "100")):
        for _ in range(200):
            LAST_PID.write_text(str(pid - 1))
            child = os.fork()
            if child == 0:
                os.setsid()
                os.execvp("sleep", argv)
            if child == pid:
                break
            end(child)
        else:
            raise AssertionError(f"pid {pid} is never free")
        self.pid, self.handle = pid, os.pidfd_open(pid)

    def is_well(self):
        """Alive, not stopped, and no signal waits for it."""
        fields = invariants.stat_fields(self.pid)
        return bool(fields) and fields[0] in "SR"

    def end(self):
        end(self.pid)
        os.close(self.handle)


def end(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def collect(pid):
    """The end of a controller, whose parent we are: until then its pid is its own."""
    deadline = time.monotonic() + 10 * invariants.busy_factor()
    while os.path.exists(f"/proc/{pid}"):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        check(time.monotonic() < deadline, f"{pid} does not go away")
        time.sleep(0.01)


def reuse(bench, how, victims, look_alike=False):
    """`how`: the daemon is "killed" or "stopped" while it happens. What is wrong then."""
    import libvirt
    daemon = bench.env.daemon
    case = bench.case(Destroy)
    case.prepare(bench.connection)
    pid = controllers(case.name)[case.name][0]
    init, stem = invariants.inits(pid)[0], invariants.stems(pid)[0]
    # The next daemon is not the controllers' parent, so that nobody but us keeps their pids from being free.
    bench.restart()
    bench.reconnect()
    daemon.kill() if how == "killed" else daemon.process.send_signal(signal.SIGSTOP)
    for victim in victims:
        os.kill({"controller": pid, "init": init}[victim], signal.SIGKILL)
    # Each dies with the other; who is orphaned so is our child.
    # (The stem's session has the controller's number.)
    collect(pid), collect(init), collect(stem)
    controller = f"{daemon.build}/driver/controller/virtuserns-controller"
    strangers = []
    try:
        strangers.append(Stranger(pid, (controller if look_alike else "sleep", "100")))
        strangers.append(Stranger(init))
        daemon.start() if how == "killed" else daemon.process.send_signal(signal.SIGCONT)
        bench.reconnect()
        domain = bench.connection.lookupByName(case.name)
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
        wrong = settled(lambda: bench.look(case, True)) + case.wrong(
            bench.connection, invariants.known(bench.connection), True)
        # And once more from the beginning, with strangers about.
        domain.create()
        domain.destroy()
        time.sleep(0.1)
        wrong += [f"the stranger with the {what}'s pid was harmed" for what, stranger in
                  zip(("controller", "init"), strangers) if not stranger.is_well()]
    finally:
        for stranger in strangers:
            stranger.end()
    del domain
    return wrong + bench.afterwards(case)


@test(["userns"])
def strangers_with_the_pids_of_the_dead(env):
    """F6"""
    violations = []
    with Bench(env) as bench:
        for how in ("killed", "stopped"):
            for victims in (("controller",), ("init",), ("controller", "init")):
                for look_alike in (False, True):
                    wrong = reuse(bench, how, victims, look_alike)
                    violations += [f"daemon {how}, {' and '.join(victims)} killed: {line}" for line in wrong]
    for line in violations:
        print(f"     {line}")
    none(violations)


@test(["userns"])
def a_harmed_stranger_is_seen(env):
    """The judge judged: of a pid that was free, and of one that is killed or stopped by its number."""
    free = os.fork()
    if free == 0:
        os._exit(0)
    os.waitpid(free, 0)
    for number in (signal.SIGKILL, signal.SIGSTOP):
        stranger = Stranger(free)
        equal(stranger.pid, free)
        eventually(stranger.is_well, "it runs")
        os.kill(free, number)
        eventually(lambda: not stranger.is_well(), f"signal {number} is seen")
        stranger.end()


if __name__ == "__main__":
    if os.getpid() != 1:
        owner = {**os.environ, "VIRTUSERNS_OWNER": str(os.getpid())}
        os.execvpe("unshare", ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable,
                               os.path.abspath(__file__), *sys.argv[1:]], owner)
    parse_options()
    main()
