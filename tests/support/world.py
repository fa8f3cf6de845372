"""A way out of a test's network namespace, for domains with <interface type='user'>.

The suite's network namespace is the "host". Its default route leads to a namespace of the test's own, the "world", in which a
server answers; nothing else is talked to.
"""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading

import daemon as daemon_module
import host_state
from harness import Skip, equal, eventually

HOST, WORLD = "192.0.2.2", "192.0.2.1"
OTHER, OTHER6 = "198.51.100.7", "2001:db8:7::7"  # for a test to give to the host
HOST6, WORLD6 = "2001:db8::2", "2001:db8::1"
TUN = pathlib.Path("/dev/net/tun")
# Of the world: says who asks.
SERVER = r"""
import socket, threading
def tcp(listener):
    while True:
        connection, peer = listener.accept()
        connection.sendall(f"world sees {peer[0]}\n".encode()); connection.close()
def udp(listener):
    while True:
        text, peer = listener.recvfrom(1000)
        listener.sendto(b"world heard " + text, peer)
listener = socket.create_server(("192.0.2.1", 80))
threading.Thread(target=tcp, args=[listener], daemon=True).start()
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); listener.bind(("192.0.2.1", 53))
print("ready", flush=True)
udp(listener)
"""
# Of a container: echoes at port 80.
INIT = """#!/bin/sh
trap 'exit 0' TERM; trap 'reboot -f' HUP
busybox nc -ll -p 80 -e /bin/cat &
while :; do sleep 1000 & wait $!; done
"""


def user_link(inner="", mac="52:54:00:00:00:01"):
    return f"<interface type='user'><mac address='{mac}'/>{inner}<backend type='passt'/></interface>"


def forward(proto, *ranges, **attributes):
    words = "".join(f" {name}='{value}'" for name, value in attributes.items())
    return f"<portForward proto='{proto}'{words}>" + "".join(f"<range {text}/>" for text in ranges) + "</portForward>"


def ip(*words, pid=None):
    inside = ["nsenter", "-t", str(pid), "-n"] if pid else []
    return subprocess.run([*inside, "ip", *words], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def bridge(name, address):
    ip("link", "add", name, "type", "bridge")
    try:
        ip("addr", "add", address, "dev", name)
        ip("link", "set", name, "up")
        yield name
    finally:
        ip("link", "del", name)


@contextlib.contextmanager
def world():
    """The way out of this namespace, and a device that users may open, as udev makes it."""
    if not shutil.which("pasta"):
        raise Skip("pasta is not installed (package passt)")
    if not TUN.exists():
        raise Skip("this kernel has no /dev/net/tun")
    node = pathlib.Path(daemon_module.PRIVATE_FOLDERS[0], ".tun")
    if not node.exists():
        os.mknod(node, 0o20666, os.stat(TUN).st_rdev)
        node.chmod(0o666)
    subprocess.run(["mount", "--bind", str(node), str(TUN)], check=True)
    server = subprocess.Popen(["unshare", "--net", sys.executable, "-c", "import sys; sys.stdin.readline()\n" + SERVER],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        eventually(lambda: os.readlink(f"/proc/{server.pid}/ns/net") != os.readlink("/proc/self/ns/net"), "the world is there")
        ip("link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", str(server.pid))
        ip("addr", "add", f"{WORLD}/24", "dev", "down0", pid=server.pid)
        ip("link", "set", "down0", "up", pid=server.pid)
        ip("addr", "add", f"{HOST}/24", "dev", "up0")
        pathlib.Path("/proc/sys/net/ipv6/conf/up0/accept_dad").write_text("0")
        ip("addr", "add", f"{HOST6}/64", "dev", "up0")
        ip("link", "set", "up0", "up")
        ip("route", "add", "default", "via", WORLD6)
        ip("route", "add", "default", "via", WORLD)
        server.stdin.write("\n")
        server.stdin.flush()
        equal(server.stdout.readline(), "ready\n")
        yield server.pid
    finally:
        server.kill()
        server.communicate()
        subprocess.run(["ip", "link", "del", "up0"], check=False, capture_output=True)
        subprocess.run(["umount", "-l", str(TUN)], check=True)
        node.unlink()


@contextlib.contextmanager
def listening(address, port):
    """Of the host: a service of both families, and the list of the addresses at which it was reached."""
    reached = []
    with socket.create_server((address, port), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    reached.append(connection.getsockname()[0].removeprefix("::ffff:"))
                    connection.close()
        worker = threading.Thread(target=serve)
        worker.start()
        try:
            yield reached
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            worker.join()


def ask(address, port, kind=socket.SOCK_STREAM):
    """Of the host: the echo from there, or the error's name."""
    try:
        with socket.socket(socket.AF_INET, kind) as client:
            client.settimeout(3)
            client.connect((address, port))
            client.sendall(b"hello\n")
            return client.recv(100).decode().strip()
    except OSError as error:
        return type(error).__name__


# busybox has no nc of udp: in the container's network, from outside.
UDP_CLIENT = """import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); client.settimeout(5); client.connect((sys.argv[1], int(sys.argv[2])))
client.send(b"hello"); print(client.recv(100).decode())"""
UDP_SERVER = """import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); server.bind(("0.0.0.0", 53)); print("ready", flush=True)
while True: server.sendto(*server.recvfrom(100))"""


def in_network(pid, code, *words):
    return ["nsenter", "-t", str(pid), "-n", sys.executable, "-c", code, *words]


def udp(pid, address, port):
    """What is answered to somebody in the network of `pid`."""
    return subprocess.run(in_network(pid, UDP_CLIENT, address, str(port)), capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def udp_server(pid):
    with subprocess.Popen(in_network(pid, UDP_SERVER), stdout=subprocess.PIPE, text=True) as server:
        equal(server.stdout.readline(), "ready\n")
        try:
            yield
        finally:
            server.kill()


def named(*prefixes):
    """Living processes of this suite."""
    found = []
    for pid in host_state.descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if host_state._state(pid) not in ("", "Z", "X") and pathlib.Path(f"/proc/{pid}/comm").read_text().startswith(prefixes):
                found.append(pid)
    return found


def pastas():
    return named("pasta", "passt")


LOOPBACKS = ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::ffff:127.0.0.1", "::"]
# A TCP connection begins with one packet, and whoever listens is told of it before the next one comes. So that packet is all it takes
# to reach a service, and it can be written by hand: no kernel is asked whether it may leave for 127.0.0.1 by eth0.
KNOCK = r"""
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
mac = raw.getsockname()[4]
for number, (address, port) in enumerate(pair.split("/") for pair in sys.argv[1:]):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    source, target = (socket.inet_pton(family, text) for text in ("2001:db8::2" if ":" in address else "192.0.2.2", address))
    segment = struct.pack("!HHLLBBHHH", 40000 + number, int(port), 1000, 0, 5 << 4, 2, 65000, 0, 0)
    if family == socket.AF_INET:
        pseudo = source + target + struct.pack("!BBH", 0, 6, len(segment))
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), number, 0, 64, 6, 0, source, target)
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    else:
        pseudo = source + target + struct.pack("!LHBB", len(segment), 0, 0, 6)
        head = struct.pack("!LHBB", 6 << 28, len(segment), 6, 64) + source + target
    segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
    raw.send(b"\x02\0\0\0\0\1" + mac + struct.pack("!H", 0x0800 if family == socket.AF_INET else 0x86dd) + head + segment)
"""


def knock(pid, addresses, port):
    """From the network of `pid`, with all that its root can do."""
    subprocess.run(in_network(pid, KNOCK, *[f"{address}/{port}" for address in addresses]), check=True)
