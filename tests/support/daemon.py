"""The real daemon, in namespaces of its own, under the plain URI.

`enter_private_namespaces` gives this process (and all that it starts) a mount namespace in which /run/libvirt,
/etc/libvirt, /var/lib/libvirt and /var/log/libvirt are empty, and a network namespace with nothing but lo. So
`userns:///system` means the daemon under test, whatever else the machine runs, and nothing of it stays.
"""
import contextlib
import ctypes
import gc
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

import owned

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
PRIVATE_FOLDERS = ["/run/libvirt", "/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt"]


# How much slower than a machine of today this one is (tests/vm says so of an emulated one).
TIME_FACTOR = float(os.environ.get("VIRTUSERNS_TIME_FACTOR", "1"))


class NotPossible(Exception):
    """The environment lacks something: the caller reports a skip."""


def unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        code = ctypes.get_errno()
        raise NotPossible(f"unshare: {os.strerror(code)}")


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def _become_root_of_a_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    pathlib.Path("/proc/self/setgroups").write_text("deny")
    pathlib.Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    pathlib.Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _add_lines(path: str, *lines: str) -> None:
    """In this mount namespace only: a copy that lives in the private /etc/libvirt lies over the file."""
    text = pathlib.Path(path).read_text()
    missing = [line for line in lines if f"\n{line.split(':')[0]}:" not in text]
    if missing:
        copy = pathlib.Path("/etc/libvirt", pathlib.Path(path).name)
        copy.write_text(text + "".join(f"{line}\n" for line in missing))
        _run("mount", "--bind", str(copy), path)


