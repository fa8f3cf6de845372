"""A control plane of OpenStack from Debian's packages, and any number of compute hosts.

Call `enter` first: it makes the namespaces in which everything below lives. Then

    with Cloud(build, folder) as cloud:
        cloud.start_compute("host1", "[DEFAULT]\\ncompute_driver = fake.FakeDriver\\n")
        nova = rest.Session.admin()

README.md says what is where.
"""
import contextlib
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import daemon as daemon_module  # noqa: E402
import database  # noqa: E402
import settings  # noqa: E402
import ssh  # noqa: E402
from compute import Host  # noqa: E402
from processes import DidNotStart, Program, run  # noqa: E402
from settings import CONFIG, HOME, LOGS  # noqa: E402

PROGRAMS = ["nova-compute", "nova-conductor", "nova-scheduler", "nova-api-wsgi", "keystone-wsgi-public", "placement-api",
            "glance-api", "nova-serialproxy", "uwsgi", "mariadbd", "epmd", "genisoimage", "sshd"]
RABBIT_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
# Programs look for links in /sys, which has those of the network namespace that it was mounted in.
SHOW_LINKS_IN_SYS = f"""set -e
mkdir {HOME}/sys
mount -t sysfs sysfs {HOME}/sys
mount --rbind /sys/fs/cgroup {HOME}/sys/fs/cgroup
mount --move {HOME}/sys /sys
rmdir {HOME}/sys
"""


def missing(more: tuple[str, ...] = ()) -> list[str]:
    """What of the group [nova] of tools/packages is not installed."""
    folders = ("/usr/bin", "/usr/sbin")
    return [name for name in (*PROGRAMS, *more) if not any(os.access(f"{folder}/{name}", os.X_OK) for folder in folders)] + \
        ([] if os.access(RABBIT_SERVER, os.X_OK) else ["rabbitmq-server"])


def enter(folder: str, network=None, volumes=None) -> None:
    """Namespaces of mounts and of the network for this process and what it starts; `folder` becomes /var/lib/nova there. `network` and
    `volumes` as of Cloud."""
    if os.geteuid() != 0:
        raise daemon_module.NotPossible("nova's services and real containers need root")
    if lacking := missing((*(network.PROGRAMS if network else ()), *(volumes.PROGRAMS if volumes else ()))):
        raise daemon_module.NotPossible(f"not installed: {' '.join(lacking)} (group [nova] of tools/packages)")
    daemon_module.enter_private_namespaces((*ssh.PRIVATE_FOLDERS, *(volumes.PRIVATE_FOLDERS if volumes else ())))
    subprocess.run(["mount", "--bind", folder, str(HOME)], check=True)
    if network:
        subprocess.run(["sh", "-c", SHOW_LINKS_IN_SYS], check=True)


