#!/usr/bin/env python3
"""The probes of virtuserns-drill: none fails in a default domain, as its init and as a command in it (which is what
virt-userns-drill(1) does); and each fails in a container without its wall.

    tests/isolation/run.py --driver userns [--build DIR] [-v]
"""
import ctypes
import json
import os
import pathlib
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


VERDICTS = ("held", "failed", "not-applicable", "not-run")


class Line:
    def __init__(self, text):
        self.group, self.name, self.verdict, *detail = text.split(" ", 3)
        self.detail = detail[0] if detail else ""
        check(self.verdict in VERDICTS, f"unreadable: {text!r}")
        check(self.group in CLASSES, f"unknown class: {text!r}")


def parse(text):
    lines = [Line(line) for line in text.splitlines()]
    return {line.name: line for line in lines}


def program(env, name="virtuserns-drill"):
    path = pathlib.Path(env.daemon.build, "tools/drill", name)
    if not path.exists():
        raise Skip(f"{name} is not built")
    return path


def every_probe(env):
    said = subprocess.run([program(env), "--list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[1]: line.split()[0] for line in said.splitlines()}


def make_root(env, command="/bin/drill --all"):
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
    process = start_naive(env, how, make_root(env), "/bin/drill", "--all")
    out, _ = process.communicate(timeout=120 * daemon_module.TIME_FACTOR)
    found = parse(out)
    equal(set(found), set(every_probe(env)), "probes that answered")
    return found


def failed(found):
    return {name for name, line in found.items() if line.verdict == "failed"}


def weakened(env, wall):
    """A domain like the default one, but for one wall: a program in the controller's place changes the plan."""
    return drill_in_domain(env, f"weak-{wall}")


@test(["userns"])
def nothing_fails_in_a_default_domain(env):
    found = drill_in_domain(env, "plain-default")
    by_class = {}
    for line in found.values():
        counts = by_class.setdefault(line.group, dict.fromkeys(VERDICTS, 0))
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
    own = pathlib.Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0]
    if not int(own, 16) >> cap_sys_resource & 1:
        not_here.add("oom_score")
    unproven = set(wanted) - proven
    excused = {name for name in unproven if name in CANNOT_BE_WEAKENED or name in not_here}
    print(f"     {len(proven)} of {len(wanted)} probes were seen to fail; {len(excused)} could not be made to here:")
    for name in sorted(excused):
        print(f"     {name}: " + CANNOT_BE_WEAKENED.get(name, f"host root itself gets '{found[name].detail}'"))
    silent = [f"{name} {found[name].verdict} {found[name].detail}" for name in sorted(unproven - excused)]
    check(not silent, f"never seen to fail: {silent}")


# ---- by exec, and from outside: the installed tool --------------------------------------------------------------------

# A command has none of what init was given; of init itself these are seen all the same.
OF_INIT_ONLY = {"environment", "descriptors"}
LIMITS = ["outside_process_limit", "outside_memory_limit"]


def drill(env, *words, code=0):
    """What virt-userns-drill says."""
    argv = [program(env, "virt-userns-drill"), "--probes", program(env), "-c", env.uri, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120 * daemon_module.TIME_FACTOR)
    equal(done.returncode, code, f"exit status of {' '.join(map(str, words))}: {done.stdout} {done.stderr}")
    return done.stderr if code == 2 else done.stdout


def checks_of(document):
    return {entry["name"]: entry for entry in document["checks"]}


def failed_in(document):
    return {name for name, entry in checks_of(document).items() if entry["outcome"] == "failed"}


def start_idle(env, name):
    """A domain without the probes in its tree."""
    root = make_root(env, command="true")
    (root / "bin/drill").unlink()
    env.virsh("create", env.write_xml(domain_xml(name, root))).ok()
    eventually(lambda: (root / "drill.done").exists(), "init runs")
    return root


def tree_of(root):
    return {str(path): (path.lstat().st_mode, path.lstat().st_size, path.lstat().st_mtime_ns)
            for path in root.rglob("*")}


@test(["userns"])
def nothing_fails_by_exec_in_a_default_domain(env):
    root = start_idle(env, "default")
    before = tree_of(root)
    document = json.loads(drill(env, "--all", "--json", "default"))
    equal(tree_of(root), before, "the domain's tree")
    found = checks_of(document)
    inside = {name: entry["class"] for name, entry in found.items() if entry["seen_from"] == "inside"}
    equal(inside, every_probe(env), "probes that answered")
    equal(failed_in(document), set())
    equal({name for name, entry in found.items() if entry["outcome"] == "not-run"}, set())
    print(f"     {document['summary']}")
    equal((document["schema"], document["verdict"], document["domain"]["name"]), (1, "held", "default"))
    equal(sum(one["held"] for one in document["classes"]), document["counts"]["held"])
    # Without --all what may disturb is left out, and said to be.
    gentle = json.loads(drill(env, "-j", "default"))
    left_out = {name for name, entry in checks_of(gentle).items() if entry["outcome"] == "not-run"}
    equal(left_out, {"serial_lines", "outside_counters"})
    text = drill(env, "-v", "default")
    check(text.startswith("domain 'default': ISOLATED. "), text)
    equal(sum(line.split()[1:3] == ["uid_map", "held"] for line in text.splitlines()), 1, text)


@test(["userns"])
def each_wall_that_is_taken_away_is_missed_by_exec(env):
    for wall, wanted in [*WEAKENINGS.items(), ("limits", LIMITS)]:
        start_idle(env, f"weak-{wall}")
        document = json.loads(drill(env, "--json", f"weak-{wall}", code=1))
        found = checks_of(document)
        missing = [name for name in wanted if name not in OF_INIT_ONLY and found[name]["outcome"] == "held"]
        print(f"     without {wall}: {len(failed_in(document))} fail")
        check(not missing, f"without {wall} these still hold: {missing}")
        equal(document["verdict"], "failed")
        check(all(found[name]["remedy"] for name in failed_in(document)), "a failure without advice")
        if wall == "capabilities":
            text = drill(env, f"weak-{wall}", code=1)
            check(text.startswith(f"domain 'weak-{wall}': NOT ISOLATED. "), text)
            check("<features><capabilities>" in text, text)
        env.virsh("destroy", f"weak-{wall}").ok()


@test(["userns"])
def what_cannot_be_tried_is_no_verdict(env):
    start_idle(env, "here")
    env.define("off")
    for words, part in (([], "name one domain"), (["here", "off"], "name one domain"), (["--no-such"], "--help"),
                        (["nowhere"], "nowhere"), (["off"], "start it"), (["--process", "0"], "no process"),
                        (["-c", "userns+unix:///system?socket=/nowhere", "here"], "/nowhere")):
        said = drill(env, *words, code=2)
        check(part in said, f"{words}: {said}")
    env.virsh("suspend", "here").ok()
    check("paused" in drill(env, "here", code=2), "a paused domain")
    env.virsh("destroy", "here").ok()


@test(["userns"])
def nothing_is_wrong_from_outside(env):
    """Of init, when the probes have run as init: the same checks as the tool's, by the number of a process."""
    root = make_root(env, command="true")
    env.virsh("create", env.write_xml(domain_xml("outside", root))).ok()
    eventually(lambda: (root / "drill.done").exists(), "init runs")
    init = host_state.init_of(int(env.virsh("domid", "outside").ok().out))
    document = json.loads(drill(env, "--json", "--process", str(init)))
    equal(failed_in(document), set())
    check(len(document["checks"]) >= 14, f"only {list(checks_of(document))}")
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
        document = json.loads(drill(env, "--json", "--process", str(pid), code=1))
    finally:
        process.kill()
        process.communicate()
    # A chroot has another root; that one is held by every probe of mounts inside. What supervises is shown by unit tests.
    # Whoever runs this test may be limited.
    blind = set(checks_of(document)) - failed_in(document) - set(LIMITS)
    equal(blind, {"outside_root"}, "checks that saw nothing wrong with a naive container")


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
    if "--controller" in argv and stand_in.exists():
        argv[argv.index("--controller") + 1] = str(stand_in)
    return argv


if __name__ == "__main__":
    daemon_module.Daemon.argv = argv_of_weakener
    harness.TEST_TIMEOUT_S = 280 * daemon_module.TIME_FACTOR
    main()
