#!/usr/bin/env python3
"""What happens when there is nothing to be had, or nobody answers: F18 and F5 of the faults.

    tests/fault/resources.py --driver userns [--stride N] [-k TEST]

F18: each socket, pipe, clone, memfd_create, mmap and open of a start, in the daemon and in the controller, fails with
EMFILE, ENOMEM or EAGAIN. The start fails with an error, or it is made in spite of it; then the invariants hold.
F5: the daemon, a controller or an init is stopped (SIGSTOP); destroy ends within 10 s all the same.
"""
import contextlib
import errno
import os
import pathlib
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
import harness  # noqa: E402
from bench import OPERATIONS, Bench, Destroy, Options, none, parse_options  # noqa: E402
from harness import check, equal, main, test  # noqa: E402
from invariants import controllers, known, settled  # noqa: E402
from tracer import Plan, can_inject_errors  # noqa: E402

DESCRIPTORS = {"socket", "socketpair", "pipe", "pipe2", "open", "openat", "openat2", "memfd_create", "epoll_create1",
               "eventfd2", "signalfd4", "timerfd_create", "pidfd_open", "open_tree", "fsopen", "fsmount", "dup3", "accept4"}
PROCESSES = {"clone", "clone3", "fork", "vfork"}
# Not brk: it fails by answering with the old break, and an error number as its answer is an address that the C library
# then writes to.
MEMORY = {"mmap", "mremap", "memfd_create"}
FAULTS = [("EMFILE", errno.EMFILE, DESCRIPTORS, False), ("EMFILE from there on", errno.EMFILE, DESCRIPTORS, True),
          ("EAGAIN", errno.EAGAIN, PROCESSES, False), ("ENOMEM", errno.ENOMEM, PROCESSES | MEMORY, False)]
ROLES = ["daemon", "controller", "stem", "starter", "init"]
POINTS_OF_A_SHORT_RUN, MAKERS_OF_A_SHORT_RUN = 3, 1
MAKERS = {"mkdir", "mkdirat", "clone", "clone3", "vfork"}


