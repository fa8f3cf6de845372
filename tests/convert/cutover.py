"""virt-userns-convert of a machine that runs: copied while it does, off for a moment, a container, and back.

    VIRTUSERNS_BUILD=build tests/convert/cutover.py --driver userns [-k EXPRESSION]

VIRTUSERNS_KILLS says how often it is killed at a moment of chance, which is of a seed that is printed.
"""
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
import harness  # noqa: E402
import live_guest  # noqa: E402
import trees  # noqa: E402
from harness import check, contains, equal, eventually, main, test  # noqa: E402
from lab import Lab, expect_unused, lost  # noqa: E402

KILLS = min(int(os.environ.get("VIRTUSERNS_KILLS", "2")), 60)
SEED = int(os.environ.get("VIRTUSERNS_SEED", time.time_ns() % 1_000_000))


@contextlib.contextmanager
def running_guest(env, words=""):
    lab = Lab(env)
    live_guest.kernel()
    with live_guest.bridge() as neighbour, live_guest.libvirt_host(lab) as uri:
        guest = live_guest.Guest(lab, uri, words=words)
        guest.neighbour = neighbour
        yield lab, guest


def take_over(guest, *words):
    return ("convert", "--connect", guest.uri, "--live", "--copy", "tree", *words, guest.name)


def expect_machine_as_before(guest):
    """It counts on, on its own disk, and nothing else is there."""
    equal(guest.state(), "running")
    guest.goes_on()
    # Each time it went off in order, and went on from there.
    equal(guest.said("up at"), [0, *guest.said("last")], "where the machine has begun to count")
    equal(guest.sources(), [str(guest.disk)], "what it writes to, and what that lies on")
    equal(guest.sources("--inactive"), [str(guest.disk)], "its definition's disk")
    check(not guest.overlay.exists(), "the overlay is still there")
    guest.lab.expect_nothing()


def expect_container(guest):
    """It runs, and has what the machine had on its disk when it went off."""
    equal(guest.state(), "shut off")
    equal(guest.sources("--inactive"), [str(guest.overlay), str(guest.disk)], "the disk of the machine that is the way back")
    root = guest.lab.jobs / guest.name / "root"
    eventually(lambda: (root / "told").exists() and (root / "told").read_text(), "the container is up")
    with guest.files(guest.overlay) as place:
        equal(lost(trees.manifest(place), root), {"var/sda", "told"}, "what is not as it was")
        return int((place / "var/count").read_text())


@test(("userns",))
def a_machine_that_runs_becomes_a_container_and_goes_back(env):
    with running_guest(env) as (lab, guest):
        eventually(lambda: live_guest.fetch() == "of the guest\n", "the machine's server answers", 30)
        live_guest.frames(guest.neighbour)
        former = lab.path("vm-former.xml")
        former.write_text(guest.virsh("dumpxml", "--inactive", "vm1"))
        report = json.loads(lab.ok(*take_over(guest, "--json", "--wait-port", live_guest.PORT)).stdout)[0]
        last = guest.said("last")
        equal(expect_container(guest), last[-1], "what the machine counted last")
        with guest.files(guest.disk) as place:
            check(int((place / "var/count").read_text()) < last[-1], "all was copied before the machine was off")
        equal(live_guest.fetch(), "of the guest\n", "what the container's server answers")
        check(any(frame.startswith(live_guest.announcement()) for frame in live_guest.frames(guest.neighbour)), "the neighbour was not told")
        times = report["downtime"]
        check(0 < times["machine_off_ms"] < times["init_runs_ms"] <= times["port_answers_ms"], f"in an order of time: {times}")
        check(any(str(guest.overlay) in finding["text"] for finding in report["findings"]), f"the overlay in {report}")
        contains(lab.refused(*take_over(guest)), "converted already")
        contains(lab.refused("rollback", "vm1"), "shut it off")
        env.virsh("destroy", "vm1").ok()
        what_would_lose_data_is_refused(env, guest, former)
        contains(lab.ok("rollback", "vm1").stdout, "runs again")
        guest.await_count(last[-1] + 1)
        expect_machine_as_before(guest)


