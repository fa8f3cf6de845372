"""The frames and the connections: what is lost, late, hostile, or busy."""
import socket
import struct
import threading
import time
import unittest

import fake_adapter
import nova_objects  # noqa: F401  puts our package below nova.virt
from nova.virt.userns import client
from shim_case import ShimCase


class ClientTest(ShimCase):
    def setUp(self):
        super().setUp()
        self.client = client.Client(self.adapter.path, request_timeout=20, reconnect_timeout=20)
        self.addCleanup(self.client.close)

    def test_connection_is_kept(self):
        for _ in range(5):
            self.client.call("host.uptime", {})
        self.assertEqual(self.adapter.connections, 1)

    def test_restarted_between_requests(self):
        self.client.call("host.uptime", {})
        self.adapter.stop()
        self.adapter.start()
        self.assertEqual(self.client.call("host.uptime", {})["users"], 2)

    def test_waits_until_it_is_started_again(self):
        self.adapter.stop()
        starter = threading.Timer(0.5, self.adapter.start)
        starter.start()
        self.assertEqual(self.client.call("host.uptime", {})["users"], 2)
        starter.join()

    def test_lost_while_a_request_is_under_way(self):
        """It is sent again: every request may be repeated."""
        lost = []

        def once(**_params):
            if not lost:
                lost.append(True)
                raise fake_adapter.HangUp
            return {}
        self.script("instance.destroy", once)
        self.client.call("instance.destroy", {"uuid": "a", "disks": True, "rebuild": False, "revert": False})
        self.assertEqual(self.adapter.asked("instance.destroy"), [{"uuid": "a", "disks": True, "rebuild": False, "revert": False}] * 2)

    def test_nobody_is_there(self):
        self.adapter.stop()
        impatient = client.Client(self.adapter.path, request_timeout=20, reconnect_timeout=0)
        with self.assertRaisesRegex(client.AdapterUnreachable, "host.uptime: virtuserns-compute at '.*compute.sock': connect: "):
            impatient.call("host.uptime", {})
        self.adapter.start()

    def test_reasons_are_the_kernels_words(self):
        """docs/openstack.md quotes them; with eventlet and without."""
        nowhere = client.Client("/nowhere/compute.sock", request_timeout=20, reconnect_timeout=0)
        with self.assertRaisesRegex(client.AdapterUnreachable, "'/nowhere/compute.sock': connect: No such file or directory$"):
            nowhere.call("host.uptime", {})

    def test_silent(self):
        def never(**_params):
            raise fake_adapter.Hang
        self.script("host.uptime", never)
        with self.assertRaisesRegex(client.AdapterUnreachable, "does not answer in time"):
            self.client.call("host.uptime", {}, timeout=0.3)
        # An answer that comes later must not be taken for that of another request.
        self.assertEqual(self.client.call("host.describe", {})["hostname"], "node-1")
        self.assertEqual(self.adapter.methods(), ["host.uptime", "host.describe"])
        self.assertEqual(self.adapter.connections, 2)

    def test_busy_for_a_while(self):
        tries = []

        def busy(**_params):
            tries.append(True)
            if len(tries) < 3:
                raise fake_adapter.Refusal("busy", "in use", retryable=True)
            return {}
        self.script("instance.pause", busy)
        self.client.call("instance.pause", {"uuid": "a"})
        self.assertEqual(len(tries), 3)

    def test_busy_for_ever(self):
        self.refuse("instance.pause", "busy", "in use by fsck", retryable=True)
        impatient = client.Client(self.adapter.path, request_timeout=20, reconnect_timeout=0.2)
        self.addCleanup(impatient.close)
        with self.assertRaisesRegex(client.AdapterError, "in use by fsck"):
            impatient.call("instance.pause", {"uuid": "a"})

    def test_refusal_is_not_repeated_and_keeps_the_connection(self):
        self.refuse("instance.pause", "invalid-state", "it is off")
        for _ in range(2):
            with self.assertRaises(client.AdapterError) as caught:
                self.client.call("instance.pause", {"uuid": "a"})
            self.assertEqual((caught.exception.kind, caught.exception.message), ("invalid-state", "it is off"))
        self.assertEqual(self.adapter.connections, 1)
        self.assertEqual(len(self.adapter.asked("instance.pause")), 2)

    def test_codes_of_json_rpc(self):
        for code, kind in ((-32601, "unsupported"), (-32602, "invalid"), (-32700, "internal")):
            self.refuse("instance.pause", "", code=code)
            with self.assertRaises(client.AdapterError) as caught:
                self.client.call("instance.pause", {"uuid": "a"})
            self.assertEqual(caught.exception.kind, kind)

    def test_others_go_on_while_one_waits(self):
        release = threading.Event()

        def slow(**_params):
            release.wait(60)
            return {}
        self.script("instance.snapshot", slow)
        waiting = threading.Thread(target=self.client.call, args=("instance.snapshot", {"uuid": "a", "path": "/p"}))
        waiting.start()
        self.eventually("the snapshot is asked for", lambda: self.adapter.asked("instance.snapshot"))
        self.assertEqual(self.client.call("host.uptime", {})["users"], 2)
        self.assertTrue(waiting.is_alive())
        release.set()
        waiting.join()

    def test_many_at_once(self):
        def one():
            for _ in range(10):
                answers.append(self.client.call("host.uptime", {})["users"])
        answers = []
        threads = [threading.Thread(target=one) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [2] * 200)

    def test_version(self):
        self.assertEqual(self.client.check_version(), "1.3")
        self.adapter.answers["api.version"] = {"version": "1.7", "program": "p"}
        self.assertEqual(self.client.check_version(), "1.7")
        for refused in ("2.0", "1.1"):
            self.adapter.answers["api.version"] = {"version": refused, "program": "p"}
            with self.assertRaisesRegex(client.AdapterError, f"speaks version {refused}"):
                self.client.check_version()

    def test_a_large_request(self):
        text = "x" * (4 * 1024 * 1024)
        self.client.call("instance.set_password", {"uuid": "a", "user": "root", "password": text})
        self.assertEqual(len(self.adapter.asked("instance.set_password")[0]["password"]), len(text))

    def test_a_request_that_is_too_large(self):
        with self.assertRaisesRegex(client.AdapterError, "more than 16777216"):
            self.client.call("instance.set_password", {"uuid": "a", "user": "root", "password": "x" * (17 * 1024 * 1024)})
        self.assertEqual(self.client.call("host.uptime", {})["users"], 2)


