#!/usr/bin/env python3
"""F11: what the disk can hold after a crash at any moment of a change; a daemon is started on each.

    tests/fault/crash_states.py --driver userns [-k TEST]

The system calls of an operation are recorded (tests/support/tracer.py) and done again on a model of a disk that loses what
was not synced (disk.py). After a crash before the operation was acknowledged there is the old state or the new one, never
half of one; after that only the new one. What is in /run dies with the machine: there the process alone is killed.
"""
import contextlib
import os
import pathlib
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
from bench import OPERATIONS, PREFIX, Bench, Case, Destroy, Suspend, none, parse_options  # noqa: E402
from disk import Disk  # noqa: E402
from harness import check, equal, eventually, has_handler, main, test  # noqa: E402
from invariants import DEFINITIONS, RUN, controllers, known, picture, settled  # noqa: E402
from tracer import Plan, Tracer, can_inject_errors  # noqa: E402

LEASES_TOP = "/var/lib/libvirt/userns"


class AutostartOff(Case):
    def prepare(self, connection):
        super().prepare(connection)
        connection.lookupByName(self.name).setAutostart(1)

    def act(self, connection):
        connection.lookupByName(self.name).setAutostart(0)


class FirstAutostart(OPERATIONS["autostart"]):
    """The folder of the links is not there yet."""

    def prepare(self, connection):
        super().prepare(connection)
        with contextlib.suppress(FileNotFoundError):
            pathlib.Path(DEFINITIONS, "autostart").rmdir()


CHANGES = {name: OPERATIONS[name] for name in ("define", "redefine", "undefine", "autostart", "attach")} | {
    "autostart off": AutostartOff, "first autostart": FirstAutostart}


def recorded(bench, case, plan, **processes):
    """The calls that change something below the plan's folders."""
    with Tracer(plan, **processes) as tracer:
        case.act(bench.connection)
    return [call.record for call in tracer.report.calls if call.record]


def idmap_of(connection, name):
    """The lease, as the definition of a running domain shows it."""
    import libvirt
    with contextlib.suppress(libvirt.libvirtError):
        domain = connection.lookupByName(name)
        if not domain.isActive():
            domain.create()
        text = domain.XMLDesc(0)
        return text.split("<idmap>")[1].split("</idmap>")[0]
    return None


def restart(env):
    """With what it says of itself."""
    start = os.path.getsize(env.daemon.log.name)
    env.daemon.start()
    connection = env.open()
    connection.listAllDomains()
    with open(env.daemon.log.name, errors="replace") as log:
        log.seek(start)
        return connection, log.read()


def end_all(connection):
    import libvirt
    for domain in connection.listAllDomains():
        with contextlib.suppress(libvirt.libvirtError):
            if domain.isActive():
                domain.destroy()


def states_of(disk, records, keeps_all=False):
    """(number of calls that were made, label, state), each state once for the side of the acknowledgement it is on."""
    seen = set()
    for number in range(len(records) + 1):
        is_done = number == len(records)
        for label, state in disk.crash_states(keeps_all):
            key = (is_done, tuple(sorted(state.items())))
            if key not in seen:
                seen.add(key)
                yield number, label, state
        if not is_done:
            disk.do(*records[number])


def judged(env, name, allowed, log_words=("set aside", "broken")):
    """What is wrong with what a daemon makes of the disk that is there."""
    connection, log = restart(env)
    try:
        wrong = [f"the log says: {line}" for line in log.splitlines() if any(word in line for word in log_words)]
        now = picture(connection, name)
        if now and now[1]:
            eventually(lambda: picture(connection, name)[0] == 1, f"{name} has started by itself")
        now = now and now[1:]
        if now not in allowed:
            wrong.append("it is neither as before nor as after: " + ("not there" if now is None else f"autostart {now[0]}, "
                         f"{len(now[1])} bytes of definition"))
        end_all(connection)
        wrong += settled(lambda: invariants.disagreements(known(connection), PREFIX, env.daemon.cgroup,
                                                          must=list(known(connection))))
        return wrong + [f"left: {path}" for path in pathlib.Path(DEFINITIONS).rglob("*.new.*")]
    finally:
        connection.close()
        env.daemon.kill()


