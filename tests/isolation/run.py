#!/usr/bin/env python3
"""The probes of virtuserns-drill: none fails in a default domain, and each fails in a container without its wall.

    tests/isolation/run.py --driver userns [--build DIR] [-v]
"""
import array
import ctypes
import fcntl
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / part) for part in ("conformance", "support", "isolation")]
import daemon as daemon_module  # noqa: E402
import harness  # noqa: E402
import host_state  # noqa: E402
from harness import Skip, check, equal, eventually, main, test  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
CLASSES = {"A": "descriptors, directories, programs, environment, keys", "B": "masks, mounts, ways out of the root",
           "C": "ids, groups, capabilities", "D": "kernel interfaces, control groups, devices", "E": "network and IPC",
           "F": "terminals"}

# One wall taken out of the plan of a domain that is otherwise the default: what must fail then.
WEAKENINGS = {
    "filter": ["call_clone3", "call_vsock", "call_userfaultfd", "call_io_uring_setup", "call_io_uring_register",
               "call_keyctl", "call_add_key", "call_request_key", "call_quotactl", "call_clock_settime",
               "call_adjtimex", "call_tiocsti", "call_tiocsti_wide", "call_tioclinux", "call_read_implies_exec",
               "call_perf_event_open", "unshare_user_namespace", "unshare_user_namespace_wide", "clone_user_namespace",
               "call32_keyctl", "call32_clone3", "call32_clock_settime", "call32_tiocsti", "call32_socketcall",
               "unshare32_user_namespace"],
    "masks": ["masked_files", "masked_directories"],
    "capabilities": ["capability_sys_module", "capability_sys_rawio", "capability_syslog", "capability_mknod",
                     "capability_bpf", "capability_perfmon", "capability_mac_admin", "capability_audit_read"],
    "environment": ["environment", "environment_of_init"],
    "descriptor": ["descriptors", "descriptors_of_init"],
    "devices": ["nodes_in_dev"],
    "masks-readonly": ["fresh_proc"],
}
# What no container on any machine can be made to do by us, and why.
CANNOT_BE_WEAKENED = {
    "call_x32": "needs a kernel with x32, which Debian's has only when asked at boot",
    "detach_root": "a root that has another one below needs a runtime without pivot_root and without chroot",
}


class Line:
    def __init__(self, text):
        self.group, self.name, self.verdict, *detail = text.split(" ", 3)
        self.detail = detail[0] if detail else ""
        check(self.verdict in ("held", "FAILED", "not-applicable"), f"unreadable: {text!r}")
        check(self.group in CLASSES, f"unknown class: {text!r}")


def parse(text):
    lines = [Line(line) for line in text.splitlines()]
    return {line.name: line for line in lines}


def program(env, name="virtuserns-drill"):
    path = pathlib.Path(env.daemon.build, "tests/isolation", name)
    if not path.exists():
        path = pathlib.Path(os.environ.get("VIRTUSERNS_DRILL", "/nonexistent")) / name
    if not path.exists():
        raise Skip(f"{name} is not built")
    return path


