"""What a run of the suites calls its own, and how a later run removes what a killed one could not.

Groups, folders and files carry the pid of the process that made them. A run that is told to end (SIGTERM, SIGINT) tidies up
itself (harness.py); one that is killed cannot, so each run begins by collecting what dead owners left: processes in their
groups, the groups, and files in the folder for temporary ones. Mounts, links and sockets died with their namespaces.
"""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import tempfile
import time

PREFIX = "virtuserns-"
KINDS = ("session", "conformance", "nova", "overlay", "daemon", "leaks", "hogs", "peers", "test", "backend")  # the last two: of C++ tests
_PATTERN = re.compile(rf"{PREFIX}(?:{'|'.join(KINDS)})-(\d+)(?:-|$)")
CGROUPS = pathlib.Path("/sys/fs/cgroup")


def owner() -> int:
    """The pid of this run, as the machine has it. (A run in a pid namespace of its own is told.)"""
    return int(os.environ.get("VIRTUSERNS_OWNER", os.getpid()))


def name(kind: str) -> str:
    assert kind in KINDS
    return f"{PREFIX}{kind}-{owner()}"


def _owner_of(path: pathlib.Path) -> int:
    found = _PATTERN.match(path.name)
    return int(found.group(1)) if found else 0


def traces() -> list[pathlib.Path]:
    """All that runs own, whoever they are."""
    temporary = pathlib.Path(tempfile.gettempdir())
    return [path for path in (*CGROUPS.glob(f"{PREFIX}*"), *CGROUPS.glob(f"*/{PREFIX}*"), *temporary.glob(f"{PREFIX}*"))
            if _owner_of(path)]


def collect_dead() -> list[str]:
    """Removes what owners that are dead left. What was removed."""
    if "VIRTUSERNS_OWNER" in os.environ or os.geteuid() != 0:
        return []  # the pids of the machine are not ours to see
    dead = [path for path in traces() if not os.path.exists(f"/proc/{_owner_of(path)}")]
    return collect(dead)


def collect(paths: list[pathlib.Path]) -> list[str]:
    groups = [path for path in paths if CGROUPS in path.parents]
    for group in groups:
        _thaw(group)  # v1: what is frozen in one hierarchy does not die by any other
    for group in groups:
        _end_processes(group)
    for group in groups:
        _remove_groups(group)
    for path in set(paths) - set(groups):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return [str(path) for path in paths if not path.exists()]


def _groups_below(group: pathlib.Path) -> list[pathlib.Path]:
    """Deepest first."""
    found, waiting = [], [group]
    while waiting:
        with contextlib.suppress(OSError):
            here = waiting.pop()
            found.append(here)
            waiting += [entry for entry in here.iterdir() if entry.is_dir()]
    return found[::-1]


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return 0


def _is_controller(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(b"virtuserns-controller")
    return False


def _thaw(group: pathlib.Path) -> None:
    for folder in _groups_below(group):
        for file, text in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            with contextlib.suppress(OSError):
                if (folder / file).exists():
                    (folder / file).write_text(text)


def _end_processes(group: pathlib.Path) -> None:
    """Also the controllers, which are in no group of the run: each is the parent of an init that is."""
    for _ in range(100):
        pids = set()
        for folder in _groups_below(group):
            with contextlib.suppress(OSError):
                pids |= set(map(int, (folder / "cgroup.procs").read_text().split()))
        if not pids:
            return
        pids |= {parent for parent in map(_parent, pids) if _is_controller(parent)}
        for pid in pids - {0}:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _remove_groups(group: pathlib.Path) -> None:
    for _ in range(100):
        for folder in _groups_below(group):
            with contextlib.suppress(OSError):
                folder.rmdir()
        if not group.exists():
            return
        time.sleep(0.02)
