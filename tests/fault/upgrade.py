#!/usr/bin/env python3
"""F9: another version of the programs takes over running domains, and the first one again.

    [VIRTUSERNS_OTHER_BUILD=DIR] tests/fault/upgrade.py --driver userns

DIR is a build of another version. Without it, a copy of this build whose files are then removed, as an upgrade of a package
does: the controllers of running domains execute files that are gone. former/ has the status files of former versions of the
format, as they were written; a file there is never changed, one is added with each version.
"""
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
from bench import PREFIX, Bench, Destroy, parse_options  # noqa: E402
from harness import check, contains, equal, eventually, main, test  # noqa: E402
from invariants import RUN, controllers, known, settled, start_time  # noqa: E402

FORMER = pathlib.Path(__file__).resolve().parent / "former"
OTHER = os.environ.get("VIRTUSERNS_OTHER_BUILD", "")


def programs(build):
    return [path for path in pathlib.Path(build, "driver").rglob("*")
            if path.is_file() and (path.suffix == ".so" or os.access(path, os.X_OK))]


@contextlib.contextmanager
def other_build(env):
    if OTHER:
        yield OTHER, lambda: None
        return
    copy = pathlib.Path(env.folder, "other")
    for path in programs(env.daemon.build):
        target = copy / path.relative_to(env.daemon.build)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)

    def remove():
        for path in programs(copy):
            path.unlink()
    yield str(copy), remove
    shutil.rmtree(copy)


def use(bench, build):
    """The daemon of that build takes over."""
    bench.connection.close()
    bench.env.daemon.kill()
    bench.env.daemon.build = build
    bench.restart()
    bench.connection = bench.env.open()


def all_is_right(bench, cases):
    must = [bench.neighbour.name] + [case.name for case in cases]
    equal(settled(lambda: invariants.disagreements(known(bench.connection), PREFIX, bench.env.daemon.cgroup, must)), [])


def lives_on(bench, case, was):
    """It is the one that was started, and everything can be done with it."""
    import libvirt
    equal(controllers(case.name), was, "the controller")
    domain = bench.connection.lookupByName(case.name)
    for act, state in ((domain.suspend, libvirt.VIR_DOMAIN_PAUSED), (domain.resume, libvirt.VIR_DOMAIN_RUNNING)):
        act()
        equal(domain.state()[0], state)
    domain.setMemoryFlags(131072, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    check(domain.info()[3] > 0, "it is told how many processors it has")


@test(["userns"])
def there_and_back(env):
    """F9: this version, the other one, this one again; what each started runs on under the other."""
    with Bench(env, is_served=False) as bench, other_build(env) as (other, remove_other):
        ours = env.daemon.build
        cases = []
        for build in (ours, other, ours):
            use(bench, build)
            case = bench.case(Destroy)
            case.prepare(bench.connection)
            cases.append((case, controllers(case.name)))
            if build == other:
                remaining = remove_other
            for some, was in cases:
                equal(controllers(some.name), was, "the controller")
        remaining()
        all_is_right(bench, [case for case, _ in cases])
        for case, was in cases:
            lives_on(bench, case, was)
            # Its controller is of the version that started it, and boots it once more.
            bench.connection.lookupByName(case.name).reset()
            equal(controllers(case.name), was, "the controller")
        all_is_right(bench, [case for case, _ in cases])
        equal(bench.neighbour.noticed(), [])
        for case, _ in cases[1:]:
            bench.connection.lookupByName(case.name).destroy()
        # A controller of the other version that is killed: its remains are this version's to remove.
        os.kill(cases[0][1][cases[0][0].name][0], 9)
        eventually(lambda: not bench.connection.lookupByName(cases[0][0].name).isActive(), "the crash is noticed")
        equal(bench.afterwards(cases[0][0]), [])


def filled(text, values):
    return re.sub(r"@([A-Z_]+)@", lambda found: str(values[found.group(1)]), text)


@test(["userns"])
def status_files_of_former_versions(env):
    """F9: each is read, and the domain it tells of is the one that runs."""
    import libvirt
    formers = sorted(FORMER.glob("status-*.xml"))
    check(formers, f"there are none in {FORMER}")
    with Bench(env, is_served=False) as bench:
        for former in formers:
            case = bench.case(Destroy)
            case.prepare(bench.connection)
            pid = controllers(case.name)[case.name][0]
            init = invariants.inits(pid)[0]
            uuid = known(bench.connection)[case.name][2]
            path = pathlib.Path(RUN, f"{uuid}.status")
            now = path.read_text()
            root = re.search(r"<source dir='([^']+)'/>", now).group(1)
            target, count = re.search(r"target='(\d+)' count='(\d+)'", now).groups()
            bench.connection.close()
            env.daemon.kill()
            path.write_text(filled(former.read_text(), {
                "NAME": case.name, "UUID": uuid, "CONTROLLER": pid, "CONTROLLER_START": start_time(pid), "INIT": init,
                "INIT_START": start_time(init), "ROOT": root, "TARGET": target, "COUNT": count,
                "CGROUP": re.search(r"<cgroup>([^<]+)<", now).group(1)}))
            bench.restart()
            bench.connection = env.open()
            all_is_right(bench, [case])
            lives_on(bench, case, {case.name: [pid]})
            equal(known(bench.connection)[case.name][0], libvirt.VIR_DOMAIN_RUNNING)
            check(path.read_text() != former.read_text(), "it is not written in today's format")
            equal(bench.afterwards(case), [], former.name)


@test(["userns"])
def a_status_of_a_newer_version_is_not_guessed(env):
    """F9, back: the daemon says what it needs and ends; everything runs on; the newer one finds it."""
    import libvirt
    with Bench(env, is_served=False) as bench:
        case = bench.case(Destroy)
        case.prepare(bench.connection)
        was, uuid = controllers(case.name), known(bench.connection)[case.name][2]
        path = pathlib.Path(RUN, f"{uuid}.status")
        bench.connection.close()
        env.daemon.kill()
        written = path.read_text()
        newer = re.sub(r"version='\d+'", "version='4000000000'", written, count=1).replace("<cgroup>", "<what/><cgroup>")
        path.write_text(newer)
        before = sorted((entry.name, entry.stat().st_mtime_ns) for entry in pathlib.Path(RUN).iterdir()
                        if uuid in entry.name)
        second = subprocess.run(env.daemon.argv(), capture_output=True, text=True, timeout=30, check=False)
        equal(second.returncode, 1, "exit code of the daemon")
        for part in (uuid, "version 4000000000", "start the newer virtusernsd", str(was[case.name][0])):
            contains(second.stderr, part)
        equal(controllers(case.name), was, "the controller")
        equal(sorted((entry.name, entry.stat().st_mtime_ns) for entry in pathlib.Path(RUN).iterdir()
                     if uuid in entry.name), before, "files of the domain")
        path.write_text(written)
        bench.restart()
        bench.connection = env.open()
        all_is_right(bench, [case])
        lives_on(bench, case, was)
        # Of one that has ended meanwhile nothing is lost with its status.
        bench.connection.close()
        env.daemon.kill()
        path.write_text(newer)
        os.kill(was[case.name][0], 9)
        eventually(lambda: not invariants.is_alive(was[case.name][0]), "the controller is dead")
        bench.restart()
        bench.connection = env.open()
        equal(known(bench.connection)[case.name][0], libvirt.VIR_DOMAIN_SHUTOFF)
        equal(bench.afterwards(case), [])


if __name__ == "__main__":
    parse_options()
    main()
