"""The harness judged: host_state sees every kind of leftover, and a check that should fail does."""
import contextlib
import os
import pathlib
import re
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import daemon as daemon_module  # noqa: E402
import harness  # noqa: E402
import host_nodes  # noqa: E402
import host_state  # noqa: E402
import kernel_lists  # noqa: E402


def difference(act, undo=lambda _: None, **how):
    """What host_state says after `act`."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "kept").write_text("1")
        look = lambda: host_state.snapshot([folder], "virtuserns-self-check", [folder])  # noqa: E731
        before = look()
        act(folder)
        lines = host_state.differences(before, look(), **how)
        undo(folder)
        return [line.replace(folder, "@") for line in lines]


def nothing_is_no_difference():
    harness.equal(difference(lambda _: subprocess.run(["true"])), [])


def an_orphaned_daemon_is_seen():
    # It leaves its parent, session and terminal, as daemons do; only a subreaper still finds it.
    def act(_):
        subprocess.run(["sh", "-c", "setsid sleep 77 >/dev/null 2>&1 &"])
        time.sleep(0.2)
    (line,) = difference(act)
    harness.matches(line, r"^process left: \d+ sleep 77$")
    os.kill(int(line.split()[2]), 9)


def a_zombie_is_no_process():
    def act(_):
        subprocess.run(["sh", "-c", "sleep 0 &"])
        time.sleep(0.2)
    harness.equal(difference(act), [])


def a_mount_is_seen():
    lines = difference(lambda folder: (os.mkdir(f"{folder}/m"), subprocess.run(["mount", "-t", "tmpfs", "t", f"{folder}/m"], check=True)),
                       lambda folder: subprocess.run(["umount", f"{folder}/m"]))
    harness.check(any(line.startswith("mount left: ") and line.endswith("@/m") for line in lines), str(lines))


def a_link_is_seen():
    def act(_):
        subprocess.run(["ip", "link", "add", "selfcheck0", "type", "bridge"], check=True)
    if subprocess.run(["ip", "link", "add", "selfcheck1", "type", "bridge"], capture_output=True).returncode != 0:
        raise harness.Skip("this kernel has no bridges")
    harness.equal(difference(act, lambda _: subprocess.run(["ip", "link", "del", "selfcheck0"])), ["link left: selfcheck0"])
    subprocess.run(["ip", "link", "del", "selfcheck1"])


def files_are_seen():
    def act(folder):
        pathlib.Path(folder, "kept").write_text("2")
        pathlib.Path(folder, "lease").write_text("x")
        pathlib.Path(folder, "page.log").write_text("x")
    harness.equal(difference(act, ignore_files=r"\.log$"), ["file changed: @/kept", "file left: @/lease"])
    harness.equal(difference(lambda folder: os.unlink(f"{folder}/kept")), ["file gone: @/kept"])


def needs_root():
    if pathlib.Path("/proc/self/uid_map").read_text().split()[2] == "1":
        raise harness.Skip("needs root")


def a_zombie_that_stays_is_seen():
    def act(_):
        process.append(subprocess.Popen([sys.executable, "-c", SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        tell(process[0], "zombie")
    process = []
    lines = difference(act)
    with process[0]:
        process[0].kill()
    harness.check(any(re.match(rf"zombie left: \d+ of {process[0].pid} ", line) for line in lines), str(lines))


def a_namespace_is_seen():
    held = []
    lines = difference(lambda _: held.append(namespace_held_open()))
    os.close(held[0])
    harness.matches("\n".join(lines), r"^namespace left: uts:\[\d+\]$")
    lines = difference(lambda folder: keep_by_a_mount(f"{folder}/kept"), lambda folder: subprocess.run(["umount", f"{folder}/kept"]))
    harness.matches("\n".join(lines), r"^namespace left: uts:\[\d+\]$")


def namespace_held_open():
    """Its last process has gone."""
    process = subprocess.Popen(["unshare", "--uts", "sleep", "60"])
    own = os.readlink("/proc/self/ns/uts")
    harness.eventually(lambda: os.readlink(f"/proc/{process.pid}/ns/uts") != own, "a namespace")
    fd = os.open(f"/proc/{process.pid}/ns/uts", os.O_RDONLY)
    process.kill()
    process.wait()
    return fd


def keep_by_a_mount(path):
    subprocess.run(["unshare", f"--uts={path}", "true"], check=True)


def an_address_is_seen():
    act = lambda _: subprocess.run(["ip", "address", "add", "192.0.2.7/32", "dev", "lo"], check=True)  # noqa: E731
    undo = lambda _: subprocess.run(["ip", "address", "del", "192.0.2.7/32", "dev", "lo"], check=True)  # noqa: E731
    harness.equal(difference(act, undo), ["address left: 192.0.2.7"])


def a_table_is_seen():
    harness.equal(kernel_lists.tables(), set())
    if not make_table():
        raise harness.Skip("this kernel has no nftables, or not for us")
    harness.equal(kernel_lists.tables(), {"family 2 self-check"})
    before = host_state.snapshot([], "(?!)", [], cgroups=False)
    make_table(NFT_MSG_DELTABLE)
    after = host_state.snapshot([], "(?!)", [], cgroups=False)
    harness.equal(host_state.differences(after, before), ["table left: family 2 self-check"])
    harness.equal(host_state.differences(before, after), ["table gone: family 2 self-check"])


NFT_MSG_DELTABLE = 2


def make_table(kind=kernel_lists.NFT_MSG_NEWTABLE):
    """As nft(8) does: a batch with one message."""
    batch = struct.pack("=BBH", 0, 0, socket.htons(kernel_lists.NFNL_SUBSYS_NFTABLES))
    name = struct.pack("=HH", 16, kernel_lists.NFTA_TABLE_NAME) + b"self-check\0\0"
    change = kernel_lists.nft_message(kernel_lists.NFNL_SUBSYS_NFTABLES << 8 | kind, 0x605, struct.pack("=BBH", 2, 0, 0) + name)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as asker:
            asker.settimeout(5)
            asker.send(kernel_lists.nft_message(0x10, 1, batch) + change + kernel_lists.nft_message(0x11, 1, batch))
            answer = asker.recv(4096)
            return struct.unpack_from("=Hxxxxxxxxxxi", answer, 4)[1] == 0
    except OSError:
        return False


def a_key_is_seen():
    for keyring, name, part in ((kernel_lists.SESSION_KEYRING, "self-check", "of the session"),
                                (kernel_lists.USER_KEYRING, f"virtuserns-self-check-{os.getpid()}", "of the user")):
        key = []
        lines = difference(lambda _: key.append(kernel_lists.add_key(name, keyring)))
        if key[0] < 0:
            raise harness.Skip("this kernel keeps no keys for us")
        kernel_lists.revoke(key[0])
        harness.check(len(lines) == 1 and lines[0].startswith(f"key left: {key[0]} ") and lines[0].endswith(part), str(lines))
        harness.equal(kernel_lists.keys(), set())


def a_changed_owner_is_seen():
    needs_root()
    with tempfile.TemporaryDirectory() as folder:
        node = f"{folder}/node"
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        usual, host_nodes.NODES = host_nodes.NODES, folder
        try:
            for act, undo in ((lambda: os.chown(node, 2_000_000, 0), lambda: os.chown(node, 0, 0)),
                              (lambda: os.chmod(node, 0o666), lambda: os.chmod(node, 0o600))):
                lines = difference(lambda _: act(), lambda _: undo())
                harness.check(len(lines) == 1 and lines[0].startswith(f"owner changed: {node}: was 0:0 crw------- 0x103, is "), str(lines))
        finally:
            host_nodes.NODES = usual


def a_group_and_its_new_owner_are_seen():
    needs_root()
    tops = [top for top in host_nodes.groups() if os.access(top, os.W_OK)]
    group = f"{next(top for top in tops if os.path.ismount(top))}/virtuserns-self-check-{os.getpid()}"
    try:
        lines = difference(lambda _: os.mkdir(group))
    except OSError as reason:
        raise harness.Skip(f"no group can be made here: {reason}")
    try:
        harness.equal(lines, [f"cgroup left: {group}"])
        usual, host_nodes.groups = host_nodes.groups, lambda: [group]
        try:
            lines = difference(lambda _: os.chown(f"{group}/cgroup.procs", 2_000_000, 0))
        finally:
            host_nodes.groups = usual
        harness.check(len(lines) == 1 and lines[0].startswith(f"owner changed: {group}/cgroup.procs: was 0:0 "), str(lines))
    finally:
        os.rmdir(group)


def a_loop_device_is_seen():
    needs_root()
    def act(folder):
        pathlib.Path(folder, "image").write_bytes(bytes(65536))
        made = subprocess.run(["losetup", "--find", "--show", f"{folder}/image"], capture_output=True, text=True)
        if made.returncode != 0:
            raise harness.Skip(f"no loop device: {made.stderr.strip()}")
        device.append(made.stdout.strip())
    device = []
    lines = difference(act, lambda _: subprocess.run(["losetup", "--detach", *device]))
    harness.check(f"loop left: {device[0][5:]} @/image" in lines, str(lines))


# A service that leaks what it is told to. It allocates before it says that it is ready, as daemons do.
SERVICE = """import os, sys
kept = [bytearray(1 << 20)]
print("ready", flush=True)
for line in sys.stdin:
    if line == "descriptor\\n": kept.append(open("/dev/null"))
    if line == "socket\\n": import socket; kept.append(socket.socketpair())
    if line == "memory\\n": kept.append(bytearray(os.urandom(1 << 20) * 64))
    if line == "zombie\\n":
        pid = os.fork()
        if pid == 0: os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    print("done", flush=True)
