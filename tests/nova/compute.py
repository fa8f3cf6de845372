"""One compute host: a nova-compute, and a virtusernsd of its own beside it.

Several of them share the machine, so each has a host name (which is what placement knows it by), an address of loopback, folders, a
parent of control groups and ids that no other one has.
"""
import contextlib
import os
import pathlib
import re
import subprocess
import time

import daemon as daemon_module
import owned
import settings
import ssh
from processes import Program
from settings import HOME, LOGS

IDS_OF_EACH = 30_000_000
CGROUPS = pathlib.Path("/sys/fs/cgroup")
STATE = HOME / "compute"  # nova's state_path, of each host in its own namespace
FOLDERS = [pathlib.Path(folder) for folder in daemon_module.PRIVATE_FOLDERS]
# A host's own part of each folder lies over the folder.
BECOME_HOST = """set -e
hostname "$0"
for folder in "$@"; do mount --bind "$folder/$0" "$folder"; done
mount --bind "%s/$0" %s
exec sleep infinity
""" % (HOME, STATE)


class Host:
    """It has a host name, by which placement knows it, a mount namespace and an address of loopback. In its namespace everything is at
    its usual place, as nova demands of hosts between which instances move; from outside its folders are those of its name."""

    def __init__(self, name: str, build: str):
        """`name` ends with a number that no other host's has."""
        number = int(re.fullmatch(r"[a-z-]+([1-9]\d?)", name).group(1))
        self.name, self.build = name, build
        self.ip = f"127.0.0.{number + 1}"
        self.state = HOME / name
        self.socket = pathlib.Path("/run/libvirt", name, "virtusernsd-sock")
        self.uri = f"userns:///system?socket={self.socket}"  # from outside
        self.first_id = number * IDS_OF_EACH
        self.cgroup = f"{owned.name('nova')}-{name}"
        self.holder: Program | None = None
        self.daemon: Program | None = None
        self.beside: list[Program] = []
        self.compute: Program | None = None

    def _enter(self, argv: list[str]) -> list[str]:
        """The command, in the namespaces of this host. They are made with the first one."""
        if self.holder is None:
            for folder in (*[folder / self.name for folder in FOLDERS], self.state / "instances", STATE):
                folder.mkdir(parents=True, exist_ok=True)
            self.holder = Program(f"host-{self.name}", ["unshare", "--mount", "--uts", "sh", "-c", BECOME_HOST, self.name,
                                                        *map(str, FOLDERS)], LOGS / f"{self.name}.log").start()
            comm = pathlib.Path(f"/proc/{self.holder.pid}/comm")
            self.holder.wait_until(lambda: comm.read_text() == "sleep\n", "its namespaces are there", 15)
        return ["nsenter", "-t", str(self.holder.pid), "--mount", "--uts", *argv]

    def command(self, *argv: str) -> str:
        """An operator's, on this host."""
        return subprocess.run(self._enter(list(argv)), capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
                              timeout=30 * daemon_module.TIME_FACTOR).stdout

    # ---- virtusernsd ----

    def start_daemon(self) -> None:
        driver = os.path.join(self.build, "driver")
        argv = self._enter([f"{driver}/virtusernsd", "--module-dir", f"{driver}/userns",
                            "--controller", f"{driver}/controller/virtuserns-controller"])
        if not os.access(f"{driver}/virtusernsd", os.X_OK):
            raise daemon_module.NotPossible(f"{driver}/virtusernsd is not built")
        pathlib.Path("/etc/libvirt", self.name, "virtusernsd.conf").write_text(
            f'cgroup_parent = "{self.cgroup}"\nid_range_first = {self.first_id}\n'
            f"id_range_last = {self.first_id + IDS_OF_EACH - 1}\n")
        self.daemon = Program(f"virtusernsd-{self.name}", argv, LOGS / f"virtusernsd-{self.name}.log",
                              {"VIRTUSERNS_BUILD": self.build}).start()
        self.await_daemon()

    def await_daemon(self) -> None:
        self.daemon.wait_until(self._daemon_answers, f"it listens at {self.socket}", 15)

    def _daemon_answers(self) -> bool:
        import libvirt
        libvirt.registerErrorHandler(lambda *_: None, None)
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.open(self.uri).close()
            return True
        return False

    # ---- nova-compute, and what it needs beside it ----

    def fill_in(self, text: str) -> str:
        """{name}, {ip}, {build} of this host, and as it sees itself {state} and {uri}."""
        return text.format(name=self.name, ip=self.ip, state=STATE, uri="userns:///system", build=self.build)

    def start_beside(self, name: str, argv: list[str], environment: dict[str, str] | None = None) -> Program:
        """A program that this host's nova-compute needs: started now, and ended after it."""
        argv = self._enter([self.fill_in(word) for word in argv])
        program = Program(f"{name}-{self.name}", argv, LOGS / f"{name}-{self.name}.log", environment).start()
        self.beside.append(program)
        return program

    def program_beside(self, name: str) -> Program:
        return next(program for program in self.beside if program.name == f"{name}-{self.name}")

    def start_ssh(self) -> None:
        """By which nova-compute of another host moves disks to this one."""
        self.start_beside("sshd", ssh.server_argv(self.name, self.ip))

    def start_compute(self, conf_text: str, binary: str = "nova-compute", environment: dict[str, str] | None = None) -> None:
        """The cloud then has to discover it."""
        base = settings.CONFIG / "nova"
        common, own = base / f"compute-{self.name}.conf", base / f"compute-{self.name}-driver.conf"
        common.write_text(settings.compute_conf(self.name, self.ip, STATE))
        own.write_text(self.fill_in(conf_text))
        argv = [binary]
        for path in (base / "nova.conf", common, own):
            argv += ["--config-file", str(path)]
        # What it makes is its own, as with UMask=0077 of its unit: not readable for the ids of containers.
        argv = self._enter(["sh", "-c", 'umask 077; exec "$0" "$@"', *argv])
        self.compute = Program(f"nova-compute-{self.name}", argv, LOGS / f"nova-compute-{self.name}.out", environment).start()

    @property
    def log(self) -> pathlib.Path:
        return LOGS / f"nova-compute-{self.name}.log"

    def run_inside(self, domain: str, command: tuple[str, ...]) -> subprocess.CompletedProcess:
        """In a container of this host, as its root."""
        program = os.path.join(self.build, "driver", "exec", "virt-userns-exec")
        return subprocess.run([program, "-c", self.uri, domain, "--", *command], capture_output=True, text=True,
                              timeout=30 * daemon_module.TIME_FACTOR, stdin=subprocess.DEVNULL)

    def restart_compute(self) -> None:
        self.compute.stop()
        self.compute.start()

    # ---- the end ----

    def stop(self) -> list[str]:
        """Ends containers too. What did not end by itself."""
        refused = [program.name for program in [self.compute, *reversed(self.beside)] if program and not program.stop()]
        if self.daemon:
            self._end_domains()
            refused += [] if self.daemon.stop() else [self.daemon.name]
            self._remove_cgroups()
        if self.holder:
            self.holder.kill()
        return refused

    def _end_domains(self) -> None:
        import libvirt
        with contextlib.suppress(libvirt.libvirtError), contextlib.closing(libvirt.open(self.uri)) as connection:
            for domain in connection.listAllDomains():
                with contextlib.suppress(libvirt.libvirtError):
                    domain.destroy()

    def groups(self) -> list[pathlib.Path]:
        return [group for group in (CGROUPS / self.cgroup, *CGROUPS.glob(f"*/{self.cgroup}")) if group.is_dir()]

    def _remove_cgroups(self) -> None:
        """What is not empty stays, and is seen by who looks for leaks."""
        deadline = time.monotonic() + 2
        while (groups := self.groups()) and time.monotonic() < deadline:
            for group in groups:
                for empty in (group / "machine", group):
                    with contextlib.suppress(OSError):
                        empty.rmdir()
            time.sleep(0.02)
