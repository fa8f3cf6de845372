#!/usr/bin/env python3
"""kill -9 at each system call of each operation; after each kill the invariants of invariants.py.

    tests/fault/kill_at_syscall.py --driver userns [--stride N] [--operations start,destroy] [-k TEST]

The calls of an operation are counted first; then the operation is done again and again, and ended at one of them. A
violation says which:

    start: daemon killed at call 17 of 137 (openat of daemon): file left: /run/libvirt/userns/...new

means that the daemon died as it was about to enter its 17th system call of a start. `--only start:17` does that one again;
`--show start` prints the calls with their numbers. Without --stride a few of each operation are taken, others each day.
"""
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
from bench import OPERATIONS, PREFIX, AttachLive, Bench, Destroy, Options, Resume, Suspend, none, numbers, parse_options  # noqa: E402
from harness import check, main, test  # noqa: E402
from invariants import controllers, disagreements, known, settled  # noqa: E402
from tracer import Plan  # noqa: E402


def kill_everywhere(bench, operations, roles, victims, label):
    """The violations, one line each."""
    violations = []
    for operation in operations:
        if Options.operations and operation not in Options.operations.split(","):
            continue
        kind = OPERATIONS[operation]
        calls = bench.count(kind, roles)
        total = len(calls)
        # Always right after a birth: the new process is there, and nobody has been told.
        births = {number + 1 for number, call in enumerate(calls, 1) if call.name in ("clone3", "clone", "vfork")}
        chosen = sorted(births | set(numbers(total)))
        if Options.only:
            wanted, _, number = Options.only.partition(":")
            chosen = [int(number)] if wanted == operation else []
        began, fired = time.monotonic(), 0
        for number in chosen:
            report, wrong = bench.point(kind, Plan(set(roles), number, set(victims)))
            fired += report.fired
            call = report.calls[number - 1] if len(report.calls) >= number else None
            where = f"call {number} of {total} ({call.name} of {call.role})" if call else f"the end ({total} calls)"
            for line in wrong:
                violations.append(f"{operation}: {label} killed at {where}: {line}")
                print(f"     {violations[-1]}", flush=True)
        print(f"     {operation}: {label} killed at {fired} of {total} calls ({len(chosen)} tries, "
              f"{time.monotonic() - began:.1f} s)", flush=True)
    return violations


def show(env):
    """--show OPERATION: its calls with their numbers, of the daemon alone, then of all."""
    with Bench(env) as bench:
        for roles in ({"daemon"}, {"controller"}, {"stem"}, {"starter", "init"}):
            for number, call in enumerate(bench.count(OPERATIONS[Options.show], roles), 1):
                print(f"{number:5} {call.role:10} {call.name}")


@test(["userns"])
def daemon_killed_at_each_call(env):
    """F1"""
    with Bench(env) as bench:
        none(kill_everywhere(bench, OPERATIONS, {"daemon"}, {"daemon"}, "daemon"))


@test(["userns"])
def controller_killed_at_each_call(env):
    """F2"""
    with Bench(env) as bench:
        none(kill_everywhere(bench, ["start", "destroy"], {"controller"}, {"controller"}, "controller"))


@test(["userns"])
def stem_killed_at_each_call(env):
    """F2, of the other half: the two end together."""
    with Bench(env) as bench:
        none(kill_everywhere(bench, ["start", "destroy", "suspend"], {"stem"}, {"stem"}, "stem") +
             kill_everywhere(bench, ["destroy"], {"controller", "stem"}, {"stem"}, "stem"))


@test(["userns"])
def helpers_of_a_live_change_killed(env):
    """F2: what opens a source for the daemon, and what goes inside for the stem; the domain and both live on. And the stem itself."""
    live = ["attach-live", "detach-live"]
    with Bench(env, is_served=False) as bench:
        none(kill_everywhere(bench, live[:1], {"controller"}, {"controller"}, "opener") +
             kill_everywhere(bench, live, {"starter"}, {"starter"}, "errand") +
             kill_everywhere(bench, live, {"stem"}, {"stem"}, "stem") +
             kill_everywhere(bench, ["set-password"], {"starter"}, {"starter"}, "errand") +
             kill_everywhere(bench, ["set-password"], {"stem"}, {"stem"}, "stem"))


@test(["userns"])
def init_killed_between_clone_and_exec(env):
    """F3; and the starter that clones it."""
    with Bench(env) as bench:
        none(kill_everywhere(bench, ["start"], {"init"}, {"init"}, "init") +
             kill_everywhere(bench, ["start"], {"starter"}, {"starter"}, "starter"))