"""


def tell(service, leak):
    service.stdin.write(f"{leak}\n")
    service.stdin.flush()
    while service.stdout.readline() != "done\n":
        pass


def what_a_daemon_keeps_is_seen():
    for leak, pattern in (("nothing", None), ("descriptor", r"^descriptor left: 1 more of /dev/null$"),
                          ("socket", "^descriptor left: 2 more of socket$"), ("memory", r"^memory left: 6\d{4} kB$"),
                          ("zombie", r"^zombie left: \d+ Z$")):
        with subprocess.Popen([sys.executable, "-c", SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
            service.stdout.readline()
            before = host_state.Service.of(service.pid)
            tell(service, leak)
            lines = host_state.service_leaks(before, patience_s=0.2)
            service.kill()
        harness.equal(len(lines), 0 if pattern is None else 1, f"{leak}: {lines}")
        if pattern:
            harness.matches(lines[0], pattern)


LEAKING_PROGRAM = """import os, pathlib, subprocess, sys
what, group = sys.argv[1], None
if what == "process": subprocess.Popen(["sh", "-c", "setsid sleep 77 >/dev/null 2>&1 &"])
if what == "mount": subprocess.run(["mount", "-t", "tmpfs", "t", "/mnt"], check=True)
if what == "address": subprocess.run(["ip", "address", "add", "192.0.2.7/32", "dev", "lo"], check=True)
if what == "file": pathlib.Path(os.environ["TMPDIR"], "left").touch()
if what == "cgroup":
    tops = [top for top in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup") if os.path.exists(top + "/cgroup.procs")]
    os.mkdir(f"{tops[0]}/virtuserns-test-{os.getpid()}")
print("[       OK ] its own output")
"""


def a_root_test_that_leaks_fails():
    """leak_check.py around a program, which is how every C++ root test runs."""
    needs_root()
    wrapper = pathlib.Path(harness.__file__).parent.parent / "support/leak_check.py"
    for leak, pattern in (("nothing", None), ("process", r"process left: \d+ sleep 77"), ("mount", r"mount left: \d+ /mnt"),
                          ("address", "address left: 192.0.2.7"), ("file", "file left: /.*/left"),
                          ("cgroup", r"cgroup left: (/sys/fs/cgroup/\S*virtuserns-test-\d+)")):
        done = subprocess.run([sys.executable, wrapper, sys.executable, "-c", LEAKING_PROGRAM, leak], capture_output=True, text=True,
                              env={**os.environ, "VIRTUSERNS_LEAK_PATIENCE": "0"})
        harness.equal(done.returncode, 1 if pattern else 0, f"{leak}: {done.stdout} {done.stderr}")
        harness.contains(done.stdout, "[       OK ] its own output")
        if pattern:
            found = harness.matches(done.stdout, f" left something: {pattern}$")
            if leak == "cgroup":
                os.rmdir(found.group(1))


def the_run_directories_are_private():
    for folder in daemon_module.PRIVATE_FOLDERS:
        harness.equal(os.listdir(folder), [], folder)
        pathlib.Path(folder, "mark").write_text("x")
        # As the rest of the machine sees it: through the root of a process of its own mount namespace.
        harness.check(not os.path.exists(f"/proc/{os.getppid()}/root{folder}/mark"), f"{folder} is the machine's")


def two_references_run_at_once():
    """Suites run beside each other, and libvirtd locks a pid file."""
    first = daemon_module.Daemon("reference", ".")
    try:
        first.start()
    except daemon_module.NotPossible as reason:
        raise harness.Skip(str(reason)) from reason
    try:
        suite = pathlib.Path(__file__).with_name("virsh_query.py")
        done = subprocess.run([sys.executable, suite, "--driver", "reference", "-k", "^hostname"], capture_output=True, text=True)
        harness.equal(done.returncode, 0, done.stdout + done.stderr)
        harness.contains(done.stdout, " 1 passed")
    finally:
        first.stop()


MISSING = [f"/run/missing-{os.getpid()}-{number}" for number in range(3)]


def folders_that_are_missing_are_there_for_us_alone():
    """However many of one parent: the kernel stacks no more than two overlays."""
    for folder in MISSING:
        harness.check(os.path.ismount(folder), f"{folder} is ours")
        if os.geteuid() == 0:
            harness.check(not os.path.exists(f"/proc/1/root{folder}"), f"{folder} is not the machine's")


def checks_that_should_fail_do():
    for claim in (lambda: harness.equal(1, 2), lambda: harness.contains("abc", "x"), lambda: harness.check(False),
                  lambda: harness.matches("abc", "^x"), lambda: harness.eventually(lambda: False, "never", 0.1)):
        with contextlib.suppress(harness.Failure):
            claim()
            raise AssertionError("a false claim passed")


def a_failure_says_where():
    """Also of a program that is started by a path with "..", as meson does."""
    folder = pathlib.Path(__file__).resolve().parent
    for name in (folder / "some.py", f"{folder}/../conformance/some.py"):
        scope = {}
        exec(compile("def fails(env):\n    1 / 0", name, "exec"), scope)  # noqa: S102
        harness.equal(harness._run_one("some", scope["fails"], None), ("FAIL", "[some.py:2] ZeroDivisionError: division by zero"))


def main():
    try:
        host_state.become_subreaper()
        kernel_lists.own_session_keyring()
        daemon_module.enter_private_namespaces(tuple(MISSING))
    except (daemon_module.NotPossible, subprocess.CalledProcessError) as reason:
        print(f"skipped: {reason}")
        return 77
    failed = 0
    for function in (nothing_is_no_difference, an_orphaned_daemon_is_seen, a_zombie_is_no_process, a_zombie_that_stays_is_seen,
                     a_namespace_is_seen, a_mount_is_seen, a_link_is_seen, an_address_is_seen, a_table_is_seen, a_key_is_seen,
                     a_changed_owner_is_seen, a_group_and_its_new_owner_are_seen, a_loop_device_is_seen, files_are_seen,
                     what_a_daemon_keeps_is_seen, a_root_test_that_leaks_fails, the_run_directories_are_private, folders_that_are_missing_are_there_for_us_alone,
                     two_references_run_at_once, checks_that_should_fail_do, a_failure_says_where):
        try:
            function()
            print(f"ok   self_check.{function.__name__}")
        except harness.Skip as reason:
            print(f"skip self_check.{function.__name__}: {reason}")
        except Exception as failure:  # noqa: BLE001
            failed += 1
            print(f"FAIL self_check.{function.__name__}: {failure!r}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
