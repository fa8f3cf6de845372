"""mariadb without a network, and the schemas of the services, which are made once and kept between runs."""
import hashlib
import pathlib
import shutil
import subprocess
import threading

import settings
from processes import Program, program_environment, run
from settings import CONFIG, DATABASE_SOCKET, DATABASES, HOME, LOGS, PASSWORD, RUN

DATA = HOME / "db"
KEYS = ("fernet", "credential")  # of keystone: tables hold what is encrypted by them
PACKAGES = ["keystone", "glance-common", "placement-common", "nova-common", "mariadb-server-core"]
CLIENT = ["mariadb", "--no-defaults", "-S", str(DATABASE_SOCKET)]


def schema_key(more: list[str]) -> str:
    """Names what the schemas depend on: the packages, and the texts in this folder that end up in the tables."""
    versions = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PACKAGES, *more], capture_output=True, text=True,
                              check=True).stdout
    here = pathlib.Path(__file__)
    parts = [versions.encode(), here.read_bytes(), here.with_name("settings.py").read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def query(statement: str) -> list[str]:
    """The lines of the answer."""
    result = subprocess.run([*CLIENT, "-Ne", statement], capture_output=True, text=True, check=True, env=program_environment({}))
    return result.stdout.splitlines()


def make_schema(name: str, package: str, command: list[str], cache: pathlib.Path) -> None:
    """Of a service that is not wanted in every cloud: out of the cache too, but as text, and into a mariadb that runs."""
    version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, check=True).stdout
    kept = cache / f"{name}-{hashlib.sha256(version).hexdigest()[:16]}.sql"
    query(f"CREATE DATABASE {name} CHARACTER SET utf8mb3")
    log = LOGS / f"{name}-schema.log"
    if kept.exists():
        run([*CLIENT, name], log, stdin=kept.read_bytes())
        return
    run(command, log)
    text = subprocess.run(["mariadb-dump", *CLIENT[1:], name], capture_output=True, check=True, env=program_environment({})).stdout
    half = kept.with_suffix(f".{HOME.stat().st_ino}.half")
    half.write_bytes(text)
    half.rename(kept)


class Database:
    def __init__(self, cache: pathlib.Path, network=None):
        """`network`: a neutron.Neutron, which has a schema too."""
        self.network = network
        self.cache = cache / schema_key(network.PACKAGES if network else [])
        self.program: Program | None = None

    def start(self) -> None:
        """With all schemas: those of the cache, or new ones, which then go there."""
        if self.cache.is_dir():
            shutil.copytree(self.cache / "db", DATA)
            self._copy_keys(self.cache, CONFIG / "keystone")
            self._start_program()
            return
        DATA.mkdir()
        run(["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={DATA}", "--skip-test-db",
             "--auth-root-authentication-method=socket"], LOGS / "mariadb-install.log")
        self._start_program()
        self._make_schemas()
        self.program.stop()
        self._keep()
        self._start_program()

    def _start_program(self) -> None:
        argv = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={DATA}", f"--socket={DATABASE_SOCKET}",
                f"--pid-file={RUN}/mysql.pid", "--skip-networking", "--skip-log-bin", "--innodb-buffer-pool-size=64M",
                "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=off",
                "--max-connections=200", "--character-set-server=utf8mb3"]
        self.program = Program("mariadb", argv, LOGS / "mariadb.out").start()
        self.program.wait_until(self._answers, "it answers", 60)

    @staticmethod
    def _answers() -> bool:
        return subprocess.run(["mariadb-admin", "--no-defaults", "-S", str(DATABASE_SOCKET), "ping"], capture_output=True,
                              env=program_environment({})).returncode == 0

    def kill(self) -> None:
        """At the end of the cloud: nobody reads the data again."""
        if self.program:
            self.program.kill()

    # ---- schemas ----

    def _make_schemas(self) -> None:
        statements = "".join(f"CREATE DATABASE {name} CHARACTER SET utf8mb3;" 
                             for name in [*DATABASES, *(self.network.DATABASES if self.network else [])])
        statements += f"CREATE USER 'os'@'localhost' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO 'os'@'localhost';"
        query(statements)
        failures = []

        def chain(log: str, commands: list[list[str]]) -> None:
            try:
                for argv in commands:
                    run(argv, LOGS / log)
            except Exception as failure:  # noqa: BLE001 - raised again below, in the thread that waits
                failures.append(failure)
        threads = [threading.Thread(target=chain, args=arguments) for arguments in
                   [("schemas-others.log", self._commands_of_others()), ("schemas-nova.log", self._commands_of_nova()),
                    ("schemas-network.log", self.network.schema_commands() if self.network else [])]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    @staticmethod
    def _commands_of_others() -> list[list[str]]:
        keystone = ["keystone-manage", "--config-file", f"{CONFIG}/keystone/keystone.conf"]
        for name in KEYS:
            (CONFIG / "keystone" / name).mkdir(mode=0o700, exist_ok=True)
        owner = ["--keystone-user", "root", "--keystone-group", "root"]
        return [[*keystone, "db_sync"], [*keystone, "fernet_setup", *owner], [*keystone, "credential_setup", *owner],
                [*keystone, "bootstrap", "--bootstrap-password", PASSWORD],
                ["placement-manage", "--config-file", f"{CONFIG}/placement/placement.conf", "db", "sync"],
                ["glance-manage", "--config-file", f"{CONFIG}/glance/glance-api.conf", "db_sync"]]

    @staticmethod
    def _commands_of_nova() -> list[list[str]]:
        return [[*nova_manage(), *words] for words in
                [["api_db", "sync"], ["cell_v2", "map_cell0", "--database_connection", settings.database_url("nova_cell0")],
                 ["db", "sync"], ["cell_v2", "create_cell", "--name", "cell1"]]]

    def _keep(self) -> None:
        """Whole or not at all: another run may look at the same time."""
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        half = self.cache.with_name(f"{self.cache.name}.{HOME.stat().st_ino}.half")
        shutil.copytree(DATA, half / "db")
        self._copy_keys(CONFIG / "keystone", half)
        try:
            half.rename(self.cache)
        except OSError:
            shutil.rmtree(half)  # somebody else was first

    @staticmethod
    def _copy_keys(source: pathlib.Path, target: pathlib.Path) -> None:
        for name in KEYS:
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)


def nova_manage() -> list[str]:
    return ["nova-manage", "--config-file", f"{CONFIG}/nova/nova.conf", "--config-file", f"{CONFIG}/nova/nova-db.conf"]
