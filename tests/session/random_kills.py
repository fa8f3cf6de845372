#!/usr/bin/env python3
"""A user's daemon, newuidmap and newgidmap killed, and the user logged out, at random moments of anything that a user does.

    VIRTUSERNS_KILLS=100 VIRTUSERNS_SEED=1 tests/session/random_kills.py

Afterwards the next daemon tells the truth, and nothing is left and nothing lost. In a logout the runtime directory goes, as
logind removes it. What ran lives on, with or without its daemon, where logind.conf lets processes do so (Debian's default); or
all processes end, as those of user@.service do.
"""
import concurrent.futures
import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from users import URI, comm_of, command_of, id_map, main, pids_of, test  # noqa: E402
from harness import check, contains, daemon_module, equal, eventually  # noqa: E402

DIRECT = f"{URI}?mode=direct"
HELPERS = ("newuidmap", "newgidmap")
PROGRAMS = "/home/.real"


KILLS = int(os.environ.get("VIRTUSERNS_KILLS", "14"))
CHUNK = 30
SEED = int(os.environ.get("VIRTUSERNS_SEED", random.SystemRandom().randrange(1_000_000)))


@contextlib.contextmanager
def slow_helpers():
    """In front of newuidmap and newgidmap something that takes its time before and after, so that a kill meets them before
    they have mapped, while they do it and when they have."""
    os.mkdir(PROGRAMS)
    bound = []
    try:
        for name in HELPERS:
            shutil.copy(f"/usr/bin/{name}", f"{PROGRAMS}/{name}")
            os.chmod(f"{PROGRAMS}/{name}", 0o4755)
            script = pathlib.Path(PROGRAMS, f"slow-{name}")
            script.write_text(f"#!/bin/sh\nsleep 0.02\n{PROGRAMS}/{name} \"$@\" || exit 1\nsleep 0.02\n")
            script.chmod(0o755)
            daemon_module._run("mount", "--bind", str(script), f"/usr/bin/{name}")
            bound.append(f"/usr/bin/{name}")
        yield
    finally:
        for path in bound:
            daemon_module._run("umount", path)
        shutil.rmtree(PROGRAMS)


