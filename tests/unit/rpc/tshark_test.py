#!/usr/bin/env python3
"""An independent decoder, wireshark's libvirt dissector, must understand what the daemon says.

Talks to a daemon by hand, hands the bytes to text2pcap and tshark, and looks for malformed packets and expected fields.
"""
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

REMOTE, LXC, KEEPALIVE = 0x20008086, 0x00068000, 0x6B656570


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def string(text):
    data = text.encode()
    return struct.pack(">I", len(data)) + data + b"\0" * (-len(data) % 4)


DOMAIN = string("fake1") + bytes([0xFA] + [1] * 15) + struct.pack(">i", 1)


class Session:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(path)
        self.serial = 0
        self.flow = []  # (from_daemon, bytes)

    def send(self, procedure, args=b"", program=REMOTE, kind=0, status=0):
        frame = struct.pack(">IIiiIi", program, 1, procedure, kind, self.serial, status) + args
        frame = struct.pack(">I", len(frame) + 4) + frame
        self.serial += 1
        self.flow.append((False, frame))
        self.socket.sendall(frame)

    def read(self):
        data = self.exactly(4)
        data += self.exactly(struct.unpack(">I", data)[0] - 4)
        self.flow.append((True, data))
        if struct.unpack(">i", data[16:20])[0] == 5:  # reply with descriptors: a byte for each follows
            for _ in range(struct.unpack(">I", data[28:32])[0]):
                _, fds, _, _ = socket.recv_fds(self.socket, 1, 4)
                for fd in fds:
                    os.close(fd)
        return data

    def exactly(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            assert part, "the daemon closed the connection"
            data += part
        return data

    def call(self, procedure, args=b"", program=REMOTE):
        self.send(procedure, args, program)
        while True:
            data = self.read()
            if struct.unpack(">i", data[16:20])[0] in (1, 5):
                return data


def script(session):
    u32 = lambda *values: struct.pack(">" + "I" * len(values), *values)
    session.call(66)
    session.call(60, u32(14))
    session.call(1, u32(1) + string("userns:///system") + u32(0))
    for procedure in (3, 4, 157, 110, 59, 6, 51, 25, 102, 122, 149):
        session.call(procedure)
    session.call(273, u32(1, 0))                       # list all
    session.call(37, u32(10))
    session.call(23, string("fake1"))
    session.call(23, string("nobody"))                 # an error
    session.call(14, DOMAIN + u32(0))                  # XML
    session.call(16, DOMAIN)
    session.call(20, DOMAIN + u32(2, 2))               # vcpus and maps
    session.call(198, DOMAIN + u32(16, 0))             # typed parameters
    session.call(262, DOMAIN + u32(1, 0, 3, 0))        # cpu stats
    session.call(227, u32(0xFFFFFFFF, 8, 0))
    session.call(293, u32(1, 1, 0))
    session.call(121, DOMAIN)
    session.call(426, DOMAIN + u32(0))
    session.call(357, DOMAIN + u32(1) + string("anna-of-inside") + u32(1) + string("secret") + u32(0))  # a password
    session.call(53, DOMAIN + string("/tmp/dump") + u32(2))  # a dump, live
    session.call(316, u32(0, 0))                       # events
    session.call(12, DOMAIN)                           # destroy: an event comes first
    session.call(52)                                   # not supported
    session.call(1, DOMAIN + u32(0), LXC)              # reply with descriptors
    session.send(1, b"", KEEPALIVE, 2)                 # ping
    session.read()
    session.call(2)


def hex_dump(data):
    lines = []
    for at in range(0, len(data), 16):
        lines.append("%06x %s" % (at, " ".join("%02x" % b for b in data[at : at + 16])))
    return "\n".join(lines) + "\n"


def decode(flow, directory):
    text = directory / "flow.txt"
    with text.open("w") as out:
        for from_daemon, data in flow:
            # packets above what text2pcap takes would have to be split; none of the script is
            assert len(data) < 60000
            out.write(("O\n" if from_daemon else "I\n") + hex_dump(data))
    pcap = directory / "flow.pcap"
    subprocess.run(["text2pcap", "-q", "-D", "-T", "40000,16509", text, pcap], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return subprocess.run(["tshark", "-V", "-r", pcap], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True).stdout


def main():
    for tool in ("tshark", "text2pcap"):
        if shutil.which(tool) is None:
            skip(tool + " is not installed")
    known = subprocess.run(["tshark", "-G", "protocols"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    if "libvirt" not in known.lower():
        skip("tshark has no libvirt dissector (package libvirt-wireshark)")
    build = pathlib.Path(os.environ["VIRTUSERNS_BUILD"])
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        daemon = subprocess.Popen([build / "driver/virtusernsd", "--driver", "fake", "--module-dir", build / "tests/unit/rpc",
                                   "--listen-dir", directory])
        try:
            path = directory / "virtusernsd-sock"
            for _ in range(200):
                if path.exists():
                    break
                time.sleep(0.05)
            session = Session(str(path))
            script(session)
        finally:
            daemon.terminate()
            status = daemon.wait(20)
        assert status == 0, "the daemon ended with %d" % status
        decoded = decode(session.flow, directory)
    if "Libvirt" not in decoded:
        skip("tshark does not dissect port 16509 as libvirt")
    for expected in ("fake1", "userns:///system", "hard_limit", "cpu_time", "this function is not supported",
                     "Domain not found", "keepalive", "hello", "anna-of-inside"):
        assert expected.lower() in decoded.lower(), "not found in what tshark shows: " + expected
    for bad in ("Malformed", "Dissector bug", "[Exception"):
        assert bad not in decoded, bad + " in what tshark shows:\n" + decoded[max(0, decoded.index(bad) - 2000) :][:2500]
    print("%d messages decoded" % len(session.flow))


main()
