"""Disks that lie: each ends in an error or in a conversion that is safe, and nothing outside is read, written or left behind.

    VIRTUSERNS_BUILD=build tests/convert/hostile.py --driver userns [-k EXPRESSION]
"""
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
import trees  # noqa: E402
from harness import check, equal, main, test  # noqa: E402
from hostile_disks import DISKS, SECRET, Maker  # noqa: E402
from lab import Lab, checksum, expect_unused  # noqa: E402

LIMIT_S = 60


def try_one(maker, name, make, may_convert):
    lab = maker.lab
    path = make(maker)
    is_file = path.is_file()
    before = checksum(path) if is_file else None
    outside = trees.manifest(maker.outside)
    started = time.monotonic()
    done = lab.convert("convert", "--name", "h", "--copy", "tree", path, timeout_s=LIMIT_S)
    took = time.monotonic() - started
    said = f"{name}: {done.returncode}: {done.stdout} {done.stderr}"
    check(done.returncode in (0, 1, 3), said)
    check("\x1b" not in done.stdout + done.stderr and "\x9b" not in done.stdout + done.stderr, f"raw bytes in {said!r}")
    if may_convert is not None:
        equal(done.returncode == 0, may_convert, said)
    equal(trees.differences(outside, trees.manifest(maker.outside)), {}, f"{name}: what is outside")
    equal(checksum(path) if is_file else None, before, f"{name}: the disk")
    if done.returncode == 0:
        found = subprocess.run(["grep", "-rlaF", "--devices=skip", SECRET.decode(), lab.jobs / "h/root"], capture_output=True, text=True)
        equal(found.stdout, "", f"{name}: files of the host in the guest")
        if name == "a_journal_to_replay":
            equal((lab.jobs / "h/root/var/late").read_text(), "late")
        lab.ok("rollback", "h")
    equal(sorted(os.listdir(lab.jobs)) if lab.jobs.exists() else [], [], f"{name}: conversions")
    expect_unused(lab.folder)
    subprocess.run(["rm", "-rf", path.parent], check=True)
    print(f"     {name}: {'converted' if done.returncode == 0 else trimmed(done)} in {took:.1f} s")


def trimmed(done):
    line = (done.stderr.strip().splitlines() or ["blocked"])[-1]
    return line.replace("virt-userns-convert: error: ", "")[:160]


def try_group(env, group):
    maker = Maker(Lab(env))
    for name, make, may_convert in DISKS[group]:
        try_one(maker, name, make, may_convert)
    equal(env.virsh("list", "--all", "--name").ok().out.strip(), "", "definitions")


@test(("userns",))
def tables_that_lie(env):
    try_group(env, "table")


@test(("userns",))
def images_that_lie(env):
    try_group(env, "image")


@test(("userns",))
def filesystems_that_lie(env):
    try_group(env, "filesystem")


@test(("userns",))
def guests_that_lie(env):
    try_group(env, "guest")


main()