def enter_private_namespaces(more: tuple[str, ...] = ()) -> None:
    """`more`: folders that are empty too."""
    if os.geteuid() != 0:
        _become_root_of_a_user_namespace()
    unshare(CLONE_NEWNS | CLONE_NEWNET)
    _run("mount", "--make-rprivate", "/")
    _run("ip", "link", "set", "lo", "up")
    scratch = tempfile.mkdtemp(prefix=owned.name("overlay") + "-")
    _run("mount", "-t", "tmpfs", "tmpfs", scratch)
    forgetting = set()
    for number, folder in enumerate([*more, *PRIVATE_FOLDERS]):
        parent = os.path.dirname(folder)
        if not os.path.isdir(folder) and parent not in forgetting:
            # The mount point must not be made on the host: the parent becomes an overlay that forgets it, once, since the kernel
            # stacks two at most.
            forgetting.add(parent)
            upper, work = f"{scratch}/{number}/upper", f"{scratch}/{number}/work"
            os.makedirs(upper), os.makedirs(work)
            _run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={parent},upperdir={upper},workdir={work}", parent)
        os.makedirs(folder, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    # The scratch tmpfs lives on in the overlays; its name on the host goes.
    _run("umount", "-l", scratch)
    os.rmdir(scratch)


_libc = ctypes.CDLL(None)  # loaded here: between fork and exec nobody can load anything for sure


def die_with_parent() -> None:
    """A suite that is killed must not leave its daemon behind. In a child that was forked: nothing of the parent's is
    collected there, as objects of libvirt would wait for threads that were not forked."""
    gc.disable()
    pr_set_pdeathsig = 1
    _libc.prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


class Daemon:
    """One daemon process: virtusernsd with a driver module, or libvirtd as the reference."""

    def __init__(self, driver: str, build: str):
        self.driver, self.build = driver, build
        self.process: subprocess.Popen | None = None
        self.log = tempfile.NamedTemporaryFile(mode="r", prefix=owned.name("daemon") + "-", suffix=".log")
        self.is_reference = driver == "reference"
        self.socket = "/run/libvirt/libvirt-sock" if self.is_reference else "/run/libvirt/virtusernsd-sock"
        self.uri = "test+unix:///default" if self.is_reference else "userns:///system"
        self._holder = None
        self.environment: dict[str, str] = {}  # of the next start, beside our own
        # The machine is shared: domains of this run have a cgroup of their own above them, by which they are told apart.
        self.cgroup = owned.name("conformance")
        self.is_unprivileged = pathlib.Path("/proc/self/uid_map").read_text().split()[2] == "1"

    def argv(self) -> list[str]:
        if self.is_reference:
            program = shutil.which("libvirtd", path="/usr/sbin:/usr/bin")
            if not program:
                raise NotPossible("libvirtd is not installed")
            # Its own place for the pid file is /run, where the daemon of a suite that runs beside this one has it locked.
            return [program, "--config", self._libvirtd_config(), "--pid-file", "/run/libvirt/libvirtd.pid"]
        program = os.path.join(self.build, "driver", "virtusernsd")
        if not os.access(program, os.X_OK):
            raise NotPossible(f"{program} is not built")
        module = os.path.join(self.build, "driver", self.driver, f"virtuserns-driver-{self.driver}.so")
        if not os.path.exists(module):
            raise NotPossible(f"{module} is not built")
        if self.driver == "userns" and self.is_unprivileged:
            raise NotPossible("real containers need root")
        return [program, "--driver", self.driver, "--module-dir", os.path.join(self.build, "driver", self.driver),
                "--controller", os.path.join(self.build, "driver", "controller", "virtuserns-controller")]

    @staticmethod
    def _libvirtd_config() -> str:
        # Without Debian's user for it, the qemu driver fails to start and takes the daemon with it.
        _add_lines("/etc/passwd", "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin")
        _add_lines("/etc/group", "libvirt-qemu:x:64055:", "kvm:x:64056:")
        path = "/etc/libvirt/reference.conf"
        pathlib.Path(path).write_text('auth_unix_ro = "none"\nauth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\n'
                                      'unix_sock_ro_perms = "0777"\nmdns_adv = 0\n')
        return path

    def configure(self) -> None:
        """Once, before the first start."""
        if self.driver == "userns":
            pathlib.Path("/etc/libvirt/virtusernsd.conf").write_text(f'cgroup_parent = "{self.cgroup}"\n')

    def remove_cgroups(self) -> None:
        """The empty parents, which are this run's and not the daemon's to remove. Fails where one is not empty."""
        root = pathlib.Path("/sys/fs/cgroup")
        for folder in [root / self.cgroup, *root.glob(f"*/{self.cgroup}")]:
            for empty in (folder / "machine", folder):
                with contextlib.suppress(OSError):
                    empty.rmdir()

    def start(self) -> None:
        # A suite that is killed leaves no daemon behind. Not by a function of ours in the child: where a thread of this process
        # was inside a lock at the fork, Python would wait for it there.
        former = self.process.pid if self.process else None
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self.argv()], stdin=subprocess.DEVNULL,
                                        stdout=open(self.log.name, "a"), stderr=subprocess.STDOUT, env=self._environment())
        self._wait_for_socket(former)
        if self.is_reference:
            self._hold_reference_open()

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        environment["VIRTUSERNS_BUILD"] = self.build
        environment.update(self.environment)
        return environment

    def _wait_for_socket(self, former: int | None, timeout_s: float = 15.0) -> None:
        """Not on that of the `former` daemon: a child that it was about to make a controller of holds it for a moment more, and
        who has connected to it is hung up on."""
        deadline = time.monotonic() + timeout_s * TIME_FACTOR
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"daemon ended with {self.process.returncode}:\n{self.log_text()}")
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(self.socket)
                listener, _, _ = struct.unpack("iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                if listener != former:
                    return
            time.sleep(0.01)
        raise RuntimeError(f"daemon does not listen on {self.socket}:\n{self.log_text()}")

    def _hold_reference_open(self) -> None:
        """libvirt's test driver forgets its domains with its last connection, so one stays open; and it starts with
        a domain of its own, which goes."""
        import libvirt
        self._holder = libvirt.open(self.uri)
        for domain in self._holder.listAllDomains():
            if domain.isActive():
                domain.destroy()
            domain.undefine()

    def kill(self) -> None:
        self._holder = None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout_s: float = 10.0) -> int:
        """SIGTERM. The exit code; -9 when it had to be killed."""
        self._holder = None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s * TIME_FACTOR)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log_text(self, last_lines: int = 30) -> str:
        return "\n".join(pathlib.Path(self.log.name).read_text(errors="replace").splitlines()[-last_lines:])
