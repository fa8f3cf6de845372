#!/usr/bin/env python3
"""The demonstration of "Using Containers Without Risking Your *aas" (2014), row by row, with its users, names and ids: anna has
anna-c1 and anna-c2, elsa has elsa-c1 and elsa-c2. docs/talk.md says which row is shown where.

    tests/session/talk.py [-k TEST]
"""
import ctypes
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from users import DELEGATED, built, id_map, main, namespace, pids_of, test  # noqa: E402
from harness import check, contains, equal, eventually, matches  # noqa: E402

FIRST = 2_000_000
CONTAINERS = {"anna-c1": 2_000_000, "anna-c2": 2_100_000, "elsa-c1": 3_000_000, "elsa-c2": 3_100_000}
COUNT = 65535  # "the easiest count so that nobody (65534) exists"


def idmap(first, count=COUNT):
    return f"<idmap><uid start='0' target='{first}' count='{count}'/><gid start='0' target='{first}' count='{count}'/></idmap>"


def owner(env, name):
    return env.anna if name.startswith("anna") else env.elsa


def start(env, *names):
    """The talk's containers, each with its ids."""
    for name in names:
        user = owner(env, name)
        user.serve()
        root = user.root(name, "--first", CONTAINERS[name], "--count", COUNT)
        user.start(name, root, idmap=idmap(CONTAINERS[name]))


def in_container(pid, *words, uid=0, gid=None, kinds="UmpniuC"):
    """Host root steps into the namespaces of init and becomes this id of the container: more than anybody in there can do to
    begin with, so what is refused is refused by ids alone."""
    gid = uid if gid is None else gid
    options = [f"-{kind}" for kind in kinds]
    return subprocess.run(["nsenter", "-t", str(pid), *options, f"--setuid={uid}", f"--setgid={gid}", "--", *map(str, words)],
                          capture_output=True, text=True, check=False)


def path_in(pid, path):
    return f"/proc/{pid}/root{path}"


# ---- goals -----------------------------------------------------------------------------------------------------------------

@test
def T01_the_same_uid_of_two_containers_is_two(env):
    start(env, "anna-c1", "anna-c2")
    for name, wanted in (("anna-c1", 2_000_500), ("anna-c2", 2_100_500)):
        env.anna.exec(name, "sh", "-c", "echo x >/tmp/f; chmod 600 /tmp/f", options=("-u", "+500")).ok()
        status = os.stat(path_in(env.anna.init(name), "/tmp/f"))
        equal((status.st_uid, status.st_mode & 0o777), (wanted, 0o600))


@test
def T02_T03_no_kill_and_no_open_across(env):
    """Even where the pid namespace is shared: a process with the ids of anna-c2's root and the host's pid namespace."""
    start(env, "anna-c1", "anna-c2", "elsa-c1")
    victim = env.anna.init("anna-c1")
    env.anna.exec("anna-c1", "sh", "-c", "echo secret >/tmp/secret; chmod 600 /tmp/secret").ok()
    secret = path_in(victim, "/tmp/secret")
    # With all of anna-c2's and elsa-c1's but the pid and mount namespaces: the host's, in which the victim can be named.
    for name, user in (("anna-c2", env.anna), ("elsa-c1", env.elsa)):
        for words in (["kill", "-9", victim], ["cat", secret]):
            said = in_container(user.init(name), *words, kinds="U")
            check(said.returncode != 0, f"{name}: {words}")
            matches(said.stderr, "not permitted|Permission denied")
    # anna herself owns the namespace and may end what is in it; what its files hold is not hers to read.
    env.anna.run("cat", secret).fails("Permission denied")
    equal(env.anna.virsh("domstate", "anna-c1").ok().out.strip(), "running")