def tried(env, operation, states, judge):
    violations, count = [], 0
    for number, label, state in states:
        lay_out(state)
        count += 1
        for line in judge(number):
            violations.append(f"{operation}: after {number} calls, {label}: {line}")
            print(f"     {violations[-1]}", flush=True)
    print(f"     {operation}: {count} states of the disk", flush=True)
    return violations


def lay_out(state):
    Disk([DEFINITIONS, LEASES_TOP]).lay_out(state)


@test(["userns"])
def definitions_and_autostart(env):
    """F11: old or new, never half; what was acknowledged is durable."""
    check(can_inject_errors(), "calls are recorded on x86_64 only (tests/support/tracer.py)")
    violations = []
    for operation, kind in CHANGES.items():
        bench = Recorder(env)
        case = kind(bench, f"{PREFIX}{operation.replace(' ', '-')}")
        case.is_running = False
        case.prepare(bench.connection)
        old = picture(bench.connection, case.name)
        disk = Disk([DEFINITIONS, LEASES_TOP])
        records = recorded(bench, case, Plan({"daemon"}, under=(DEFINITIONS, LEASES_TOP), records=True),
                           daemon=env.daemon.process.pid)
        new = picture(bench.connection, case.name)
        check(old != new and len(records) > 2, f"{operation} changed nothing: {records}")
        bench.connection.close()
        env.daemon.kill()
        old, new = (seen and seen[1:] for seen in (old, new))
        violations += tried(env, operation, states_of(disk, records),
                            lambda number: judged(env, case.name, (new,) if number == len(records) else (old, new)))
        start_afresh(env)
    none(violations)


class Recorder:
    """As much of a bench as a case needs."""

    def __init__(self, env):
        self.env, self.connection, self.devices, self.image = env, env.open(), "", None
        self.written = None
        self.template = env.domain_xml("@NAME@", uuid="@UUID@")

    xml = Bench.xml


def start_afresh(env):
    lay_out({})
    env.daemon.start()


@test(["userns"])
def leases(env):
    """F11: a domain that ran has its ids again; of a first start that was not acknowledged it may have none; two domains
    never share any."""
    violations = []
    bench = Recorder(env)
    other, case = f"{PREFIX}other", OPERATIONS["define"](bench, f"{PREFIX}leased")
    for name in (other, case.name):
        bench.connection.defineXML(bench.xml(name))
    others = idmap_of(bench.connection, other)
    bench.connection.lookupByName(other).destroy()
    disk = Disk([DEFINITIONS, LEASES_TOP])
    case.act = lambda connection: connection.lookupByName(case.name).create()
    records = recorded(bench, case, Plan({"daemon"}, under=(LEASES_TOP,), records=True), daemon=env.daemon.process.pid)
    check(any(record[0] == "rename" for record in records), f"no lease was written: {records}")
    ours = idmap_of(bench.connection, case.name)
    end_all(bench.connection)
    bench.connection.close()
    env.daemon.kill()

    def judge(number):
        connection, log = restart(env)
        try:
            wrong = [f"the log says: {line}" for line in log.splitlines() if "set aside" in line]
            now = {name: idmap_of(connection, name) for name in (other, case.name)}
            if now[other] != others:
                wrong.append(f"the other domain has {now[other]} instead of {others}")
            if now[case.name] is None or now[case.name] == others or (number == len(records) and now[case.name] != ours):
                wrong.append(f"the domain has {now[case.name]} instead of {ours}")
            end_all(connection)
            return wrong + [f"left: {path}" for path in pathlib.Path(LEASES_TOP).rglob("*.new.*")]
        finally:
            connection.close()
            env.daemon.kill()

    violations += tried(env, "first start", states_of(disk, records), judge)
    # And given back: whoever is undefined does not come back as a lease of nobody.
    start_afresh(env)
    bench = Recorder(env)
    case = OPERATIONS["undefine"](bench, f"{PREFIX}given-back")
    bench.connection.defineXML(bench.xml(case.name))
    idmap_of(bench.connection, case.name)
    end_all(bench.connection)
    old = picture(bench.connection, case.name)[1:]
    disk = Disk([DEFINITIONS, LEASES_TOP])
    records = recorded(bench, case, Plan({"daemon"}, under=(DEFINITIONS, LEASES_TOP), records=True),
                       daemon=env.daemon.process.pid)
    bench.connection.close()
    env.daemon.kill()
    violations += tried(env, "undefine with a lease", states_of(disk, records),
                        lambda number: judged(env, case.name, (None,) if number == len(records) else (old, None)))
    start_afresh(env)
    none(violations)


