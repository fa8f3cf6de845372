"""virt-userns-convert on real guests: converted, started, rolled back; the disk of the machine is never written.

    VIRTUSERNS_BUILD=build tests/convert/convert.py --driver userns [-k EXPRESSION]
"""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
import guests  # noqa: E402
import trees  # noqa: E402
from harness import NotPossible, Skip, check, contains, equal, eventually, main, matches, test  # noqa: E402

DEBIAN = pathlib.Path(os.environ.get("VIRTUSERNS_DEBIAN_TREE") or guests.SOURCE / "build-check/debian.tar")

TELL = """[Unit]
Description=says how far the start has got
After=multi-user.target
[Service]
Type=exec
ExecStart=/bin/sh -c 'systemctl is-system-running --wait > /told.new; systemctl --failed --plain --no-legend >> /told.new; \
  mv /told.new /told; exec sleep infinity'
"""


class Lab:
    """A folder for disks and conversions, and the program."""

    def __init__(self, env):
        if missing := guests.missing_programs():
            raise Skip(f"not installed: {', '.join(missing)}")
        self.env = env
        self.folder = pathlib.Path(env.folder, f"lab{len(os.listdir(env.folder))}")
        self.folder.mkdir()
        self.jobs = self.folder / "jobs"
        self.program = os.path.join(env.daemon.build, "tools", "convert", "virt-userns-convert")

    def path(self, name):
        return self.folder / name

    def convert(self, *words, timeout_s=120):
        argv = [self.program, words[0], "--folder", str(self.jobs)] + [str(word) for word in words[1:]]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
        return done

    def ok(self, *words):
        done = self.convert(*words)
        equal(done.returncode, 0, f"exit status of {words}: {done.stdout} {done.stderr}")
        return done

    def refused(self, *words):
        """What it says on standard error."""
        done = self.convert(*words)
        equal(done.returncode, 1, f"exit status of {words}: {done.stdout} {done.stderr}")
        return done.stderr

    def expect_nothing(self):
        """No conversion, no definition, nothing mounted or attached."""
        equal(sorted(os.listdir(self.jobs)) if self.jobs.exists() else [], [], "conversions")
        equal(self.env.virsh("list", "--all", "--name").ok().out.strip(), "", "definitions")
        expect_unused(self.folder)


