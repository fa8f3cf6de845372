"""What a test may not leave behind: a snapshot of host state, and the difference of two.

The machine is shared and alive, so each part looks only at what the tests can have caused:
  processes   descendants of this process (which is a child subreaper, so orphans come back to it)
  zombies     of them, whose parent does not collect them
  namespaces  that a descendant is in or somebody here holds open, or that are mounted here
  mounts      of this mount namespace
  links, addresses, tables (of nftables)    of this network namespace
  cgroups     with a name that matches the given pattern
  owners      of the host's nodes in /dev and of the groups that everybody shares: host_nodes.py
  loops       loop devices whose backing file is below one of the given directories
  keys        in the session keyring (see own_session_keyring), and with our name in the user's: kernel_lists.py
  files       below the given directories, with a digest of the content (leases, status, definitions, sockets)
And of the daemon, which lives on between tests, `Service`: descriptors, memory, children that it does not collect.

tests/conformance/self_check.py plants one leak of each kind.
"""
import collections
import contextlib
import ctypes
import dataclasses
import hashlib
import os
import pathlib
import re
import stat
import time

import host_nodes
import kernel_lists

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


def init_of(controller: int) -> int:
    """The child that is pid 1 of a namespace, and not of one that belongs to the host, as those of storage daemons."""
    for pid in children(controller):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/user") == os.readlink(f"/proc/{controller}/ns/user"):
                continue
            numbers = re.search(r"^NSpid:(.*)$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE).group(1).split()
            if len(numbers) > 1 and numbers[-1] == "1":
                return pid
    raise LookupError(f"process {controller} has no container")


def _command(pid: int) -> str:
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return b" ".join(words).decode(errors="replace").strip() or pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _zombies() -> set[str]:
    """Dead descendants. Their parent is given a moment to collect them."""
    for _ in range(20):
        reap()
        dead = {pid for pid in descendants(os.getpid()) if _state(pid) == "Z"}
        if not dead:
            break
        time.sleep(0.05)
    of = parents()
    return {f"{pid} of {of.get(pid)} {_command(of.get(pid, 0))}" for pid in dead}


NAMESPACE = re.compile(r"^(?:mnt|net|pid|ipc|uts|user|cgroup|time):\[\d+\]$")


def _namespaces() -> set[str]:
    found = set()
    for pid in {os.getpid(), *descendants(os.getpid())}:
        for folder in ("ns", "fd"):
            with contextlib.suppress(OSError):
                for name in os.listdir(f"/proc/{pid}/{folder}"):
                    with contextlib.suppress(OSError):
                        found.add(os.readlink(f"/proc/{pid}/{folder}/{name}"))
    # Kept by a mount alone: named by its root.
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        found.add(line.split()[3])
    return {name for name in found if NAMESPACE.match(name)}


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
    # By the last part: of a mount that is in no table any more the kernel shows the path from the file system's root.
    names = [f"/{os.path.basename(folder.rstrip('/'))}/" for folder in folders]
    for entry in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = entry.read_text().strip()
        except OSError:
            continue
        if any(name in backing for name in names):
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
    zombies: set[str]
    namespaces: set[str]
    mounts: set[str]
    links: set[str]
    addresses: set[str]
    tables: set[str]
    cgroups: set[str]
    owners: dict[str, str]
    loops: set[str]
    keys: set[str]
    files: dict[str, str]


# What is one of them in a line of `differences`; and those that the tests have no business to take away either.
SINGULAR = {"zombies": "zombie", "namespaces": "namespace", "mounts": "mount", "links": "link", "addresses": "address",
            "tables": "table", "cgroups": "cgroup", "loops": "loop", "keys": "key"}
MAY_NOT_GO = ("mounts", "links", "addresses", "tables")


def snapshot(folders: list[str], cgroup_pattern: str, loop_folders: list[str], cgroups: bool = True) -> HostState:
    """Without `cgroups`, those are not looked at: all groups of a machine take a while."""
    zombies = _zombies()
    return HostState(
        zombies=zombies,
        namespaces=_namespaces(),
        addresses=kernel_lists.addresses(),
        tables=kernel_lists.tables(),
        owners=host_nodes.owners(),
        keys=kernel_lists.keys(),
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
    for what, one in SINGULAR.items():
        old, new = getattr(before, what), getattr(after, what)
        lines += [f"{one} left: {item}" for item in sorted(new - old)]
        if what in MAY_NOT_GO:
            # Whoever removes a directory, anywhere, takes what is mounted on it in every namespace along.
            lines += [f"{one} gone: {item}" for item in sorted(old - new)
                      if what != "mounts" or os.path.lexists(item.split(" ", 1)[1])]
    lines += [f"owner changed: {path}: was {old}, is {after.owners[path]}" for path, old in sorted(before.owners.items())
              if after.owners.get(path, old) != old]
    for path in sorted(before.files.keys() | after.files.keys()):
        if ignored.search(path):
            continue
        old, new = before.files.get(path), after.files.get(path)
        if old == new:
            continue
        verb = "left" if old is None else "gone" if new is None else "changed"
        lines.append(f"file {verb}: {path}")
    return lines


PATIENCE_S = float(os.environ.get("VIRTUSERNS_LEAK_PATIENCE", "3"))


def lasting_differences(before: HostState, look, **how) -> list[str]:
    """The differences that stay: the kernel takes namespaces, and the links in them, down in its own time."""
    deadline = time.monotonic() + PATIENCE_S
    while (lines := differences(before, look(), **how)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return lines


# ---- the daemon -------------------------------------------------------------------------------------------------------

MAY_GROW_KB = 16 * 1024  # arenas of threads and what a busy daemon keeps for the next call


@dataclasses.dataclass
class Service:
    """What one process that goes on holds. Take the first when it has served once, so that what it keeps is there."""
    pid: int
    descriptors: collections.Counter
    memory_kb: int
    zombies: set[str]

    @classmethod
    def of(cls, pid: int) -> "Service":
        descriptors = collections.Counter()
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                descriptors[re.sub(r":\[\d+\]$", "", os.readlink(f"/proc/{pid}/fd/{name}"))] += 1
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        dead = {f"{child} {_stat_fields(child)[0]}" for child in children(pid) if _state(child) == "Z"}
        return cls(pid, descriptors, int(re.search(r"^RssAnon:\s+(\d+)", status, re.MULTILINE).group(1)), dead)

    def differences(self, after: "Service") -> list[str]:
        """Descriptors and zombies that are new, and memory beyond what a daemon may keep."""
        lines = [f"descriptor left: {count} more of {what}"
                 for what, count in sorted((after.descriptors - self.descriptors).items())]
        lines += [f"zombie left: {dead}" for dead in sorted(after.zombies - self.zombies)]
        grown = after.memory_kb - self.memory_kb
        if grown > MAY_GROW_KB and "libasan" not in pathlib.Path(f"/proc/{self.pid}/maps").read_text():
            lines.append(f"memory left: {grown} kB")
        return lines


def service_leaks(before: Service, patience_s: float = 5.0) -> list[str]:
    """The differences that stay: what a daemon closes when it comes to it is none."""
    deadline = time.monotonic() + patience_s
    while (lines := before.differences(Service.of(before.pid))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return lines


def lasting_differences(before: HostState, look, ignore_files: str = r"(?!)", seconds: float = 5) -> list[str]:
    """Those that are still there when what is about to end has had the time to."""
    deadline = time.monotonic() + seconds
    while (lines := differences(before, look(), ignore_files)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return lines
