#!/usr/bin/env python3
"""F6: the pids of the dead (controller, init, a process that was to be signalled) belong to others by now, who must not be
touched.

    tests/fault/pid_reuse.py --driver userns

In a pid namespace of its own, where pids are chosen by writing kernel.ns_last_pid: of everybody else's the machine's are.
"""
import contextlib
import ctypes
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
from bench import Bench, Destroy, none, parse_options  # noqa: E402
from harness import check, equal, eventually, host_state, main, test  # noqa: E402
from invariants import controllers, settled  # noqa: E402

CLONE_NEWPID, SYS_CLONE3 = 0x20000000, 435
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
    with Bench(env, is_served=False) as bench:
        for how in ("killed", "stopped"):
            for victims in (("controller",), ("init",), ("controller", "init")):
                for look_alike in (False, True):
                    wrong = reuse(bench, how, victims, look_alike)
                    violations += [f"daemon {how}, {' and '.join(victims)} killed: {line}" for line in wrong]
    for line in violations:
        print(f"     {line}")
    none(violations)


class Namesake:
    """A process in a pid namespace of its own: `inside` there, `outside` here. Its maker, pid 1 there, is ready beforehand."""

    def __init__(self):
        self.go, ours = os.pipe()[::-1]
        libc = ctypes.CDLL(None, use_errno=True)
        check(libc.unshare(CLONE_NEWPID) == 0, "unshare")
        self.maker = os.fork()
        if self.maker == 0:
            inside, outside = struct.unpack("ii", os.read(ours, 8))
            numbers = (ctypes.c_int * 2)(inside, outside)
            # struct clone_args: exit_signal is the fifth, set_tid and its size the ninth and tenth.
            arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(numbers), 2, 0)
            if libc.syscall(SYS_CLONE3, arguments, ctypes.sizeof(arguments)) == 0:
                os.execvp("sleep", ["sleep", "100"])
            signal.pause()
        # What we fork from now on is ours again.
        own = os.open("/proc/self/ns/pid", os.O_RDONLY)
        check(libc.setns(own, 0) == 0, "setns")
        os.close(own), os.close(ours)

    def make(self, inside, outside):
        os.write(self.go, struct.pack("ii", inside, outside))
        eventually(lambda: os.path.exists(f"/proc/{outside}/status"), f"process {outside} is made")
        equal(inside_pid(outside), inside)
        self.pid = outside

    def is_well(self):
        fields = invariants.stat_fields(self.pid)
        return bool(fields) and fields[0] in "SR"

    def end(self):
        os.close(self.go)
        end(self.maker)


def inside_pid(pid):
    """In the pid namespace below ours; 0 when there is none."""
    with contextlib.suppress(OSError):
        numbers = re.search(r"^NSpid:(.*)$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1].split()
        return int(numbers[1]) if len(numbers) > 1 else 0
    return 0


def process_of(*argv):
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and pathlib.Path(f"/proc/{entry}/cmdline").read_text() == "".join(f"{word}\0" for word in argv):
                return int(entry)
    return 0


@test(["userns"])
def a_signal_by_a_pid_inside_is_for_the_domain(env):
    """The process that is meant dies while it is looked for, and its pid outside becomes that of one in another container,
    where it has the same pid inside."""
    env.start("web")
    namesake = Namesake()
    with contextlib.ExitStack() as stack:
        stack.callback(namesake.end)
        # The shell reaps it: a command's own process the controller would reap, which waits for its stem.
        command = stack.enter_context(subprocess.Popen(
            [f"{env.daemon.build}/driver/exec/virt-userns-exec", "web", "--", "sh", "-c", "sleep 4711; sleep 4712"]))
        stack.callback(command.kill)
        victim = eventually(lambda: process_of("sleep", "4711"), "the command runs")
        controller = int(env.virsh("domid", "web").ok().out)
        inside, stem = inside_pid(victim), invariants.stems(controller)[0]
        # Between a look at a process and the next there is time to die in.
        tracer = stack.enter_context(subprocess.Popen(
            ["strace", "-qq", "-o", "/dev/null", "-e", "trace=pidfd_open", "-e", "inject=pidfd_open:delay_enter=1s",
             "-p", str(stem)]))
        stack.callback(tracer.terminate)
        eventually(lambda: not re.search(r"^TracerPid:\t0$", pathlib.Path(f"/proc/{stem}/status").read_text(), re.M),
                   "the stem is traced")
        answers = []
        asked = threading.Thread(
            target=lambda: answers.append(env.virsh("send-process-signal", "web", str(inside), "kill").err))
        asked.start()
        time.sleep(0.5)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: not os.path.exists(f"/proc/{victim}"), "it is gone")
        namesake.make(inside, victim)
        asked.join()
        env.virsh("suspend", "web").ok()  # the stem has come to an end with it
        env.virsh("resume", "web").ok()
        check(namesake.is_well(), "the process of another container got the signal")
        check(f"the domain has no process {inside}" in answers[0], answers[0])


@test(["userns"])
def a_command_with_a_lower_pid_is_no_init(env):
    """What the suites take for init when pids have begun again from below: a command is a child of the controller too."""
    LAST_PID.write_text("20000")
    env.start("web")
    controller = int(env.virsh("domid", "web").ok().out)
    init = host_state.init_of(controller)
    LAST_PID.write_text("300")
    with subprocess.Popen([f"{env.daemon.build}/driver/exec/virt-userns-exec", "web", "--", "sleep", "4713"]) as command:
        other = eventually(lambda: process_of("sleep", "4713"), "the command runs")
        check(other < init and other in host_state.children(controller), f"{other}, init {init}: this would show nothing")
        equal(host_state.init_of(controller), init)
        command.kill()


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
