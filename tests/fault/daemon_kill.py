#!/usr/bin/env python3
"""kill -9 of the daemon at random moments of what ten domains do: nothing lost, nothing orphaned, states right at once.

    tests/fault/daemon_kill.py --driver userns [--kills 100] [--seed N]

Each round: some clients start, suspend, resume, reboot and destroy domains; after a random time the daemon is killed
and started again. Within a second of its start every domain must be known, and what the daemon says of it must be what
the kernel says: running or paused if and only if exactly one controller and one init live for it, with the cgroup
frozen or not; shut off if and only if none does. A domain nobody touched since the last round must not have changed:
same controller, same init.
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
from harness import check, equal, main, test  # noqa: E402

DOMAINS = 10
SETTLE_S = 1.0


# The machine is shared: controllers of other runs are told apart by the names of their domains.
PREFIX = f"chaos-{os.getpid()}-"


def controllers():
    """name -> pids of controllers of this run, as the kernel has them."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            argv = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if argv[0].endswith(b"virtuserns-controller") and len(argv) > 1 and argv[1].startswith(PREFIX.encode()):
            found.setdefault(argv[1].decode(), []).append(int(entry))
    return found


def children(pid):
    try:
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                if not invariants.is_stem(child)]
    except OSError:
        return []


def is_frozen(pid):
    """Whether the process is in a frozen v1 or v2 group."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        _, names, path = line.split(":", 2)
        if names == "freezer":
            state = pathlib.Path(f"/sys/fs/cgroup/freezer{path}/freezer.state")
            if state.exists() and state.read_text().strip() != "THAWED":
                return True
        if names == "":
            for root in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
                events = pathlib.Path(f"{root}{path}/cgroup.events")
                if events.exists() and "frozen 1" in events.read_text():
                    return True
    return False


def act(env, rng, names, stop):
    """What a client does until it is told to stop. The daemon may be gone at any moment: errors are expected."""
    while not stop.is_set():
        name = rng.choice(names)
        verb = rng.choice(["start", "start", "start", "suspend", "resume", "reboot", "destroy", "shutdown"])
        try:
            subprocess.run(["virsh", "-c", env.uri, verb, name], capture_output=True, timeout=20, check=False)
        except subprocess.TimeoutExpired:
            pass


def said(env):
    """name -> (state, id), from the daemon."""
    import libvirt
    connection = libvirt.open(env.uri)
    try:
        return {domain.name(): (domain.state()[0], domain.ID()) for domain in connection.listAllDomains()}
    finally:
        connection.close()


def differences(env, names):
    """What the daemon says against what the kernel says; empty when they agree."""
    import libvirt
    wrong = []
    states, live = said(env), controllers()
    for name in names:
        if name not in states:
            wrong.append(f"{name} is lost")
            continue
        state, domain_id = states[name]
        pids = live.get(name, [])
        is_active = state in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED)
        if is_active and pids != [domain_id]:
            wrong.append(f"{name}: said {state} with id {domain_id}, controllers are {pids}")
        if not is_active and pids:
            wrong.append(f"{name}: said {state}, controllers are {pids}")
        if is_active and len(pids) == 1:
            inits = children(pids[0])
            if len(inits) != 1:
                wrong.append(f"{name}: {len(inits)} children of its controller beside its stem")
            elif is_frozen(inits[0]) != (state == libvirt.VIR_DOMAIN_PAUSED):
                wrong.append(f"{name}: said {state}, frozen is {is_frozen(inits[0])}")
    for name in live:
        if name not in names:
            wrong.append(f"a controller of unknown '{name}': {live[name]}")
    return wrong


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
    started = time.monotonic()
    wrong = differences(env, names)
    # A container may be going down or up by itself (shutdown, reboot): what disagrees must agree within the second.
    while wrong and time.monotonic() - started < SETTLE_S:
        time.sleep(0.05)
        wrong = differences(env, names)
    return wrong


@test(["userns"])
def states_are_right_after_every_kill(env):
    rng = random.Random(int(os.environ.get("VIRTUSERNS_SEED", "1")))
    kills = int(os.environ.get("VIRTUSERNS_KILLS", "100"))
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
    main()
