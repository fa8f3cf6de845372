"""What lies outside of every root filesystem and must stay as it is."""
import hashlib
import os
import pathlib
import stat

OLD = 1_000_000_000_000_000_000  # an access time before every change: a read then moves it, also under relatime


class Canary:
    """A tree with one of each kind of file. `differences` names what was read, written, made, removed or changed."""

    def __init__(self, folder):
        self.path = pathlib.Path(folder, "canary")
        (self.path / "below").mkdir(parents=True)
        # What a hostile tree would like to be looked up in, run, or written to.
        for name in ("file", "passwd", "group", "os-release", "below/file"):
            (self.path / name).write_text("web:x:0:0:web:/:/bin/sh\n")
        program = self.path / "program"
        program.write_text(f"#!/bin/sh\n: > {self.path}/was-run\n")
        os.mkfifo(self.path / "fifo")
        (self.path / "link").symlink_to("file")
        for path in (self.path / "file", self.path / "below", self.path / "fifo"):
            path.chmod(0o777 if path.is_dir() else 0o666)
        program.chmod(0o755)
        self.path.chmod(0o777)  # nothing but the container's walls stands in the way
        # Somebody reads the FIFO: a request that was led astray arrives instead of failing.
        self._reader = os.open(self.path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        for path in (*sorted(self.path.rglob("*")), self.path):
            os.utime(path, ns=(OLD, OLD + 1_000_000_000), follow_symlinks=False)
        self.before = self.look()

    def close(self):
        os.close(self._reader)

    def look(self):
        found = {}
        waiting = [str(self.path)]
        while waiting:
            path = waiting.pop()
            st = os.lstat(path)
            content = ""
            if stat.S_ISDIR(st.st_mode):
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
                waiting += [f"{path}/{name}" for name in os.listdir(fd)]
                os.close(fd)
            elif stat.S_ISREG(st.st_mode):
                fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
                content = hashlib.sha256(os.read(fd, 1 << 20)).hexdigest()
                os.close(fd)
            elif stat.S_ISLNK(st.st_mode):
                content = os.readlink(path)
            # A link's access time moves when we read it.
            atime = 0 if stat.S_ISLNK(st.st_mode) else st.st_atime_ns
            found[path] = (oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, st.st_size, st.st_mtime_ns,
                           st.st_ctime_ns, f"read {atime}", content, tuple(os.listxattr(path, follow_symlinks=False)))
        return found

    def differences(self):
        now = self.look()
        lines = [f"canary {path}: was {self.before.get(path)}, is {now.get(path)}"
                 for path in sorted(self.before.keys() | now.keys()) if self.before.get(path) != now.get(path)]
        try:
            got = os.read(self._reader, 4096)
        except BlockingIOError:
            got = b""
        if got:
            lines.append(f"canary FIFO got {got[:32]!r}")
        # A mount on it would hide behind unchanged numbers.
        mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        lines += [f"mount on the canary: {line}" for line in mounts if f"{self.path}" in line.split()[4]]
        return lines


def host_mounts_below(folder):
    """Mounts of pid 1's namespace at or below the folder: whatever a test mounts belongs in its own namespace."""
    lines = pathlib.Path("/proc/1/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(str(folder))]
