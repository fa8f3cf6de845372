#!/usr/bin/env python3
"""F31: clients that are killed in the middle of something long. It is completed or undone, and nobody else notices.

    tests/fault/client_kill.py --driver userns
"""
import pathlib
import random
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from bench import Bench, Destroy, none, parse_options  # noqa: E402
from harness import main, test  # noqa: E402
from invariants import settled  # noqa: E402

ROUNDS = 4
STREAM = """
import libvirt, sys, time
connection = libvirt.open(sys.argv[1])
stream = connection.newStream(0)
connection.lookupByName(sys.argv[2]).openConsole(None, stream, 0)
time.sleep(100)
"""


def clients(env, name):
    """What runs for a while: (what, command)"""
    virsh = ["virsh", "-c", env.uri]
    return [("start", virsh + ["start", name]), ("suspend", virsh + ["suspend", name]), ("reset", virsh + ["reset", name]),
            ("a console that nobody reads", [sys.executable, "-c", STREAM, env.uri, name]),
            ("a stream of events", virsh + ["event", "--all", "--loop"]), ("destroy", virsh + ["destroy", name])]


@test(["userns"])
def nothing_is_half_done(env):
    """F31"""
    rng, violations = random.Random(31), []
    with Bench(env) as bench:
        case = bench.case(Destroy)
        case.is_running = False
        case.prepare(bench.connection)
        for _ in range(ROUNDS):
            for what, command in clients(env, case.name):
                client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(rng.uniform(0.005, 0.15))
                client.kill()
                client.wait()
                violations += [f"{what}: {line}" for line in settled(lambda: bench.look(case, False))]
                violations += [f"{what}: {line}" for line in bench.neighbour.noticed()]
        violations += bench.afterwards(case)
    for line in violations:
        print(f"     {line}")
    none(violations)


if __name__ == "__main__":
    parse_options()
    main()