def expect_unused(folder):
    """Nothing of this folder is mounted or attached to a loop device."""
    check(str(folder) not in pathlib.Path("/proc/self/mountinfo").read_text(), "something is mounted")
    loops = [path.read_text().strip() for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file")]
    equal([name for name in loops if str(folder) in name or "sys/kernel/disk" in name], [], "loop devices")


def checksum(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def small_disk(lab, kind="ext4", table="gpt", form="qcow2"):
    """A busybox guest on one partition."""
    tree = guests.busybox_tree(lab.path("tree"))
    raw = guests.partitioned(lab.path("disk.raw"), table, guests.filesystem(lab.path("root.fs"), kind, tree, 48))
    return raw if form == "raw" else guests.to_format(raw, lab.path(f"disk.{form}"), form)


def original(lab, offset_of=1):
    """What was on the partition, to the last attribute."""
    with guests.mounted(lab.path("root.fs"), lab.path("look"), "-o", "ro,loop") as place:
        return trees.manifest(place)


def lost(before, root):
    """The paths that are not as they were, but for what a rule edits and says so: all of that is in /etc."""
    changed = trees.differences(before, trees.manifest(root))
    return {path for path in changed if path != "etc" and not path.startswith("etc/")}


def in_container(env, name, command):
    """Its output, or nothing."""
    tool = os.path.join(env.daemon.build, "driver", "exec", "virt-userns-exec")
    done = subprocess.run([tool, "-c", env.uri, name, "--", "/bin/sh", "-c", command], capture_output=True, text=True,
                          timeout=60, stdin=subprocess.DEVNULL)
    return done.stdout


def told(lab, name, root):
    """What the init of a busybox guest has said after its start."""
    path = pathlib.Path(root, "told")
    eventually(lambda: path.exists() and path.read_text().endswith("\n"), f"{name} says that it is up")
    return path.read_text()


@test(("userns",))
def a_copied_tree_is_the_same_and_boots(env):
    lab = Lab(env)
    disk = small_disk(lab)
    before = checksum(disk)
    done = lab.ok("convert", "--name", "web1", "--copy", "tree", disk)
    contains(done.stdout, "device nodes")
    root = lab.jobs / "web1/root"
    # A device node is left out, and what the rules changed is kept as it was elsewhere.
    equal(lost(original(lab), root), {"var/sda"}, "what is not as it was")
    env.virsh("start", "web1").ok()
    equal(told(lab, "web1", root), "up: guest \n")
    contains(lab.refused("rollback", "web1"), "shut it off")
    env.virsh("destroy", "web1").ok()
    lab.ok("rollback", "web1")
    lab.expect_nothing()
    equal(checksum(disk), before, "the disk of the machine")


@test(("userns",))
def in_place_it_runs_on_top_of_the_disk(env):
    lab = Lab(env)
    disk = small_disk(lab)
    before = checksum(disk)
    lab.ok("convert", "--name", "web1", "--start", disk)
    greets = lambda: "up: guest" in in_container(env, "web1", "cat /told")  # noqa: E731
    eventually(greets, "the guest is up")
    equal(checksum(disk), before, "the disk of the machine, while the container runs")
    env.virsh("destroy", "web1").ok()
    env.virsh("start", "web1").ok()
    eventually(greets, "the guest is up again")
    env.virsh("destroy", "web1").ok()
    lab.ok("rollback", "web1")
    lab.expect_nothing()
    equal(checksum(disk), before, "the disk of the machine")


@test(("userns",))
def an_image_has_all_of_it(env):
    lab = Lab(env)
    disk = small_disk(lab)
    lab.ok("convert", "--name", "web1", "--copy", "image", "--size", "64M", "--start", disk)
    eventually(lambda: "up: guest" in in_container(env, "web1", "cat /told"), "the guest is up")
    env.virsh("destroy", "web1").ok()
    with guests.mounted(lab.jobs / "web1/root.img", lab.path("look2"), "-o", "ro,loop") as root:
        equal(lost(original(lab), root), {"var/sda", "told"}, "what is not as it was")
    lab.ok("rollback", "web1")
    lab.expect_nothing()


def volume_of(lab, disk, name):
    """What is on the second partition of a qcow2, to the last attribute, and the bytes in front of it."""
    raw = guests.run("qemu-img", "convert", "-O", "raw", disk, lab.path(f"{name}.raw")) or lab.path(f"{name}.raw")
    start = int(matches(guests.run("sfdisk", "-d", raw), r"raw2 : start= *(\d+)").group(1)) * 512
    with guests.mounted(raw, lab.path(name), "-o", f"ro,loop,offset={start}") as place:
        found = trees.manifest(place)
    with open(raw, "rb") as bytes_of_it:
        return found, bytes_of_it.read(start)


def way_back(env, *how, commits):
    """Converted, run, committed or not, and made a machine again."""
    lab = Lab(env)
    disk = small_disk(lab)
    checksum_before, before = checksum(disk), volume_of(lab, disk, "before")
    lab.ok("convert", "--name", "web1", "--start", *how, disk)
    eventually(lambda: "up: guest" in in_container(env, "web1", "cat /told"), "the guest is up")
    in_container(env, "web1", "echo more > /var/new; busybox rm /var/acl; echo 127.0.0.1 x > /etc/hosts")
    contains(lab.refused("back", "--output", lab.path("vm"), "web1"), "shut it off")
    env.virsh("destroy", "web1").ok()
    if commits:
        lab.ok("commit", "web1")
        contains(lab.refused("commit", "web1"), "already")
        contains(lab.refused("rollback", "web1"), "nothing to go back to")
        os.rename(disk, lab.path("away"))
        env.virsh("start", "web1").ok()
        eventually(lambda: "up: guest" in in_container(env, "web1", "cat /told"), "the guest is up without the disk")
        env.virsh("destroy", "web1").ok()
        contains(lab.refused("back", "--output", lab.path("vm"), "web1"), "No such file")
        os.rename(lab.path("away"), disk)
    lab.ok("back", "--output", lab.path("vm"), "web1")
    equal(sorted(os.listdir(lab.path("vm"))), ["vda.qcow2", "web1.xml"])
    contains((lab.path("vm") / "web1.xml").read_text(), f"{lab.path('vm')}/vda.qcow2")
    after = volume_of(lab, lab.path("vm") / "vda.qcow2", "after")
    changed = trees.differences(before[0], after[0])
    equal(changed.keys() - {"etc", "var", "."}, {"told", "var/new", "var/acl", "var/acl-again", "etc/hosts"},
          "what the container changed")
    equal(after[1], before[1], "what is in front of the volume")
    equal(checksum(disk), checksum_before, "the disk of the machine")
    return lab


@test(("userns",))
def a_container_in_place_becomes_a_machine_again(env):
    lab = way_back(env, commits=False)
    lab.ok("rollback", "web1")
    lab.expect_nothing()


@test(("userns",))
def a_tree_becomes_a_machine_again(env):
    lab = way_back(env, "--copy", "tree", commits=True)
    env.virsh("undefine", "web1").ok()
    expect_unused(lab.folder)


@test(("userns",))
def a_committed_container_needs_the_disk_no_more(env):
    lab = way_back(env, commits=True)
    env.virsh("undefine", "web1").ok()
    expect_unused(lab.folder)


def debian_disk(lab):
    """A Debian with its root on one partition of a GPT and /home on another, as a qcow2 with a snapshot below it."""
    if not DEBIAN.exists():
        raise Skip(f"there is no {DEBIAN}: tests/support/make-debian-tree makes it, as root")
    tree = guests.debian_tree(lab.path("tree"), DEBIAN)
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants.parent / "tell.service").write_text(TELL)
    (wants / "tell.service").symlink_to("../tell.service")
    home = lab.path("home")
    home.mkdir()
    (home / "note").write_text("of joe")
    os.chown(home / "note", 1000, 1000)
    root = guests.filesystem(lab.path("root.fs"), "ext4", tree, 400)
    raw = guests.partitioned(lab.path("disk.raw"), "gpt", root,
                             guests.filesystem(lab.path("home.fs"), "ext4", home, 16, label="home", uuid="random"))
    guests.to_format(raw, lab.path("base.qcow2"), "qcow2")
    guests.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", lab.path("disk.qcow2"))
    shutil.rmtree(tree)
    raw.unlink()
    return lab.path("disk.qcow2")


def wait_for_systemd(read):
    """`read()` is what tell.service has written, or None."""
    equal(eventually(read, "systemd says how far it has got", 60), "running\n", "what systemd says, and its failed units")


@test(("userns",))
def a_debian_boots_and_the_disk_stays(env):
    lab = Lab(env)
    disk = debian_disk(lab)
    before = checksum(disk), checksum(lab.path("base.qcow2"))
    lab.ok("convert", "--name", "web1", "--copy", "tree", "--start", disk)
    root = lab.jobs / "web1/root"
    text = lambda: (root / "told").read_text() if (root / "told").exists() else None  # noqa: E731
    wait_for_systemd(text)
    equal((root / "home/note").read_text(), "of joe")
    equal((root / "home/note").stat().st_uid, 1000)
    (root / "told").unlink()
    env.virsh("reboot", "web1").ok()
    wait_for_systemd(text)
    env.virsh("shutdown", "web1").ok()
    eventually(lambda: env.state("web1")[0] == "shut off", "systemd powers off", 30)
    lab.ok("rollback", "web1")
    lab.expect_nothing()
    equal((checksum(disk), checksum(lab.path("base.qcow2"))), before, "the disks of the machine")


main()
