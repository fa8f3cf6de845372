#!/usr/bin/env python3
"""What /etc/subuid and /etc/subgid allow, newuidmap and newgidmap apply, and what is said when they do not.

    tests/session/delegation.py [-k TEST]
"""
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from users import DELEGATED, id_map, main, owned, test, write_delegations  # noqa: E402
from harness import Skip, check, contains, equal  # noqa: E402

ROOTFS = "/home/.built/tools/virt-userns-rootfs"


def idmap(first, count=65536):
    return f"<idmap><uid start='0' target='{first}' count='{count}'/><gid start='0' target='{first}' count='{count}'/></idmap>"


@contextlib.contextmanager
def in_place_of(program, copy):
    subprocess.run(["mount", "--bind", copy, program], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", program], check=True)


@test
def nothing_delegated(env):
    """The error says which files, and a line that would do."""
    anna = env.anna
    root = anna.root("web")
    write_delegations(env, anna=[])
    anna.start_daemon()
    anna.define("web", root).ok()
    anna.virsh("start", "web").fails("/etc/subuid", "/etc/subgid")
    equal(anna.virsh("domstate", "web").ok().out.strip(), "shut off")


@test
def ids_of_somebody_else(env):
    """Elsa's, root's, an account's and nobody's are refused when they are asked for."""
    anna = env.anna
    anna.start_daemon()
    for first in (env.elsa.first, 0, 1001, 1002, anna.first + DELEGATED - 1, 4_000_000_000):
        anna.define("web", "/nowhere", idmap=idmap(first)).fails("error: Failed to define domain")
    equal(anna.virsh("list", "--all", "--name").ok().out.split(), [])


@test
def a_line_that_is_taken_away(env):
    """After the definition, and after the daemon has read it: newuidmap has the last word."""
    anna = env.anna
    root = anna.root("web")
    anna.start_daemon()
    anna.define("web", root, idmap=idmap(anna.first)).ok()
    write_delegations(env, anna=[f"{anna.first + 65536}:65536"])
    said = anna.virsh("start", "web").fails().err
    check("/etc/subuid" in said or "delegated" in said, said)
    write_delegations(env)
    anna.virsh("start", "web").ok()


@test
def a_second_line_while_the_daemon_runs(env):
    """Rows A15, T18, T20: seen at once, and used by the second domain."""
    anna = env.anna
    write_delegations(env, anna=[f"{anna.first}:65536"])
    one = anna.root("one")
    anna.start_daemon()
    anna.start("one", one)
    second = anna.first + 500_000
    write_delegations(env, anna=[f"{anna.first}:65536", f"{second}:65536"])
    anna.start("two", anna.root("two", "--first", second))
    equal([id_map(anna.init(name))[0][1] for name in ("one", "two")], [anna.first, second])


@test
def no_newuidmap(env):
    anna = env.anna
    root = anna.root("web")
    anna.start_daemon()
    anna.define("web", root).ok()
    broken = pathlib.Path("/home/.broken")
    broken.write_text("#!/nonexistent\n")
    broken.chmod(0o755)
    with in_place_of("/usr/bin/newuidmap", broken):
        anna.virsh("start", "web").fails("newuidmap is not installed", "package uidmap")
    killed = pathlib.Path("/home/.killed")
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    with in_place_of("/usr/bin/newgidmap", killed):
        anna.virsh("start", "web").fails("newgidmap was killed by signal 9")
    for path in (broken, killed):
        path.unlink()
    anna.virsh("start", "web").ok()


@test
def newuidmap_with_file_capabilities(env):
    """Row T19: as other distributions install it, without the set-user-id bit."""
    anna = env.anna
    copies = []
    for name, capability in (("newuidmap", "cap_setuid"), ("newgidmap", "cap_setgid")):
        copy = f"/home/.{name}"
        shutil.copy(f"/usr/bin/{name}", copy)
        os.chmod(copy, 0o755)
        if not shutil.which("setcap", path="/usr/sbin:/sbin"):
            raise Skip("setcap is not installed (package libcap2-bin)")
        subprocess.run(["/usr/sbin/setcap", f"{capability}+ep", copy], check=True)
        copies.append((f"/usr/bin/{name}", copy))
    root = anna.root("web")
    with in_place_of(*copies[0]), in_place_of(*copies[1]):
        anna.start_daemon()
        anna.start("web", root)
        equal(id_map(anna.init("web")), [(0, anna.first, 65536)])
    for _, copy in copies:
        os.unlink(copy)


@test
def a_root_of_other_ids(env):
    """An ordinary user cannot have a tree shifted: said with the command that makes one."""
    anna = env.anna
    plain = anna.home / "plain"
    anna.run("mkdir", "-p", plain / "sbin").ok()
    anna.start_daemon()
    anna.define("web", plain).ok()
    anna.virsh("start", "web").fails("belongs to 1001:1001", "virt-userns-rootfs create --first")


@test
def roots_are_made_and_removed(env):
    anna = env.anna
    root = anna.root("web")
    equal((root.stat().st_uid, root.stat().st_gid), (anna.first, anna.first))
    equal((root / "bin/busybox").stat().st_uid, anna.first)
    anna.start_daemon()
    # What container root makes, anna cannot remove by hand.
    anna.start("web", root, init="/bin/sh", extra="")
    anna.virsh("destroy", "web").ok()
    check(anna.run("rm", "-rf", root).code != 0, "the tree was anna's own")
    anna.run(ROOTFS, "remove", root).ok()
    check(not root.exists(), "the tree is there")
    for words, code, part in (((), 2, "says not what to do"), (("create",), 2, "exactly one directory"),
                              (("create", "--first", "x", "y"), 2, "'x' is no id"),
                              (("create", "--first", env.elsa.first, "--from", "/bin", anna.home / "y"), 1, "are not yours"),
                              (("create", "--from", "/nowhere", anna.home / "y"), 1, "cannot be read"),
                              (("create", "--from", "/bin", anna.home), 1, "exists"),
                              (("remove", anna.home / "y"), 1, "is no directory"),
                              (("remove", env.elsa.home), 1, "are not yours")):
        said = anna.run(ROOTFS, *words)
        equal(said.code, code, f"{words}: {said.err}")
        contains(said.err, part)
    garbage = anna.run(ROOTFS, "create", anna.home / "y", stdin="garbage")
    equal(garbage.code, 1)
    equal([path.name for path in anna.home.iterdir() if not path.name.startswith(".") and path.is_dir()], [])


@test
def groups_that_were_delegated(env):
    """A directory of each hierarchy that is the user's: limits hold, the domain can be paused, what it takes is counted."""
    anna = env.anna
    root = anna.root("web")
    name, top = owned.name("session"), pathlib.Path("/sys/fs/cgroup")
    has_v1 = (top / "memory").is_dir()
    groups = [top / part / name for part in (("memory", "pids", "freezer", "cpuacct") if has_v1 else ("",)) if (top / part).is_dir()]
    if not has_v1:
        raise Skip("a group of v2 is delegated by systemd together with the process in it (tests/vm)")
    for group in groups:
        group.mkdir()
        for path in (group, group / "tasks", group / "cgroup.procs"):
            os.chown(path, anna.uid, anna.uid)
    config = anna.home / ".config/libvirt/virtusernsd.conf"
    anna.run("mkdir", "-p", config.parent).ok()
    config.write_text(f'cgroup_parent = "{name}"\n')
    try:
        anna.start_daemon()
        anna.start("web", root)
        found = {group.parent.name: list(group.glob("machine/virtuserns-*")) for group in groups}
        equal([part for part, below in found.items() if len(below) != 1], [], "hierarchies without the domain's group")
        equal(int((found["memory"][0] / "memory.limit_in_bytes").read_text()), 64 * 1024 * 1024)
        check(str(anna.init("web")) in (found["pids"][0] / "cgroup.procs").read_text().split(), "init is in its group")
        said = anna.virsh("dominfo", "web").ok().out
        check("is not limited" not in said, said)
        anna.virsh("suspend", "web").ok()
        equal(anna.virsh("domstate", "web").ok().out.strip(), "paused")
        anna.virsh("resume", "web").ok()
        anna.virsh("destroy", "web").ok()
        equal([path for below in found.values() for path in below if path.exists()], [], "groups left")
    finally:
        anna.clean()
        config.unlink()
        for group in groups:
            for path in (group / "machine", group):
                if path.exists():
                    path.rmdir()


if __name__ == "__main__":
    main()
