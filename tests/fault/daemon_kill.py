#!/usr/bin/env python3
"""kill -9 of the daemon at random moments of what ten domains do: nothing lost, nothing orphaned, states right at once.

    VIRTUSERNS_KILLS=100 VIRTUSERNS_SEED=1 tests/fault/daemon_kill.py --driver userns

Each round: some clients start, suspend, resume, reboot and destroy domains; after a random time the daemon is killed
and started again. Within a second of its start every domain must be known, and what the daemon says of it must be what
the kernel says: running or paused if and only if exactly one controller and one init live for it, with the cgroup
frozen or not; shut off if and only if none does.
"""
import os
import pathlib
import random
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
import harness  # noqa: E402
from harness import check, equal, main, test  # noqa: E402

DOMAINS = 10
SETTLE_S = 1.0


# The machine is shared: controllers of other runs are told apart by the names of their domains.
PREFIX = f"chaos-{os.getpid()}-"


def act(env, rng, names, stop):
    """What a client does until it is told to stop. The daemon may be gone at any moment: errors are expected."""
    while not stop.is_set():
        name = rng.choice(names)
        verb = rng.choice(["start", "start", "start", "suspend", "resume", "reboot", "destroy", "shutdown"])
        try:
            subprocess.run(["virsh", "-c", env.uri, verb, name], capture_output=True, timeout=20, check=False)
        except subprocess.TimeoutExpired:
            pass


def differences(env, names):
    """What the daemon says against what the kernel says; empty when they agree."""
    connection = env.open()
    try:
        return invariants.disagreements(invariants.known(connection), PREFIX, env.daemon.cgroup, must=names)
    finally:
        connection.close()


def round_of_kill(env, rng, names):
    stop = threading.Event()
    clients = [threading.Thread(target=act, args=(env, random.Random(rng.random()), names, stop)) for _ in range(3)]
    for client in clients:
        client.start()
    time.sleep(rng.uniform(0.0, 0.4))
    env.daemon.kill()
    stop.set()
    for client in clients:
        client.join()
    env.daemon.start()
    # A container may be going down or up by itself (shutdown, reboot): what disagrees must agree within the second.
    return invariants.settled(lambda: differences(env, names), SETTLE_S)


def wanted_kills():
    return int(os.environ.get("VIRTUSERNS_KILLS", "100"))


@test(["userns"])
def states_are_right_after_every_kill(env):
    rng = random.Random(int(os.environ.get("VIRTUSERNS_SEED", "1")))
    kills = wanted_kills()
    names = [env.define(f"{PREFIX}{i}") for i in range(DOMAINS)]
    for number in range(kills):
        wrong = round_of_kill(env, rng, names)
        check(not wrong, f"after kill {number + 1}: {'; '.join(wrong)}")
    # Every domain can still be ended, started and used.
    for name in names:
        env.virsh("destroy", name)
        env.virsh("start", name).ok()
        equal(env.state(name), ("running", "booted"))
        env.virsh("destroy", name).ok()


if __name__ == "__main__":
    harness.TEST_TIMEOUT_S = (60 + 2 * wanted_kills()) * harness.daemon_module.TIME_FACTOR
    main()
