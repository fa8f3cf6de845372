"""A client of docs/compute-api.md, written anew from that document: it shares nothing with the adapter or with Nova's plug-in."""
import base64
import contextlib
import json
import socket
import struct

from harness import Failure, contains, daemon_module, equal

TIMEOUT_S = 60


class ApiError(Exception):
    def __init__(self, error):
        self.code, self.message, self.data = error["code"], error["message"], error.get("data")
        self.kind = self.data["kind"] if self.data else None
        super().__init__(f"{self.code} {self.kind}: {self.message}")


class Gone(Exception):
    """The other side has closed."""


class Client:
    """One connection; its methods are the API's, with their parameters by name."""

    def __init__(self, path, timeout_s=TIMEOUT_S):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout_s * daemon_module.TIME_FACTOR)
        self.socket.connect(path)
        self._id = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    # ---- frames ----

    def send(self, content):
        self.socket.sendall(struct.pack(">I", len(content)) + content)

    def _read(self, size):
        found = b""
        while len(found) < size:
            try:
                part = self.socket.recv(size - len(found))
            except ConnectionError as error:
                raise Gone() from error
            if not part:
                raise Gone()
            found += part
        return found

    def receive(self):
        (size,) = struct.unpack(">I", self._read(4))
        return json.loads(self._read(size))

    # ---- requests ----

    def begin(self, method, **params):
        self._id += 1
        self.send(json.dumps({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}).encode())

    def end(self):
        answer = self.receive()
        equal(answer["jsonrpc"], "2.0")
        equal(answer["id"], self._id, "the id of the answer")
        if "error" in answer:
            raise ApiError(answer["error"])
        return answer["result"]

    def call(self, method, **params):
        try:
            self.begin(method, **params)
        except ConnectionError as error:
            raise Gone() from error
        return self.end()

    def info(self, uuid):
        return self.call("instance.info", uuid=uuid)

    def state(self, uuid):
        return self.info(uuid)["state"]

    def output(self, uuid, size=65536):
        return base64.b64decode(self.call("instance.console_output", uuid=uuid, bytes=size)["data"], validate=True)


@contextlib.contextmanager
def refused(kind, *parts):
    """The block must be refused with an error of this kind (or, a number, of this code of JSON-RPC)."""
    try:
        yield
    except ApiError as error:
        equal(error.code if isinstance(kind, int) else error.kind, kind, f"kind of {error.message!r}")
        for part in parts:
            contains(error.message, part)
        return
    raise Failure(f"no error, wanted {kind}")


def file(path, content=b"", **more):
    return {"path": path, "content": base64.b64encode(content).decode(), **more}