def every_probe(env):
    said = subprocess.run([program(env), "--list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[1]: line.split()[0] for line in said.splitlines()}


def make_root(env, command="/bin/drill"):
    """A tree whose init runs the probes, and device nodes in it as an image may bring them."""
    root = pathlib.Path(env.root_tree())
    shutil.copy(program(env), root / "bin/drill")
    (root / "drill-nodes").mkdir()
    (root / "run").mkdir()
    for name, kind, major, minor in (("mem", stat.S_IFCHR, 1, 1), ("kmsg", stat.S_IFCHR, 1, 11),
                                     ("zero", stat.S_IFCHR, 1, 5), ("disk", stat.S_IFBLK, 254, 0),
                                     ("loop", stat.S_IFBLK, 7, 0)):
        os.mknod(root / "drill-nodes" / name, kind | 0o666, os.makedev(major, minor))
    (root / "sbin/init").write_text(f"#!/bin/sh\n{command} > /drill.out 2>/drill.err\n: > /drill.done\n"
                                    "trap 'exit 0' TERM\nwhile :; do sleep 1000 & wait $!; done\n")
    return root


def domain_xml(name, root):
    return (f"<domain type='lxc'><name>{name}</name><memory unit='KiB'>262144</memory><vcpu>1</vcpu>"
            f"<os><type>exe</type><init>/sbin/init</init></os><devices><filesystem type='mount'><source dir='{root}'/>"
            "<target dir='/'/></filesystem><console type='pty'/></devices></domain>")


def drill_in_domain(env, name):
    root = make_root(env)
    env.virsh("create", env.write_xml(domain_xml(name, root))).ok()
    eventually(lambda: (root / "drill.done").exists(), "the probes end", 60)
    equal((root / "drill.err").read_text(), "")
    env.virsh("destroy", name).ok()
    found = parse((root / "drill.out").read_text())
    equal(set(found), set(every_probe(env)), "probes that answered")
    return found


def start_naive(env, how, root, *command):
    name = f"virtuserns-naive-{os.getpid()}"
    return subprocess.Popen([sys.executable, HERE / "naive.py", how, root, name, *command], stdout=subprocess.PIPE,
                            text=True, env={**os.environ, "VIRTUSERNS_LEAKED": "1"})


def drill_in_naive(env, how):
    process = start_naive(env, how, make_root(env), "/bin/drill")
    out, _ = process.communicate(timeout=120 * daemon_module.TIME_FACTOR)
    found = parse(out)
    equal(set(found), set(every_probe(env)), "probes that answered")
    return found


def failed(found):
    return {name for name, line in found.items() if line.verdict == "FAILED"}


def weakened(env, wall):
    """A domain like the default one, but for one wall: a program in the controller's place changes the plan."""
    return drill_in_domain(env, f"weak-{wall}")


@test(["userns"])
def nothing_fails_in_a_default_domain(env):
    found = drill_in_domain(env, "plain-default")
    by_class = {}
    for line in found.values():
        counts = by_class.setdefault(line.group, {"held": 0, "FAILED": 0, "not-applicable": 0})
        counts[line.verdict] += 1
    for group, counts in sorted(by_class.items()):
        print(f"     {group} ({CLASSES[group]}): " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    for line in found.values():
        if line.verdict != "held":
            print(f"     {line.group} {line.name} {line.verdict} {line.detail}")
    check(not failed(found), f"failed: {sorted(failed(found))}")


@test(["userns"])
def each_wall_that_is_taken_away_is_missed(env):
    for wall, wanted in WEAKENINGS.items():
        found = weakened(env, wall)
        env.proven = getattr(env, "proven", set()) | failed(found)
        missing = [f"{name} {found[name].verdict} {found[name].detail}" for name in wanted
                   if found[name].verdict == "held"]
        print(f"     without {wall}: {len(failed(found))} fail")
        check(not missing, f"without {wall} these still hold: {missing}")


@test(["userns"])
def one_wall_cannot_be_taken_away(env):
    """The controller is the second to refuse root of the host, whatever the daemon says."""
    root = make_root(env)
    env.virsh("create", env.write_xml(domain_xml("weak-root", root))).fails("host id 0 is never a container's")


@test(["userns"])
def each_probe_fails_somewhere(env):
    wanted = every_probe(env)
    proven = set(getattr(env, "proven", set()))
    not_here = set()
    for how in ("user", "plain"):
        found = drill_in_naive(env, how)
        proven |= failed(found)
        if how == "plain":  # host root without any wall: what is not there then is not on this machine
            not_here = {name for name, line in found.items() if line.verdict == "not-applicable"}
            # Refused to host root itself: this kernel lacks the call, or its configuration forbids it to everybody.
            not_here |= {name for name, line in found.items()
                         if line.detail in ("EPERM", "ENOSYS") and name.startswith("call")}
    # A host whose own root is short of a capability, as in a machine like a container.
    cap_sys_resource = 24
    if not int(status(os.getpid())["CapEff"][0], 16) >> cap_sys_resource & 1:
        not_here.add("oom_score")
    unproven = set(wanted) - proven
    excused = {name for name in unproven if name in CANNOT_BE_WEAKENED or name in not_here}
    print(f"     {len(proven)} of {len(wanted)} probes were seen to fail; {len(excused)} could not be made to here:")
    for name in sorted(excused):
        print(f"     {name}: " + CANNOT_BE_WEAKENED.get(name, f"host root itself gets '{found[name].detail}'"))
    silent = [f"{name} {found[name].verdict} {found[name].detail}" for name in sorted(unproven - excused)]
    check(not silent, f"never seen to fail: {silent}")


# ---- from outside ---------------------------------------------------------------------------------------------------

NS_GET_USERNS, NS_GET_OWNER_UID = 0xB701, 0xB704
DANGEROUS = {"sys_module": 16, "sys_rawio": 17, "sys_time": 25, "mknod": 27, "audit_control": 30, "mac_override": 32,
             "mac_admin": 33, "syslog": 34, "audit_read": 37, "perfmon": 38, "bpf": 39}
GROUP_OF_A_DOMAIN = re.compile("/virtuserns-[0-9a-f]{8}-[0-9a-f-]{27}")
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")


def status(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: line.split(":", 1)[1].split() for line in lines}


def owner_of_user_namespace(pid):
    fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    try:
        value = array.array("I", [0xFFFFFFFF])
        fcntl.ioctl(fd, NS_GET_OWNER_UID, value)
        return value[0]
    except OSError:
        return None
    finally:
        os.close(fd)


def descriptors_of_elsewhere(pid):
    """Open files and directories that their own name, looked up in the process's root, does not lead to."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{name}")
        there = os.stat(f"/proc/{pid}/fd/{name}")
        try:
            here = os.stat(f"/proc/{pid}/root{target}")
        except OSError:
            here = None
        # A terminal has no name that can be looked up from here; /dev/console is judged by the probes.
        if not stat.S_ISCHR(there.st_mode) and (not here or (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)):
            found.append(f"{name}: {target}")
    return found


def seen_from_outside(pid):
    """name -> what is wrong with the process, or empty."""
    facts = status(pid)
    uid_map = [line.split() for line in pathlib.Path(f"/proc/{pid}/uid_map").read_text().splitlines()]
    gid_map = [line.split() for line in pathlib.Path(f"/proc/{pid}/gid_map").read_text().splitlines()]
    root_uid = next((int(outside) for inside, outside, _ in uid_map if inside == "0"), None)
    bounds = int(facts["CapBnd"][0], 16)
    wrong = {
        "uid_map": [line for line in uid_map if line[1] == "0"],
        "gid_map": [line for line in gid_map if line[1] == "0"],
        "ids": [] if set(facts["Uid"]) == {str(root_uid)} and root_uid else facts["Uid"],
        "groups": facts.get("Groups", []),
        "owner_of_namespace": [owner for owner in [owner_of_user_namespace(pid)] if not root_uid or owner != root_uid],
        "namespaces": [kind for kind in NAMESPACES
                       if os.stat(f"/proc/{pid}/ns/{kind}").st_ino == os.stat(f"/proc/self/ns/{kind}").st_ino],
        "descriptors": descriptors_of_elsewhere(pid),
        "filter": [] if facts["Seccomp"] == ["2"] else facts["Seccomp"],
        "inheritable": [name for name in ("CapInh", "CapAmb") if int(facts[name][0], 16)],
        "capabilities": [name for name, number in DANGEROUS.items() if bounds >> number & 1],
        "root": [] if os.stat(f"/proc/{pid}/root").st_ino != os.stat("/").st_ino else ["the host's root"],
    }
    environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    wrong["environment"] = [word for word in environment if word.startswith((b"VIRTUSERNS", b"SSH", b"DBUS"))]
    groups = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    wrong["control_groups"] = [line for line in groups if not GROUP_OF_A_DOMAIN.search(line)
                               and line.split(":")[1] in ("memory", "pids", "devices", "")]
    return wrong


def init_of(env, name):
    controller = int(env.virsh("domid", name).ok().out)
    children = pathlib.Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    equal(len(children), 1, "children of the controller")
    return controller, int(children[0])


@test(["userns"])
def nothing_is_wrong_from_outside(env):
    root = make_root(env, command="true")
    env.virsh("create", env.write_xml(domain_xml("outside", root))).ok()
    eventually(lambda: (root / "drill.done").exists(), "init runs")
    controller, init = init_of(env, "outside")
    wrong = {name: what for name, what in seen_from_outside(init).items() if what}
    equal(wrong, {})
    # What supervises is not inside: neither in the groups nor in any namespace of the container but its own mounts.
    groups = pathlib.Path(f"/proc/{controller}/cgroup").read_text()
    check(not GROUP_OF_A_DOMAIN.search(groups), f"the controller is in the container's groups: {groups}")
    for kind in NAMESPACES:
        check(os.stat(f"/proc/{controller}/ns/{kind}").st_ino != os.stat(f"/proc/{init}/ns/{kind}").st_ino,
              f"the controller is in the container's {kind} namespace")
    limits = [line.split(":") for line in pathlib.Path(f"/proc/{init}/cgroup").read_text().splitlines()]
    for _, names, path in limits:
        for mount in ("pids", "unified", "."):  # version 1, and both places of version 2
            limit = pathlib.Path(f"/sys/fs/cgroup/{mount}{path}/pids.max")
            if names in ("pids", "") and limit.exists():
                check(limit.read_text().strip() != "max", f"no limit of processes: {limit}")
    env.virsh("destroy", "outside").ok()


@test(["userns"])
def what_is_wrong_is_seen_from_outside(env):
    process = start_naive(env, "plain", make_root(env), "/bin/sleep", "1000")
    try:
        def command():
            # naive.py, its pid 1, and the program in it
            for pid in host_state.descendants(process.pid):
                if pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sleep"):
                    return pid
            return None
        pid = eventually(command, "the naive container runs")
        wrong = seen_from_outside(pid)
        blind = sorted(name for name, what in wrong.items() if not what)
    finally:
        process.kill()
        process.communicate()
    # A chroot has another root; that one is held by every probe of mounts inside.
    equal(blind, ["root"], "checks that saw nothing wrong with a naive container")


@test(["userns"])
def counters_are_the_domains_own(env):
    """A container that has used up every inotify instance of its user takes none of the host's (promise 2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    root = make_root(env, command="true; /bin/drill --use-up")
    env.virsh("create", env.write_xml(domain_xml("hog", root))).ok()
    out = root / "drill.out"
    eventually(lambda: out.exists() and "inotify" in out.read_text(), "all are taken")
    check(int(out.read_text().split()[0]) > 10, f"took only {out.read_text()}")
    fd = libc.inotify_init1(os.O_CLOEXEC)
    check(fd >= 0, f"host root has no inotify instance left: {os.strerror(ctypes.get_errno())}")
    os.close(fd)
    env.virsh("destroy", "hog").ok()


def argv_of_weakener(self, ordinary=daemon_module.Daemon.argv):
    """The daemon with the stand-in for the controller, which leaves every domain alone that is not called weak-."""
    argv = ordinary(self)
    stand_in = pathlib.Path(self.build, "tests/isolation/weaken")
    if not stand_in.exists():
        stand_in = pathlib.Path(os.environ.get("VIRTUSERNS_DRILL", "/nonexistent")) / "weaken"
    if "--controller" in argv and stand_in.exists():
        argv[argv.index("--controller") + 1] = str(stand_in)
    return argv


if __name__ == "__main__":
    daemon_module.Daemon.argv = argv_of_weakener
    harness.TEST_TIMEOUT_S = 280 * daemon_module.TIME_FACTOR
    main()
