"""What the tests need of OpenStack's interfaces, by HTTP: a command line costs a second or more for each call."""
import contextlib
import http.client
import json
import time

import daemon as daemon_module
import settings

MICROVERSION = "2.90"


class Refused(Exception):
    """An answer that says no."""

    def __init__(self, code: int, text: str):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class WentWrong(Exception):
    """A server that is not what was waited for, and will not be: its fault or status."""


def _reason(body: bytes) -> str:
    """The message somewhere inside of an error's body."""
    try:
        value = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")[:500]
    while isinstance(value, (dict, list)) and value:
        if isinstance(value, dict) and isinstance(found := value.get("message") or value.get("detail"), str):
            return found
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return str(value)


class Session:
    """One user in one project."""

    def __init__(self, user: str, project: str):
        self.user, self.project, self.token = user, project, None
        self.token = self._authenticate()

    @classmethod
    def admin(cls) -> "Session":
        return cls("admin", "admin")

    def _authenticate(self) -> str:
        domain = {"id": "default"}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": {
            "name": self.user, "domain": domain, "password": settings.PASSWORD}}},
            "scope": {"project": {"name": self.project, "domain": domain}}}}
        headers, answer = self._call(settings.KEYSTONE, "POST", "/v3/auth/tokens", body)
        self.project_id, self.user_id = answer["token"]["project"]["id"], answer["token"]["user"]["id"]
        return headers["X-Subject-Token"]

    def _call(self, port: int, method: str, path: str, body=None, headers: dict | None = None):
        """Headers and value of the answer."""
        headers = {"Accept": "application/json", **(headers or {})}
        if self.token:
            headers["X-Auth-Token"] = self.token
        if body is not None and not hasattr(body, "read"):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60 * daemon_module.TIME_FACTOR)) as link:
            link.request(method, path, body, headers)
            answer = link.getresponse()
            data = answer.read()
        if answer.status >= 300:
            raise Refused(answer.status, _reason(data))
        is_json = (answer.headers.get("Content-Type") or "").startswith("application/json")
        return answer.headers, json.loads(data) if data and is_json else data

    # ---- keystone ----

    def make_project(self, name: str) -> "Session":
        """A project with a user of the same name, who is a member of it."""
        _, project = self._call(settings.KEYSTONE, "POST", "/v3/projects", {"project": {"name": name, "domain_id": "default"}})
        _, user = self._call(settings.KEYSTONE, "POST", "/v3/users", {"user": {"name": name, "domain_id": "default",
                                                                              "password": settings.PASSWORD}})
        _, roles = self._call(settings.KEYSTONE, "GET", "/v3/roles?name=member")
        self._call(settings.KEYSTONE, "PUT", f"/v3/projects/{project['project']['id']}/users/{user['user']['id']}/roles/"
                                             f"{roles['roles'][0]['id']}")
        return Session(name, name)

    # ---- glance ----

    def upload_image(self, name: str, path: str, disk_format: str = "raw", **properties: str) -> str:
        _, image = self._call(settings.GLANCE, "POST", "/v2/images", {"name": name, "disk_format": disk_format,
                              "container_format": "bare", "visibility": "public", **properties})
        with open(path, "rb") as data:
            self._call(settings.GLANCE, "PUT", f"/v2/images/{image['id']}/file", data,
                       {"Content-Type": "application/octet-stream"})
        return image["id"]

    def set_image(self, image: str, **properties: str) -> None:
        self._call(settings.GLANCE, "PATCH", f"/v2/images/{image}",
                   [{"op": "add", "path": f"/{name}", "value": value} for name, value in properties.items()],
                   {"Content-Type": "application/openstack-images-v2.1-json-patch"})

    def image(self, image: str) -> dict:
        return self._call(settings.GLANCE, "GET", f"/v2/images/{image}")[1]

    def images(self) -> list[dict]:
        return self._call(settings.GLANCE, "GET", "/v2/images")[1]["images"]

    def download_image(self, image: str) -> bytes:
        return self._call(settings.GLANCE, "GET", f"/v2/images/{image}/file", headers={"Accept": "*/*"})[1]

    def delete_image(self, image: str) -> None:
        self._call(settings.GLANCE, "DELETE", f"/v2/images/{image}")

    def await_image(self, image: str, timeout_s: float = 90) -> dict:
        def look():
            try:
                found = self.image(image)
            except Refused as refused:
                raise WentWrong(f"the image is gone: {refused}") from None  # nova deletes it when the snapshot failed
            return found if found["status"] == "active" else None
        return await_that(look, lambda: f"image {image} is active", timeout_s)

    # ---- placement ----

    def placement(self, path: str) -> dict:
        return self._call(settings.PLACEMENT, "GET", path, headers={"OpenStack-API-Version": "placement 1.39"})[1]

    def allocations(self, consumer: str) -> dict:
        return self.placement(f"/allocations/{consumer}")["allocations"]

    # ---- neutron ----

    def neutron(self, method: str, path: str, body=None):
        return self._call(settings.NETWORK, method, f"/v2.0{path}", body)[1]

    # ---- cinder ----

    def cinder(self, method: str, path: str, body=None):
        return self._call(settings.CINDER, method, f"/v3/{self.project_id}{path}", body, {"OpenStack-API-Version": "volume 3.59"})[1]

    # ---- barbican ----

    def barbican(self, method: str, path: str, body=None):
        return self._call(settings.BARBICAN, method, f"/v1{path}", body)[1]

    # ---- nova ----

    def nova(self, method: str, path: str, body=None, version: str = MICROVERSION):
        return self._call(settings.NOVA, method, f"/v2.1{path}", body, {"OpenStack-API-Version": f"compute {version}"})[1]

    def make_flavor(self, name: str, memory_mb: int = 256, vcpus: int = 1, disk_gb: int = 1, **extra_specs: str) -> str:
        flavor = self.nova("POST", "/flavors", {"flavor": {"name": name, "ram": memory_mb, "vcpus": vcpus,
                                                           "disk": disk_gb}})["flavor"]["id"]
        if extra_specs:
            specs = {key.replace("__", ":"): value for key, value in extra_specs.items()}
            self.nova("POST", f"/flavors/{flavor}/os-extra_specs", {"extra_specs": specs})
        return flavor

    def boot(self, name: str, image: str, flavor: str, host: str | None = None, **more) -> str:
        """Asks for a server without a network and returns its id. `host` needs an administrator."""
        body = {"name": name, "imageRef": image, "flavorRef": flavor, "networks": "none", **more}
        if host:
            body["host"] = host
        return self.nova("POST", "/servers", {"server": body})["server"]["id"]

    def server(self, server: str) -> dict:
        return self.nova("GET", f"/servers/{server}")["server"]

    def servers(self, all_projects: bool = False) -> list[dict]:
        return self.nova("GET", "/servers/detail" + ("?all_tenants=1" if all_projects else ""))["servers"]

    def act(self, server: str, action: str, body=None):
        return self.nova("POST", f"/servers/{server}/action", {action: body})

    def delete(self, server: str) -> None:
        self.nova("DELETE", f"/servers/{server}")

    def await_status(self, server: str, *statuses: str, timeout_s: float = 90, give_up=lambda: "") -> dict:
        """One of them, with no task under way. WentWrong as soon as it is ERROR, and that was not waited for, or when nothing is under
        way and `give_up` says why."""
        last = {}

        def look():
            last.update(self.server(server))
            if last["OS-EXT-STS:task_state"] is None and last["status"] in statuses:
                return last
            if last["status"] == "ERROR" and last["OS-EXT-STS:task_state"] is None:
                raise WentWrong(f"ERROR: {last.get('fault', {}).get('message', 'without a word')}")
            if last["OS-EXT-STS:task_state"] is None and (why := give_up()):
                raise WentWrong(why)
            return None
        return await_that(look, lambda: f"{last.get('status')}, task {last.get('OS-EXT-STS:task_state')}, "
                                    f"not {' or '.join(statuses)}", timeout_s)

    def await_gone(self, server: str, timeout_s: float = 90) -> None:
        def look():
            try:
                found = self.server(server)
            except Refused as refused:
                return refused.code == 404
            if found["status"] == "ERROR" and found["OS-EXT-STS:task_state"] is None:
                raise WentWrong(f"ERROR: {found.get('fault', {}).get('message', 'without a word')}")
            return False
        await_that(look, lambda: f"server {server} is still there", timeout_s)

    def ask_for_volume(self, server: str, volume: str, **more) -> dict:
        return self.nova("POST", f"/servers/{server}/os-volume_attachments",
                         {"volumeAttachment": {"volumeId": volume, **more}})["volumeAttachment"]

    def volumes_of(self, server: str) -> list[dict]:
        return self.nova("GET", f"/servers/{server}/os-volume_attachments")["volumeAttachments"]

    def await_volume(self, server: str, volume: str, give_up) -> None:
        """Until Cinder says that this server has it; or `give_up` says why not."""
        def look():
            found = self.cinder("GET", f"/volumes/{volume}")["volume"]
            if found["status"] == "in-use" and server in [each["server_id"] for each in found["attachments"]]:
                return True
            if why := give_up():
                raise WentWrong(why)
            return False
        await_that(look, lambda: f"volume {volume} is attached to server {server}", 60)

    def detach_volume(self, server: str, volume: str) -> None:
        """Asks for it."""
        self.nova("DELETE", f"/servers/{server}/os-volume_attachments/{volume}")

    def last_event(self, server: str) -> dict:
        """The newest action of it, with the results and the text of its events."""
        newest = self.nova("GET", f"/servers/{server}/os-instance-actions")["instanceActions"][0]
        return self.nova("GET", f"/servers/{server}/os-instance-actions/{newest['request_id']}")["instanceAction"]


def await_that(look, describe, timeout_s: float):
    deadline = time.monotonic() + timeout_s * daemon_module.TIME_FACTOR
    while not (found := look()):
        if time.monotonic() > deadline:
            raise WentWrong(f"not within {timeout_s:g} s: {describe()}")
        time.sleep(0.1)
    return found
