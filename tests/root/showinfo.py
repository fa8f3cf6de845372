#!/usr/bin/env python3
"""virt-userns-showinfo beside the kernel: the talk's tables of real namespaces, and verdicts that must be the kernel's.

Runs in the mount and network namespaces of leak_check.py. Users anna and elsa are in a copy of the account files that lies
over the machine's own in this mount namespace only.
"""
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
import agents  # noqa: E402
from agents import ALL, NEWIPC, NEWNET, NEWNS, NEWPID, NEWUSER, NEWUTS, Agent, Identity  # noqa: E402

BUILD = pathlib.Path(os.environ["VIRTUSERNS_BUILD"])
# Copies: neither the build tree nor the way to it need be everybody's to enter.
PROGRAMS = pathlib.Path(tempfile.mkdtemp())
SHOWINFO, MYWAIT = str(PROGRAMS / "virt-userns-showinfo"), str(PROGRAMS / "mywait")
ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\nubuntu:x:1000:1000::/home/ubuntu:/bin/sh\n" \
           "anna:x:1001:1001::/home/anna:/bin/sh\nelsa:x:1002:1002::/home/elsa:/bin/sh\n"
GROUPS = "root:x:0:\nubuntu:x:1000:\nanna:x:1001:\nelsa:x:1002:\n"
SUBIDS = "anna:2000000:1000000\nelsa:3000000:1000000\n"
CONTAINERS = {"anna-c1": 2000000, "anna-c2": 2100000, "elsa-c1": 3000000, "elsa-c2": 3100000}
STRIDE, SEED = int(os.environ.get("VIRTUSERNS_STRIDE", "4")), int(os.environ.get("VIRTUSERNS_SEED", time.time()))
chance = random.Random(SEED)
failures: list[str] = []


def check(fact, what: str) -> None:
    if not fact:
        failures.append(what)
        print(f"FAIL {what}")


def equal(found, wanted, what: str) -> None:
    check(found == wanted, f"{what}:\n--- wanted\n{wanted}\n--- found\n{found}")


def showinfo(*words, code: int | None = 0, user: int | None = None, cwd=None, text_in: str = "") -> str:
    done = subprocess.run([SHOWINFO, *map(str, words)], capture_output=True, text=True, cwd=cwd, user=user, input=text_in,
                          timeout=60, env={**os.environ, "LC_ALL": "C"})
    check(code is None or done.returncode == code, f"showinfo {words}: status {done.returncode}, {done.stderr}")
    return done.stdout