class FrameTest(unittest.TestCase):
    """A peer that is not the adapter, or lies."""

    def answer(self, data):
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        connection = client.Connection.__new__(client.Connection)
        connection._socket = ours
        self.addCleanup(connection.close)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        return connection.receive(timeout=20)

    def test_whole(self):
        self.assertEqual(self.answer(struct.pack(">I", 8) + b'{"a": 1}'), {"a": 1})

    def test_broken(self):
        with self.assertRaisesRegex(client._Lost, "a frame of 4294967295 bytes"):
            self.answer(struct.pack(">I", 0xffffffff))
        for name, data in {"short header": b"\0\0", "short body": b"\0\0\0\x08{",
                           "nothing": b"", "no JSON": b"\0\0\0\x02{{", "no object": b"\0\0\0\x02[]", "no text": b"\0\0\0\x01\xff"
                           }.items():
            with self.subTest(name), self.assertRaises(client._Lost):
                self.answer(data)

    def test_an_answer_to_another_request(self):
        ours, theirs = socket.socketpair()
        connection = client.Connection.__new__(client.Connection)
        connection._socket, connection._serial = ours, iter([7])
        self.addCleanup(theirs.close)
        self.addCleanup(connection.close)
        theirs.sendall(struct.pack(">I", 23) + b'{"id": 6, "result": {}}')
        with self.assertRaisesRegex(client._Lost, "an answer to another request"):
            connection.call("host.uptime", {}, timeout=20)

    def test_pieces(self):
        ours, theirs = socket.socketpair()
        connection = client.Connection.__new__(client.Connection)
        connection._socket = ours
        self.addCleanup(theirs.close)
        self.addCleanup(connection.close)

        def send():
            for byte in struct.pack(">I", 8) + b'{"a": 1}':
                theirs.sendall(bytes([byte]))
                time.sleep(0.001)
        sender = threading.Thread(target=send)
        sender.start()
        self.assertEqual(connection.receive(timeout=20), {"a": 1})
        sender.join()
