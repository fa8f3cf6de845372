#!/usr/bin/env python3
"""Many lives of domains, and the machine's own (faults F8, F10): nothing piles up, nothing is forgotten.

    tests/fault/lifetimes.py --driver userns [--stride 1]      with it 1000 starts instead of some
"""
import contextlib
import os
import pathlib
import shutil
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from bench import Options, parse_options  # noqa: E402
from harness import check, equal, eventually, main, test  # noqa: E402

CLIENTS, CYCLES, CYCLES_OF_A_FULL_RUN = 8, 10, 125


def cycles():
    return CYCLES_OF_A_FULL_RUN if Options.stride else CYCLES


def descriptors(env):
    return len(os.listdir(f"/proc/{env.daemon.process.pid}/fd"))


def rss_kb(env):
    for line in pathlib.Path(f"/proc/{env.daemon.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def is_gone(pid):
    """Or dead, and nobody has asked."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def remove_groups(env):
    root = pathlib.Path("/sys/fs/cgroup")
    groups = [*root.glob(f"{env.daemon.cgroup}/machine/virtuserns-*"), *root.glob(f"*/{env.daemon.cgroup}/machine/virtuserns-*")]
    for group in groups:
        with contextlib.suppress(OSError):
            group.rmdir()
    return not any(group.exists() for group in groups)


def at_once(count, work):
    """The first exception of any of them is ours."""
    problems = []

    def guarded(number):
        try:
            work(number)
        except Exception as problem:  # noqa: BLE001
            problems.append(problem)
    running = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if problems:
        raise problems[0]


def cycle(env, name, rounds):
    connection = env.open()
    domain = connection.lookupByName(name)
    for _ in range(rounds):
        domain.create()
        domain.destroy()
    connection.close()


@test(("userns",))
def starts_and_stops_of_eight_clients_leave_nothing(env):
    names = [env.define(f"cycle-{number}") for number in range(CLIENTS)]
    at_once(CLIENTS, lambda number: cycle(env, names[number], 2))  # what is made once is made
    before, memory = descriptors(env), rss_kb(env)
    at_once(CLIENTS, lambda number: cycle(env, names[number], cycles()))
    eventually(lambda: descriptors(env) <= before + 2, f"the descriptors of the daemon are {before} again")
    grown = rss_kb(env) - memory
    check(grown < 4096, f"the daemon grew by {grown} KiB in {CLIENTS * cycles()} lives")
    runs = sorted(path.name for path in pathlib.Path("/run/libvirt/userns").iterdir())
    check(not [name for name in runs if not name.endswith((".lock", ".pid"))], f"left in the run-time directory: {runs}")


@test(("userns",))
def clients_that_all_want_the_same_domain(env):
    """Each operation succeeds or says that the domain is running (or not); what is true in the end is what is told."""
    import libvirt
    name = env.define("wanted")
    allowed = (libvirt.VIR_ERR_OPERATION_INVALID,)

    def work(_):
        connection = env.open()
        domain = connection.lookupByName(name)
        for _ in range(cycles()):
            for act in (domain.create, domain.suspend, domain.resume, domain.destroy):
                try:
                    act()
                except libvirt.libvirtError as error:
                    check(error.get_error_code() in allowed, f"{act.__name__}: {error}")
        connection.close()
    at_once(CLIENTS, work)
    connection = env.open()
    domain = connection.lookupByName(name)
    if domain.isActive():
        domain.destroy()
    domain.create()
    equal(domain.state()[0], libvirt.VIR_DOMAIN_RUNNING)
    domain.destroy()
    connection.close()


@test(("userns",))
def what_a_reboot_of_the_machine_keeps(env):
    """F8: /run is empty, what is on disk is there; nothing runs but what starts automatically, once; leases are kept."""
    for name in ("plain", "auto", "gone"):
        env.define(name)
    env.virsh("autostart", "auto").ok()
    for name in ("plain", "auto"):
        env.virsh("start", name).ok()
    transient = env.open()
    transient.createXML(env.domain_xml("transient"), 0)
    transient.close()
    maps = {name: env.virsh("dumpxml", name).ok().out.split("<idmap>")[1].split("</idmap>")[0] for name in ("plain", "auto")}
    inits = [int(env.virsh("domid", name).ok().out) for name in ("plain", "auto", "transient")]
    # The machine goes down: everything dies, in any order, and /run with it.
    env.daemon.kill()
    for pid in inits:
        os.kill(pid, 9)
    eventually(lambda: all(is_gone(pid) for pid in inits), "the controllers are gone")
    eventually(lambda: remove_groups(env), "their groups are gone, as all groups are")
    for entry in pathlib.Path("/run/libvirt").iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    env.daemon.start()
    eventually(lambda: env.state("auto")[0] == "running", "autostart")
    equal(env.state("plain")[0], "shut off")
    equal(sorted(row[1] for row in env.virsh("list", "--all").ok().table()), ["auto", "gone", "plain"])
    env.virsh("start", "plain").ok()
    for name, text in maps.items():
        equal(env.virsh("dumpxml", name).ok().out.split("<idmap>")[1].split("</idmap>")[0], text, f"ids of {name}")
    time.sleep(0.5)
    equal(int(env.virsh("domid", "auto").ok().out) > 0, True)


if __name__ == "__main__":
    parse_options()
    main()