@test(["userns"])
def daemon_and_controller_killed_together(env):
    """F4"""
    roles = {"daemon", "controller"}
    with Bench(env) as bench:
        none(kill_everywhere(bench, ["start", "destroy", "suspend"], roles, roles, "daemon and controller"))


@test(["userns"])
def init_and_all_killed_while_nobody_looks(env):
    """F4: the rest of it. The daemon is away; then init, or the controller too, is killed."""
    import libvirt
    violations = []
    with Bench(env) as bench:
        for victims in (("init",), ("controller",), ("controller", "init")):
            case = bench.case(Destroy)
            case.prepare(bench.connection)
            pid = controllers(case.name)[case.name][0]
            init = invariants.inits(pid)[0]
            env.daemon.kill()
            for victim in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill({"init": init, "controller": pid}[victim], signal.SIGKILL)
            bench.restart()
            bench.reconnect()
            wrong = settled(lambda: bench.look(case, True))
            if known(bench.connection)[case.name][0] != libvirt.VIR_DOMAIN_SHUTOFF:
                wrong.append(f"{case.name} is not off")
            wrong += bench.afterwards(case)
            violations += [f"{' and '.join(victims)} killed while the daemon was away: {line}" for line in wrong]
    for line in violations:
        print(f"     {line}")
    none(violations)


@test(["userns"])
def a_pause_that_a_dead_daemon_asked_for(env):
    """Its request is read when the next daemon asks how things are: what that one is told must stay true."""
    import libvirt
    violations = []
    with Bench(env) as bench:
        for kind in (Suspend, Resume) * 3:
            case = bench.case(kind)
            case.prepare(bench.connection)
            pid = controllers(case.name)[case.name][0]
            os.kill(pid, signal.SIGSTOP)

            def ask(connection=bench.connection, case=case):
                with contextlib.suppress(libvirt.libvirtError):
                    case.act(connection)
            asker = threading.Thread(target=ask)
            asker.start()
            time.sleep(0.2)
            env.daemon.kill()
            asker.join()
            waker = threading.Timer(0.3, os.kill, (pid, signal.SIGCONT))
            waker.start()
            bench.restart()
            waker.join()
            bench.reconnect()
            time.sleep(0.2)  # whatever is still on its way has arrived
            violations += [f"{kind.__name__}: {line}" for line in settled(lambda: bench.look(case, False))]
            violations += bench.afterwards(case)
    for line in violations:
        print(f"     {line}")
    none(violations)


# ---- the judge judged --------------------------------------------------------------------------------------------------------

