"""Cinder from Debian's packages beside the rest of the cloud, with two back ends of back_end/loop_volumes.py; and its interface.

Cloud(volumes=Cinder()) has one.
"""
import contextlib
import pathlib

import database
import rest
import settings
from settings import BROKER, CONFIG, CREDENTIALS, GLANCE, HOME, LOGS, TOKENS, database_url, url

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = HOME / "volumes"
BACK_ENDS = ("first", "second")
FILE = CONFIG / "cinder/cinder.conf"

# A section that is there twice is one, and the last of two values holds. A volume that an instance has may only be detached by
# who shows a token of a service too (CVE-2023-2088).
CONF = f"""[DEFAULT]
state_path = {HOME}/cinder
host = control
my_ip = 127.0.0.1
transport_url = {BROKER}
auth_strategy = keystone
api_paste_config = /etc/cinder/api-paste.ini
glance_api_servers = {url(GLANCE)}
rootwrap_config = /etc/cinder/rootwrap.conf
enabled_backends = {','.join(BACK_ENDS)}
default_volume_type = {BACK_ENDS[0]}
osapi_volume_workers = 1
periodic_interval = 5
report_interval = 5
allow_availability_zone_fallback = true
[database]
connection = {database_url('cinder')}
{TOKENS}
[keystone_authtoken]
service_token_roles = admin
service_token_roles_required = true
[nova]
{CREDENTIALS}
[cinder_sys_admin]
helper_command = privsep-helper --config-file {FILE}
[privsep_osbrick]
helper_command = privsep-helper --config-file {FILE}
""" + "".join(f"""[{name}]
volume_driver = loop_volumes.LoopDriver
volume_backend_name = {name}
loop_folder = {FOLDER}/{name}
""" for name in BACK_ENDS)

OF_NOVA = f"""[service_user]
send_service_user_token = true
{CREDENTIALS}
"""


class Cinder:
    PROGRAMS = ["cinder-wsgi", "cinder-scheduler", "cinder-volume", "cinder-manage", "mariadb-dump"]
    PRIVATE_FOLDERS: tuple[str, ...] = ()  # which are empty in our namespace

    def write_settings(self) -> None:
        for folder in (FILE.parent, HOME / "cinder", *(FOLDER / name for name in BACK_ENDS)):
            folder.mkdir(parents=True)
        FILE.write_text(CONF)
        with open(CONFIG / "nova/nova.conf", "a") as file:
            file.write(OF_NOVA)

    def start(self, databases: database.Database, start, start_wsgi) -> None:
        """With the data base, the broker and keystone there; `start`, `start_wsgi` of the cloud."""
        database.make_schema("cinder", "cinder-common", ["cinder-manage", "--config-file", str(FILE), "db", "sync"],
                             databases.cache.parent)
        api = start_wsgi("cinder-api", settings.CINDER, "/usr/bin/cinder-wsgi",
                         arguments=f"--config-file {FILE} --log-file {LOGS}/cinder-api.log")
        for name in ("cinder-scheduler", "cinder-volume"):
            service = start(name, [name, "--config-file", str(FILE), "--log-file", f"{LOGS}/{name}.log"],
                            {"PYTHONPATH": str(HERE / "back_end")})
        api.await_answer(settings.CINDER)
        service.wait_until(self._is_up, "both back ends are up", 90)
        # The type of volumes that are made without a word, and the other one.
        volumes = Volumes(rest.Session.admin())
        for name in BACK_ENDS:
            volumes.make_type(name, volume_backend_name=name)
        volumes.make_type("shared", volume_backend_name=BACK_ENDS[0], multiattach="<is> True")

    def end(self) -> None:
        """What does not end when it is told to, as the others."""

    @staticmethod
    def _is_up() -> bool:
        """The scheduler hears of a back end when that has told of its capacity."""
        session = rest.Session.admin()
        with contextlib.suppress(rest.Refused):
            return len(session.cinder("GET", "/scheduler-stats/get_pools")["pools"]) == len(BACK_ENDS)
        return False


class Volumes:
    """What the tests ask Cinder for, as one user."""

    def __init__(self, session: rest.Session):
        self.session = session

    def call(self, method: str, path: str, body=None):
        return self.session.cinder(method, path, body)

    def make_type(self, name: str, **specs: str) -> None:
        self.call("POST", "/types", {"volume_type": {"name": name, "extra_specs": specs}})

    def make(self, name: str, size: int = 1, **more) -> str:
        volume = self.call("POST", "/volumes", {"volume": {"name": name, "size": size, **more}})["volume"]["id"]
        self.await_status(volume, "available")
        return volume

    def show(self, volume: str) -> dict:
        return self.call("GET", f"/volumes/{volume}")["volume"]

    def list(self, all_projects: bool = False) -> list[dict]:
        return self.call("GET", "/volumes/detail" + ("?all_tenants=1" if all_projects else ""))["volumes"]

    def act(self, volume: str, action: str, body=None) -> None:
        self.call("POST", f"/volumes/{volume}/action", {action: body})

    def delete(self, volume: str) -> None:
        self.call("DELETE", f"/volumes/{volume}")
        self.await_gone(volume)

    def await_gone(self, volume: str) -> None:
        rest.await_that(lambda: all(each["id"] != volume for each in self.list()), lambda: f"volume {volume} is still there", 60)

    def await_status(self, volume: str, status: str, timeout_s: float = 60) -> dict:
        last = {}

        def look():
            last.update(self.show(volume))
            if last["status"].startswith("error") and last["status"] != status:
                raise rest.WentWrong(f"the volume is {last['status']}")
            return last["status"] == status and last
        return rest.await_that(look, lambda: f"the volume is {last.get('status')}, not {status}", timeout_s)
