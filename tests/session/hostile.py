#!/usr/bin/env python3
"""anna tries to get at what is elsa's or root's: ids, files, processes, groups, links, leases. Each attempt is refused with
the errno that the kernel's rules say, and nothing of elsa's has changed.

    tests/session/hostile.py [-k TEST]
"""
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from users import DELEGATED, main, test  # noqa: E402
from harness import check, contains, equal  # noqa: E402

# Run by anna: {name: errno or "done"} of each attempt.
ATTEMPTS = r"""
import ctypes, errno, json, os, signal, socket, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
init, controller, stem, daemon, home, first, own_controller = sys.argv[1:]
init, controller, stem, daemon, first = map(int, (init, controller, stem, daemon, first))
said = {}

def attempt(name):
    def run(function):
        pid = os.fork()  # what one does must not help the next
        if pid == 0:
            try:
                result = function()
                code = 0 if result is None or result >= 0 else ctypes.get_errno()
            except OSError as error:
                code = error.errno
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said[name] = errno.errorcode.get(code, "done" if code == 0 else str(code))
    return run

def opened(path, flags=os.O_RDONLY):
    return lambda: os.close(os.open(path, flags))

for name, pid in (("elsa's init", init), ("elsa's controller", controller), ("elsa's stem", stem), ("elsa's daemon", daemon)):
    attempt(f"kill {name}")(lambda pid=pid: os.kill(pid, signal.SIGKILL))
    attempt(f"stop {name}")(lambda pid=pid: os.kill(pid, signal.SIGSTOP))
    attempt(f"trace {name}")(lambda pid=pid: libc.ptrace(16, pid, 0, 0))
    attempt(f"read the memory of {name}")(opened(f"/proc/{pid}/mem"))
    attempt(f"read the environment of {name}")(opened(f"/proc/{pid}/environ"))
    attempt(f"take a descriptor of {name}")(lambda pid=pid: libc.syscall(438, libc.syscall(434, pid, 0), 0, 0))
    attempt(f"look through the root of {name}")(lambda pid=pid: os.listdir(f"/proc/{pid}/root/") and None)
    attempt(f"limit {name}")(lambda pid=pid: __import__("resource").prlimit(pid, 7, (1, 1)) and None)
    attempt(f"lower the priority of {name}")(lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, 19))
    for kind in ("user", "mnt", "net", "pid"):
        attempt(f"open the {kind} namespace of {name}")(opened(f"/proc/{pid}/ns/{kind}"))
    attempt(f"write the map of {name}")(lambda pid=pid: open(f"/proc/{pid}/uid_map", "w").close())
attempt("become elsa")(lambda: os.setuid(1002))
attempt("become container root of elsa's")(lambda: os.setuid(first))
attempt("become root")(lambda: os.setuid(0))
attempt("join the group of elsa")(lambda: os.setgroups([1002]))
attempt("list elsa's home")(lambda: os.listdir(home) and None)
attempt("read elsa's definition")(opened(f"{home}/.config/libvirt/userns"))
attempt("read elsa's lease")(opened(f"{home}/.local/state/libvirt/userns/leases"))
attempt("write into elsa's run-time directory")(lambda: os.mkdir(f"{home}/.run/libvirt/x"))
attempt("give a file to elsa")(lambda: (open("/tmp/of-anna", "w").close(), os.chown("/tmp/of-anna", 1002, -1)) and None)
attempt("give a file to a container of elsa's")(lambda: os.chown("/tmp/of-anna", first, -1))

def connect(path, kind):
    with socket.socket(socket.AF_UNIX, kind) as client:
        client.connect(path)
attempt("connect to elsa's daemon")(lambda: connect(f"{home}/.run/libvirt/virtusernsd-sock", socket.SOCK_STREAM))
attempt("make a group beside everybody's")(lambda: os.mkdir("/sys/fs/cgroup/virtuserns-of-anna"))
attempt("move elsa's init to another group")(lambda: open("/sys/fs/cgroup/cgroup.procs" if os.path.exists("/sys/fs/cgroup/cgroup.procs")
                                             else "/sys/fs/cgroup/pids/cgroup.procs", "w").write(str(init)) and None)
attempt("make a device")(lambda: os.mknod("/tmp/device-of-anna", 0o60666, os.makedev(7, 0)))
attempt("mount")(lambda: libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None))
attempt("make a link")(lambda: subprocess.run(["ip", "link", "add", "of-anna", "type", "dummy"], stderr=-3, check=False).returncode
                       and os.abort())
attempt("set the name of the host")(lambda: libc.sethostname(b"anna", 4))
attempt("set the clock")(lambda: libc.settimeofday(struct.pack("qq", 1, 0), None))
os.path.exists("/tmp/of-anna") and os.unlink("/tmp/of-anna")
print(json.dumps(said))
"""


@test
def of_a_running_domain_of_elsas(env):
    """Some fifty attempts; the processes are the same ones afterwards, and their priority too."""
    anna, elsa = env.users
    elsa.start_daemon()
    elsa.start("web", elsa.root("web"))
    anna.start_daemon()
    init, controller = elsa.init("web"), elsa.controller("web")
    stem = next(pid for pid in children(controller) if pid != init)
    before = [(pid, start_time(pid), os.getpriority(os.PRIO_PROCESS, pid)) for pid in (init, controller, stem)]
    output = anna.python(ATTEMPTS, init, controller, stem, elsa.daemon.pid, elsa.home, elsa.first, 0).ok().out
    said = json.loads(output.splitlines()[-1])
    check(len(said) > 60, f"only {len(said)} attempts")
    wrong = {name: code for name, code in said.items() if code not in ("EACCES", "EPERM")
             and not (name == "make a link" and code == "-6")}
    equal(wrong, {}, "attempts that were not refused, or not as the rules say")
    equal([(pid, start_time(pid), os.getpriority(os.PRIO_PROCESS, pid)) for pid, *_ in before], before)
    equal(elsa.virsh("domstate", "web").ok().out.strip(), "running")