@test
def T04_accounting_is_apart(env):
    """Per-user limits of the kernel: what anna-c1 uses up, elsa-c1 has. (The kernel counts a user's containers for the user as
    well, so that anna's share what she has; domains of the system share nothing: root Isolation.)"""
    start(env, "anna-c1", "elsa-c1")
    code = ("import ctypes,sys\nlibc=ctypes.CDLL(None)\nn=0\nwhile libc.inotify_init()>=0:\n n+=1\n if n>100000: break\n"
            "print(n,flush=True)\nsys.stdin.read()")
    holders = []
    try:
        for name in ("anna-c1", "elsa-c1"):
            holder = subprocess.Popen(["nsenter", "-t", str(owner(env, name).init(name)), "-U", "--setuid=0", "--setgid=0", "--",
                                       sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            holders.append(holder)
        counts = [int(holder.stdout.readline()) for holder in holders]
    finally:
        for holder in holders:
            holder.communicate("")
    limit = int(pathlib.Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    equal(counts, [limit, limit], "inotify instances that each could make, while the other held its own")


@test
def T05_root_is_root_over_its_own(env):
    start(env, "anna-c1")
    script = ("set -e; touch /tmp/a; chown 33:44 /tmp/a; chmod 4755 /tmp/a; kill -0 1; id -u; sleep 99 & kill $!; hostname other; hostname")
    equal(env.anna.exec("anna-c1", "sh", "-c", script).ok().out.split(), ["0", "other"])
    equal(env.anna.exec("anna-c1", "id", "-u", options=("-u", "+65534")).ok().out.split(), ["65534"])
    check(env.anna.exec("anna-c1", "sh", "-c", "touch /tmp/b; chown 65535 /tmp/b").code != 0, "an id that is not mapped was given")


@test
def T07_mounts_inside(env):
    start(env, "anna-c1")
    env.anna.exec("anna-c1", "sh", "-c", "mount -t tmpfs t /tmp && echo x >/tmp/x").ok()
    env.anna.exec("anna-c1", "sh", "-c", "mount -o bind /bin /out").ok()


@test
def T12_one_inode_two_numbers(env):
    """The same file, the same process, the same peer: translated where the boundary is."""
    start(env, "anna-c1")
    init = env.anna.init("anna-c1")
    equal(env.anna.exec("anna-c1", "sh", "-c", "cd /; ls -lnd bin").ok().out.split()[2:4], ["0", "0"])
    status = os.stat(path_in(init, "/bin"))
    equal((status.st_uid, status.st_gid), (FIRST, FIRST))
    equal(re.findall(r"\d+", matches(pathlib.Path(f"/proc/{init}/status").read_text(), r"^Uid:.*").group(0)), [str(FIRST)] * 4)
    with socket.socket(socket.AF_UNIX) as listener:
        path = "/home/socket"
        listener.settimeout(10), listener.bind(path), listener.listen(1), os.chmod(path, 0o777)
        caller = subprocess.Popen(["nsenter", "-t", str(init), "-U", "--setuid=7", "--setgid=8", "--", sys.executable, "-c",
                                   f"import socket; s=socket.socket(socket.AF_UNIX); s.connect({path!r}); s.recv(1)"])
        connection, _ = listener.accept()
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        connection.close(), caller.wait()
        os.unlink(path)
    equal([int.from_bytes(peer[at:at + 4], sys.byteorder) for at in (4, 8)], [FIRST + 7, FIRST + 8])


@test
def T13_the_host_maps_all(env):
    equal(id_map(os.getpid()), [(0, 0, 4294967295)])


@test
def T14_unmapped_ids_are_nobody(env):
    """Files of the host's root in a container: shown as the overflow id, open by the bits for others alone."""
    start(env, "anna-c1")
    init = env.anna.init("anna-c1")
    for name, mode in (("read", 0o604), ("not", 0o640)):
        path = pathlib.Path(path_in(init, f"/out/{name}"))
        path.write_text("host\n")
        path.chmod(mode)
    equal(env.anna.exec("anna-c1", "sh", "-c", "ls -ln /out | tail -n 2 | while read m l u g r; do echo $u $g; done").ok().out.split(),
          ["65534"] * 4)
    equal(env.anna.exec("anna-c1", "cat", "/out/read").ok().out, "host\n")
    env.anna.exec("anna-c1", "cat", "/out/not").fails("Permission denied")
    env.anna.exec("anna-c1", "sh", "-c", "echo x >/out/read").fails("Permission denied")


@test
def T15_alone_a_user_maps_only_the_own_id(env):
    code = """
import os, sys
os.unshare(0x10000000) if hasattr(os, "unshare") else __import__("ctypes").CDLL(None).unshare(0x10000000)
os.write(os.open("/proc/self/setgroups", os.O_WRONLY), b"deny")
try:
    os.write(os.open("/proc/self/uid_map", os.O_WRONLY), sys.argv[1].replace("/", "\\n").encode()); print("mapped")
except OSError as error:
    print(error.errno)
"""
    equal({text: env.anna.python(code, text).ok().out.strip() for text in ("0 1001 1", "0 1002 1", "0 0 1", "0 1001 2",
                                                                            "0 1001 1/1 1001 1")},
          {"0 1001 1": "mapped", "0 1002 1": "1", "0 0 1": "1", "0 1001 2": "1", "0 1001 1/1 1001 1": "22"})
    # And groups only after setgroups was given up.
    code = code.replace('os.write(os.open("/proc/self/setgroups", os.O_WRONLY), b"deny")', "").replace("uid_map", "gid_map")
    equal(env.anna.python(code, "0 1001 1").ok().out.strip(), "1")


@test
def T16_namespaces_belong_to_the_domains(env):
    """And root of it has nothing to say in one that it shares with the host."""
    start(env, "anna-c1")
    init = env.anna.init("anna-c1")
    own = os.stat(f"/proc/{init}/ns/user").st_ino
    get_userns = 0xB701
    for kind in ("net", "uts", "ipc", "pid", "mnt", "cgroup"):
        with open(f"/proc/{init}/ns/{kind}", encoding="ascii") as ns:
            fd = ctypes.CDLL(None, use_errno=True).ioctl(ns.fileno(), get_userns)
            check(fd >= 0, f"{kind}: {os.strerror(ctypes.get_errno())}")
            equal(os.fstat(fd).st_ino, own, f"owner of {kind}")
            os.close(fd)
    said = in_container(init, "ip", "link", "add", "shared0", "type", "dummy", kinds="U")
    contains(said.stderr, "not permitted")


# ---- delegation: T17 to T20 are tests/session/delegation.py ---------------------------------------------------------------

# ---- the demonstration -----------------------------------------------------------------------------------------------------

def showinfo(*words):
    done = subprocess.run([built("tools/showinfo/virt-userns-showinfo"), *map(str, words)], capture_output=True, text=True, check=False)
    equal(done.returncode, 0, f"{words}: {done.stderr}")
    return done.stdout


def table(text):
    return [line.split() for line in text.splitlines()]


@test
def T22_to_T27_showinfo(env):
    """mywait by seven sleepers: elsa and root of the host, root of each container, and id 1000 of elsa-c1. The talk's three tables."""
    start(env, *CONTAINERS)
    for name in CONTAINERS:
        user = owner(env, name)
        shutil.copy(built("tests/root/mywait"), path_in(user.init(name), "/bin/mywait"))
        user.exec(name, "sh", "-c", "echo 'root:x:0:0::/:/bin/sh\nubuntu:x:1000:1000::/:/bin/sh' | sed 's/.n/\\n/' >/etc/passwd; chmod 777 /out").ok()
    folder = pathlib.Path("/home/demo")
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    sleepers = [([built("tests/root/mywait")], {"cwd": folder, **account}, folder) for account in ({}, env.elsa.account())]
    for name, ids in [(name, "0") for name in CONTAINERS] + [("elsa-c1", "1000")]:
        user = owner(env, name)
        command = [built("driver/exec/virt-userns-exec"), "-c", "userns:///session", "-u", f"+{ids}", "-w", "/out", name, "--", "/bin/mywait"]
        sleepers.append((command, {"cwd": "/", **user.account()}, pathlib.Path(path_in(user.init(name), "/out"))))
    running = []
    try:
        for command, how, where in sleepers:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **how)
            running.append((process, process.stdout.readline(), where))
        # T23: what it prints and leaves.
        for _, line, where in running:
            who, pid, uid, gid = matches(line, r"^\[(sleeper-\w+@[\w-]+)\] pid=(\d+) uid=(\d+) gid=(\d+)$").groups()
            equal((where / f"{who}.info").read_text(), line)
            check(int(pid) > 1 and uid == gid, line)
        # T24: names where the host knows them, numbers else.
        files = [where / matches(line, r"\[(.*)\]").group(1) for _, line, where in running]
        rows = table(showinfo("files", *[f"{file}.info" for file in files]))
        equal(rows[0], ["fname", "uid", "gid", "mode"])
        equal([row[-3:-1] for row in rows[1:]], [["root", "root"], ["elsa", "elsa"], ["2000000"] * 2, ["2100000"] * 2, ["3000000"] * 2,
                                                ["3100000"] * 2, ["3001000"] * 2])
        # T25, T31: twelve processes, five namespaces; inside and outside.
        inits = {name: owner(env, name).init(name) for name in CONTAINERS}
        waiting = [pid for uid in (0, env.elsa.uid, *CONTAINERS.values(), 3_001_000) for pid in pids_of(uid)
                   if pathlib.Path(f"/proc/{pid}/comm").read_text() == "mywait\n"]
        equal(len(waiting), 7, "sleepers on the host")
        rows = table(showinfo("ps", *inits.values(), *waiting, os.getpid()))
        equal(rows[0], ["command", "uid", "gid", "pid", "usersns"])
        equal(len(rows), 1 + 4 + 7 + 1)
        equal(len({row[-1] for row in rows[1:]}), 5, "user namespaces")
        equal({row[1]: row[-1] for row in rows[1:] if row[1] in map(str, CONTAINERS.values())},
              {str(CONTAINERS[name]): matches(namespace(pid, "user"), r"(\d+)").group(1) for name, pid in inits.items()})
        # T26: two lines for each of the four, and importable again.
        lines = []
        for name, first in CONTAINERS.items():
            user = owner(env, name)
            said = user.run(built("tools/showinfo/virt-userns-showinfo"), "-c", "userns:///session", "config", name).ok().out
            equal(said, f"# {name}\nlxc.id_map = u 0 {first} {COUNT}\nlxc.id_map = g 0 {first} {COUNT}\n")
            lines += said.splitlines()[1:]
        equal(len(lines), 8)
        for user in env.users:
            equal(pathlib.Path("/etc/subuid").read_text().count(f"{user.name}:{user.first}:1000000"), 1)
    finally:
        for process, *_ in running:
            process.kill(), process.wait()
        shutil.rmtree(folder)


@test
def T28_ranges_within_ones_own_million(env):
    """As the definition says, or as the broker finds: disjoint blocks of what is the user's."""
    start(env, *CONTAINERS)
    explicit = {name: id_map(owner(env, name).init(name)) for name in CONTAINERS}
    equal(explicit, {name: [(0, first, COUNT)] for name, first in CONTAINERS.items()})
    # Without a word about ids each domain has the range of its root.
    anna = env.anna
    anna.start("auto", anna.root("auto", "--first", 2_300_000))
    equal(id_map(anna.init("auto")), [(0, 2_300_000, 65536)])


@test
def T29_T30_same_number_same_namespace(env):
    start(env, "anna-c1", "anna-c2")
    inits = [env.anna.init(name) for name in ("anna-c1", "anna-c2")]
    equal(len({namespace(pid, "user") for pid in inits + [os.getpid()]}), 3)
    inside = env.anna.exec("anna-c1", "sh", "-c", "ls -l /proc/self/ns/user").ok().out
    contains(inside, namespace(inits[0], "user"))
    for pid in inits:
        numbers = matches(pathlib.Path(f"/proc/{pid}/status").read_text(), r"^NSpid:\s+(.*)$").group(1).split()
        equal((numbers[0], numbers[-1]), (str(pid), "1"))


@test
def T32_set_user_id_programs_work(env):
    """elsa-c1: what its id 1000 runs set-user-id is root of it, and 3000000 of the host."""
    start(env, "elsa-c1")
    elsa = env.elsa
    elsa.exec("elsa-c1", "sh", "-c", "cp /bin/busybox /bin/su; chmod 4755 /bin/su").ok()
    init = elsa.init("elsa-c1")
    status = os.stat(path_in(init, "/bin/su"))
    equal((status.st_uid, status.st_mode & 0o7777), (3_000_000, 0o4755))
    # su of busybox asks for no password when root has none, and none is asked of who is root already.
    said = elsa.exec("elsa-c1", "/bin/su", "--help", options=("-u", "+1000"))
    contains(said.out + said.err, "su")
    program = pathlib.Path(path_in(init, "/bin/whoami-really"))
    shutil.copy(built("tests/session/euid"), program)
    os.chown(program, 3_000_000, 3_000_000), program.chmod(0o4755)
    equal(elsa.exec("elsa-c1", "/bin/whoami-really", options=("-u", "+1000")).ok().out.split(), ["1000", "0"])


@test
def T33_T34_attach_and_equal_pids(env):
    """Exec in a domain as its root; the same pid in two containers is two processes."""
    start(env, "anna-c1", "elsa-c1")
    commands, inside = {}, {}
    try:
        for name in ("anna-c1", "elsa-c1"):
            user = owner(env, name)
            equal(user.exec(name, "id", "-u").ok().out.split(), ["0"])
            commands[name] = subprocess.Popen([built("driver/exec/virt-userns-exec"), "-c", "userns:///session", name, "--", "sh", "-c",
                                               "echo $$; exec sleep 600"], stdout=subprocess.PIPE, text=True, cwd="/",
                                              **user.account())
            inside[name] = int(commands[name].stdout.readline())
        equal(inside["anna-c1"], inside["elsa-c1"], "two domains that did the same so far")
        outside = {name: process_of(CONTAINERS[name], b"sleep\x00600") for name in commands}
        check(outside["anna-c1"] != outside["elsa-c1"], "one process")
        os.kill(outside["anna-c1"], signal.SIGKILL)
        commands["anna-c1"].wait(10)
        check(commands["elsa-c1"].poll() is None, "the other has gone too")
    finally:
        for command in commands.values():
            command.kill(), command.wait()


def process_of(uid, words):
    return eventually(lambda: next((pid for pid in pids_of(uid)
                                    if pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(words)), None), f"{words} runs")


@test
def T35_who_escapes_is_nobody_in_particular(env):
    """A process with anna-c2's ids and a directory of the host: what is anna's, anna-c1's and root's stays shut."""
    start(env, "anna-c1", "anna-c2")
    env.anna.exec("anna-c1", "sh", "-c", "echo x >/tmp/f; chmod 600 /tmp/f; echo x >/tmp/o; chmod 604 /tmp/o").ok()
    pathlib.Path("/home/anna/own").write_text("x")
    os.chown("/home/anna/own", 1001, 1001), os.chmod("/home/anna/own", 0o600)
    pathlib.Path("/home/roots").write_text("x")
    os.chmod("/home/roots", 0o600)
    victim = env.anna.init("anna-c1")
    code = """
import os, sys
host = os.open("/", os.O_RDONLY)
os.setgroups([]), os.setresgid(2100000, 2100000, 2100000), os.setresuid(2100000, 2100000, 2100000)
for path in sys.argv[1:]:
    try:
        os.close(os.open(path.lstrip("/"), os.O_RDONLY, dir_fd=host)); print("read")
    except OSError as error:
        print(error.errno)
"""
    root = "/home/anna/anna-c1"
    os.chmod("/home/anna", 0o711)  # so that not the way alone keeps it out
    try:
        said = subprocess.run([sys.executable, "-c", code, "/home/anna/own", f"{root}/tmp/f", "/home/roots", "/etc/shadow",
                               f"{root}/tmp/o", "/etc/passwd"], capture_output=True, text=True, check=True).stdout.split()
    finally:
        os.chmod("/home/anna", 0o700)
        os.unlink("/home/roots"), os.unlink("/home/anna/own")
    equal(said, ["13", "13", "13", "13", "read", "read"])
    check(victim, "it runs")


@test
def T37_nobody_exists_with_65535(env):
    start(env, "anna-c1")
    equal(env.anna.exec("anna-c1", "id", "-u", options=("-u", "+65534")).ok().out.split(), ["65534"])
    check(env.anna.exec("anna-c1", "id", "-u", options=("-u", "+65535")).code != 0, "65535 exists")
    equal(DELEGATED // 65536, 15, "containers that fit into a million")


@test
def T38_a_portion_of_ids(env):
    anna = env.anna
    anna.serve()
    root = anna.root("small", "--first", 2_500_000, "--count", "1000")
    anna.start("small", root, idmap=idmap(2_500_000, 1000))
    equal(anna.exec("small", "id", "-u", options=("-u", "+999")).ok().out.split(), ["999"])
    check(anna.exec("small", "id", "-u", options=("-u", "+1000")).code != 0, "an id above the portion exists")


@test
def T39_T40_outside_they_are_processes(env):
    """ps shows them under their ids; a signal of host root reaches them as any other."""
    start(env, "anna-c1")
    init = env.anna.init("anna-c1")
    line = subprocess.run(["ps", "-o", "uid=,args=", "-p", str(init)], capture_output=True, text=True, check=True).stdout
    contains(line, "2000000")
    contains(line, "/sbin/init")
    sleeper = next(pid for pid in pids_of(2_000_000) if pid != init)
    os.kill(sleeper, signal.SIGKILL)
    eventually(lambda: sleeper not in pids_of(2_000_000), "it is gone")


@test
def T41_a_container_moves_to_another_owner(env):
    """Packed from inside, where the ids are its own, and unpacked into those of another: as onto another machine. What runs is
    not moved: docs/talk.md says why."""
    start(env, "anna-c1")
    env.anna.exec("anna-c1", "/bin/sh", "-c", "echo kept >/out/of-500 && /bin/busybox chown 500:501 /out/of-500 && "
                  "cd / && /bin/busybox tar -cf /out/move.tar --no-recursion $(/bin/busybox find . -xdev ! -name move.tar)").ok()
    env.anna.virsh("destroy", "anna-c1").ok()
    xml = env.anna.virsh("dumpxml", "--inactive", "anna-c1").ok().out
    env.elsa.serve()
    archive, root = env.elsa.home / "move.tar", env.elsa.home / "moved"
    shutil.copy(env.anna.home / "anna-c1/out/move.tar", archive)
    os.chown(archive, env.elsa.uid, env.elsa.uid)
    env.elsa.run(built("tools/virt-userns-rootfs"), "create", "--first", 3_200_000, "--from", archive, root).ok()
    archive.unlink()
    xml = re.sub(r"source dir='[^']+'", f"source dir='{root}'", re.sub(r"<idmap>.*</idmap>", idmap(3_200_000), xml, flags=re.S))
    env.elsa.virsh("define", env.elsa.write_xml(xml)).ok()
    env.elsa.virsh("start", "anna-c1").ok()
    contains(env.elsa.exec("anna-c1", "/bin/sh", "-c", "cat /out/of-500; /bin/busybox stat -c %u:%g /out/of-500").ok().out, "kept\n500:501")
    moved = (root / "out/of-500").stat()
    equal((moved.st_uid, moved.st_gid), (3_200_500, 3_200_501))
    check(env.elsa.virsh("domuuid", "anna-c1").ok().out == env.anna.virsh("domuuid", "anna-c1").ok().out, "it is the same domain")


@test
def T42_nothing_of_the_host_is_open(env):
    start(env, "anna-c1")
    links = env.anna.exec("anna-c1", "sh", "-c", "ls -l /proc/1/fd /proc/1/cwd /proc/1/root /proc/1/exe /proc/self/fd").ok().out
    targets = set(re.findall(r"-> (\S+)", links))
    allowed = re.compile(r"^(/|/bin/.*|/sbin/init|/dev/console|/dev/pts/\d+|/proc/\d+/fd|pipe:\[\d+\]|socket:\[\d+\])$")
    equal([target for target in targets if not allowed.match(target)], [])


@test
def T43_its_first_process_is_its_own(env):
    start(env, "anna-c1")
    env.anna.exec("anna-c1", "sh", "-c", "kill -9 1")
    env.anna.exec("anna-c1", "cat", "/etc/shadow").fails("No such file")
    equal(env.anna.virsh("domstate", "anna-c1").ok().out.strip(), "running")


@test
def T49_a_leak_is_not_game_over(env):
    """A descriptor of the host's root directory, handed to container root: what is not for others stays shut."""
    start(env, "anna-c1")
    code = """
import os, sys
host = int(sys.argv[1])
for path in ("etc/shadow", "root", "home/anna/.xml", "etc/passwd"):
    try:
        os.close(os.open(path, os.O_RDONLY, dir_fd=host)); print("open")
    except OSError as error:
        print(error.errno)
try:
    os.mkdir("etc/of-container", dir_fd=host); print("made")
except OSError as error:
    print(error.errno)
"""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        said = subprocess.run(["nsenter", "-t", str(env.anna.init("anna-c1")), "-U", "--setuid=0", "--setgid=0", "--", sys.executable,
                               "-c", code, str(fd)], pass_fds=[fd], capture_output=True, text=True, check=True).stdout.split()
    finally:
        os.close(fd)
    equal(said, ["13", "13", "13", "open", "13"])


@test
def T53_shared_on_request(env):
    """A directory of anna's in both of her containers: for everybody what its bits give to others."""
    anna = env.anna
    anna.serve()
    shared = anna.home / "shared"
    anna.run("sh", "-c", f"mkdir {shared} && echo both >{shared}/f && chmod 755 {shared} && chmod 644 {shared}/f").ok()
    mount = f"<filesystem type='mount'><source dir='{shared}'/><target dir='/shared'/></filesystem>"
    for name in ("anna-c1", "anna-c2"):
        root = anna.root(name, "--first", CONTAINERS[name], "--count", COUNT)
        anna.start(name, root, idmap=idmap(CONTAINERS[name]), devices=mount)
        equal(anna.exec(name, "cat", "/shared/f").ok().out, "both\n")
        anna.exec(name, "sh", "-c", "echo x >/shared/f").fails("Permission denied")
        contains(anna.virsh("dominfo", name).ok().out, "show as nobody's")


if __name__ == "__main__":
    main(FIRST)
