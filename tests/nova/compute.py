"""One compute host: a nova-compute, and a virtusernsd of its own beside it.

Several of them share the machine, so each has a host name (which is what placement knows it by), an address of loopback, folders, a
parent of control groups and ids that no other one has.
"""
import contextlib
import os
import pathlib
import re
import time

import daemon as daemon_module
import owned
import settings
from processes import Program
from settings import HOME, LOGS

FOLDERS = {"--run-dir": "run", "--driver-run-dir": "run/userns", "--definitions-dir": "definitions", "--state-dir": "leases",
           "--log-dir": "log"}
IDS_OF_EACH = 30_000_000
CGROUPS = pathlib.Path("/sys/fs/cgroup")


def own_host_name(name: str, argv: list[str]) -> list[str]:
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name, *argv]


class Host:
    def __init__(self, name: str, build: str):
        """`name` ends with a number that no other host's has."""
        number = int(re.fullmatch(r"[a-z-]+([1-9]\d?)", name).group(1))
        self.name, self.build = name, build
        self.ip = f"127.0.0.{number + 1}"
        self.state = HOME / name  # nova's state_path
        self.folder = pathlib.Path("/run/libvirt", name)
        self.socket = self.folder / "run/virtusernsd-sock"
        self.uri = f"userns:///system?socket={self.socket}"
        self.first_id = number * IDS_OF_EACH
        self.cgroup = f"{owned.name('nova')}-{name}"
        self.daemon: Program | None = None
        self.beside: list[Program] = []
        self.compute: Program | None = None

    # ---- virtusernsd ----

    def start_daemon(self) -> None:
        for name in FOLDERS.values():
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        config = self.folder / "virtusernsd.conf"
        config.write_text(f'cgroup_parent = "{self.cgroup}"\nid_range_first = {self.first_id}\n'
                          f"id_range_last = {self.first_id + IDS_OF_EACH - 1}\n")
        driver = os.path.join(self.build, "driver")
        argv = [f"{driver}/virtusernsd", "--config", str(config), "--module-dir", f"{driver}/userns",
                "--controller", f"{driver}/controller/virtuserns-controller"]
        argv += [word for option, name in FOLDERS.items() for word in (option, str(self.folder / name))]
        if not os.access(argv[0], os.X_OK):
            raise daemon_module.NotPossible(f"{argv[0]} is not built")
        self.daemon = Program(f"virtusernsd-{self.name}", own_host_name(self.name, argv), LOGS / f"virtusernsd-{self.name}.log",
                              {"VIRTUSERNS_BUILD": self.build}).start()
        self.daemon.wait_until(self._daemon_answers, f"it listens at {self.socket}", 15)

    def _daemon_answers(self) -> bool:
        import libvirt
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.open(self.uri).close()
            return True
        return False

    # ---- nova-compute, and what it needs beside it ----

    def fill_in(self, text: str) -> str:
        """{name}, {ip}, {state}, {socket}, {uri}, {build} of this host."""
        return text.format(name=self.name, ip=self.ip, state=self.state, socket=self.socket, uri=self.uri, build=self.build)

    def start_beside(self, name: str, argv: list[str], environment: dict[str, str] | None = None) -> Program:
        """A program that this host's nova-compute needs: started now, and ended after it."""
        argv = [self.fill_in(word) for word in argv]
        program = Program(f"{name}-{self.name}", own_host_name(self.name, argv), LOGS / f"{name}-{self.name}.log",
                          environment).start()
        self.beside.append(program)
        return program

    def start_compute(self, conf_text: str, binary: str = "nova-compute", environment: dict[str, str] | None = None) -> None:
        """Until it is in the database. The cloud then has to discover it."""
        (self.state / "instances").mkdir(parents=True, exist_ok=True)
        base = settings.CONFIG / "nova"
        common, own = base / f"compute-{self.name}.conf", base / f"compute-{self.name}-driver.conf"
        common.write_text(settings.compute_conf(self.name, self.ip, self.state))
        own.write_text(self.fill_in(conf_text))
        argv = [binary]
        for path in (base / "nova.conf", common, own):
            argv += ["--config-file", str(path)]
        self.compute = Program(f"nova-compute-{self.name}", own_host_name(self.name, argv),
                               LOGS / f"nova-compute-{self.name}.out", environment).start()

    @property
    def log(self) -> pathlib.Path:
        return LOGS / f"nova-compute-{self.name}.log"

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