# ---- what lies in /run ---------------------------------------------------------------------------------------------------

def put(uuid, state):
    """The regular files of this domain in the run-time directory. Sockets cannot be made again, and stay."""
    for path in pathlib.Path(RUN).glob(f"{uuid}*"):
        if path.is_file():
            path.unlink()
    for path, (kind, data) in state.items():
        if uuid in path and kind == "file":
            pathlib.Path(path).write_bytes(data)
            os.chmod(path, 0o600)


@test(["userns"])
def status(env):
    """F11: the daemon is killed while it writes a status, also in the middle of the bytes."""
    violations = []
    with Bench(env) as bench:
        case = bench.case(Suspend)
        case.prepare(bench.connection)
        uuid = known(bench.connection)[case.name][2]
        disk = Disk([RUN])
        records = recorded(bench, case, Plan({"daemon"}, under=(RUN,), records=True), daemon=env.daemon.process.pid)
        check(any(record[0] == "rename" for record in records), f"no status was written: {records}")
        count = 0
        for number, label, state in states_of(disk, records, keeps_all=True):
            bench.connection.close()
            env.daemon.kill()
            put(uuid, state)
            bench.restart()
            bench.connection = env.open()
            count += 1
            wrong = settled(lambda: bench.look(case, True)) + case.wrong(bench.connection, known(bench.connection), True)
            wrong += [f"left: {path.name}" for path in pathlib.Path(RUN).glob("*.new*")]
            violations += [f"suspend: after {number} calls, {label}: {line}" for line in wrong]
        for line in violations:
            print(f"     {line}")
        print(f"     suspend: {count} states of the run-time directory")
        equal(bench.afterwards(case), [])
    none(violations)


@test(["userns"])
def exit_record(env):
    """F11: the controller is killed while it writes how the domain ended, and the daemon is away."""
    import libvirt
    violations = []
    with Bench(env) as bench:
        case = bench.case(Destroy)
        case.prepare(bench.connection)
        uuid = known(bench.connection)[case.name][2]
        pid = controllers(case.name)[case.name][0]
        init = invariants.inits(pid)[0]
        bench.connection.close()
        env.daemon.kill()
        disk = Disk([RUN])
        with Tracer(Plan({"controller", "stem"}, records=True), controller=pid, stem=invariants.stems(pid)[0]) as tracer:
            eventually(lambda: has_handler(init, signal.SIGTERM), "init has set its trap")
            os.kill(init, signal.SIGTERM)  # it leaves with 0 now
            eventually(lambda: not invariants.is_alive(pid), "the controller is gone")
        # By descriptors of folders: in the controller's own root they have other paths than here.
        records = [tuple(f"{RUN}/{os.path.basename(part)}" if isinstance(part, str) and uuid in part else part
                         for part in call.record) for call in tracer.report.calls if call.record]
        records = [record for record in records if uuid in record[1]]
        renames = [number for number, record in enumerate(records, 1) if record[0] == "rename"]
        check(len(renames) == 1, f"no record was written: {records}")
        count = 0
        for number, label, state in states_of(disk, records, keeps_all=True):
            put(uuid, state)
            bench.restart()
            bench.connection = env.open()
            count += 1
            domain = bench.connection.lookupByName(case.name)
            wrong = settled(lambda: bench.look(case, True))
            wanted = libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN if number >= renames[0] else libvirt.VIR_DOMAIN_SHUTOFF_CRASHED
            if domain.state() != [libvirt.VIR_DOMAIN_SHUTOFF, wanted]:
                wrong.append(f"it is said to be in state {domain.state()}, wanted {wanted}")
            wrong += [f"left: {path.name}" for path in pathlib.Path(RUN).glob(f"{uuid}*")]
            violations += [f"exit: after {number} calls, {label}: {line}" for line in wrong]
            del domain
            bench.connection.close()
            env.daemon.kill()
        print(f"     exit: {count} states of the run-time directory")
        bench.restart()
        bench.connection = env.open()
        equal(bench.afterwards(case), [])
    for line in violations:
        print(f"     {line}")
    none(violations)


