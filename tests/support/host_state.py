"""What a test may not leave behind: a snapshot of host state, and the difference of two.

The machine is shared and alive, so each part looks only at what the tests can have caused:
  processes   descendants of this process (which is a child subreaper, so orphans come back to it)
  mounts      of this mount namespace
  links       of this network namespace
  cgroups     with a name that matches the given pattern
  loops       loop devices whose backing file is below one of the given directories
  files       below the given directories, with a digest of the content (leases, status, definitions, sockets)
"""
import ctypes
import dataclasses
import hashlib
import contextlib
import os
import pathlib
import re
import stat

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphans of this process's descendants become its own children, so that none can hide."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def reap() -> None:
    """Collects orphans that have ended; they are no leftovers, only unread exit codes."""
    for pid in children(os.getpid()):
        if not _state(pid) == "Z":
            continue
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass


def _stat_fields(pid: int) -> list[str]:
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2:].split()


def _state(pid: int) -> str:
    fields = _stat_fields(pid)
    return fields[0] if fields else ""


def parents() -> dict[int, int]:
    result = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat_fields(int(name))):
            result[int(name)] = int(fields[1])
    return result


def children(pid: int) -> list[int]:
    return [child for child, parent in parents().items() if parent == pid]


def descendants(pid: int) -> set[int]:
    of = parents()
    found, frontier = set(), {pid}
    while frontier:
        frontier = {child for child, parent in of.items() if parent in frontier} - found
        found |= frontier
    return found


def _command(pid: int) -> str:
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return b" ".join(words).decode(errors="replace").strip() or pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _mounts() -> set[str]:
    found = set()
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        found.add(f"{fields[0]} {fields[4]}")
    return found


def _links() -> set[str]:
    lines = pathlib.Path("/proc/self/net/dev").read_text().splitlines()[2:]
    return {line.split(":")[0].strip() for line in lines}


def _cgroups(pattern: str) -> set[str]:
    wanted = re.compile(pattern)
    found = set()
    # Not os.walk: it recurses, and a container may make groups deeper than Python's stack.
    waiting = ["/sys/fs/cgroup"]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            waiting += folders
            found |= {folder for folder in folders if wanted.search(folder)}
    return found


def _loops(folders: list[str]) -> set[str]:
    found = set()
    for entry in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = entry.read_text().strip()
        except OSError:
            continue
        if backing.startswith(tuple(folders)):
            found.add(f"{entry.parent.parent.name} {backing}")
    return found


def _files(folders: list[str]) -> dict[str, str]:
    found = {}
    for folder in folders:
        for where, names, files in os.walk(folder):
            for name in names + files:
                path = f"{where}/{name}"
                found[path] = _digest(path)
    return found


def _digest(path: str) -> str:
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode):
            return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
        if stat.S_ISLNK(mode):
            return "-> " + os.readlink(path)
        return stat.filemode(mode)[0]
    except OSError:
        return "gone"


@dataclasses.dataclass
class HostState:
    processes: dict[int, str]
    mounts: set[str]
    links: set[str]
    cgroups: set[str]
    loops: set[str]
    files: dict[str, str]


def snapshot(folders: list[str], cgroup_pattern: str, loop_folders: list[str], cgroups: bool = True) -> HostState:
    """Without `cgroups`, those are not looked at: all groups of a machine take a while."""
    reap()
    return HostState(
        processes={pid: _command(pid) for pid in descendants(os.getpid()) if _state(pid) not in ("Z", "")},
        mounts=_mounts(),
        links=_links(),
        cgroups=_cgroups(cgroup_pattern) if cgroups else set(),
        loops=_loops(loop_folders),
        files=_files(folders),
    )


def differences(before: HostState, after: HostState, ignore_files: str = r"(?!)") -> list[str]:
    """One line for each thing that is there after and was not before, or that has gone or changed."""
    ignored = re.compile(ignore_files)
    lines = [f"process left: {pid} {command}" for pid, command in sorted(after.processes.items())
             if pid not in before.processes]
    for what in ("mounts", "links", "cgroups", "loops"):
        old, new = getattr(before, what), getattr(after, what)
        lines += [f"{what[:-1]} left: {item}" for item in sorted(new - old)]
        if what in ("mounts", "links"):
            lines += [f"{what[:-1]} gone: {item}" for item in sorted(old - new)]
    for path in sorted(before.files.keys() | after.files.keys()):
        if ignored.search(path):
            continue
        old, new = before.files.get(path), after.files.get(path)
        if old == new:
            continue
        verb = "left" if old is None else "gone" if new is None else "changed"
        lines.append(f"file {verb}: {path}")
    return lines
