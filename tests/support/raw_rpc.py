"""A client of libvirt's remote protocol without libvirt: for calls that its library would refuse to send."""
import socket
import struct

REMOTE_PROGRAM, VERSION = 0x20008086, 1
CALL, REPLY = 0, 1
AUTH_LIST, CONNECT_OPEN = 66, 1


class RemoteError(Exception):
    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">I", len(data)) + data + b"\0" * (-len(data) % 4)


def optional_string(text) -> bytes:
    return struct.pack(">I", 0) if text is None else struct.pack(">I", 1) + string(text)


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def domain(name: str, uuid: bytes, number: int) -> bytes:
    return string(name) + uuid + struct.pack(">i", number)


class RawClient:
    def __init__(self, path: str):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(path)
        self.serial = 0

    def close(self):
        self.socket.close()

    def open(self, name="userns:///system", read_only=False):
        self.call(AUTH_LIST)
        self.call(CONNECT_OPEN, optional_string(name) + u32(1 if read_only else 0))
        return self

    def send(self, procedure, payload=b"", program=REMOTE_PROGRAM, version=VERSION, kind=CALL, status=0):
        self.serial += 1
        self.socket.sendall(struct.pack(">IIIiiIi", 28 + len(payload), program, version, procedure, kind, self.serial,
                                        status) + payload)
        return self.serial

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the daemon closed the connection")
            data += part
        return data

    def receive(self):
        """(procedure, kind, serial, status, payload)"""
        (length,) = struct.unpack(">I", self._exactly(4))
        body = self._exactly(length - 4)
        _, _, procedure, kind, serial, status = struct.unpack(">IIiiIi", body[:24])
        return procedure, kind, serial, status, body[24:]

    def call(self, procedure, payload=b"", **header):
        """The reply's payload, or RemoteError. Events that come in between are dropped."""
        wanted = self.send(procedure, payload, **header)
        while True:
            _, kind, serial, status, answer = self.receive()
            if kind != REPLY or serial != wanted:
                continue
            if status == 0:
                return answer
            code, _, present = struct.unpack(">iiI", answer[:12])
            length = struct.unpack(">I", answer[12:16])[0] if present else 0
            raise RemoteError(code, answer[16:16 + length].decode(errors="replace"))
