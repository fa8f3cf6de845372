"""Two ordinary users with delegated ids and daemons of their own; no daemon of root's.

Everything is in a mount namespace whose /etc/passwd, /etc/group, /etc/subuid, /etc/subgid and /home are copies, and whose
/usr/sbin has a virtusernsd, where libvirt's client looks for what it is to start: the built one. So Debian's own virsh,
newuidmap and newgidmap are used as users have them, and nothing of the machine is touched.
"""
import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
import daemon as daemon_module  # noqa: E402
import harness  # noqa: E402
import host_state  # noqa: E402
import kernel_lists  # noqa: E402
import owned  # noqa: E402
from daemon import NotPossible  # noqa: E402
from harness import Failure, Virsh, check, equal, eventually  # noqa: E402

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
DELEGATED = 1_000_000
URI = "userns:///session"
# Of the container's own: it says that it is up, and ends or boots again when it is asked to.
INIT = ("#!/bin/sh\ntrap 'exit 0' TERM INT PWR USR2\ntrap 'reboot -f' HUP\necho \"up $(hostname)\"\n"
        "while :; do sleep 1000 & wait $!; done\n")


class User:
    def __init__(self, name, uid, first):
        self.name, self.uid, self.first = name, uid, first
        self.home = pathlib.Path("/home", name)
        self.run_dir = self.home / ".run"
        self.daemon = None
        self.log = self.home / "virtusernsd.log"

    def environment(self):
        return {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name, "XDG_RUNTIME_DIR": str(self.run_dir),
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TERM": "dumb"}

    def account(self):
        """For subprocess: as a login of this user would run it."""
        return {"user": self.uid, "group": self.uid, "extra_groups": [self.uid], "env": self.environment()}

    def run(self, *argv, stdin=None, timeout_s=60, cwd="/"):
        argv = [str(word) for word in argv]
        result = subprocess.run(argv, input=stdin, capture_output=True, text=True, cwd=cwd,
                                timeout=timeout_s * daemon_module.TIME_FACTOR, **self.account())
        return Virsh(argv, result)

    def python(self, code, *words):
        return self.run(sys.executable, "-c", code, *words)

    def virsh(self, *words, uri=URI, **how):
        return self.run("virsh", "-c", uri, *words, **how)

    def serve(self):
        """A daemon, be it one that a client has started."""
        if not self.daemons():
            self.start_daemon()
        eventually(self.listens, "the daemon listens")

    def start_daemon(self, *options):
        with open(self.log, "a") as log:
            self.daemon = subprocess.Popen(["virtusernsd", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                           **self.account())
        # Not by a client of the plain URI, which would start libvirtd when it comes too early.
        eventually(lambda: self.daemon.poll() is not None or self.listens(), "the daemon listens")
        check(self.daemon.poll() is None, f"the daemon of {self.name} ended: {self.log_text()}")

    def listens(self):
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.connect(str(self.run_dir / "libvirt/virtusernsd-sock"))
            return True
        return False

    def log_text(self):
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def daemons(self):
        """Also those that a client has started."""
        return [pid for pid in pids_of(self.uid) if command_of(pid)[:1] == ["virtusernsd"]]

    def end_daemons(self, number=signal.SIGTERM):
        """All of them: a client that finds the socket of one that was killed starts another."""
        def gone():
            for pid in self.daemons():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            return not self.daemons()
        eventually(gone, f"the daemons of {self.name} have ended")
        if self.daemon:
            self.daemon.wait(15 * daemon_module.TIME_FACTOR)
            self.daemon = None

    def root(self, name, *options):
        """A root filesystem of container ids, made by the user. `options`: of virt-userns-rootfs."""
        plain, path = self.home / f"{name}.plain", self.home / name
        self.run("sh", "-c", f"""set -e; mkdir -p {plain}; cd {plain}; mkdir bin sbin proc sys dev tmp etc out
            cp {shutil.which('busybox')} bin/busybox; for a in sh cat sleep hostname reboot poweroff ls id mount kill; do
            ln -s busybox bin/$a; done; chmod 1777 tmp; chmod 777 out; cat >sbin/init; chmod 755 sbin/init""", stdin=INIT).ok()
        self.run(built("tools/virt-userns-rootfs"), "create", *options, "--from", plain, path).ok()
        shutil.rmtree(plain)
        return path

    def xml(self, name, root, idmap="", extra="", devices="", init="/sbin/init"):
        return (f"<domain type='lxc'><name>{name}</name><memory unit='MiB'>64</memory><os><type>exe</type><init>{init}</init></os>"
                f"{idmap}{extra}<devices><filesystem type='mount'><source dir='{root}'/><target dir='/'/></filesystem>"
                f"{devices}<console type='pty'/></devices></domain>")

    def define(self, name, root, **how):
        return self.virsh("define", self.write_xml(self.xml(name, root, **how)))

    def write_xml(self, xml):
        with tempfile.NamedTemporaryFile("w", dir=self.home / ".xml", suffix=".xml", delete=False) as file:
            file.write(xml)
        os.chmod(file.name, 0o644)
        return file.name

    def start(self, name, root, **how):
        self.define(name, root, **how).ok()
        self.virsh("start", name).ok()

    def exec(self, name, *words, options=(), **how):
        """By virt-userns-exec, as root of the domain."""
        return self.run(built("driver/exec/virt-userns-exec"), "-c", URI, *options, name, "--", *words, **how)

    def files_of_runs(self):
        return [path.name for path in (self.home / ".local/state/libvirt/userns").glob("boots/*/*")
                if path.name != "virtusernsd.lock"]

    def controller(self, name):
        found = [pid for pid in pids_of(self.uid) if comm_of(pid) == "virtuserns-ctl" and name in command_of(pid)]
        equal(len(found), 1, f"controllers of {self.name}'s {name}")
        return found[0]

    def init(self, name):
        """None between two boots."""
        with contextlib.suppress(LookupError):
            return host_state.init_of(self.controller(name))
        return None

    def clean(self):
        """Whatever a test has left of domains, and the daemon."""
        self.serve()
        left = []
        for name in self.virsh("list", "--all", "--name").ok().out.split():
            self.virsh("destroy", name)
            if self.virsh("undefine", name).code != 0 and name in self.virsh("list", "--all", "--name").out.split():
                left.append(name)
        self.end_daemons()
        return left


def built(path):
    """A program of the build; or, as "tools/virt-userns-rootfs", of the source. In a copy: neither the build tree nor the way
    to it need be the users' to enter."""
    copy = pathlib.Path("/home/.built", path)
    if not copy.exists():
        original = next((place for place in (pathlib.Path(os.environ["VIRTUSERNS_BUILD"], path), SOURCE / path) if place.is_file()), None)
        if original is None:
            raise NotPossible(f"{path} is not built")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(original, copy)
        copy.chmod(0o755)
    return copy


def command_of(pid):
    """The words, the program without its folder."""
    with contextlib.suppress(OSError):
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return [os.path.basename(words[0])] + words[1:]
    return []


def comm_of(pid):
    """Empty: it has ended, collected or not."""
    if host_state._state(pid) in ("", "Z", "X"):
        return ""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def pids_of(uid):
    """Of this suite: descendants, as it collects orphans."""
    found = []
    for pid in sorted(host_state.descendants(os.getpid())):
        with contextlib.suppress(OSError, StopIteration):
            line = next(line for line in open(f"/proc/{pid}/status") if line.startswith("Uid:"))
            if int(line.split()[1]) == uid and comm_of(pid):
                found.append(pid)
    return found


def namespace(pid, kind):
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def id_map(pid, kind="uid"):
    return [tuple(map(int, line.split())) for line in open(f"/proc/{pid}/{kind}_map")]


class Env:
    driver = "session"
    expects_death = True  # of daemons: there are none but those that tests start

    def __init__(self, folder, first=None):
        self.folder = folder
        # The machine is shared, and other runs have live domains: ids of this run's own, unless they are named.
        first = first or 1_000_000_000 + os.getpid() % 500 * 2 * DELEGATED
        self.anna, self.elsa = User("anna", 1001, first), User("elsa", 1002, first + DELEGATED)
        self.users = (self.anna, self.elsa)

    # As the harness asks.
    @property
    def daemon(self):
        return self

    def is_running(self):
        return True

    def log_text(self, *_):
        return "\n".join(f"{user.name}:\n{user.log_text()}" for user in self.users)

    def cleanup(self):
        left = [f"{user.name}'s {name}" for user in self.users for name in user.clean()]
        write_delegations(self)
        for user in self.users:
            for path in user.home.iterdir():
                if path.is_dir() and not path.name.startswith("."):
                    shutil.rmtree(path)
            for path in (user.home / ".xml").iterdir():
                path.unlink()
        if left:
            raise Failure(f"domains that cannot be removed: {left}")


def write_delegations(env, **lines):
    """`anna=["2000000:65536"]` in place of a user's million."""
    for file in ("/etc/subuid", "/etc/subgid"):
        pathlib.Path(file).write_text("".join(f"{user.name}:{line}\n" for user in env.users
                                              for line in lines.get(user.name, [f"{user.first}:{DELEGATED}"])))


def _own(file, text):
    copy = pathlib.Path("/home/.etc", os.path.basename(file))
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(text)
    if not os.path.exists(file):
        raise NotPossible(f"{file} is missing (package uidmap)")
    daemon_module._run("mount", "--bind", str(copy), file)


def _make_world(env):
    daemon_module._run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/home")
    names = {user.name for user in env.users}
    for file, line in (("/etc/passwd", "{0.name}:x:{0.uid}:{0.uid}::{0.home}:/bin/sh\n"), ("/etc/group", "{0.name}:x:{0.uid}:\n")):
        kept = [text for text in open(file) if text.split(":")[0] not in names]
        _own(file, "".join(kept + [line.format(user) for user in env.users]))
    for file in ("/etc/subuid", "/etc/subgid"):
        _own(file, "")
    write_delegations(env)
    for user in env.users:
        for folder in (user.home, user.run_dir, user.home / ".xml"):
            folder.mkdir(mode=0o700)
            os.chown(folder, user.uid, user.uid)
    # /usr/sbin/virtusernsd, where libvirt's client looks.
    program, controller = built("driver/virtusernsd"), built("driver/controller/virtuserns-controller")
    module = built("driver/userns/virtuserns-driver-userns.so")
    for path in ("driver/exec/virt-userns-exec", "tools/virt-userns-rootfs", "tools/showinfo/virt-userns-showinfo", "tests/root/mywait",
                 "tests/session/euid", "tests/session/capabilities", "tools/drill/virtuserns-drill"):
        built(path)  # now: what is copied later looks like something left
    upper = pathlib.Path("/home/.usr-sbin")
    (upper / "upper").mkdir(parents=True), (upper / "work").mkdir()
    wrapper = upper / "upper/virtusernsd"
    wrapper.write_text(f"#!/bin/bash\nexec -a virtusernsd {program} --module-dir {module.parent} --controller {controller} \"$@\"\n")
    wrapper.chmod(0o755)
    daemon_module._run("mount", "-t", "overlay", "overlay", "-o",
                       f"lowerdir=/usr/sbin,upperdir={upper}/upper,workdir={upper}/work", "/usr/sbin")


def _possible():
    if os.geteuid() != 0:
        raise NotPossible("to become users takes root")
    for program, package in (("newuidmap", "uidmap"), ("virsh", "libvirt-clients"), ("busybox", "busybox-static")):
        if not shutil.which(program):
            raise NotPossible(f"{program} is not installed (package {package})")
    limit = pathlib.Path("/proc/sys/kernel/unprivileged_userns_clone")
    if limit.exists() and limit.read_text().strip() == "0":
        raise NotPossible("this machine forbids user namespaces to ordinary users (kernel.unprivileged_userns_clone)")


def _session(arguments, suite, first):
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, harness._end_in_order)
    host_state.become_subreaper()
    kernel_lists.own_session_keyring()
    _possible()
    daemon_module.enter_private_namespaces()
    with tempfile.TemporaryDirectory(prefix=owned.name("session") + "-") as folder:
        env = Env(folder, first)
        _make_world(env)
        folders = [*daemon_module.PRIVATE_FOLDERS, "/home"]
        look = lambda: host_state.snapshot(folders, owned.name("session"), [folder])  # noqa: E731
        before = look()
        selected = [entry for entry in harness.TESTS if harness.re.search(arguments.pattern, entry[0])] * arguments.repeat
        counts = harness._run_all(env, selected, suite, arguments.verbose)
        ignored = r"^/home/(anna|elsa)/(\.cache|\.config|\.local|\.run|\.xml)(/|$)|^/home/(anna|elsa)/virtusernsd\.log$"
        left = host_state.lasting_differences(before, look, ignore_files=ignored)
        # What daemons that ended well may leave in those: empty folders, logs, sockets and pid files.
        for user in env.users:
            for path in user.home.rglob("*"):
                if path.is_file() and not path.is_socket() and not path.name.endswith((".log", ".pid", ".lock")):
                    left.append(f"file left: {path}")
    return harness.report(suite, "", counts, left)


def test(function):
    return harness.test(["session"])(function)


def main(first=None):
    """`first`: of anna's delegated ids; elsa's follow."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=os.environ.get("VIRTUSERNS_BUILD", "build"))
    parser.add_argument("-k", dest="pattern", default="", help="only tests whose name matches this expression")
    parser.add_argument("-v", dest="verbose", action="store_true", help="show the daemons' logs after a failure")
    parser.add_argument("--repeat", type=int, default=1)
    os.environ["VIRTUSERNS_BUILD"] = os.path.abspath(parser.parse_args().build)
    try:
        code = _session(parser.parse_args(), pathlib.Path(sys.argv[0]).stem, first)
    except NotPossible as reason:
        print(f"skipped: {reason}")
        code = 77
    sys.stdout.flush()
    os._exit(code)