def what_would_lose_data_is_refused(env, guest, former):
    """Of the container that is off: rollback takes away what a new machine lies on, or would start the old one without its last
    data. Container and overlay stay."""
    lab, name = guest.lab, guest.name

    def refuses(part):
        contains(lab.refused("rollback", name), part)
        check(guest.overlay.exists() and (lab.jobs / name / "root/told").exists(), "something is gone")
        equal(env.state(name)[0], "shut off")

    lab.ok("back", "--output", lab.path("new"), name)
    refuses(f"the disks of the machine in '{lab.path('new')}', which 'back' has made, lie on what would be taken away")
    shutil.rmtree(lab.path("new"))
    definition = lab.path("vm-now.xml")
    definition.write_text(guest.virsh("dumpxml", "--inactive", name))
    guest.virsh("define", former)  # as somebody had saved it
    refuses(f"is defined without '{guest.overlay}', which has what it wrote last")
    guest.virsh("undefine", name)
    refuses("is not defined any more")
    guest.virsh("define", definition)


@test(("userns",))
def a_machine_that_does_not_shut_down_goes_on(env):
    with running_guest(env, words="deaf") as (lab, guest):
        contains(lab.refused("convert", "--connect", guest.uri, "--copy", "tree", "vm1"), "by --live")
        contains(lab.refused(*take_over(guest, "--shutdown-limit", "1")), "is not off after 1 s")
        expect_machine_as_before(guest)
        # What is in the way is not overwritten.
        guest.overlay.write_text("of somebody")
        contains(lab.refused(*take_over(guest)), "is there already")
        guest.overlay.unlink()
        expect_machine_as_before(guest)
        lab.ok(*take_over(guest, "--shutdown-limit", "1", "--destroy", "--overlay-folder", lab.path("libvirt")))
        guest.overlay = lab.path("libvirt/disk.qcow2.cutover")
        synced = guest.count()
        check(expect_container(guest) >= synced, "what was synced is lost")
        env.virsh("destroy", "vm1").ok()
        contains(lab.ok("commit", "--json", "vm1").stdout, str(guest.overlay))
        check(guest.overlay.exists() and guest.disk.exists(), "the machine's disks are gone")
        env.virsh("undefine", "vm1").ok()
        expect_unused(lab.folder)


