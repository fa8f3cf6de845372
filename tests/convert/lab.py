"""A folder for disks and conversions, the program, and what must be true afterwards."""
import hashlib
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
import guests  # noqa: E402
import trees  # noqa: E402
from harness import Skip, check, daemon_module, equal, eventually  # noqa: E402


class Lab:
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

    def argv(self, *words):
        return [self.program, words[0], "--folder", str(self.jobs)] + [str(word) for word in words[1:]]

    def convert(self, *words, timeout_s=120):
        return subprocess.run(self.argv(*words), capture_output=True, text=True,
                              timeout=timeout_s * daemon_module.TIME_FACTOR, stdin=subprocess.DEVNULL)

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


def small_disk(lab, kind="ext4", table="gpt", form="qcow2", mib=48):
    """A busybox guest on one partition."""
    tree = guests.busybox_tree(lab.path("tree"))
    raw = guests.partitioned(lab.path("disk.raw"), table, guests.filesystem(lab.path("root.fs"), kind, tree, mib))
    return raw if form == "raw" else guests.to_format(raw, lab.path(f"disk.{form}"), form)


def original(lab):
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
