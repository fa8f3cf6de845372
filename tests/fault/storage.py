#!/usr/bin/env python3
"""What storage does to the daemon: F12, F13, F15, F16 of the faults.

    tests/fault/storage.py --driver userns [--stride N] [-k TEST]

F12, F13: one system call after another that touches a state directory fails (once, or from there on), during define,
redefine, undefine, autostart and start. Then the operation has failed and the old state is there, in memory and for the
next daemon; or it was completed. The daemon lives, and it works again once storage does.

A violation reads "define: ENOSPC once at call 4 (fsync /etc/libvirt/userns/...): what was wrong".
"""
import errno
import json
import os
import pathlib
import subprocess
import sys
import time
import uuid as uuid_module

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
import harness  # noqa: E402
from bench import OPERATIONS, PREFIX, Bench, Options, none, parse_options  # noqa: E402
from harness import check, contains, equal, main, test  # noqa: E402
from invariants import DEFINITIONS, RUN, known, picture, settled  # noqa: E402
from tracer import Plan, can_inject_errors  # noqa: E402

LEASES = invariants.LEASES
STATE = (DEFINITIONS, "/var/lib/libvirt/userns", RUN)
TOUCHES = {"open", "openat", "write", "fsync", "fdatasync", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "link",
           "linkat", "symlink", "symlinkat"}
TAKES_ROOM = {"open", "openat", "write", "mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat"}
# name, errno, from there on, which calls, only at the first
FAULTS = [("ENOSPC once at", errno.ENOSPC, False, TOUCHES, False), ("EIO once at", errno.EIO, False, TOUCHES, False),
          ("a used-up quota from", errno.EDQUOT, True, TAKES_ROOM, False),
          ("a read-only disk from", errno.EROFS, True, TOUCHES | {"unlink", "unlinkat"}, True)]
WRITERS = ["define", "redefine", "undefine", "autostart", "start", "create-transient"]
POINTS_OF_A_SHORT_RUN = 4


def plan_of(fault_, number):
    _, code, persists, names, _ = fault_
    # Reading goes on when a disk is full or read-only.
    return Plan({"daemon"}, number, errno=code if number else 0, persists=persists, names=names, creating=persists,
                under=STATE)


def fault(bench, operation, kind, number):
    case = bench.case(OPERATIONS[operation])
    case.prepare(bench.connection)
    before = picture(bench.connection, case.name)
    report, is_acknowledged, error = bench.traced(case, plan_of(kind, number))
    wrong = []
    if not bench.env.daemon.is_running():
        wrong.append(f"the daemon ended: {bench.env.daemon.log_text(5)}")
        bench.restart()
        bench.reconnect()
    after = picture(bench.connection, case.name)
    if not is_acknowledged and after != before:
        wrong.append(f"failed ({error}), but the state changed")
    if is_acknowledged:
        wrong += case.wrong(bench.connection, known(bench.connection), True)
    wrong += settled(lambda: bench.look(case, is_acknowledged))
    # What the next daemon finds. A domain with autostart then runs.
    bench.restart()
    bench.reconnect()
    again = picture(bench.connection, case.name)
    if (after is None) != (again is None) or (after and again and after[1:] != again[1:]):
        wrong.append(f"was {summary(after)} ({'acknowledged' if is_acknowledged else error}), "
                     f"the next daemon says {summary(again)}")
    wrong += bench.afterwards(case)
    call = report.calls[number - 1] if len(report.calls) >= number else None
    return (f"{call.name} {call.what}" if call else "no call"), wrong, report.fired


def summary(picture_):
    if picture_ is None:
        return "not there"
    return f"state {picture_[0]}, autostart {picture_[1]}, {hash(picture_[2]) & 0xffff:04x}"


