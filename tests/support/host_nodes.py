"""Who owns what all of the machine shares: nodes of /dev, and the tops of the hierarchies of control groups."""
import contextlib
import os
import pathlib
import stat

NODES = "/dev"


def groups() -> list[str]:
    """Every hierarchy's top, and the groups that this process itself is in: other people's come and go."""
    top = pathlib.Path("/sys/fs/cgroup")
    found = [top, *(path for path in top.glob("*") if path.is_mount())]
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in ({"unified", "."} if not names else {names, names.split("=")[-1]}):
            found.append(top / name / path.lstrip("/"))
    return sorted({str(path) for path in found if (path / "cgroup.procs").exists()})


def nodes() -> list[str]:
    """Loop devices come and go, terminals change hands."""
    found = []
    for entry in os.scandir(NODES):
        is_terminal = entry.name.startswith(("tty", "console")) and not entry.is_symlink() and \
            stat.S_ISCHR(entry.stat().st_mode)
        if not is_terminal and not entry.name.startswith("loop") and entry.name not in ("pts", "shm"):
            found.append(entry.path)
    return found


def owners() -> dict[str, str]:
    """path -> owner, mode and what device it is."""
    found = {}
    for path in nodes() + [group + name for group in groups()
                           for name in ("", "/cgroup.procs", "/tasks", "/cgroup.subtree_control")]:
        with contextlib.suppress(OSError):
            st = os.lstat(path)
            found[path] = f"{st.st_uid}:{st.st_gid} {stat.filemode(st.st_mode)} {st.st_rdev:#x}"
    return found