def expect_not_a_cutover(env, end):
    """The machine ends at `end`, while it is asked to shut down: it is started again."""
    with running_guest(env, words="deaf") as (lab, guest):
        process = subprocess.Popen(lab.argv(*take_over(guest, "--shutdown-limit", "60")), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = ""
        for text in process.stderr:
            said += text
            if "shutting the machine down" in text:
                end(guest)
        equal(process.wait(), 1)
        contains(said, "went off, and not by shutting down")
        guest.goes_on()
        equal(guest.sources(), [str(guest.disk)], "what it writes to")
        check(not guest.overlay.exists(), "the overlay is still there")
        lab.expect_nothing()


@test(("userns",))
def one_that_somebody_else_ends_is_started_again(env):
    """It has lost what it had in memory: that is no cut-over."""
    expect_not_a_cutover(env, lambda guest: guest.virsh("destroy", "vm1"))


@test(("userns",))
def one_that_crashes_when_it_is_asked_is_started_again(env):
    """The question fails, and libvirt says for a moment yet that the machine runs."""
    def crash(guest):
        machine = guest.process()
        os.kill(machine, signal.SIGSTOP)
        time.sleep(1)  # the question waits for its answer
        os.kill(machine, signal.SIGKILL)
    expect_not_a_cutover(env, crash)


def killed_at(lab, words, line):
    """Runs it until it says this, and kills it there."""
    process = subprocess.Popen(lab.argv(*words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True)
    said = []
    for text in process.stderr:
        said.append(text)
        if line in text:
            break
    process.kill()
    process.wait()
    process.stderr.close()
    contains("".join(said), line)
    eventually(lambda: is_unused(lab), "nothing is mounted or attached", 20)


def is_unused(lab):
    with contextlib.suppress(AssertionError):
        expect_unused(lab.folder)
        return True
    return False


@test(("userns",))
def one_that_is_killed_leaves_the_machine_running(env):
    with running_guest(env) as (lab, guest):
        for line in ("moving machine", "looking at its disks", "copied "):
            killed_at(lab, take_over(guest, "--shutdown-limit", 10), line)
            if lab.jobs.joinpath("vm1/state.json").read_text().count('"is_stopped": false'):
                equal(guest.state(), "running")
            lab.ok("rollback", "vm1")
            expect_machine_as_before(guest)
        # Of two conversions of one machine each would take away what the other needs.
        killed_at(lab, take_over(guest), "looking at its disks")
        contains(lab.refused(*take_over(guest, "--name", "other")), "was taken over by the conversion of 'vm1' already")
        lab.ok("rollback", "vm1")
        expect_machine_as_before(guest)
        # What somebody else has put on top of the overlay stays, and so does the overlay.
        killed_at(lab, take_over(guest), "looking at its disks")
        top = lab.path("top.qcow2")
        guest.virsh("snapshot-create-as", "vm1", "--disk-only", "--no-metadata", "--diskspec", f"vda,file={top}")
        contains(" ".join(lab.ok("rollback", "vm1").stdout.split()), "something lies on top of it")
        equal(guest.sources(), [str(top), str(guest.overlay), str(guest.disk)])
        guest.goes_on()
        lab.expect_nothing()


@test(("userns",))
def what_can_start_neither_is_tried_again(env):
    with running_guest(env) as (lab, guest):
        # While the machine runs it does not matter to it what its bridge is called.
        live_guest.rename_bridge("br0", "br9")
        try:
            said = lab.refused(*take_over(guest))
        finally:
            live_guest.rename_bridge("br9", "br0")
        contains(said, "the container does not start")
        contains(said, "could not be undone, which the next run tries again: start machine 'vm1' again")
        equal(guest.state(), "shut off")
        contains(lab.ok("rollback", "vm1").stdout, "runs again")
        guest.await_count(guest.said("last")[-1] + 1)
        expect_machine_as_before(guest)


@test(("userns",))
def one_that_is_killed_starts_the_machine_again(env):
    with running_guest(env) as (lab, guest):
        words = take_over(guest)
        # The rollback waits for as long as it may have been asked to go off.
        killed_at(lab, take_over(guest, "--shutdown-limit", 10), "shutting the machine down")
        lab.ok("rollback", "vm1")
        expect_machine_as_before(guest)
        killed_at(lab, words, "starting the container")
        # The next run puts the machine back, and does all of it.
        lab.ok(*words)
        equal(expect_container(guest), guest.said("last")[-1], "what the machine counted last")
        env.virsh("destroy", "vm1").ok()
        killed_at(lab, ("rollback", "vm1"), "putting overlay")
        lab.ok("rollback", "vm1")
        expect_machine_as_before(guest)


@test(("userns",))
def one_that_is_killed_at_any_moment(env):
    with running_guest(env) as (lab, guest):
        chance = random.Random(SEED)
        print(f"     VIRTUSERNS_SEED={SEED}")
        words = take_over(guest, "--shutdown-limit", 10)
        took = 2.0
        for _ in range(KILLS):
            process = subprocess.Popen(lab.argv(*words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0, took))
            process.kill()
            if process.wait() == 0:
                took *= 0.7
            eventually(lambda: is_unused(lab), "nothing is mounted or attached", 20)
            if env.virsh("list", "--name").ok().out.strip():
                equal(guest.state(), "shut off", "the machine of a container that runs")
                env.virsh("destroy", "vm1").ok()
            done = lab.convert("rollback", "vm1")
            if done.returncode != 0:
                contains(done.stderr, "there is no conversion of 'vm1'")
            expect_machine_as_before(guest)


if __name__ == "__main__":
    harness.TEST_TIMEOUT_S = 3 * live_guest.BOOT_S * harness.daemon_module.TIME_FACTOR
    main()
