"""Device nodes that come to a running domain and leave it: the right to use them comes and goes with them, and no other does."""
import contextlib
import os
import pathlib
import stat

from harness import Skip, check, contains, equal, main, test
from image_files import USERNS, blank, init_of, need, reboot, run, sh
from plugging import REFUSED, attach, character, definition, detach, mounts, opens, start, staying, unchanged

STANDARD = "for n in null zero full random urandom ptmx; do (: </dev/$n) || exit 1; done; echo x >/dev/null"


def storage(path):
    return f"<hostdev mode='capabilities' type='storage'><source><block>{path}</block></source></hostdev>"


def disk(path, target, more=""):
    return f"<disk type='block' device='disk'><source dev='{path}'/><target dev='{target}'/>{more}</disk>"


def node(env, path):
    return os.lstat(f"/proc/{init_of(env, 'web')}/root{path}")


def is_gone(env, path):
    return path not in mounts(env) and not os.path.lexists(f"/proc/{init_of(env, 'web')}/root{path}")


@contextlib.contextmanager
def loop_device(env):
    need()
    image = blank(env, "disk", 1 << 20)
    device = run("losetup", "-f", "--show", image).strip()
    try:
        yield device, image
    finally:
        run("losetup", "-d", device)


@test(drivers=USERNS)
def a_character_device(env):
    there = [path for path in ("/dev/fuse", "/dev/loop-control") if os.path.exists(path)]
    if not there:
        raise Skip("this machine has neither /dev/fuse nor /dev/loop-control")
    start(env)
    stored = definition(env, "--inactive")
    sh(env, "web", f"{STANDARD}; echo >/kept")
    for path in there:
        check(is_gone(env, path), f"{path} is there before")
        attach(env, character(path)).ok()
        seen = node(env, path)
        check(stat.S_ISCHR(seen.st_mode), f"{path} has mode {seen.st_mode:o}")
        # As at a start: the host's own, if it is for everybody.
        owner = "65534:65534\n" if os.stat(path).st_mode & 0o006 == 0o006 else "0:0\n"
        equal((seen.st_rdev, sh(env, "web", f"stat -c %u:%g {path}")), (os.stat(path).st_rdev, owner))
        equal(opens(env, path, "<>"), "opened\n")
        sh(env, "web", STANDARD)
        contains(definition(env), f"<char>{path}</char>")
        equal(definition(env, "--inactive"), stored)
        with unchanged(env):
            attach(env, character(path)).fails("already")
            with staying(env, f"exec 3<>{path}"):
                detach(env, character(path)).fails("busy", path)
        equal(opens(env, path, "<>"), "opened\n", "after a refusal")
        sh(env, "web", f"mount --bind {path} /kept")
        equal(opens(env, "/kept", "<>"), "opened\n")
        detach(env, character(path)).ok()
        check(is_gone(env, path), f"{path} is there after")
        contains(opens(env, "/kept", "<>"), REFUSED)
        sh(env, "web", f"umount /kept; ! mknod /made c {os.major(seen.st_rdev)} {os.minor(seen.st_rdev)}; {STANDARD}")
        check(path not in definition(env), f"{path} is shown after")
    with unchanged(env):
        attach(env, character("/dev/nowhere")).fails("/dev/nowhere")
        attach(env, character("/dev/null")).fails("/dev/null")
        attach(env, character("/etc/passwd")).fails("/etc/passwd")


@test(drivers=USERNS)
def block_devices(env):
    with loop_device(env) as (device, image):
        start(env)
        for xml, path in ((storage(device), device), (disk(device, "vdb"), "/dev/vdb")):
            attach(env, xml).ok()
            seen = node(env, path)
            equal((stat.S_ISBLK(seen.st_mode), seen.st_rdev), (True, os.stat(device).st_rdev), path)
            sh(env, "web", f"echo through {path} | dd of={path} bs=512 count=1 conv=sync,fsync 2>/dev/null; {STANDARD}")
            contains(sh(env, "web", f"dd if={path} bs=512 count=1 2>/dev/null"), f"through {path}")
            equal(pathlib.Path(image).read_bytes()[:8], b"through ")
            contains(definition(env), f"='{device}'" if "vdb" in path else f"<block>{device}</block>")
            sh(env, "web", f"echo >/kept; mount --bind {path} /kept")
            detach(env, xml).ok()
            check(is_gone(env, path), f"{path} is there after")
            for how in ("<", ">>"):
                contains(opens(env, "/kept", how), REFUSED)
            sh(env, "web", f"umount /kept; {STANDARD}")


