"""A folder for images and directories, the program, and what must be true afterwards."""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "conformance"), str(TESTS / "convert")]
import guests  # noqa: E402
import trees  # noqa: E402
from harness import Skip, check, daemon_module, equal  # noqa: E402

LIMIT_S = 60


class ImageLab:
    def __init__(self, env, *programs):
        missing = guests.missing_programs() + [name for name in programs if not shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")]
        if missing:
            raise Skip(f"not installed: {', '.join(missing)}")
        self.env = env
        self.folder = pathlib.Path(env.folder, f"images{len(os.listdir(env.folder))}")
        self.folder.mkdir()
        self.outside = self.folder / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text("SECRET-OF-THE-HOST")
        self.bases = self.folder / "bases"
        self.bases.mkdir(mode=0o700)
        self.program = os.path.join(env.daemon.build, "tools", "image", "virt-userns-image")
        self.used = 0

    def path(self, name):
        return self.folder / name

    def argv(self, *words):
        return [self.program, *map(str, words)]

    def run(self, *words, timeout_s=LIMIT_S, **how):
        return subprocess.run(self.argv(*words), capture_output=True, text=True, errors="surrogateescape",
                              timeout=timeout_s * daemon_module.TIME_FACTOR, stdin=subprocess.DEVNULL, check=False, **how)

    def unpack_beside(self, image, other):
        """As unpack, while that other directory is there."""
        return self.unpack(image, others=(other.name,))

    def unpack(self, image, *options, others=()):
        """The new directory, and what was said of it."""
        self.used += 1
        directory = self.bases / f"b{self.used}"
        done = self.run("unpack", "--json", "--quiet", *options, image, directory)
        equal(done.returncode, 0, f"exit status of {image.name}: {done.stdout}{done.stderr}")
        self.expect_only(directory.name, *others)
        return directory, json.loads(done.stdout)

    def refuse(self, image, *options, status=1):
        """Why; and nothing of it is left."""
        done = self.run("unpack", "--quiet", *options, image, self.bases / "refused")
        equal(done.returncode, status, f"exit status of {image.name}: {done.stdout}{done.stderr}")
        self.expect_only()
        check("\x1b" not in done.stderr and done.stderr.count("\n") == 1, f"one clean line: {done.stderr!r}")
        return done.stderr

    def remove(self, directory):
        equal(self.run("remove", directory).returncode, 0, f"remove {directory}")
        self.expect_only()

    def expect_only(self, *names):
        equal(sorted(os.listdir(self.bases)), sorted(names), "what is beside the new directory")
        # Of this folder only: others on this machine may be at images of theirs, and theirs go while we look.
        check(str(self.folder) not in pathlib.Path("/proc/self/mountinfo").read_text(), "something is mounted")
        loops = []
        for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                loops.append(path.read_text().strip())
        equal([name for name in loops if str(self.folder) in name], [], "loop devices")

    @contextlib.contextmanager
    def nothing_outside(self):
        before = trees.manifest(self.outside)
        yield
        equal(trees.differences(before, trees.manifest(self.outside)), {}, "what is outside")


def without_devices(manifest):
    return {path: text for path, text in manifest.items() if text[:2] not in ("20", "60")}


def lost(tree, directory):
    return trees.differences(without_devices(trees.manifest(tree)), trees.manifest(directory))
