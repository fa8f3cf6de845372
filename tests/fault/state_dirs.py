#!/usr/bin/env python3
"""Directories that are full or read-only (F14), and leases that somebody changed (F17).

    tests/fault/state_dirs.py --driver userns [-k TEST]
"""
import contextlib
import errno
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
from bench import PREFIX, Bench, Destroy, none, parse_options  # noqa: E402
from daemon import PRIVATE_FOLDERS  # noqa: E402
from harness import check, equal, eventually, main, test  # noqa: E402
from invariants import LEASES, controllers, known, settled  # noqa: E402


# ---- F14 -----------------------------------------------------------------------------------------------------------------

def remount(folder, *options):
    subprocess.run(["mount", "-o", ",".join(("remount", *options)), folder], check=True)


@contextlib.contextmanager
def full_of_bytes():
    """Each directory has no room for another page. (They are file systems of their own, and so small that this is soon.)"""
    fillers = []
    for folder in PRIVATE_FOLDERS:
        remount(folder, "size=1m")
        fillers.append(pathlib.Path(folder, ".filler"))
        with open(fillers[-1], "wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * 4096)
    yield errno.ENOSPC
    for filler in fillers:
        filler.unlink()
        remount(str(filler.parent), "size=50%")


@contextlib.contextmanager
def full_of_files():
    fillers = []
    for folder in PRIVATE_FOLDERS:
        remount(folder, "nr_inodes=200")
        fillers.append(pathlib.Path(folder, ".filler"))
        fillers[-1].mkdir()
        with contextlib.suppress(OSError):
            for number in range(1000):
                (fillers[-1] / str(number)).touch()
    yield errno.ENOSPC
    for filler in fillers:
        for path in filler.iterdir():
            path.unlink()
        filler.rmdir()
        remount(str(filler.parent), "nr_inodes=1m")


@contextlib.contextmanager
def read_only():
    # By another mount above: of the first one there are files open for writing.
    for folder in PRIVATE_FOLDERS:
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        remount(folder, "bind", "ro")
    yield errno.EROFS
    for folder in PRIVATE_FOLDERS:
        subprocess.run(["umount", folder], check=True)


@test(["userns"])
def domains_end_all_the_same(env):
    """F14: destroy and shutdown work; what is then left by force goes when there is room again."""
    import libvirt
    violations = []
    with Bench(env, is_served=False) as bench:
        for state in (full_of_bytes, full_of_files, read_only):
            ended, shut_down = bench.case(Destroy), bench.case(Destroy)
            for case in (ended, shut_down):
                case.prepare(bench.connection)
            with state() as code:
                refused = bench.case(Destroy)
                try:
                    bench.connection.defineXML(bench.xml(refused.name))
                    violations.append(f"{state.__name__}: a definition was stored where there is no room?")
                except libvirt.libvirtError as error:
                    check(os.strerror(code) in error.get_error_message(), f"{state.__name__}: {error.get_error_message()}")
                bench.connection.lookupByName(ended.name).destroy()
                bench.connection.lookupByName(shut_down.name).shutdown()
                eventually(lambda: not controllers(shut_down.name), f"{state.__name__}: the domain shuts down")
                must = [bench.neighbour.name, ended.name, shut_down.name]
                violations += [f"{state.__name__}: {line}" for line in settled(
                    lambda: invariants.disagreements(known(bench.connection), PREFIX, env.daemon.cgroup, must))]
            # A daemon that is killed now may find what could not be removed.
            bench.connection.close()
            bench.restart()
            bench.connection = env.open()
            violations += [f"{state.__name__}, then: {line}" for line in bench.afterwards(ended)]
    for line in violations:
        print(f"     {line}")
    none(violations)


# ---- F17 -----------------------------------------------------------------------------------------------------------------

def checksum(text):
    """As in conf/leases.cpp: whoever changes a lease by hand has read that."""
    value = 14_695_981_039_346_656_037
    for byte in text.encode():
        value = (value ^ byte) * 1_099_511_628_211 & (1 << 64) - 1
    return f"{value:016x}"


def write_lease(uuid, *lines):
    """(inside, outside, count), of users and groups alike."""
    text = "virtuserns-lease 1\nname changed\n" + "".join(
        f"{kind} {inside} {outside} {count}\n" for kind in ("uid", "gid") for inside, outside, count in lines)
    pathlib.Path(LEASES, uuid).write_text(text + f"sum {checksum(text)}\n")


def ids_of(name):
    """The ranges of host ids that the kernel has for a running domain: [(first, end)]."""
    init = invariants.inits(controllers(name)[name][0])[0]
    lines = [list(map(int, line.split())) for line in pathlib.Path(f"/proc/{init}/uid_map").read_text().splitlines()]
    return [(outside, outside + count) for _, outside, count in lines]


@test(["userns"])
def changed_leases_share_nothing(env):
    """F17: whatever the files say, two live domains never have the same ids, and none has ids of accounts."""
    connection = env.open()
    for name in ("lives", "steals", "twin", "other-twin", "low", "root", "unsorted", "high", "huge", "missing"):
        connection.defineXML(env.domain_xml(f"{PREFIX}{name}")).create()
    uuids = {name.removeprefix(PREFIX): uuid for name, (_, _, uuid, _) in known(connection).items()}
    first = {name: ids_of(f"{PREFIX}{name}")[0][0] for name in uuids}
    living = ids_of(f"{PREFIX}lives")
    for name in uuids:
        if name != "lives":
            connection.lookupByName(f"{PREFIX}{name}").destroy()
    connection.close()
    env.daemon.kill()
    # The judge judged: this is how leases are written.
    text = pathlib.Path(LEASES, uuids["twin"]).read_text()
    equal(text.split("sum ")[1].strip(), checksum(text.split("sum ")[0]), "checksum of a lease")
    write_lease(uuids["steals"], (0, first["lives"], 65536))
    write_lease(uuids["other-twin"], (0, first["twin"], 65536))
    write_lease(uuids["low"], (0, 1, 65536))
    write_lease(uuids["root"], (0, 0, 65536))
    write_lease(uuids["unsorted"], (32768, first["unsorted"] + 32768, 32768), (0, first["unsorted"], 32768))
    write_lease(uuids["high"], (0, 4294950000, 65536))
    write_lease(uuids["huge"], (0, 99999999999, 65536))
    pathlib.Path(LEASES, uuids["missing"]).unlink()
    env.daemon.start()
    connection = env.open()
    for name in uuids:
        domain = connection.lookupByName(f"{PREFIX}{name}")
        if not domain.isActive():
            domain.create()
    del domain
    equal(ids_of(f"{PREFIX}lives"), living, "of the domain that lived")
    ranges = sorted((*ids, name) for name in uuids for ids in ids_of(f"{PREFIX}{name}"))
    check(ranges[0][0] >= 65536, f"ids of accounts: {ranges[0]}")
    shared = [(one, two) for one, two in zip(ranges, ranges[1:]) if two[0] < one[1]]
    equal(shared, [], "shared ids")
    equal(invariants.disagreements(known(connection), PREFIX, env.daemon.cgroup,
                                   must=[f"{PREFIX}{name}" for name in uuids]), [])
    for domain in connection.listAllDomains():
        domain.destroy()
        domain.undefine()
    del domain
    connection.close()
    for path in pathlib.Path(LEASES).glob(".broken-*"):
        path.unlink()


if __name__ == "__main__":
    parse_options()
    main()
