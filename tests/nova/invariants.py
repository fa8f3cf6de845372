"""What must be so whatever was done: ids of one's own, disks that others cannot read, and nothing left when all servers are deleted."""
import contextlib
import os
import pathlib
import stat

import host_state
import libvirt
from stage import Mismatch, Server, Stage, check, equal

INVARIANTS = []  # (name, function), tried in this order
OF_NOVA = {"_base", "locks", "compute_nodes", "snapshots"}  # in its folder of instances, beside those


def invariant(function):
    INVARIANTS.append((function.__name__.replace("_", "-"), function))
    return function


def _two_projects(stage: Stage) -> list[Server]:
    """One server of each of two projects, on one host."""
    names = [f"project-{stage.next_number()}" for _ in range(2)]
    host = next(iter(stage.cloud.hosts))
    servers = []
    for session in map(stage.admin.make_project, names):
        # Only an administrator may choose the host; the project is then his. So others are switched off instead.
        with _only(stage, host):
            servers.append(stage.boot(session, flavor=stage.large))
    return servers


@contextlib.contextmanager
def _only(stage: Stage, host: str):
    others = [service for service in stage.admin.nova("GET", "/os-services?binary=nova-compute")["services"] if service["host"] != host]
    for service in others:
        stage.admin.nova("PUT", f"/os-services/{service['id']}", {"status": "disabled"})
    try:
        yield
    finally:
        for service in others:
            stage.admin.nova("PUT", f"/os-services/{service['id']}", {"status": "enabled"})


def _ranges(server: Server) -> list[tuple[str, int, int]]:
    """Kind, first and behind the last of its ids on the host."""
    found = []
    for kind in ("uid", "gid"):
        for line in pathlib.Path(f"/proc/{server.init()}/{kind}_map").read_text().splitlines():
            _, first, count = map(int, line.split())
            found.append((kind, first, first + count))
    return found


def as_id(number: int, function, *arguments) -> str:
    """In a child with this id and nothing else: what `function` returns, or the error's name."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
            text = str(function(*arguments))
        except OSError as error:
            text = type(error).__name__
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def _open_again(descriptor: int) -> str:
    with open(f"/proc/self/fd/{descriptor}", "rb") as file:
        file.read(1)
    return "read"


def read_as(number: int, path: str) -> str:
    """Of somebody with this id who is given a descriptor of the file, which was made without any right: what he gets."""
    descriptor = os.open(path, os.O_PATH)
    try:
        return as_id(number, _open_again, descriptor)
    finally:
        os.close(descriptor)  # it holds the mount, and that the disk


@invariant
def every_instance_has_ids_of_its_own(stage: Stage) -> None:
    servers = [*_two_projects(stage), stage.boot(), stage.boot()]
    ranges = [(server.id, *each) for server in servers for each in _ranges(server)]
    for number, (server, kind, first, end) in enumerate(ranges):
        check(first >= 1_000_000, f"{kind}s of {server} begin at {first}")
        for other, other_kind, other_first, other_end in ranges[number + 1:]:
            check(kind != other_kind or end <= other_first or other_end <= first, f"{kind}s of {server} and {other} overlap")
    for server in servers:
        server.delete()


@invariant
def no_project_reads_the_disk_of_another(stage: Stage) -> None:
    """Not even with a descriptor that leads to it, as a container's root that has come out of its container."""
    mine, other = _two_projects(stage)
    other.run("/bin/sh", "-c", "umask 077; echo secret > /root/secret; echo open > /tmp/open; chmod 644 /tmp/open; sync")
    thief, root = mine.first_uid(), f"/proc/{other.init()}/root"
    # That a descriptor gets one there where nothing else forbids it: otherwise what follows shows nothing.
    equal(read_as(thief, f"{root}/tmp/open"), "read", "a file that everybody may read, by its descriptor")
    equal(read_as(thief, f"{root}/root/secret"), "PermissionError", "a file of its root, by its descriptor")
    equal(read_as(other.first_uid(), f"{root}/root/secret"), "read", "the same as its own root")
    disks = [path for folder in _instances(other.host) for path in (folder / other.id).rglob("*")
             if path.is_file() and path.stat().st_size > 1 << 20]
    check(disks, "it has a disk in a folder of nova's or of the adapter's")
    for disk in disks:
        equal(read_as(thief, str(disk)), "PermissionError", f"{disk.name}, by its descriptor")
    for server in (mine, other):
        server.delete()


def _instances(host) -> list[pathlib.Path]:
    """Where instances are: nova's folder, and the adapter's on path B."""
    return [folder for folder in (host.state / "instances", host.state / "adapter/instances") if folder.is_dir()]


def _mounts(host) -> list[str]:
    lines = pathlib.Path(f"/proc/{host.holder.pid}/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if "/instances/" in line.split()[4] or "/instances/" in line.split()[3]]


def left_of(stage: Stage, keep: list[Server]) -> list[str]:
    """What there is of servers, but for these, which run."""
    words = [word for server in keep for word in (server.id, stage.admin.server(server.id)["OS-EXT-SRV-ATTR:instance_name"])]
    return [each for each in _leftovers(stage) if not any(word in each for word in words)]


def _leftovers(stage: Stage) -> list[str]:
    left = [f"server {server['id']}" for server in stage.admin.servers(all_projects=True)]
    for provider in stage.admin.placement("/resource_providers")["resource_providers"]:
        claimed = stage.admin.placement(f"/resource_providers/{provider['uuid']}/allocations")["allocations"]
        left += [f"claim of {consumer} at {provider['name']}" for consumer in claimed]
    for host in stage.cloud.hosts.values():
        with contextlib.closing(libvirt.open(host.uri)) as connection:
            left += [f"{host.name}: domain {domain.name()}" for domain in connection.listAllDomains()]
        left += [f"{host.name}: mount {mount}" for mount in _mounts(host)]
        left += [f"{host.name}: file {path.name}" for folder in _instances(host) for path in folder.iterdir()
                 if path.name not in OF_NOVA]
        left += [f"{host.name}: hold {path}" for path in (host.state / "adapter/images/holds").glob("*/*")]
        left += [f"{host.name}: file {path}" for folder in ("/run/libvirt", "/etc/libvirt", "/var/lib/libvirt")
                 for path in pathlib.Path(folder, host.name, "userns").rglob("*") if not stat.S_ISDIR(path.lstat().st_mode)
                 and not path.name.endswith(".lock")]
        left += [f"{host.name}: group {path}" for group in host.groups() for path in group.glob("machine/*/")]
    left += [f"loop device {loop} of {whose}" for loop, whose in stage.cloud.loops().items() if loop not in stage.lost_loops]
    commands = {pid: host_state._command(pid) for pid in host_state.descendants(os.getpid())}
    return left + [f"process {pid} {command}" for pid, command in commands.items() if "virtuserns-controller" in command.split(" ")[0]]


@invariant
def nothing_is_left_of_deleted_servers(stage: Stage) -> None:
    stage.delete_all()
    left = stage.eventually_empty(lambda: _leftovers(stage))
    if left:
        raise Mismatch("; ".join(left[:20]))
