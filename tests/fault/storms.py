#!/usr/bin/env python3
"""F38: what a container does to keep itself from being ended: destroy ends, and others are answered meanwhile.

    tests/fault/storms.py --driver userns [-k TEST]
"""
import os
import pathlib
import shutil
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
from bench import Bench, Destroy, parse_options  # noqa: E402
from harness import check, equal, eventually, main, matches, test  # noqa: E402
from invariants import settled  # noqa: E402

DESTROY_S, ANSWER_S = 10, 2

# What each init does, and how it is seen to have begun: by the number of processes in the container.
STORMS = {
    "a fork storm": ("storm() { storm | storm & }; storm; storm; while :; do storm; sleep 0.1; done", 20),
    "daemons": ("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do ( ( sleep 1000 & ) & ); done; while :; do sleep 1000; done", 12),
    "stopped processes": ("for i in 1 2 3 4 5 6; do sleep 1000 & kill -STOP $!; done; while :; do sleep 1000; done", 6),
    "traced processes": ("for i in 1 2 3; do /bin/probe traced & done; while :; do sleep 1000; done", 6),
}


def prepare(bench, case, script):
    """A domain of that case's name whose init is the script. Its root."""
    xml = bench.env.domain_xml(case.name, uuid=known_uuid(bench, case))
    root = pathlib.Path(matches(xml, r"<source dir='([^']+)'/><target dir='/'/>").group(1))
    shutil.copy(os.path.join(bench.env.daemon.build, "tests", "root", "probe"), root / "bin/probe")
    (root / "sbin/init").write_text(f"#!/bin/sh\n{script}\n")
    bench.connection.defineXML(xml)
    return root


def known_uuid(bench, case):
    return matches(bench.xml(case.name), r"<uuid>([^<]+)</uuid>").group(1)


def processes_of(bench, case):
    uuid = known_uuid(bench, case)
    for group in invariants.groups_below(bench.env.daemon.cgroup):
        if uuid in group and ("/pids/" in group or "/unified/" in group):
            return sum(len(pathlib.Path(where, "cgroup.procs").read_text().split())
                       for where, _, _ in os.walk(group))
    return 0


class Watch:
    """Another client all the while: the slowest of its answers."""

    def __init__(self, env):
        self.env, self.slowest, self.is_over = env, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.is_over.wait(0.05):
            began = time.monotonic()
            connection = self.env.open()
            connection.listAllDomains()
            connection.close()
            self.slowest = max(self.slowest, time.monotonic() - began)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()


@test(["userns"])
def destroy_in_a_storm(env):
    """F38"""
    with Bench(env) as bench:
        for what, (script, count) in STORMS.items():
            case = bench.case(Destroy)
            prepare(bench, case, script)
            domain = bench.connection.lookupByName(case.name)
            domain.create()
            eventually(lambda: processes_of(bench, case) > count, f"{what}: more than {count} processes")
            with Watch(env) as watch:
                began = time.monotonic()
                domain.destroy()
                took = time.monotonic() - began
            check(took < DESTROY_S * invariants.busy_factor(), f"{what}: destroy took {took:.1f} s")
            check(watch.slowest < ANSWER_S * invariants.busy_factor(), f"{what}: somebody waited {watch.slowest:.1f} s")
            print(f"     {what}: destroyed in {took:.2f} s, slowest answer to others {watch.slowest:.2f} s")
            del domain
            equal(settled(lambda: bench.look(case, True)) + bench.afterwards(case), [], what)


if __name__ == "__main__":
    parse_options()
    main()