class Machine:
    """Account files, a folder for everybody, and a host name of our own."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.folder.chmod(0o755)
        for name, text in (("passwd", ACCOUNTS), ("group", GROUPS), ("subuid", SUBIDS), ("subgid", SUBIDS)):
            file = self.folder / name
            file.write_text(text)
            file.chmod(0o644)
            if not os.path.exists(f"/etc/{name}"):
                raise SystemExit(77)
            subprocess.run(["mount", "--bind", file, f"/etc/{name}"], check=True)
        agents.call(agents._libc.unshare, NEWUTS)
        subprocess.run(["hostname", "lxc-host"], check=True)
        self.agents: list[Agent] = []
        self.children: list[subprocess.Popen] = []

    def agent(self, *arguments, **how) -> Agent:
        self.agents.append(Agent(*arguments, **how))
        return self.agents[-1]

    def container(self, name: str, first: int, count: int = 65535, owner: int = 0, **how) -> Agent:
        del owner
        def prepare():
            agents.call(agents._libc.sethostname, name.encode(), len(name))
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        lines = f"0 {first} {count}\n"
        return self.agent(Identity("init", ALL, lines, lines, prepare=prepare, **how))

    def run_as(self, uid: int, *argv, inside: Agent | None = None, cwd) -> subprocess.Popen:
        """As `uid`; of a container's when it is inside one."""
        def become():
            agents._libc.prctl(agents.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if inside:
                agents.call(agents._libc.setns, os.pidfd_open(inside.pid), ALL & ~NEWPID)
            os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
            os.chdir(cwd)
        self.children.append(subprocess.Popen(argv, preexec_fn=become, stdout=subprocess.PIPE, text=True))
        return self.children[-1]

    def end(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
            child.stdout.close()
        for agent in reversed(self.agents):
            agent.end()
        for name in ("passwd", "group", "subuid", "subgid"):
            subprocess.run(["umount", f"/etc/{name}"], check=True)
        subprocess.run(["umount", "-q", "-R", self.folder / "mounts"], check=False)
        shutil.rmtree(self.folder)


def numbered(text: str, found: dict) -> str:
    """Inodes of namespaces and pids as N1, P1... in the order of appearance."""
    def replace(match):
        number = match.group(0)
        kind = "N" if int(number) > 4_000_000_000 else "P"
        names = found.setdefault(kind, {})
        return names.setdefault(number, f"{kind}{len(names) + 1}")
    return re.sub(r"\b\d{10}\b(?!\d)|(?<= )\d+(?= +N?4\d{9}\b)", replace, text)


# ---- the talk's tables (rows T12, T13, T16, T22-T31) ----

def tables(machine: Machine) -> None:
    folder = machine.folder / "info"
    folder.mkdir()
    folder.chmod(0o1777)
    inits = {name: machine.container(name, first) for name, first in CONTAINERS.items()}
    sleepers = [machine.run_as(uid, MYWAIT, inside=inits.get(where), cwd=folder)
                for uid, where in ((1001, ""), (1002, ""), (0, "anna-c1"), (0, "anna-c2"), (0, "elsa-c1"), (1000, "elsa-c1"),
                                   (0, "elsa-c2"))]
    lines = [sleeper.stdout.readline() for sleeper in sleepers]
    check(re.fullmatch(r"\[sleeper-anna@lxc-host\] pid=\d+ uid=1001 gid=1001\n", lines[0]), f"T23 {lines[0]!r}")
    check(re.fullmatch(r"\[sleeper-root@anna-c1\] pid=\d+ uid=0 gid=0\n", lines[2]), f"T23 {lines[2]!r}")
    equal((folder / "sleeper-ubuntu@elsa-c1.info").read_text(), lines[5], "T23: the file says the same")

    equal(showinfo("files", cwd=folder),
          "fname                       uid     gid     mode\n"
          "sleeper-anna@lxc-host.info  anna    anna    -rw-r--r--\n"
          "sleeper-elsa@lxc-host.info  elsa    elsa    -rw-r--r--\n"
          "sleeper-root@anna-c1.info   2000000 2000000 -rw-r--r--\n"
          "sleeper-root@anna-c2.info   2100000 2100000 -rw-r--r--\n"
          "sleeper-root@elsa-c1.info   3000000 3000000 -rw-r--r--\n"
          "sleeper-root@elsa-c2.info   3100000 3100000 -rw-r--r--\n"
          "sleeper-ubuntu@elsa-c1.info 3001000 3001000 -rw-r--r--\n", "T24")

    pids = [agent.pid for agent in machine.agents] + [sleeper.pid for sleeper in sleepers]
    rows = showinfo("ps", *pids).splitlines()
    equal(rows[0].split(), ["command", "uid", "gid", "pid", "usersns"], "T25: columns")
    cells = [row.split() for row in rows[1:]]
    equal([(row[0], row[1], row[2]) for row in cells],
          [("mywait", "anna", "anna"), ("mywait", "elsa", "elsa"), ("init", "2000000", "2000000"),
           ("mywait", "2000000", "2000000"), ("init", "2100000", "2100000"), ("mywait", "2100000", "2100000"),
           ("init", "3000000", "3000000"), ("mywait", "3000000", "3000000"), ("mywait", "3001000", "3001000"),
           ("init", "3100000", "3100000"), ("mywait", "3100000", "3100000")], "T25: rows and grouping")
    equal(len({row[4] for row in cells}), 5, "T25: namespaces")
    for row in cells:
        equal(row[4], str(os.stat(f"/proc/{row[3]}/ns/user").st_ino), f"T29: namespace of {row[3]}")
    document = json.loads(showinfo("--json", "ps", inits["anna-c1"].pid))
    equal((document["processes"][0]["inner_pid"], document["processes"][0]["uid"]), (1, 2000000), "T30")
    # By name: other processes of this machine may have it too.
    check(all(f" {pid} " in showinfo("ps", "init", "mywait") for pid in pids), "ps by name")
    showinfo("ps", "no such command", code=1)
    nested(machine, inits)
    unprivileged(machine, inits)


def tree_of(text: str, inits) -> str:
    """The branches of our containers alone, with the inodes numbered: other people's run here too."""
    ours = {str(os.stat(f"/proc/{agent.pid}/ns/user").st_ino) for agent in inits}
    kept = [line[3:] for line in text.splitlines() if any(inode in line for inode in ours)]
    return "\n".join(re.sub(r"^[|` -]+", lambda match: "  " * (len(match.group(0)) // 3), line) for line in kept)


def nested(machine: Machine, inits) -> None:
    inner = machine.agent(Identity("nested", NEWUSER, "0 1000 100\n", "0 1000 100\n"), parent=inits["anna-c1"])
    machine.inner = inner
    branches = tree_of(showinfo("--tree"), [inits["anna-c1"], inner, inits["elsa-c2"]])
    equal(re.sub(r"\b4\d{9}\b", "N", branches),
          "N, owner root, 3 processes, uid 0 2000000 65535, gid 0 2000000 65535\n"
          "  N, owner 2000000, 2 processes, uid 0 2001000 100, gid 0 2001000 100\n"
          "N, owner root, 3 processes, uid 0 3100000 65535, gid 0 3100000 65535", "tree")
    root = json.loads(showinfo("--tree", "--json"))["tree"]
    equal(root["usersns"], os.stat("/proc/self/ns/user").st_ino, "the tree's root is ours")
    own_map = [list(map(int, line.split())) for line in pathlib.Path("/proc/self/uid_map").read_text().splitlines()]
    equal([[line["inside"], line["outside"], line["count"]] for line in root["uid_map"]], own_map, "T13: the host's own map")

    text = showinfo("map", "--uid", inner.pid, 7)
    # Domains of others on this machine may hold the same ids.
    equal(re.sub(r", (running|lease of) domain '[^']*'|\b4\d{9}\b", lambda match: "N" if match[0][0] == "4" else "", text).replace(" ", ""),
          "kindidusersnslevelowner\nuid7N2\nuid1007N1\nuid2001007Nhereuser'anna'(line1of/etc/subuid)\n", "map through two levels")
    equal(showinfo("map", "--uid", "--host", inner.pid, 2001007), text, "map of the host's id")
    check("not mapped" in showinfo("map", inner.pid, 100, code=1), "an id that is not mapped")
    check("gid" in showinfo("map", inits["elsa-c1"].pid, 1000), "both kinds")
    showinfo("map", inner.pid, "x", code=2)
    showinfo("map", 2 ** 22 + 1, 0, code=1)
    # The kernel's own word for it.
    probe = machine.folder / "probe"
    probe.write_text("")
    os.chown(probe, 2001007, 2001007)
    for agent, wanted in ((inner, 7), (inits["anna-c1"], 1007)):
        seen = subprocess.run(["nsenter", f"--user=/proc/{agent.pid}/ns/user", "--preserve-credentials", "stat", "-c", "%u", probe],
                              capture_output=True, text=True, check=True)
        equal(int(seen.stdout), wanted, "T12: stat in the container")


    # Seen from the container in the middle, its own ids are the last.
    within = machine.run_as(0, SHOWINFO, "--json", "map", "--uid", str(inner.pid), "7", inside=inits["anna-c1"], cwd="/")
    answer = json.loads(within.communicate(timeout=60)[0])["ids"][0]
    equal([level["id"] for level in answer["levels"]], [7, 1007], "map from within")
    within = machine.run_as(0, SHOWINFO, "--json", "explain", str(inner.pid), "open", str(probe), inside=inits["anna-c1"], cwd="/")
    check("uid 1007" in " ".join(json.loads(within.communicate(timeout=60)[0])["facts"]), "facts in the caller's ids")


def unprivileged(machine: Machine, inits) -> None:
    """As elsa: what she may not see is said to be so, and nothing is made up."""
    equal(tree_of(showinfo("--tree", user=1002), inits.values()), "", "tree as elsa")
    check(json.loads(showinfo("--tree", "--json", user=1002))["hidden"] >= 11, "hidden processes are counted")
    row = showinfo("ps", inits["anna-c1"].pid, user=1002).splitlines()[1].split()
    equal(row, ["init", "2000000", "2000000", str(inits["anna-c1"].pid), "-"], "ps as elsa")
    showinfo("map", inits["anna-c1"].pid, 0, user=1002, code=1)
    showinfo("explain", inits["anna-c1"].pid, "open", "/", user=1002, code=1)


def config() -> None:
    xml = "".join(f"<domain type='lxc'><name>{name}</name><memory>65536</memory><os><type>exe</type></os><idmap>"
                  f"<uid start='0' target='{first}' count='65535'/><gid start='0' target='{first}' count='65535'/></idmap></domain>\n"
                  for name, first in CONTAINERS.items()).splitlines()
    with tempfile.TemporaryDirectory() as folder:
        words = []
        for number, text in enumerate(xml):
            path = pathlib.Path(folder, f"{number}.xml")
            path.write_text(text)
            words += ["--file", path]
        lines = [line for line in showinfo(*words, "config").splitlines() if not line.startswith("#")]
    equal(lines, [f"lxc.id_map = {kind} 0 {first} 65535" for first in CONTAINERS.values() for kind in "ug"], "T26")
    equal(showinfo("config", "--file", "-", text_in=xml[0]).splitlines()[1], "lxc.id_map = u 0 2000000 65535", "from standard input")
    showinfo("config", "--file", "-", text_in="<domain", code=1)


def hostile(machine: Machine) -> None:
    folder = machine.folder / "hostile"
    folder.mkdir()
    name = b"a\x1b[2J\n\xff\"\\"
    with open(os.fsencode(folder) + b"/" + name, "w"):
        pass
    os.mkfifo(folder / "fifo")
    text = showinfo("files", folder)
    check("\x1b" not in text and text.count("\n") == 3, f"a hostile name is not printed raw: {text!r}")
    json.loads(showinfo("--json", "files", folder))
    agent = machine.agent(Identity("x\x1b[1m\ny", NEWUSER, "0 2000000 10\n", "0 2000000 10\n"))
    for words in (("ps", agent.pid), ("--json", "ps", agent.pid), ("explain", agent.pid, "open", "/"),
                  ("--json", "explain", agent.pid, "signal", agent.pid)):
        check("\x1b" not in showinfo(*words), f"a hostile command is not printed raw: {words}")
    for words in ((), ("files", "--tree"), ("nonsense",), ("explain", 1, "open"), ("explain", agent.pid, "fly", "/"),
                  ("explain", agent.pid, "bind", 70000), ("explain", agent.pid, "open", "relative"), ("--what",)):
        showinfo(*words, code=2)
    showinfo("files", folder / "none", code=1)


def silent(machine: Machine) -> None:
    """A file system of which nobody answers (FUSE without its daemon) is given up."""
    agent = machine.agent(Identity("reader", uid=1001, gid=1001))
    showinfo("explain", agent.pid, "open", "/proc/self/status", code=3)
    folder = machine.folder / "silent"
    folder.mkdir()
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        print("left out: this kernel has no FUSE")
        return
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    agents.call(agents._libc.mount, b"silent", os.fsencode(folder), b"fuse", 0, options)
    try:
        init = os.read(device, 1 << 17)
        # An answer to FUSE_INIT, and never another.
        os.write(device, struct.pack("<IiQIIII", 16 + 64, 0, struct.unpack_from("<Q", init, 8)[0], 7, 31, 0, 0) + bytes(48))
        started = time.monotonic()
        equal(showinfo("explain", agent.pid, "open", f"{folder}/x", code=1), "", "nothing is said of what does not answer")
        check(9 < time.monotonic() - started < 40, f"given up after {time.monotonic() - started} s")
    finally:
        os.close(device)
        subprocess.run(["umount", "-l", folder], check=True)


# ---- verdicts are the kernel's ----

compared = 0


def compare(agent: Agent, action: str, *arguments) -> None:
    """`explain` says what the kernel says to the same process. Each question is a process, and there are more than a
    thousand: a normal run asks every fourth, another choice each time; with VIRTUSERNS_STRIDE=1, as `tools/check --full`
    does, all of them."""
    global compared
    # Linux 6.1 once showed other lists of idmapped mounts than it went by.
    if chance.randrange(STRIDE) != 0 and "/idmapped/acl-" not in str(arguments[0]):
        return
    compared += 1
    answered = agent.ask(action, *arguments)
    access = ["--access", arguments[1]] if len(arguments) > 1 else []
    document = json.loads(showinfo("--json", *access, "explain", agent.pid, action, arguments[0], code=None) or "{}")
    # What a file system itself has against it comes after every right.
    is_allowed = answered == 0 or (action == "mount" and answered not in (1, 19))
    wanted = {"may": "ok"}.get(document.get("answer"), document.get("errno") or document.get("answer"))
    check(wanted == ("ok" if is_allowed else agents.name_of(answered)),
          f"{agent.identity.name}: {action} {arguments}: the kernel says {agents.name_of(answered)}, explain {document}")


def cast(machine: Machine) -> list[Agent]:
    """Everybody who tries: users, roots of containers with and without what makes them strong, and the host's own."""
    one, two = "0 2000000 65535\n", "0 2100000 65535\n"
    dac_read, dac_override = 1 << 2, 1 << 1
    container = machine.agent(Identity("c1-root", ALL, one, one))
    people = [
        machine.agent(Identity("host-root")),
        machine.agent(Identity("host-nocaps", capabilities=0)),
        machine.agent(Identity("anna", uid=1001, gid=1001, groups=(1002,))),
        machine.agent(Identity("anna-search", uid=1001, gid=1001, capabilities=dac_read)),
        container,
        machine.agent(Identity("c1-user", uid=5, gid=5, groups=(9,)), parent=container),
        machine.agent(Identity("c1-nocaps", capabilities=0), parent=container),
        machine.agent(Identity("c1-search", uid=7, gid=7, capabilities=dac_read), parent=container),
        machine.agent(Identity("c1-override", uid=7, gid=7, capabilities=dac_override), parent=container),
        machine.agent(Identity("c1-nested", NEWUSER | NEWNS, "0 5 10\n", "0 5 10\n"), parent=container),
        machine.agent(Identity("c2-root", ALL, two, two)),
        machine.agent(Identity("c3-userns", NEWUSER, one, one)),  # shares everything else with the host
        machine.agent(Identity("c4-mnt", NEWUSER | NEWNS | NEWIPC, one, one)),
        machine.agent(Identity("c5-undumpable", NEWUSER, one, one, uid=5, gid=5, is_dumpable=False)),
        machine.agent(Identity("undumpable", uid=1001, gid=1001, is_dumpable=False)),
        machine.agent(Identity("set-uid", uids=(1001, 1002, 1001), capabilities=0)),
        machine.agent(Identity("c6-masked", ALL, two, two, before=mask_proc)),
        machine.agent(Identity("in-a-root", prepare=lambda: os.chroot(machine.folder / "mounts"))),
    ]
    return people


def mask_proc() -> None:
    """Of the host's root: what is laid over here is locked in the namespaces of a container."""
    agents.call(agents._libc.unshare, NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", "/dev/null", "/proc/meminfo"], check=True)


def make_files(folder: pathlib.Path) -> list[str]:
    paths = []
    owners = [(0, 0), (1001, 1001), (0, 1002), (2000000, 2000000), (2000005, 2000005), (2000001, 2000009), (2000007, 0),
              (2100000, 2100000)]
    for (uid, gid), mode in itertools.product(owners, (0o000, 0o077, 0o604, 0o640, 0o660, 0o711)):
        path = folder / f"f-{uid}-{gid}-{mode:o}"
        path.write_text("")
        os.chown(path, uid, gid)
        path.chmod(mode)
        paths.append(str(path))
    for number, rights in enumerate(("u:2000005:r", "u:2000005:rw,m::r", "g:2000009:rw", "g:1002:-", "u:1001:-,o::rw",
                                     "u:2000000:rw,g::-", "g:2000009:r,g:2000005:w")):
        path = folder / f"acl-{number}"
        path.write_text("")
        os.chown(path, 0, 1002 if number == 3 else 0)
        path.chmod(0o640)
        subprocess.run(["setfacl", "-m", rights, path], check=True)
        paths.append(str(path))
    for uid, mode in ((0, 0o700), (0, 0o711), (2000005, 0o700), (1001, 0o070)):
        directory = folder / f"d-{uid}-{mode:o}"
        directory.mkdir()
        (directory / "inner").write_text("")
        (directory / "inner").chmod(0o666)
        os.chown(directory, uid, uid)
        directory.chmod(mode)
        paths += [str(directory), str(directory / "inner"), f"{directory}/../{directory.name}/inner", str(directory / "none")]
    return paths


def make_places(folder: pathlib.Path) -> list[str]:
    """Mounts with flags, devices, links, and what is none of these."""
    mounts = folder.parent / "mounts"
    mounts.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", mounts], check=True)
    paths = []
    for name, options in (("plain", ""), ("ro-fs", "ro"), ("nodev", "nodev"), ("noexec", "noexec")):
        place = mounts / name
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "none", place], check=True)
        fill(place)
        if options == "ro":
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        elif options:
            subprocess.run(["mount", "-o", f"remount,bind,{options}", place], check=True)
        paths += [str(path) for path in sorted(place.iterdir())]
    bound = mounts / "ro-mount"
    bound.mkdir()
    subprocess.run(["mount", "--bind", mounts / "plain", bound], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", bound], check=True)
    paths += [str(path) for path in sorted(bound.iterdir())]
    sticky = mounts / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    for uid in (0, 1001, 2000005):
        link = sticky / f"link-{uid}"
        link.symlink_to(mounts / "plain" / "readable")
        os.chown(link, uid, uid, follow_symlinks=False)
        paths.append(str(link))
        through = sticky / f"folder-{uid}"
        through.symlink_to("../plain")
        os.chown(through, uid, uid, follow_symlinks=False)
        paths.append(f"{through}/readable")
    (sticky / "loop").symlink_to("loop")
    (sticky / "dangling").symlink_to("/nowhere/at/all")
    return paths + [f"{sticky}/loop", f"{sticky}/dangling", f"{mounts}/plain/readable/", f"{mounts}/plain/readable/x",
                    f"{mounts}/../../../../../../../..{mounts}/plain/readable"]


def make_idmapped(files: pathlib.Path, owner: Agent) -> list[str]:
    """The files once more, with ids shifted as in `owner`'s container: what is below 65535 is mapped, nothing else is."""
    target = files.parent / "mounts" / "idmapped"
    target.mkdir()
    tree = agents.call(agents._libc.syscall, agents.SYS_OPEN_TREE, -100, str(files).encode(), 1 | os.O_CLOEXEC)
    ns = os.open(f"/proc/{owner.pid}/ns/user", os.O_RDONLY)
    attributes = struct.pack("QQQQ", 0x100000, 0, 0, ns)  # MOUNT_ATTR_IDMAP
    agents.call(agents._libc.syscall, agents.SYS_MOUNT_SETATTR, tree, b"", 0x1000, attributes, len(attributes))
    agents.call(agents._libc.syscall, agents.SYS_MOVE_MOUNT, tree, b"", -100, str(target).encode(), 4)
    os.close(ns), os.close(tree)
    return [str(path) for path in sorted(target.iterdir())][::2]


def fill(place: pathlib.Path) -> None:
    (place / "readable").write_text("")
    (place / "readable").chmod(0o666)
    (place / "private").write_text("")
    (place / "private").chmod(0o600)
    shutil.copy("/bin/true", place / "program")
    (place / "program").chmod(0o755)
    for name, device, mode in (("null", (1, 3), 0o666), ("kmsg", (1, 11), 0o600), ("disk", (7, 200), 0o660)):
        kind = stat.S_IFBLK if name == "disk" else stat.S_IFCHR
        os.mknod(place / name, kind | 0o600, os.makedev(*device))
        (place / name).chmod(mode)


def verdicts(machine: Machine) -> None:
    folder = machine.folder / "files"
    folder.mkdir()
    files, places = make_files(folder), make_places(folder)
    shifting = machine.agent(Identity("shifting", NEWUSER, "0 2000000 65535\n", "0 2000000 65535\n"))
    files += make_idmapped(folder, shifting)
    people = cast(machine)
    for agent in people:
        for number, path in enumerate(files):
            # Each path by everybody, each access by half of them: a process for each question takes its time.
            compare(agent, "open", path, ("r", "rw")[(number + people.index(agent)) % 2])
        for path in places:
            # To open this disk as the host is to ask for a device that is not there.
            if not path.endswith("disk") or not agent.identity.name.startswith("host-"):
                compare(agent, "open", path, ("r", "rw")[people.index(agent) % 2])
        for path in files[:6] + [path for path in places if path.endswith(("program", "private"))]:
            answer = agent.ask("exec", path)
            if answer != 8:  # ENOEXEC: an empty file may be executed and is no program
                compare(agent, "exec", path)
        for target in people:
            # Numbers of other pid namespaces are not the same: these share ours.
            if agent.identity.namespaces & NEWPID or agent.identity.name.startswith("c1-"):
                continue
            compare(agent, "signal", target.pid)
            if target is not agent:
                compare(agent, "trace", target.pid)
        for port in (0, 1, 80, 1023, 1024, 40000):
            compare(agent, "bind", port)
        if agent.identity.name == "in-a-root":
            for path in ("/", "/plain/readable", "/plain/private", "/../../plain/readable", "/sticky/folder-0/readable",
                         "/sticky/link-0", "/etc/passwd", "/plain/null"):
                compare(agent, "open", path, "r")
    mounts(people)


def mounts(people: list[Agent]) -> None:
    types = [line.split("\t")[1] for line in pathlib.Path("/proc/filesystems").read_text().splitlines()]
    # The old control groups refuse a new hierarchy for reasons of their own, with the same number.
    for agent in people:
        if agent.identity.name == "host-root":  # would make real ones
            continue
        for kind in [kind for kind in types if kind not in ("cgroup", "cpuset")] + ["nosuchfs"]:
            compare(agent, "mount", kind)


def main() -> int:
    if os.geteuid() != 0 or "VIRTUSERNS_TEST_MACHINE" not in os.environ:
        PROGRAMS.rmdir()
        print("skipped: needs root, and namespaces of its own (leak_check.py)")
        return 77
    started = time.monotonic()
    PROGRAMS.chmod(0o755)
    shutil.copy(BUILD / "tools/showinfo/virt-userns-showinfo", SHOWINFO), shutil.copy(BUILD / "tests/root/mywait", MYWAIT)
    machine = Machine()
    try:
        tables(machine)
        config()
        hostile(machine)
        silent(machine)
        verdicts(machine)
    finally:
        machine.end()
        shutil.rmtree(PROGRAMS)
    check(compared > 100, f"only {compared} verdicts were compared")
    print(f"{compared} verdicts compared (seed {SEED}), {len(failures)} failures, {time.monotonic() - started:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
