"""kill -9 at any moment of a command: nothing is mounted or attached afterwards, the machine's disk is what it was, and the next
run of the same command finishes it or undoes it.

    VIRTUSERNS_BUILD=build tests/convert/kills.py --driver userns [-k EXPRESSION]

Moments are random, of a seed that is printed; VIRTUSERNS_KILLS says how many of each command.
"""
import os
import pathlib
import random
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
from harness import check, contains, equal, eventually, main, test  # noqa: E402
from lab import Lab, checksum, expect_unused, in_container, small_disk  # noqa: E402

KILLS = min(int(os.environ.get("VIRTUSERNS_KILLS", "4")), 60)
SEED = int(os.environ.get("VIRTUSERNS_SEED", time.time_ns() % 1_000_000))


class Killer:
    def __init__(self, env):
        self.lab = Lab(env)
        self.disk = small_disk(self.lab)
        self.before = checksum(self.disk)
        self.chance = random.Random(SEED)
        self.killed = self.survived = 0
        self.shorter = 1.0  # than the first time, when nothing was in the page cache
        print(f"     VIRTUSERNS_SEED={SEED}")

    def kill(self, took_s, *words):
        """Runs it, and kills it somewhere in what it took."""
        process = subprocess.Popen(self.lab.argv(*words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        time.sleep(self.chance.uniform(0, took_s * self.shorter))
        process.kill()
        if process.wait() == -9:
            self.killed += 1
        else:
            self.survived += 1
            self.shorter *= 0.5
        # What it had mounted and attached goes with its namespace, once the last process in there is gone.
        eventually(self.is_unused, "nothing is mounted or attached", 20)
        equal(checksum(self.disk), self.before, "the disk of the machine")

    def is_unused(self):
        try:
            expect_unused(self.lab.folder)
        except AssertionError:
            return False
        return True

    def timed(self, *words):
        started = time.monotonic()
        self.lab.ok(*words)
        return time.monotonic() - started

    def finish(self):
        self.lab.expect_nothing()
        check(self.killed > 0 or KILLS < 10, "every command was over before it was killed")
        print(f"     killed {self.killed}, too late {self.survived}")


def kill_conversions(env, *how):
    killer = Killer(env)
    words = ("convert", "--name", "web1", *how, killer.disk)
    took = killer.timed(*words)
    killer.lab.ok("rollback", "web1")
    for _ in range(KILLS):
        killer.kill(took, *words)
        done = killer.lab.convert(*words)
        # One that got to its end before it was killed is done.
        if done.returncode != 0:
            contains(done.stderr, "converted already")
        env.virsh("start", "web1").ok()
        eventually(lambda: "up: guest" in in_container(env, "web1", "cat /told"), "the guest is up")
        env.virsh("destroy", "web1").ok()
        killer.lab.ok("rollback", "web1")
    killer.finish()


@test(("userns",))
def a_copy_that_is_killed(env):
    kill_conversions(env, "--copy", "tree")


@test(("userns",))
def an_image_that_is_killed(env):
    kill_conversions(env, "--copy", "image", "--size", "48M")


@test(("userns",))
def an_overlay_that_is_killed(env):
    kill_conversions(env)


@test(("userns",))
def a_rollback_that_is_killed(env):
    killer = Killer(env)
    killer.lab.ok("convert", "--name", "web1", "--copy", "tree", killer.disk)
    took = killer.timed("rollback", "web1")
    for number in range(KILLS):
        killer.lab.ok("convert", "--name", "web1", *(("--copy", "tree") if number % 2 else ()), killer.disk)
        killer.kill(took, "rollback", "web1")
        done = killer.lab.convert("rollback", "web1")
        if done.returncode != 0:
            contains(done.stderr, "there is no conversion of 'web1'")
    killer.finish()


@test(("userns",))
def a_commit_that_is_killed(env):
    killer = Killer(env)
    words = ("convert", "--name", "web1", killer.disk)
    killer.lab.ok(*words)
    took = killer.timed("commit", "web1")
    for number in range(KILLS + 1):
        if number > 0:
            killer.lab.ok(*words)
            killer.kill(took, "commit", "web1")
            done = killer.lab.convert("commit", "web1")
            if done.returncode != 0:
                contains(done.stderr, "was committed already")
        equal(sorted(os.listdir(killer.lab.jobs / "web1")), ["originals", "state.json", "vda2.own.qcow2"])
        os.rename(killer.disk, f"{killer.disk}.away")
        env.virsh("start", "web1").ok()
        eventually(lambda: "up: guest" in in_container(env, "web1", "cat /told"), "the guest is up without the disk")
        env.virsh("destroy", "web1").ok()
        os.rename(f"{killer.disk}.away", killer.disk)
        env.virsh("undefine", "web1").ok()
        subprocess.run(["rm", "-r", killer.lab.jobs / "web1"], check=True)
    for lock in os.listdir(killer.lab.jobs):
        os.unlink(killer.lab.jobs / lock)
    killer.finish()


main()