def kill(pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def remove_runtime_directory(user):
    shutil.rmtree(user.run_dir, ignore_errors=True)
    eventually(lambda: shutil.rmtree(user.run_dir, ignore_errors=True) or not user.run_dir.exists(), "it is gone")


def log_in(user):
    user.run_dir.mkdir(mode=0o700)
    os.chown(user.run_dir, user.uid, user.uid)


def kill_daemon(user):
    kill(user.daemons())


def kill_helper(user, choose, until):
    """One of them, as soon as it is seen and some time has gone by. Looks for no longer than `until` says. Whether there was one."""
    pause_s = choose.uniform(0, 0.05)
    while until():
        found = [pid for pid in pids_of(user.uid) if any(name in word for word in command_of(pid) for name in HELPERS)]
        if found:
            time.sleep(pause_s)
            kill([choose.choice(found)])
            return True
    return False


def log_out_with_daemon_left(user):
    remove_runtime_directory(user)
    log_in(user)


def log_out_with_domains_left(user):
    kill_daemon(user)
    log_out_with_daemon_left(user)


def log_out_altogether(user):
    eventually(lambda: kill(pids_of(user.uid)) or not pids_of(user.uid), "all processes have ended")
    log_out_with_daemon_left(user)


def controllers(user):
    return [pid for pid in pids_of(user.uid) if comm_of(pid) == "virtuserns-ctl"]


class World:
    """What there has to be: `web`, which was started and ended at random; `kept`, which nobody touches."""

    def __init__(self, anna):
        self.anna = anna
        self.roots = {name: anna.root(name, "--first", anna.first + 65536 * number)
                      for number, name in enumerate(("web", "kept", "short"))}
        self.serve()
        for name in ("web", "kept"):
            anna.define(name, self.roots[name]).ok()
        self.virsh("start", "kept").ok()
        self.kept = self.virsh("dumpxml", "--inactive", "kept").ok().out
        self.kept_init = anna.init("kept")
        self.xml = {name: anna.write_xml(anna.xml(name, self.roots[name])) for name in ("web", "short")}

    def virsh(self, *words):
        """Directly: for the plain URI the client starts libvirtd when it finds no socket."""
        return self.anna.virsh(*words, uri=DIRECT)

    def serve(self):
        """As the next login does it: the client starts the daemon when there is none that listens."""
        eventually(lambda: self.virsh("list").code == 0, "a daemon serves", 20)

    def act(self, call):
        words = {"define": ("define", self.xml["web"]), "create": ("create", self.xml["short"])}.get(call, (call, "web"))
        self.virsh(*words)
        if call == "create":
            self.virsh("destroy", "short")

    def has_one_truth(self, what, kept_lives):
        anna = self.anna
        self.serve()
        eventually(lambda: len(anna.daemons()) == 1, f"{what}: one daemon, and not {anna.daemons()}")
        equal(self.virsh("dumpxml", "--inactive", "kept").ok().out, self.kept, f"{what}: the definition nobody touched")
        if kept_lives:
            equal(self.virsh("domstate", "kept").ok().out.strip(), "running", what)
            equal(anna.init("kept"), self.kept_init, f"{what}: its init")
        names = set(self.virsh("list", "--all", "--name").ok().out.split())
        check({"web", "kept"} <= names <= {"web", "kept", "short"}, f"{what}: domains {names}")
        running = {name for name in names if self.virsh("domstate", name).out.strip() == "running"}
        # A domain is off a moment before its controller, which has told so, has ended.
        eventually(lambda: sorted(running) == self.held(), lambda: f"{what}: what runs is {running}, as is said, and not {self.held()}", 5)
        for name in running:
            maps = id_map(anna.init(name))
            first = self.roots[name].stat().st_uid
            equal(maps, [(0, first, 65536)], f"{what}: ids of {name}")
        stray = [command_of(pid) for pid in pids_of(anna.uid)
                 if any(name in " ".join(command_of(pid)) for name in HELPERS)]
        equal(stray, [], f"{what}: helpers left")
        of_runs = {re.sub(r"\..*", "", name) for name in anna.files_of_runs()}
        equal(len(of_runs), len(running), f"{what}: files of runs {anna.files_of_runs()}")

    def held(self):
        """The domains of all controllers."""
        return sorted(word for pid in controllers(self.anna) for word in command_of(pid) if word in self.roots)

    def settle(self):
        """And what was lost by a logout runs again, from the same definition, in the same ids."""
        anna = self.anna
        self.virsh("destroy", "short")
        if self.virsh("domstate", "kept").ok().out.strip() != "running":
            self.virsh("start", "kept").ok()
            self.kept_init = anna.init("kept")


VICTIMS = ("daemon", "helper", "helper", "logout, daemon left", "logout, domains left", "logout altogether")


def kill_at_random(env, kills, seed):
    print(f"VIRTUSERNS_KILLS={kills} VIRTUSERNS_SEED={seed}")
    anna, choose = env.anna, random.Random(seed)
    hits = []
    with slow_helpers(), concurrent.futures.ThreadPoolExecutor(1) as actor:
        world = World(anna)
        for number in range(kills):
            call, victim = choose.choice(("start", "destroy", "reboot", "shutdown", "define", "create")), choose.choice(VICTIMS)
            delay_s = choose.uniform(0, 0.25)
            what = f"seed {seed}, round {number}: {victim} {delay_s * 1000:.0f} ms after {call}"
            if victim == "helper":
                world.virsh("destroy", "web")
                call = choose.choice(("start", "create"))
            action = actor.submit(world.act, call)
            if victim == "helper":
                hits.append(kill_helper(anna, choose, lambda: not action.done()))
            else:
                time.sleep(delay_s)
                {"daemon": kill_daemon, "logout, daemon left": log_out_with_daemon_left,
                 "logout, domains left": log_out_with_domains_left, "logout altogether": log_out_altogether}[victim](anna)
            action.result()
            world.has_one_truth(what, kept_lives=victim != "logout altogether")
            world.settle()
        for name in ("web", "kept"):
            world.virsh("destroy", name)
        equal(anna.files_of_runs(), [], "files of runs")
        eventually(lambda: not controllers(anna), lambda: f"no controllers, and not {[command_of(pid) for pid in controllers(anna)]}", 5)
    check(len(hits) < 4 or hits.count(True) * 2 >= len(hits), f"of {len(hits)} helpers {hits.count(False)} were not met")


@test
def at_random_moments(env):
    kill_at_random(env, min(KILLS, CHUNK), SEED)


def more_moments(number):
    """One test has two minutes."""
    def at_more_random_moments(env):
        kill_at_random(env, min(KILLS - number * CHUNK, CHUNK), SEED + number)
    at_more_random_moments.__name__ += f"_{number}"
    test(at_more_random_moments)


for more in range(1, -(-KILLS // CHUNK)):
    more_moments(more)


@test
def another_boot_of_the_machine(env):
    """What a former boot has left of runs goes; what it has defined stays."""
    anna = env.anna
    boots = anna.home / ".local/state/libvirt/userns/boots"
    anna.start_daemon()
    anna.define("web", anna.root("web")).ok()
    anna.end_daemons()
    (now,) = boots.iterdir()
    equal(now.name, pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    former, other = boots / "11111111-2222-3333-4444-555555555555", boots / "of-somebody"
    for folder in (former, other):
        anna.run("sh", "-c", f"mkdir {folder}; touch {folder}/some.status").ok()
    anna.start_daemon()
    equal({path.name for path in boots.iterdir()}, {now.name, other.name})
    contains(anna.virsh("list", "--all", "--name").ok().out, "web")
    shutil.rmtree(other)


@test
def a_second_daemon_of_the_same_domains(env):
    """Refused, as long as the first can be reached."""
    anna = env.anna
    anna.start_daemon()
    said = anna.run("virtusernsd", "--listen-dir", anna.home / ".other")
    equal(said.code, 1, said.out + said.err)
    contains(said.err, "another virtusernsd is running")
    contains(said.err, str(anna.daemon.pid))
    check(anna.daemon.poll() is None, "the first was ended")
    shutil.rmtree(anna.home / ".other")


if __name__ == "__main__":
    main()