@test(["userns"])
def planted_violations_are_reported(env):
    """One of each class. A check that finds none of these finds nothing."""
    import libvirt
    with Bench(env) as bench:
        case = bench.case(Destroy)
        case.prepare(bench.connection)
        uuid = known(bench.connection)[case.name][2]
        status = f"/run/libvirt/userns/{uuid}.status"
        look = lambda: bench.look(case, True)  # noqa: E731
        check(not settled(look), "a sound domain is reported")
        pid = controllers(case.name)[case.name][0]
        init = invariants.inits(pid)[0]

        def planted(pattern, plant, undo=lambda: None, finds=look):
            plant()
            found = finds()
            undo()
            check(any(re.search(pattern, line) for line in found), f"planted {pattern!r} is not reported: {found}")

        # G2: a second controller, a controller without init, no lease, another state than the kernel's, lost groups.
        fake = []
        planted("controllers are", lambda: fake.append(second_controller(env, case.name)), lambda: end(fake.pop()))
        lease = pathlib.Path(invariants.LEASES, uuid)
        aside = pathlib.Path("/var/lib/libvirt/planted")
        planted("without a lease", lambda: lease.rename(aside), lambda: aside.rename(lease))
        planted("a lease of unknown", lambda: pathlib.Path(invariants.LEASES, "no-such").write_text(""),
                lambda: pathlib.Path(invariants.LEASES, "no-such").unlink())
        group = next(group for group in invariants.groups_below(env.daemon.cgroup) if uuid in group)
        planted("frozen is True", lambda: freeze(init, True), lambda: freeze(init, False))
        # G1: lost and back again.
        planted("domain .* is lost", lambda: None, finds=lambda: disagreements(
            {}, PREFIX + "none", env.daemon.cgroup, must=[case.name]))
        planted("is back", lambda: None, finds=lambda: disagreements(
            known(bench.connection), PREFIX, env.daemon.cgroup, must=[bench.neighbour.name]))
        # What still runs of a domain that is said to be off.
        off = {name: (libvirt.VIR_DOMAIN_SHUTOFF, -1, uuid_, True) for name, (_, _, uuid_, _) in
               known(bench.connection).items()}
        planted_off = lambda: disagreements(off, PREFIX, env.daemon.cgroup, must=list(off))  # noqa: E731
        planted("said to be off .*controllers are", lambda: None, finds=planted_off)
        planted("said to be off .*there are groups", lambda: None, finds=planted_off)
        bench.clean(case)
        bench.connection.close()
        check(not settled(bench.leftovers.find), f"leftovers of nothing: {bench.leftovers.find()}")

        # G3: each kind of thing that can be left.
        left = bench.leftovers.find
        empty = pathlib.Path("/run/libvirt/userns", f"{uuid}.stage")
        planted(r"file left: .*\.stage", empty.mkdir, empty.rmdir, left)
        temp = pathlib.Path("/etc/libvirt/userns", f"{uuid}.xml.new.1.0")
        planted(r"file left: .*\.new\.", lambda: temp.write_text(""), temp.unlink, left)
        planted("status left", lambda: pathlib.Path(status).write_text(""), pathlib.Path(status).unlink, left)
        planted("process left", lambda: fake.append(subprocess.Popen(["sleep", "77"])), lambda: end(fake.pop()), left)
        folder = pathlib.Path(env.folder, "mount")
        folder.mkdir()
        planted("mount left", lambda: run("mount", "-t", "tmpfs", "t", folder), lambda: run("umount", folder), left)
        planted("link left", lambda: run("ip", "link", "add", "planted0", "type", "veth", "peer", "name", "planted1"),
                lambda: run("ip", "link", "del", "planted0"), left)
        stray = pathlib.Path(group).parent / "stray"
        planted("cgroup left", stray.mkdir, stray.rmdir, left)
        if bench.image:
            image = pathlib.Path(env.folder, "disk.img")
            planted("loop left", lambda: fake.append(run("losetup", "-f", "--show", image).strip()),
                    lambda: run("losetup", "-d", fake.pop()), left)
        planted("descriptor of the daemon left", lambda: fake.append(env.open()), lambda: fake.pop().close(), left)
        parent = subprocess.Popen(["sh", "-c", "sleep 0 & exec sleep 77"])
        time.sleep(0.2)
        check(invariants.zombies_of(parent.pid), "a planted zombie is not reported")
        end(parent)
        settled(left)

        # A device that the daemon says is there.
        case = bench.case(AttachLive)
        bench.reconnect()
        case.prepare(bench.connection)
        case.act(bench.connection)
        check(not case.wrong(bench.connection, known(bench.connection), True), "sound devices are reported")
        init = invariants.inits(controllers(case.name)[case.name][0])[0]
        planted("ram: the daemon says True, the container has False",
                lambda: run("nsenter", "-t", init, "-m", "/bin/busybox", "umount", "/target/below"),
                finds=lambda: case.wrong(bench.connection, known(bench.connection), True))
        bench.clean(case)

        # G5: the neighbour that was started again.
        env.virsh("destroy", bench.neighbour.name).ok()
        env.virsh("start", bench.neighbour.name).ok()
        planted("the neighbour noticed", lambda: None, finds=bench.neighbour.noticed)
        bench.reconnect()


def second_controller(env, name):
    """A process that looks as a controller of that domain does."""
    pipe = pathlib.Path(env.folder, name)
    os.mkfifo(pipe)  # nobody writes, so cat waits
    process = subprocess.Popen([f"{env.folder}/virtuserns-controller", name], executable="/bin/cat", cwd=env.folder)
    time.sleep(0.1)
    pipe.unlink()
    return process


def end(process):
    process.kill()
    process.wait()


def run(*argv):
    return subprocess.run([str(word) for word in argv], check=True, capture_output=True, text=True).stdout


def freeze(pid, is_wanted):
    for line in invariants.groups_of(pid):
        _, names, path = line.split(":", 2)
        if names == "freezer":
            pathlib.Path(f"/sys/fs/cgroup/freezer{path}/freezer.state").write_text("FROZEN" if is_wanted else "THAWED")
        if names == "":
            for root in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
                if os.path.exists(f"{root}{path}/cgroup.freeze"):
                    pathlib.Path(f"{root}{path}/cgroup.freeze").write_text("1" if is_wanted else "0")
    time.sleep(0.1)


if __name__ == "__main__":
    parse_options()
    if Options.show:
        test(["userns"])(show)
    main()