class Cloud:
    def __init__(self, build: str, cache: str | None = None, volumes=None, network=None, keys=None):
        """`build`: of virtuserns. `cache`: where schemas are kept between runs. `volumes`: a cinder_service.Cinder; without one there
        are no volumes. `network`: a neutron.Neutron; without one instances have no networks. `keys`: a barbican_service.Barbican; without
        one images have no signatures."""
        self.build = os.path.abspath(build)
        self.volumes, self.network, self.keys = volumes, network, keys
        self.database = database.Database(pathlib.Path(cache or f"{self.build}/nova-schemas"), network)
        self.services: list[Program] = []
        self.hosts: dict[str, Host] = {}
        self.instances: dict[str, str] = {}  # id and name of all that ever were, as far as we were told
        self.seconds: dict[str, float] = {}  # what took how long

    def __enter__(self) -> "Cloud":
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.down()

    # ---- up ----

    def up(self) -> None:
        begin = time.monotonic()
        settings.write_all()
        for service in filter(None, (self.volumes, self.network, self.keys)):
            service.write_settings()
        rabbit = self._start_rabbit()
        self.database.start()
        self.seconds["schemas"] = time.monotonic() - begin
        keystone = self._start_wsgi("keystone", settings.KEYSTONE, "/usr/bin/keystone-wsgi-public", threads=4)
        placement = self._start_wsgi("placement", settings.PLACEMENT, "/usr/bin/placement-api", threads=4)
        glance = self.start_program("glance", ["glance-api", "--config-file", f"{CONFIG}/glance/glance-api.conf"])
        rabbit.await_port(settings.RABBIT)
        network = self._start_network()
        # Threads of uwsgi lose the replies of nova's messages.
        nova = self._start_wsgi("nova-api", settings.NOVA, "/usr/bin/nova-api-wsgi", processes=2)
        conductor, _ = [self.start_program(name, [name, *database.nova_manage()[1:], "--log-file", f"{LOGS}/{name}.log"])
                        for name in ("nova-conductor", "nova-scheduler")]
        more = [(self._start_wsgi("nova-metadata", settings.METADATA, "/usr/bin/nova-metadata-wsgi"), settings.METADATA)] \
            if self.network else []
        for service, port in [(keystone, settings.KEYSTONE), (placement, settings.PLACEMENT), (glance, settings.GLANCE),
                              (network, settings.NETWORK), (nova, settings.NOVA), *more]:
            service.await_answer(port)
        for service in filter(None, (self.volumes, self.keys)):
            service.start(self.database, self.start_program, self._start_wsgi)
        # A nova-compute that finds no conductor sleeps 10 s before it tries again.
        conductor.await_text(LOGS / "nova-conductor.log", "Starting conductor node")
        self.seconds["control plane"] = time.monotonic() - begin

    def start_program(self, name: str, argv: list[str], environment: dict[str, str] | None = None) -> Program:
        program = Program(name, argv, LOGS / f"{name}.out", environment)
        self.services.append(program)
        return program.start()

    def _start_network(self) -> Program:
        if self.network:
            return self.network.start_server(self.start_program)
        here = pathlib.Path(__file__).resolve().parent
        return self.start_program("network", ["/usr/bin/python3", str(here / "network_stub.py"), str(settings.NETWORK)])

    def _start_rabbit(self) -> Program:
        epmd = {"ERL_EPMD_PORT": str(settings.EPMD), "ERL_EPMD_ADDRESS": "127.0.0.1"}
        self.start_program("epmd", ["epmd", "-port", str(settings.EPMD), "-address", "127.0.0.1"], epmd)
        # RUNNING_UNDER_SYSTEMD: no shell stays between us and the broker.
        return self.start_program("rabbitmq", [RABBIT_SERVER], {
            **epmd, "HOME": f"{HOME}/rabbit", "RUNNING_UNDER_SYSTEMD": "true", "RABBITMQ_NODENAME": "virtuserns@localhost",
            "RABBITMQ_MNESIA_BASE": f"{HOME}/rabbit/mnesia", "RABBITMQ_LOG_BASE": str(LOGS),
            "RABBITMQ_CONFIG_FILE": f"{CONFIG}/rabbitmq.conf", "RABBITMQ_ENABLED_PLUGINS_FILE": f"{CONFIG}/rabbitmq-plugins",
            "RABBITMQ_PID_FILE": f"{HOME}/run/rabbit.pid", "RABBITMQ_DIST_PORT": str(settings.RABBIT_DISTRIBUTION),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none "
                                                   "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_MAX_PORTS": "4096"})

    def _start_wsgi(self, name: str, port: int, file: str, processes: int = 1, threads: int = 1,
                    arguments: str = "", environment: dict[str, str] | None = None) -> Program:
        argv = ["uwsgi", "--plugin", "python3", "--http-socket", f"127.0.0.1:{port}", "--wsgi-file", file, "--master",
                "--no-orphans", "--die-on-term", "--lazy-apps", "--enable-threads", "--processes", str(processes),
                "--threads", str(threads), "--buffer-size", "65535", "--add-header", "Connection: close", "--need-app",
                "--disable-logging", *(["--pyargv", arguments] if arguments else [])]
        configuration = {f"OS_{service.upper()}_CONFIG_DIR": f"{CONFIG}/{service}" for service in ("keystone", "placement")}
        # The first file is paste's: the package's.
        configuration |= {"OS_NOVA_CONFIG_DIR": f"{CONFIG}/nova",
                          "OS_NOVA_CONFIG_FILES": "/etc/nova/api-paste.ini;nova.conf;nova-db.conf"}
        return self.start_program(name, argv, {**configuration, **(environment or {})})

    def start_serial_proxy(self) -> None:
        """Once: what makes a websocket of the consoles of all hosts."""
        if any(program.name == "nova-serialproxy" for program in self.services):
            return
        proxy = self.start_program("nova-serialproxy", ["nova-serialproxy", *database.nova_manage()[1:],
                                                 "--log-file", f"{LOGS}/nova-serialproxy.log"])
        proxy.await_port(settings.SERIAL_PROXY)

    # ---- compute hosts ----

    def host(self, name: str) -> Host:
        """The place of a host, with nothing started in it."""
        if name not in self.hosts:
            self.hosts[name] = Host(name, self.build)
        return self.hosts[name]

    def start_compute(self, name: str, conf_text: str, binary: str = "nova-compute",
                      environment: dict[str, str] | None = None, has_daemon: bool = True) -> Host:
        """A virtusernsd and a nova-compute beside it, with `conf_text` as the last of its configuration files (Host.fill_in says
        what is filled in). Returns when the scheduler can use it."""
        begin = time.monotonic()
        host = self.host(name)
        if has_daemon and host.daemon is None:
            host.start_daemon()
        host.start_compute(conf_text, binary, environment)
        host.compute.wait_until(lambda: self._knows(name), "it is in the database", 90)
        run([*database.nova_manage(), "cell_v2", "discover_hosts"], LOGS / "discover-hosts.log")
        self.seconds[f"compute {name}"] = time.monotonic() - begin
        return host

    @staticmethod
    def _knows(name: str) -> bool:
        return database.query(f"SELECT count(*) FROM nova.compute_nodes WHERE deleted = 0 AND host = '{name}'") == ["1"]

    def loops(self) -> dict[str, str]:
        """Devices over disks of our instances, and whose they are. Of a file in a mount that this namespace has not got the kernel says
        the end of the path."""
        found = {}
        for entry in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                backing = entry.read_text()
                found |= {entry.parts[3]: f"{name}: {backing.strip()}" for instance, name in self.instances.items()
                          if f"/instances/{instance}" in backing}
        return found

    # ---- down ----

    def down(self) -> list[str]:
        """Hosts first; what is left of the services is thrown away, so they may end in any order. The names of what had to be killed."""
        refused = [name for host in reversed(self.hosts.values()) for name in host.stop()]
        if self.volumes:
            self.volumes.end()
        for program in self.services:
            program.tell_to_end()
        refused += [program.name for program in reversed(self.services) if not program.stop()]
        self.database.kill()
        for loop in self.loops():
            subprocess.run(["losetup", "--detach", f"/dev/{loop}"], check=False, capture_output=True)
        self.hosts, self.services = {}, []
        return refused


__all__ = ["Cloud", "DidNotStart", "enter", "missing"]
