"""A compute host that is a virtual machine of tests/vm: for what the kernel of this one may lack, as an initiator of iSCSI.

The machine reaches the control plane at its usual addresses (virtual_host_guest.py), and we reach the machine by ssh: its daemon's
socket is here as that of any host, and a program that is started there is one here too, which lives as long. Whoever goes away leaves
nothing, since the machine dies with its qemu, and its disk with it.
"""
import contextlib
import os
import pathlib
import shlex
import subprocess

import daemon as daemon_module
import owned
import settings
import ssh
from compute import STATE, Host
from processes import DidNotStart, Program, program_environment
from settings import HOME, LOGS, RUN

SOURCE = pathlib.Path(__file__).resolve().parents[2]
VM = SOURCE / "tests/vm/vm"
WITH = ["--with", "vm-compute"]
GUEST = pathlib.Path(__file__).resolve().with_name("virtual_host_guest.py")
SSH_PORT, ISCSI = 2222, 3260
# Those that a nova-compute calls.
PORTS = (settings.KEYSTONE, settings.GLANCE, settings.PLACEMENT, settings.NETWORK, settings.CINDER, settings.RABBIT, ISCSI)
MACHINE_S = 3600


def build_machine() -> None:
    """Unless it is there. It takes minutes and needs the archive of packages: before a network namespace is entered."""
    if os.geteuid() != 0:
        raise daemon_module.NotPossible("a virtual machine is built as root")
    lacking = [name for name in ("qemu-system-x86_64", "mmdebstrap", "ssh") if not any(
        os.access(f"{folder}/{name}", os.X_OK) for folder in ("/usr/bin", "/usr/sbin"))]
    if lacking:
        raise daemon_module.NotPossible(f"not installed: {' '.join(lacking)} (group [vm] of tools/packages)")
    if subprocess.run([VM, *WITH, "build"], stdin=subprocess.DEVNULL).returncode != 0:
        raise DidNotStart("the machine of tests/vm could not be built")


class VirtualHost(Host):
    def __init__(self, name: str, build: str):
        super().__init__(name, build)
        self.ip = "10.0.2.15"
        self.machine: Program | None = None
        self.link: Program | None = None
        self.control = RUN / f"ssh-{name}"

    def _ssh(self, *words: str) -> list[str]:
        return ["ssh", "-S", str(self.control), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-p", str(SSH_PORT), *words,
                "root@127.0.0.1"]

    def _enter(self, argv: list[str]) -> list[str]:
        return [*self._ssh("-T"), shlex.join(argv)]

    # ---- the machine ----

    def boot(self) -> None:
        key = ssh.public_key()
        argv = [str(VM), *WITH, "run", "--build", self.build, "--forward", f"{SSH_PORT}:22", "--deadline", str(MACHINE_S),
                "--memory", "2048", "--serial", str(LOGS / f"serial-{self.name}"), "--", "env", f"VIRTUSERNS_BUILD={self.build}",
                f"VIRTUSERNS_TIME_FACTOR={daemon_module.TIME_FACTOR}", "python3", str(GUEST), key, *map(str, PORTS)]
        self.machine = Program(f"machine-{self.name}", argv, LOGS / f"machine-{self.name}.log", {"VIRTUSERNS_OWNER": str(owned.owner())}).start()
        self.machine.wait_until(self._lets_in, "it lets us in", 90)
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        self.link = Program(f"link-{self.name}", self._ssh("-M", "-N", "-L", f"{self.socket}:/run/libvirt/virtusernsd-sock"),
                            LOGS / f"link-{self.name}.log").start()
        self.link.wait_until(lambda: self.control.exists() and self._daemon_answers(), "its daemon answers", 30)

    def _lets_in(self) -> bool:
        return self.execute("true").returncode == 0

    def execute(self, *argv: str, stdin: bytes = b"", timeout_s: float = 30.0) -> subprocess.CompletedProcess:
        """A program in the machine, to its end."""
        return subprocess.run(self._enter(list(argv)), input=stdin, capture_output=True, timeout=timeout_s * daemon_module.TIME_FACTOR,
                              env=program_environment({}))

    def output(self, *argv: str, stdin: bytes = b"") -> str:
        result = self.execute(*argv, stdin=stdin)
        if result.returncode != 0:
            raise DidNotStart(f"{self.name}: {' '.join(argv)}: {result.stderr.decode(errors='replace').strip()}")
        return result.stdout.decode(errors="replace")

    def put(self, path: pathlib.Path, text: str) -> None:
        self.output("sh", "-c", 'mkdir -p "$(dirname "$0")" && cat > "$0"', str(path), stdin=text.encode())

    def run_inside(self, domain: str, command: tuple[str, ...]) -> subprocess.CompletedProcess:
        result = self.execute(f"{self.build}/driver/exec/virt-userns-exec", domain, "--", *command)
        result.stdout, result.stderr = result.stdout.decode(errors="replace"), result.stderr.decode(errors="replace")
        return result

    # ---- what is started in it ----

    def start_adapter(self, config: str) -> None:
        """As a service."""
        self.put(pathlib.Path("/etc/virtuserns/compute.conf"), config)
        self.output("mkdir", "-p", str(STATE / "instances"), str(HOME / "lock"), str(LOGS))
        self.output("systemctl", "daemon-reload")
        self.output("systemctl", "start", "virtuserns-compute.service")

    def start_compute(self, conf_text: str, binary: str = "nova-compute", environment: dict[str, str] | None = None) -> None:
        base = settings.CONFIG / "nova"
        texts = {base / "nova.conf": (base / "nova.conf").read_text(),
                 base / f"compute-{self.name}.conf": settings.compute_conf(self.name, self.ip, STATE) + "[DEFAULT]\nuse_stderr = true\n",
                 base / f"compute-{self.name}-driver.conf": self.fill_in(conf_text)}
        argv = [binary]
        for path, text in texts.items():
            self.put(path, text)
            argv += ["--config-file", str(path)]
        settings_of_unit = [f"--setenv={name}={value}" for name, value in (environment or {}).items()]
        argv = self._enter(["systemd-run", "--unit=nova-compute", "--collect", "--quiet", "--pipe", "--wait", "-p", "UMask=0077",
                            *settings_of_unit, *argv])
        self.compute = Program(f"nova-compute-{self.name}", argv, LOGS / f"nova-compute-{self.name}.out").start()

    @property
    def log(self) -> pathlib.Path:
        return LOGS / f"nova-compute-{self.name}.out"

    # ---- the end ----

    def groups(self) -> list[pathlib.Path]:
        return []

    def stop(self) -> list[str]:
        """As by a switch: nothing of it is used again."""
        refused = []
        for program in (self.machine, self.link, self.compute):
            if program:
                with contextlib.suppress(ProcessLookupError):
                    refused += [] if program.stop() else [program.name]
        return refused