@test
def with_ids_of_her_own_namespace(env):
    """As root of a user namespace with all ids that were delegated to her: elsa's and root's are still not there."""
    anna, elsa = env.users
    elsa.start_daemon()
    elsa.start("web", elsa.root("web"))
    init = elsa.init("web")
    inside = ["unshare", "--map-root-user", f"--map-users={anna.first},{anna.first},{DELEGATED}",
              f"--map-groups={anna.first},{anna.first},{DELEGATED}", "--mount", "--net", "--"]
    equal(anna.run(*inside, "sh", "-c", "id -u; cat /proc/self/uid_map | wc -l").ok().out.split(), ["0", "2"])
    for words, part in ((["kill", "-9", init], "not permitted"), (["kill", "-STOP", elsa.daemon.pid], "not permitted"),
                        (["ls", elsa.home], "Permission denied"), (["cat", "/etc/shadow"], "Permission denied"),
                        (["chown", elsa.first, "/home/anna/.xml"], "Invalid argument"),
                        (["chown", "1002", "/home/anna/.xml"], "Invalid argument"),
                        (["nsenter", "-t", init, "-U", "true"], "Permission denied"),
                        (["mount", "--bind", "/root", "/mnt"], None),  # hers to mount, not hers to read
                        (["mknod", "/tmp/x", "b", "7", "0"], "not permitted"),
                        (["dmesg", "-C"], "not permitted"), (["hwclock", "-w"], "")):
        if part is None:
            said = anna.run(*inside, "sh", "-c", "mount --bind /root /mnt && ls /mnt")
            contains(said.err, "Permission denied")
            continue
        said = anna.run(*inside, *words)
        check(said.code != 0, f"{words} was done")
        contains(said.err, part)
    too_much = anna.run("unshare", f"--map-users={elsa.first},0,65536", "--setuid", "0", "--", "true")
    check(too_much.code != 0, "elsa's ids were mapped")
    contains(too_much.err, "newuidmap")


@test
def through_her_definitions(env):
    """XML that names what is not hers."""
    anna, elsa = env.users
    elsa.start_daemon()
    root = elsa.root("web")
    elsa.start("web", root)
    anna.start_daemon()
    mine = anna.root("mine")
    mount = "<filesystem type='mount'><source dir='{}'/><target dir='/data'/></filesystem>"
    for name, how, part in (
            ("elsas root", {"root": root}, "Permission denied"),
            ("roots", {"root": "/root"}, "belongs to 0:0"),
            ("the host", {"root": "/"}, "root directory"),
            ("elsas home", {"devices": mount.format(elsa.home / ".config")}, "Permission denied"),
            ("a disk", {"devices": "<disk type='block' device='disk'><source dev='/dev/vda'/><target dev='vda'/></disk>"}, ""),
            ("an image", {"devices": "<filesystem type='file'><source file='/etc/passwd'/><target dir='/data'/></filesystem>"},
             "use userns:///system"),
            ("a bridge", {"devices": "<interface type='bridge'><source bridge='br0'/></interface>"}, ""),
            ("a device", {"devices": "<hostdev mode='capabilities' type='misc'><source><char>/dev/mem</char></source></hostdev>"}, "")):
        defined = anna.define("x", how.get("root", mine), devices=how.get("devices", ""))
        said = anna.virsh("start", "x") if defined.code == 0 else defined
        check(said.code != 0, f"{name} was given to anna")
        contains(said.err, part)
        anna.virsh("undefine", "x")
    equal(anna.virsh("list", "--all", "--name").ok().out.split(), [])
    equal(elsa.virsh("domstate", "web").ok().out.strip(), "running")


@test
def container_root_of_annas(env):
    """Out of her container, with all that root has in there: neither anna's own files nor elsa's processes."""
    anna, elsa = env.users
    elsa.start_daemon()
    elsa.start("web", elsa.root("web"))
    anna.start_daemon()
    anna.start("web", anna.root("web"))
    init = anna.init("web")
    # From outside, as host root, into the container's namespaces as its root: more than the container can do by itself.
    inside = ["nsenter", "-t", str(init), "-U", "-m", "-p", "-n", "-i", "-u", "--"]
    for words in (["ls", "/home/anna"], ["kill", "-9", str(elsa.init("web"))], ["mount", "-t", "ext4", "/dev/vda", "/tmp"],
                  ["cat", "/proc/1/root/../etc/shadow"]):
        said = subprocess.run(inside + words, capture_output=True, text=True, check=False)
        check(said.returncode != 0, f"{words} was done: {said.stdout}")
    said = subprocess.run(inside + ["cat", "/proc/self/uid_map"], capture_output=True, text=True, check=True)
    equal(said.stdout.split(), ["0", str(anna.first), "65536"])


def children(pid):
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def start_time(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]


if __name__ == "__main__":
    main()