@test(["userns"])
def each_write_fails(env):
    """F12, F13"""
    if not can_inject_errors():
        raise harness.Skip("errors are injected on x86_64 only (tests/support/tracer.py)")
    violations = []
    with Bench(env) as bench:
        for operation in WRITERS:
            began, fired = time.monotonic(), 0
            for index, kind in enumerate(FAULTS):
                case = bench.case(OPERATIONS[operation])
                case.prepare(bench.connection)
                report, is_acknowledged, error = bench.traced(case, plan_of(kind, 0))
                check(is_acknowledged, f"{operation} without a fault: {error}")
                bench.clean(case)
                total = len(report.calls)
                check(total > 0 or kind[2], f"{operation} writes nothing?")  # to remove takes no room
                stride = Options.stride or max(1, -(-total // POINTS_OF_A_SHORT_RUN))
                for number in [1] if kind[-1] else range(1 + index % stride, total + 1, stride):
                    call, wrong, has_fired = fault(bench, operation, kind, number)
                    fired += has_fired
                    for line in wrong:
                        violations.append(f"{operation}: {kind[0]} call {number} of {total} ({call}): {line}")
                        print(f"     {violations[-1]}", flush=True)
            print(f"     {operation}: {fired} faults ({time.monotonic() - began:.1f} s)", flush=True)
    none(violations)


# ---- F15 -----------------------------------------------------------------------------------------------------------------

def remove_what_lies_at(path):
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def truncated(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def bit_flipped(path):
    data = bytearray(path.read_bytes())
    # The first letter of a name: of an element, or of the header.
    at = data.index(b"domain") if b"domain" in data else 0
    data[at] ^= 0x80
    path.write_bytes(data)


def foreign_owner(path):
    os.chown(path, 12345, 12345)


def symlink(path):
    target = path.with_name(".elsewhere")
    path.rename(target)
    path.symlink_to(target)


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def directory(path):
    path.unlink()
    path.mkdir()


def huge(path):
    os.truncate(path, 100 << 20)


def nul_bytes(path):
    path.write_bytes(path.read_bytes().replace(b"\n", b"\0"))


def foreign_uuid(path):
    text = path.read_text()
    path.write_text(text.replace(path.stem, str(uuid_module.uuid4())))


DAMAGES = [truncated, empty, bit_flipped, foreign_owner, symlink, fifo, directory, huge, nul_bytes]


@test(["userns"])
def damaged_definitions_are_set_aside(env):
    """F15: each kind at once, one domain for each; all the others load."""
    import libvirt
    connection = env.open()
    damages = DAMAGES + [foreign_uuid]
    for damage in damages:
        connection.defineXML(env.domain_xml(f"{PREFIX}{damage.__name__}"))
    sound = connection.defineXML(env.domain_xml(f"{PREFIX}sound"))
    sound.create()
    uuids = {name: uuid for name, (_, _, uuid, _) in known(connection).items()}
    del sound
    connection.close()
    env.daemon.kill()
    for damage in damages:
        damage(pathlib.Path(DEFINITIONS, uuids[f"{PREFIX}{damage.__name__}"] + ".xml"))
    took = restart(env)
    check(took < invariants.answer_limit_s(), f"the first answer took {took:.2f} s")
    connection = env.open()
    said = known(connection)
    log = env.daemon.log_text(200)
    missing = [damage.__name__ for damage in damages if f"{PREFIX}{damage.__name__}" in said]
    equal(missing, [], "damaged and loaded all the same")
    equal(said[f"{PREFIX}sound"][0], libvirt.VIR_DOMAIN_RUNNING)
    for damage in damages:
        uuid = uuids[f"{PREFIX}{damage.__name__}"]
        check(any(uuid in line and "set aside" in line for line in log.splitlines()), f"no word of {damage.__name__}: {log}")
        # The name and the uuid are free again.
        connection.defineXML(env.domain_xml(f"{PREFIX}{damage.__name__}", uuid=uuid))
    for name in list(said):
        connection.lookupByName(name).destroy() if name.endswith("sound") else None
    for domain in connection.listAllDomains():
        domain.undefine()
    del domain
    connection.close()
    tidy(DEFINITIONS)


@test(["userns"])
def damaged_leases_are_set_aside(env):
    """F15: the domain gets another lease, the others keep theirs."""
    connection = env.open()
    for damage in DAMAGES:
        domain = connection.defineXML(env.domain_xml(f"{PREFIX}{damage.__name__}"))
        domain.create()
        domain.destroy()
    uuids = {name: uuid for name, (_, _, uuid, _) in known(connection).items()}
    connection.close()
    env.daemon.kill()
    for damage in DAMAGES:
        damage(pathlib.Path(LEASES, uuids[f"{PREFIX}{damage.__name__}"]))
    took = restart(env)
    check(took < invariants.answer_limit_s(), f"the first answer took {took:.2f} s")
    connection = env.open()
    equal(len(known(connection)), len(DAMAGES))
    log = env.daemon.log_text(200)
    for damage in DAMAGES:
        name = f"{PREFIX}{damage.__name__}"
        check(any(uuids[name] in line and "set aside" in line for line in log.splitlines()),
              f"no word of {damage.__name__}: {log}")
        connection.lookupByName(name).create()
    equal(disagree(env, connection), [])
    for domain in connection.listAllDomains():
        domain.destroy()
        domain.undefine()
    del domain
    connection.close()
    tidy(LEASES)


@test(["userns"])
def damaged_run_files_end_nobody_else(env):
    """F15: status and plan of running domains. Whose status cannot be read is ended and said to be off (its definition is
    there); nothing of it runs on unseen. The others run on."""
    import libvirt
    connection = env.open()
    kinds = [(damage, suffix) for suffix in (".status", ".plan") for damage in DAMAGES]
    for damage, suffix in kinds:
        connection.defineXML(env.domain_xml(f"{PREFIX}{damage.__name__}{suffix}")).create()
    connection.defineXML(env.domain_xml(f"{PREFIX}sound")).create()
    uuids = {name: uuid for name, (_, _, uuid, _) in known(connection).items()}
    connection.close()
    env.daemon.kill()
    for damage, suffix in kinds:
        damage(pathlib.Path(RUN, uuids[f"{PREFIX}{damage.__name__}{suffix}"] + suffix))
    took = restart(env)
    check(took < 5 * invariants.busy_factor(), f"the first answer took {took:.2f} s")
    connection = env.open()
    equal(settled(lambda: disagree(env, connection)), [])
    equal(known(connection)[f"{PREFIX}sound"][0], libvirt.VIR_DOMAIN_RUNNING)
    for domain in connection.listAllDomains():
        if domain.isActive():
            domain.destroy()
        domain.create()
        domain.destroy()
        domain.undefine()
    del domain
    connection.close()
    equal([str(path) for path in pathlib.Path(RUN).iterdir() if not path.name.startswith(".")], [], "left in /run")
    tidy(RUN)


def restart(env):
    began = time.monotonic()
    env.daemon.start()
    connection = env.open()
    connection.listAllDomains()
    connection.close()
    return time.monotonic() - began


def disagree(env, connection):
    said = known(connection)
    return invariants.disagreements(said, PREFIX, env.daemon.cgroup, must=list(said))


def tidy(folder):
    """What was set aside is a person's to look at, and the tests' to remove."""
    for path in pathlib.Path(folder).glob(".*"):
        if path.name.startswith((".broken-", ".elsewhere")):
            remove_what_lies_at(path)


# ---- F16 -----------------------------------------------------------------------------------------------------------------

@test(["userns"])
def a_second_daemon_is_refused(env):
    """F16: on the same run directory; on another one with the same leases; and nothing of the first one changes."""
    name = env.start(f"{PREFIX}two")
    for more in ([], ["--run-dir", "/run/libvirt/other", "--listen-dir", "/run/libvirt/other"]):
        began = time.monotonic()
        second = subprocess.run(env.daemon.argv() + more, capture_output=True, text=True, timeout=30, check=False)
        equal(second.returncode, 1, f"exit code of a second daemon {more}: {second.stderr}")
        contains(second.stderr, "held by another process" if more else "another virtusernsd is running")
        check(time.monotonic() - began < 5 * invariants.busy_factor(), "it took long")
        equal(env.state(name), ("running", "booted"))
    for path in sorted(pathlib.Path("/run/libvirt/other").glob("*")):
        path.unlink()
    pathlib.Path("/run/libvirt/other").rmdir()


@test(["userns"])
def a_stale_lock_stops_nobody(env):
    """F16: the files of a daemon that was killed, with the pid of somebody who lives."""
    env.daemon.kill()
    pathlib.Path("/run/libvirt/virtusernsd.pid").write_text(f"{os.getpid()}\n")
    check(pathlib.Path(LEASES, ".lock").exists(), "the lock of the leases")
    took = restart(env)
    check(took < invariants.answer_limit_s(), f"the first answer took {took:.2f} s")


@test(["userns"])
def a_planted_fault_is_reported(env):
    """A daemon that forgot a change that it refused, or kept one: both are seen."""
    connection = env.open()
    name = f"{PREFIX}planted"
    connection.defineXML(env.domain_xml(name))
    before = picture(connection, name)
    uuid = known(connection)[name][2]
    path = pathlib.Path(DEFINITIONS, f"{uuid}.xml")
    path.write_text(path.read_text().replace("262144", "131072"))
    connection.close()
    env.daemon.kill()
    restart(env)
    connection = env.open()
    check(picture(connection, name)[1:] != before[1:], "another definition looks the same")
    connection.lookupByName(name).undefine()
    equal(picture(connection, name), None)
    connection.close()
    check(json.dumps(summary(None)) != json.dumps(summary(before)), "a domain that is gone looks the same")


if __name__ == "__main__":
    parse_options()
    main()
