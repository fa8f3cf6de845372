"""A scripted virtuserns-compute: it speaks the frames, answers what it is told to, and remembers what it was asked.

Every request is held to docs/compute-api.md; `complaints` has what was wrong with them.
"""
import json
import os
import socket
import struct
import tempfile
import threading

import compute_api

DESCRIBED = {
    "hostname": "node-1", "uri": "userns:///system", "hypervisor_type": "userns", "hypervisor_version": 1000,
    "kind": "container", "architecture": "x86_64", "guest_types": [["x86_64", "lxc", "exe"]],
    "features": {name: True for name in ("attach_interface", "attach_volume", "extend_volume", "swap_volume", "rescue", "snapshot", "suspend",
                                         "migrate", "config_drive", "serial_console", "set_password", "quiesce",
                                         "crash_dump", "console_output", "files", "images", "resize")},
    "refused": {},
    "image_formats": ["raw", "qcow2", "root-tar"],
    "cpu": {"model": "EPYC", "vendor": "AMD", "topology": {"sockets": 1, "cores": 2, "threads": 1}, "features": ["avx2"]},
    "address": "127.0.0.1",
}
ANSWERS = {
    "api.version": {"version": "1.3", "program": "virtuserns-compute 0.1.0"},
    "host.describe": DESCRIBED,
    "host.resources": {"vcpus": 2, "vcpus_used": 1, "memory_mb": 4096, "memory_mb_used": 1024, "disk_gb": 40, "disk_gb_used": 5,
                       "disk_available_gb": 30, "running": 1},
    "host.inventory": {"inventory": {"VCPU": {"total": 2, "max_unit": 2}, "MEMORY_MB": {"total": 4096, "max_unit": 4096},
                                     "DISK_GB": {"total": 40, "max_unit": 40},
                                     "CUSTOM_IDMAP_RANGE": {"total": 100, "max_unit": 1}},
                       "traits": ["HW_CPU_X86_AVX2", "CUSTOM_USERNS"]},
    "host.uptime": {"seconds": 90061, "load": [0.1, 0.25, 0.3], "users": 2},
    "host.cpu_stats": {"kernel": 1, "user": 2, "idle": 3, "iowait": 4, "frequency": 2400},
    "instance.list": [],
    "instance.remains": [],
    "instance.info": {"state": "running", "memory_kb": 1024, "max_memory_kb": 1024, "vcpus": 1, "cpu_time_ns": 5, "id": 42,
                      "ids": {"first": 2000000, "count": 65536}},
    "instance.spawn": {"ids": {"first": 2000000, "count": 65536}},
    "instance.migrate_in": {"ids": {"first": 2000000, "count": 65536}},
    "instance.migrate_out": {"ticket": {"host": "a", "secret": "b"}},
    "instance.console_output": {"data": "aGVsbG8K"},
    "instance.serial_console": {"host": "127.0.0.1", "port": 10000},
    "instance.crash_dump": {"path": "/var/lib/virtuserns/dump/1"},
    "instance.diagnostics": {
        "state": "running", "uptime_s": None, "memory": {"maximum_mb": 512, "used_mb": 5},
        "cpus": [{"id": 0, "time_ns": 7, "utilisation": None}],
        "nics": [{"mac": "fa:16:3e:00:00:01", "rx_octets": 1, "rx_packets": 2, "rx_drop": 3, "rx_errors": 4, "tx_octets": 5,
                  "tx_packets": 6, "tx_drop": 7, "tx_errors": 8}],
        "disks": [{"read_bytes": 1, "read_requests": 2, "write_bytes": 3, "write_requests": 4}],
        "driver": "userns", "hypervisor": "userns", "hypervisor_os": "linux", "config_drive": False},
    "image.has": {"present": True},
    "image.add": {"bytes": 5},
    "image.list": [],
    "image.sweep": {"removed": []},
}


class Refusal(Exception):
    """Raised by a script: the error that is answered."""

    def __init__(self, kind, message="refused", retryable=False, code=-32000):
        super().__init__(message)
        self.kind, self.message, self.retryable, self.code = kind, message, retryable, code


class Hang(Exception):
    """Raised by a script: no answer."""


class HangUp(Exception):
    """Raised by a script: the connection is closed instead of an answer."""


class FakeAdapter:
    def __init__(self, path=None):
        self.folder = tempfile.TemporaryDirectory(prefix="userns-shim-")
        self.path = path or os.path.join(self.folder.name, "compute.sock")
        self.requests, self.complaints, self.connections = [], [], 0
        self.scripts, self.answers = {}, dict(ANSWERS)
        self._open, self._lock, self._subscribers = [], threading.Lock(), []
        self._changed = threading.Condition(self._lock)
        self._listener = None
        self.start()

    def start(self):
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self):
        """As if it was killed: nobody listens, and every connection is gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        os.unlink(self.path)
        with self._lock:
            ended, self._open, self._subscribers = self._open, [], []
        for peer in ended:
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.stop()
        self.folder.cleanup()

    def asked(self, method):
        """The parameters of all requests of a method, oldest first."""
        with self._lock:
            return [params for name, params in self.requests if name == method]

    def methods(self):
        with self._lock:
            return [name for name, _ in self.requests]

    def notify(self, uuid, event, at=1.5):
        with self._changed:
            self._changed.wait_for(lambda: self._subscribers)
            for peer in self._subscribers:
                self._send(peer, {"jsonrpc": "2.0", "method": "event", "params": {"uuid": uuid, "event": event, "at": at}})

    def _accept(self, listener):
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.append(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        try:
            while True:
                message = self._receive(peer)
                if message is None:
                    return
                self._answer(peer, message)
        except (OSError, HangUp):
            return
        finally:
            peer.close()

    def _answer(self, peer, message):
        method, params = message["method"], message["params"]
        with self._changed:
            self.requests.append((method, params))
            self.complaints += compute_api.complaints(method, params)
            script, default = self.scripts.get(method), self.answers.get(method, {})
        reply = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            reply["result"] = script(**params) if script else default
        except Refusal as refusal:
            reply["error"] = {"code": refusal.code, "message": refusal.message}
            if refusal.code == -32000:
                reply["error"]["data"] = {"kind": refusal.kind, "retryable": refusal.retryable}
        except Hang:
            return
        self._send(peer, reply)
        if method == "events.subscribe":
            with self._changed:
                self._subscribers.append(peer)
                self._changed.notify_all()

    @staticmethod
    def _send(peer, message):
        body = json.dumps(message).encode()
        peer.sendall(struct.pack(">I", len(body)) + body)

    @staticmethod
    def _receive(peer):
        def read(size):
            data = b""
            while len(data) < size:
                piece = peer.recv(size - len(data))
                if not piece:
                    return None
                data += piece
            return data
        header = read(4)
        return None if header is None else json.loads(read(struct.unpack(">I", header)[0]))