@test(["userns"])
def a_start_without_resources(env):
    """F18"""
    if not can_inject_errors():
        raise harness.Skip("errors are injected on x86_64 only (tests/support/tracer.py)")
    violations = []
    with Bench(env) as bench:
        for role in ROLES:
            began, fired, started = time.monotonic(), 0, 0
            for name, code, names, persists in FAULTS:
                total, after_makers = count(bench, role, names)
                stride = Options.stride or max(1, -(-total // POINTS_OF_A_SHORT_RUN))
                first = 1 if Options.stride else 1 + (ROLES.index(role) + code) % stride
                for number in sorted({*range(first, total + 1, stride), *after_makers[:MAKERS_OF_A_SHORT_RUN]}):
                    case = bench.case(OPERATIONS["start"])
                    case.prepare(bench.connection)
                    before = time.monotonic()
                    report, is_acknowledged, error = bench.traced(
                        case, Plan({role}, number, errno=code, persists=persists, names=names))
                    took = time.monotonic() - before
                    fired, started = fired + report.fired, started + is_acknowledged
                    wrong = [f"it took {took:.1f} s"] if took > 5 * invariants.busy_factor() else []
                    if not is_acknowledged and error in ("", "unknown"):
                        wrong.append("the error says nothing")
                    if not env.daemon.is_running():
                        wrong.append(f"the daemon ended: {env.daemon.log_text(5)}")
                        bench.restart()
                    bench.reconnect()
                    wrong += settled(lambda: bench.look(case, is_acknowledged))
                    if is_acknowledged:
                        wrong += case.wrong(bench.connection, known(bench.connection), True)
                    wrong += bench.afterwards(case)
                    call = report.name_of(number)
                    for line in wrong:
                        violations.append(f"start: {name} at call {number} of {total} of the {role} ({call}; {error}): {line}")
                        print(f"     {violations[-1]}", flush=True)
            print(f"     start: {fired} faults in the {role}, {started} starts all the same "
                  f"({time.monotonic() - began:.1f} s)", flush=True)
    none(violations)


def count(bench, role, names):
    """How many, and the numbers of those that come right after something was made that is to go if they fail."""
    case = bench.case(OPERATIONS["start"])
    case.prepare(bench.connection)
    report, is_acknowledged, error = bench.traced(case, Plan({role}, names=names | MAKERS))
    check(is_acknowledged, f"without a fault: {error}")
    bench.clean(case)
    total, after = 0, []
    for before, call in zip([None] + report.calls, report.calls):
        total += call.name in names
        if call.name in names and before and before.name in MAKERS:
            after.append(total)
    return total, after


# ---- F5 ------------------------------------------------------------------------------------------------------------------

def destroy_with(env, stopped):
    """Seconds that destroy took with this process stopped, and what is wrong then."""
    with Bench(env) as bench:
        case = bench.case(Destroy)
        case.prepare(bench.connection)
        controller = controllers(case.name)[case.name][0]
        pid = {"controller": controller, "init": invariants.inits(controller)[0], "stem": invariants.stems(controller)[0],
               "daemon": env.daemon.process.pid}[stopped]
        os.kill(pid, signal.SIGSTOP)
        # Whoever stops the daemon for a while must let it go on; nobody does that for the others.
        waker = threading.Timer(1.0, os.kill, (env.daemon.process.pid, signal.SIGCONT)) if stopped == "daemon" else None
        began = time.monotonic()
        if waker:
            waker.start()
        try:
            case.act(bench.connection)
        finally:
            if waker:
                waker.join()
        took = time.monotonic() - began
        wrong = settled(lambda: bench.look(case, True)) + case.wrong(bench.connection, known(bench.connection), True)
        wrong += bench.afterwards(case)
        return took, wrong


@test(["userns"])
def destroy_of_a_stopped_controller(env):
    took, wrong = destroy_with(env, "controller")
    equal(wrong, [])
    check(took < 10 * invariants.busy_factor(), f"destroy took {took:.1f} s")


def reaper_of(daemon):
    """A clean-up (--reap) that the daemon runs at this moment."""
    for task in pathlib.Path(f"/proc/{daemon}/task").iterdir():
        with contextlib.suppress(OSError):
            for pid in (task / "children").read_text().split():
                if b"--reap" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
    return None


@test(["userns"])
def destroy_of_a_controller_that_hung_up(env):
    """It lives, but has closed the daemon's connection: here, because others of root took all that it has."""
    env.start("web")
    folder, uuid = os.open("/run/libvirt/userns", os.O_RDONLY | os.O_DIRECTORY), env.uuid("web")
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, folder)
        for _ in range(17):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            connection.connect(f"/proc/self/fd/{folder}/{uuid}.sock")
            time.sleep(0.01)
        # Out of sight, so that the daemon cannot connect again.
        os.rename(f"{uuid}.sock", f"{uuid}.sock.away", src_dir_fd=folder, dst_dir_fd=folder)
        harness.eventually(lambda: "is gone" in env.virsh("suspend", "web").err, "it hangs up")
        os.unlink(f"{uuid}.sock.away", dir_fd=folder)
    began = time.monotonic()
    env.virsh("destroy", "web").ok()
    took = time.monotonic() - began
    check(took < 10 * invariants.busy_factor(), f"destroy took {took:.1f} s")
    equal(env.state("web"), ("shut off", "destroyed"))


@test(["userns"])
def a_controller_that_dies_in_its_autodestroy(env):
    """The thread that destroys for a client that is gone is the one that cleans up after dead controllers."""
    import libvirt
    client = env.open()
    domain = client.createXML(env.domain_xml("web"), libvirt.VIR_DOMAIN_START_AUTODESTROY)
    controller = domain.ID()
    os.kill(controller, signal.SIGSTOP)
    del domain
    client.close()
    time.sleep(0.5)  # destroy waits for an answer
    os.kill(controller, signal.SIGKILL)
    harness.eventually(lambda: "web" not in env.virsh("list", "--all", "--name").ok().out.split(), "it is cleaned up")


def held_clean_up(env, name):
    """Ends the controller of the domain, and stops the clean-up that follows; its pid. A clean-up is short: until one is caught."""
    for _ in range(30):
        env.virsh("start", name).ok()
        os.kill(int(env.virsh("domid", name).ok().out), signal.SIGKILL)
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            if reaper := reaper_of(env.daemon.process.pid):
                os.kill(reaper, signal.SIGSTOP)
                if pathlib.Path(f"/proc/{reaper}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                    return reaper
        harness.eventually(lambda: env.state(name)[0] == "shut off", "the clean-up is over")
    raise harness.Failure("no clean-up was caught")


@test(["userns"])
def a_late_clean_up_spares_the_next_life(env):
    """The daemon still cleans up after another domain when it hears that a controller is dead; by the time it gets there,
    destroy has done it, and the domain was started anew."""
    env.define("slow")
    env.start("web")
    reaper = held_clean_up(env, "slow")
    try:
        os.kill(int(env.virsh("domid", "web").ok().out), signal.SIGSTOP)
        env.virsh("destroy", "web").ok()
        env.virsh("start", "web").ok()
        next_life = env.virsh("domid", "web").ok().out
    finally:
        os.kill(reaper, signal.SIGCONT)
    harness.eventually(lambda: env.state("slow")[0] == "shut off", "the clean-up goes on")
    time.sleep(1.0 * invariants.busy_factor())  # what the daemon had put off comes at once after it
    equal(env.state("web"), ("running", "booted"))
    equal(env.virsh("domid", "web").ok().out, next_life)


@test(["userns"])
def destroy_of_a_stopped_stem(env):
    took, wrong = destroy_with(env, "stem")
    equal(wrong, [])
    check(took < 10 * invariants.busy_factor(), f"destroy took {took:.1f} s")


@test(["userns"])
def destroy_of_a_stopped_init(env):
    took, wrong = destroy_with(env, "init")
    equal(wrong, [])
    check(took < 10 * invariants.busy_factor(), f"destroy took {took:.1f} s")


@test(["userns"])
def destroy_by_a_daemon_that_was_stopped(env):
    took, wrong = destroy_with(env, "daemon")
    equal(wrong, [])
    check(took < 10 * invariants.busy_factor(), f"destroy took {took:.1f} s")


@test(["userns"])
def a_daemon_finds_a_stopped_controller(env):
    """Killed and started again while a controller does not answer: the others are served, and this one can be ended."""
    with Bench(env) as bench:
        case = bench.case(Destroy)
        case.prepare(bench.connection)
        os.kill(controllers(case.name)[case.name][0], signal.SIGSTOP)
        took = bench.restart()
        bench.reconnect()
        check(took < 5 * invariants.busy_factor(), f"the first answer took {took:.1f} s")
        began = time.monotonic()
        case.act(bench.connection)
        check(time.monotonic() - began < 10 * invariants.busy_factor(), f"destroy took {time.monotonic() - began:.1f} s")
        equal(settled(lambda: bench.look(case, True)) + bench.afterwards(case), [])


if __name__ == "__main__":
    parse_options()
    main()