@test(drivers=USERNS)
def a_disk_that_is_read_only(env):
    """By the rule: the node's mode says nothing to container root. And what another node of the same disk allowed goes with that."""
    with loop_device(env) as (device, _):
        start(env)
        attach(env, disk(device, "vdb", "<readonly/>")).ok()
        equal(opens(env, "/dev/vdb"), "opened\n")
        for how in ("<>", ">>"):
            contains(opens(env, "/dev/vdb", how), REFUSED)
        attach(env, disk(device, "vdc")).ok()
        equal(opens(env, "/dev/vdc", "<>"), "opened\n")
        detach(env, disk(device, "vdc")).ok()
        equal(opens(env, "/dev/vdb"), "opened\n", "still there")
        contains(opens(env, "/dev/vdb", "<>"), REFUSED)
        attach(env, storage(device)).ok()
        detach(env, disk(device, "vdb", "<readonly/>")).ok()
        check(is_gone(env, "/dev/vdb"), "/dev/vdb is there after")
        equal(opens(env, device, "<>"), "opened\n", "still there")
        with unchanged(env):
            attach(env, disk(device, "null")).fails("null")
        env.virsh("attach-disk", "web", device, "vdd", "--mode", "readonly", "--live").ok()
        equal(node(env, "/dev/vdd").st_rdev, os.stat(device).st_rdev)
        contains(env.virsh("domblklist", "web").ok().out, "vdd")
        env.virsh("detach-disk", "web", "vdd", "--live").ok()
        check(is_gone(env, "/dev/vdd"), "/dev/vdd is there after")
        detach(env, storage(device)).ok()


@test(drivers=USERNS)
def of_the_start(env):
    with loop_device(env) as (device, _):
        start(env, disk(device, "vdb"), storage(device))
        equal(opens(env, "/dev/vdb", "<>"), "opened\n")
        detach(env, disk(device, "vdb")).ok()
        check("vdb" not in definition(env), "it is shown after")
        equal(opens(env, device, "<>"), "opened\n", "the other one")
        detach(env, storage(device)).ok()
        for path in ("/dev/vdb", device):
            check("opened" not in opens(env, path), f"{path} can be opened after")
        sh(env, "web", STANDARD)
        reboot(env, "web")
        for path in ("/dev/vdb", device):
            check(is_gone(env, path), f"{path} is there after a reboot")


@test(drivers=USERNS)
def another_one_in_the_place_of_one_of_the_start(env):
    """Whose node is there until the next boot."""
    with loop_device(env) as (device, _), loop_device(env) as (other, image):
        start(env, disk(device, "vdb"))
        detach(env, disk(device, "vdb")).ok()
        for _ in range(2):
            attach(env, disk(other, "vdb")).ok()
            equal(node(env, "/dev/vdb").st_rdev, os.stat(other).st_rdev)
            sh(env, "web", "echo other | dd of=/dev/vdb bs=512 count=1 conv=sync,fsync 2>/dev/null")
            equal(pathlib.Path(image).read_bytes()[:5], b"other")
            detach(env, disk(other, "vdb")).ok()
            check("opened" not in opens(env, "/dev/vdb"), "/dev/vdb can be opened after")
        attach(env, disk(device, "vdb")).ok()
        equal((node(env, "/dev/vdb").st_rdev, opens(env, "/dev/vdb", "<>")), (os.stat(device).st_rdev, "opened\n"))
        detach(env, disk(device, "vdb")).ok()
        attach(env, disk(other, "vdb")).ok()
        reboot(env, "web")
        equal((node(env, "/dev/vdb").st_rdev, opens(env, "/dev/vdb", "<>")), (os.stat(other).st_rdev, "opened\n"))


@test(drivers=USERNS)
def others_are_never_lost(env):
    """Not for a moment, while rules change."""
    with loop_device(env) as (device, _):
        root = start(env)
        loop = "while [ ! -e /stop ]; do true </dev/null && true >/dev/zero || echo >/lost; done; echo >/done"
        with staying(env, f"{{ {loop}; }} >/tmp/log 2>&1 & true"):
            for _ in range(10):
                for xml in (storage(device), disk(device, "vdb", "<readonly/>")):
                    attach(env, xml).ok()
                    detach(env, xml).ok()
            (root / "stop").write_text("")
            sh(env, "web", "while [ ! -e /done ]; do sleep 0.01; done")
        check(not (root / "lost").exists(), "/dev/null or /dev/zero could not be opened")


if __name__ == "__main__":
    main()