# ---- the judge judged ------------------------------------------------------------------------------------------------------

@test(["userns"])
def a_disk_loses_what_was_not_synced(env):
    """Of a careless writer each loss is among the states; of a careful one none is."""
    folder = pathlib.Path(env.folder, "disk")
    folder.mkdir()
    (folder / "a").write_text("old")
    path, temp = f"{folder}/a", f"{folder}/a.new"

    def contents(*records):
        disk = Disk([folder])
        for record in records:
            disk.do(*record)
        return {state.get(path, ("", b"gone"))[1] for _, state in disk.crash_states()}
    make, fill = ("open", temp, os.O_CREAT | os.O_EXCL), ("write", temp, "newer")
    rename, sync, sync_folder = ("rename", temp, path), ("fsync", temp), ("fsync", str(folder))
    equal(contents(make, fill, sync, rename, sync_folder), {b"newer"})
    equal(contents(make, fill, sync, rename), {b"old", b"newer"})
    equal(contents(make, fill, rename, sync_folder), {b"newer", b"ne", b"", b"\0" * 5})
    equal(contents(("open", path, os.O_TRUNC), ("write", path, "newer")) >= {b"old", b"newer"}, True)
    equal(contents(("unlink", path)), {b"old", b"gone"})
    equal(contents(("unlink", path), sync_folder), {b"gone"})


ACROSS_PAGES = """
import ctypes, mmap, sys
area = mmap.mmap(-1, 3 * mmap.PAGESIZE)
address = ctypes.addressof(ctypes.c_char.from_buffer(area))
path = sys.argv[1].encode() + b"\\0"
at = mmap.PAGESIZE - 5
area[at:at + len(path)] = path
print("ready", flush=True)
sys.stdin.readline()
ctypes.CDLL(None).rename(ctypes.c_void_p(address + at), b"/nowhere")
print("done", flush=True)
sys.stdin.readline()
"""


@test(["userns"])
def a_path_across_pages_is_read_whole(env):
    """It happens to a path on a stack, as the addresses fall; records with half a name showed losses that there were not."""
    check(can_inject_errors(), "calls are recorded on x86_64 only (tests/support/tracer.py)")
    path = f"{env.folder}/a-name-that-begins-on-one-page-and-ends-on-the-next"
    with subprocess.Popen([sys.executable, "-c", ACROSS_PAGES, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        equal(process.stdout.readline(), "ready\n")
        with Tracer(Plan({"daemon"}, names={"rename"}, records=True), daemon=process.pid) as tracer:
            process.stdin.write("go\n"), process.stdin.flush()
            equal(process.stdout.readline(), "done\n")
        process.stdin.close()
    equal([call.record for call in tracer.report.calls], [["rename", path, "/nowhere"]])


if __name__ == "__main__":
    parse_options()
    main()
