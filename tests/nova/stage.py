"""What an action is tried on: a cloud, images and flavors in it, and servers that can be looked at from the host's side."""
import contextlib
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import daemon as daemon_module  # noqa: E402
import host_state  # noqa: E402
import libvirt  # noqa: E402
from rest import Refused, Session, WentWrong  # noqa: E402

SMALL_MB, LARGE_MB = 192, 256


class Mismatch(AssertionError):
    """Nova is content, and what it promised is not so."""


def check(condition, what: str) -> None:
    if not condition:
        raise Mismatch(what)


def equal(got, wanted, what: str) -> None:
    check(got == wanted, f"{what}: got {got!r}, wanted {wanted!r}")


class Server:
    """One instance: by REST, as a domain, and as processes."""

    def __init__(self, stage: "Stage", nova: Session, ident: str):
        self.stage, self.nova, self.id = stage, nova, ident

    def act(self, action: str, body=None):
        return self.nova.act(self.id, action, body)

    def await_status(self, *statuses: str, timeout_s: float = 90) -> dict:
        return self.nova.await_status(self.id, *statuses, timeout_s=timeout_s)

    def act_until(self, action: str, status: str, body=None) -> None:
        """The action, its end, and that its end was a good one: an instance may look well after one that failed."""
        self.act(action, body)
        try:
            self.nova.await_status(self.id, status, give_up=self.reason)
        except WentWrong as wrong:
            raise WentWrong(f"{wrong}: {self.reason()}".removesuffix(": ")) from None
        if reason := self.reason():
            raise WentWrong(reason)

    def reason(self) -> str:
        """Why the newest action failed; empty if it did not."""
        action = self.nova_admin().last_event(self.id)
        lines = []
        for event in action.get("events", []):
            if event["result"] == "Error":
                # What is said of it may be no more than the name of an exception.
                lines += [event.get("details"), (event.get("traceback") or "").strip().rpartition("\n")[2]]
        return "; ".join(dict.fromkeys(filter(None, lines)))

    def nova_admin(self) -> Session:
        return self.stage.admin

    def delete(self) -> None:
        self.nova.delete(self.id)
        self.nova.await_gone(self.id)

    @property
    def host(self):
        return self.stage.cloud.hosts[self.stage.admin.server(self.id)["OS-EXT-SRV-ATTR:host"]]

    # ---- as a domain ----

    @contextlib.contextmanager
    def domain(self):
        with contextlib.closing(libvirt.open(self.host.uri)) as connection:
            yield connection.lookupByUUIDString(self.id)

    def domain_state(self) -> int:
        with self.domain() as domain:
            return domain.state()[0]

    def init(self) -> int:
        with self.domain() as domain:
            return host_state.init_of(domain.ID())

    def first_uid(self) -> int:
        """Of the ids that it has on the host."""
        maps = pathlib.Path(f"/proc/{self.init()}/uid_map").read_text().split()
        equal(maps[0], "0", "the first id inside")
        return int(maps[1])

    def run(self, *command: str, codes: tuple[int, ...] = (0,)) -> str:
        """Inside, as its root. `codes`: with which it may end."""
        with self.domain() as domain:
            name = domain.name()
        result = self.host.run_inside(name, command)
        check(result.returncode in codes, f"{' '.join(command)} inside: {result.stderr.strip() or result.returncode}")
        return result.stdout.strip()

    def write(self, name: str, text: str) -> None:
        self.run("/bin/sh", "-c", f"echo {text} > /root/{name} && sync")

    def read(self, name: str) -> str:
        return self.run("/bin/sh", "-c", f"cat /root/{name} 2>/dev/null || echo missing")


class Stage:
    server: type[Server] = Server  # what `boot` makes

    def __init__(self, cloud, image_path: str):
        self.cloud = cloud
        self.admin = Session.admin()
        self.image_path = image_path
        self.image = self.admin.upload_image("busybox", image_path)
        self.small = self.admin.make_flavor("small", SMALL_MB, 1, 0)  # its disk is as large as its image, and quickly copied
        self.large = self.admin.make_flavor("large", LARGE_MB, 2, 1)
        self.path = ""  # the name of the one that is tried
        self.doing = "server"  # the action or invariant that is tried: servers are named by it
        self.lost_loops: set[str] = set()  # of hosts that instances were evacuated from
        self._shared: Server | None = None
        self._count = 0

    def next_number(self) -> int:
        self._count += 1
        return self._count

    def boot(self, nova: Session | None = None, **more) -> Server:
        server = self.begin_boot(nova, **more)
        server.await_status("ACTIVE")
        return server

    def begin_boot(self, nova: Session | None = None, **more) -> Server:
        """Asked for, and no more."""
        nova = nova or self.admin
        arguments = {"image": self.image, "flavor": self.small, **more}
        name = f"{self.doing}-{self.next_number()}"
        return self.known(nova.boot(name, **arguments), name, nova)

    def known(self, ident: str, name: str, nova: Session | None = None) -> Server:
        """One that was asked for in another way."""
        self.cloud.instances[ident] = name
        return self.server(self, nova or self.admin, ident)

    def active(self) -> Server:
        """One that runs: the one of the action before, if that left it well."""
        if self._shared:
            with contextlib.suppress(Refused, WentWrong, libvirt.libvirtError):
                if self._shared.await_status("ACTIVE", timeout_s=1) and self._shared.domain_state() == libvirt.VIR_DOMAIN_RUNNING:
                    return self._shared
            with contextlib.suppress(Refused, WentWrong):
                self._shared.delete()
        self._shared = self.boot()
        return self._shared

    @staticmethod
    def eventually_empty(look, timeout_s: float = 20.0) -> list[str]:
        """What is left when what ends by itself has had the time to."""
        deadline = time.monotonic() + timeout_s * daemon_module.TIME_FACTOR
        while (left := look()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def delete_all(self) -> None:
        for server in self.admin.servers(all_projects=True):
            with contextlib.suppress(Refused):
                self.admin.delete(server["id"])
        for server in self.admin.servers(all_projects=True):
            self.admin.await_gone(server["id"])
        self._shared = None
