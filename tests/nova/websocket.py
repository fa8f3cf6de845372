"""The client's side of a websocket (RFC 6455), as far as a console needs it: websockify's own fails at its first message."""
import base64
import os
import socket
import struct
import urllib.parse

BINARY, CLOSE = 2, 8
MAX_HEAD = 16 * 1024


class WebSocket:
    def __init__(self, url: str, timeout_s: float):
        """Connected; raises OSError when the other side does not want that."""
        place = urllib.parse.urlsplit(url)
        self._socket = socket.create_connection((place.hostname, place.port), timeout=timeout_s)
        self._got = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall((f"GET {place.path or '/'}?{place.query} HTTP/1.1\r\nHost: {place.netloc}\r\nUpgrade: websocket\r\n"
                              f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Protocol: binary\r\n\r\n").encode())
        while b"\r\n\r\n" not in self._got:
            if len(self._got) > MAX_HEAD:
                raise OSError("no end of the answer's head")
            self._more()
        head, _, self._got = self._got.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            self._socket.close()
            raise OSError(head.partition(b"\r\n")[0].decode(errors="replace"))

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        if len(data) > 125:
            raise ValueError("more than a short frame takes")
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        self._socket.sendall(bytes([0x80 | BINARY, 0x80 | len(data)]) + mask + masked)

    def receive(self) -> bytes:
        """What one frame has; empty at the end. TimeoutError when nothing comes."""
        first, length = self._take(2)
        if length == 126:
            length, = struct.unpack(">H", self._take(2))
        elif length == 127:
            length, = struct.unpack(">Q", self._take(8))
        data = self._take(length)
        return b"" if first & 0x0f == CLOSE else data

    def _take(self, size: int) -> bytes:
        while len(self._got) < size:
            self._more()
        taken, self._got = self._got[:size], self._got[size:]
        return taken

    def _more(self) -> None:
        piece = self._socket.recv(65536)
        if not piece:
            raise OSError("the connection was closed")
        self._got += piece
