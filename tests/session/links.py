#!/usr/bin/env python3
"""<interface type='bridge'> of ordinary users: links that the system's daemon makes and counts, as virtusernsd.conf grants.

    tests/session/links.py [-k TEST]
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from users import comm_of, main, namespace, pids_of, test  # noqa: E402
import daemon as daemon_module  # noqa: E402
from harness import check, contains, equal, eventually  # noqa: E402
from world import INIT, ask, bridge, ip  # noqa: E402

SOCKET = pathlib.Path("/run/libvirt/virtusernsd-link-sock")
CONFIG = pathlib.Path("/etc/libvirt/virtusernsd.conf")
MAC = bytes.fromhex("525400000001")


class System:
    """The daemon of root's, in the suite's network namespace, which is the host's here."""

    def __init__(self, *grants):
        self.log = pathlib.Path("/var/log/libvirt/system.log")
        self.grant(*grants)
        self.start()

    def grant(self, *grants):
        CONFIG.write_text("# line 1\nuser_links = [\n" + "".join(f'  "{grant}",\n' for grant in grants) + "]\n")

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(["virtusernsd", "--verbose"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(lambda: self.process.poll() is not None or listens(), "the system's daemon listens")
        check(self.process.poll() is None, f"the system's daemon ended: {self.log.read_text()}")

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(15 * daemon_module.TIME_FACTOR)

    def grant_again(self, *grants):
        self.grant(*grants)
        read = self.log.read_text().count("configuration read again")
        self.process.send_signal(signal.SIGHUP)
        eventually(lambda: self.log.read_text().count("configuration read again") > read, "the configuration is read again")


def listens():
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client, contextlib.suppress(OSError):
        client.connect(str(SOCKET))
        return True
    return False


@contextlib.contextmanager
def host(*grants):
    with bridge("br0", "10.9.0.1/24"), bridge("br1", "10.9.1.1/24"):
        system = System(*grants)
        try:
            yield system
        finally:
            system.end()
            for folder in daemon_module.PRIVATE_FOLDERS:
                for path in pathlib.Path(folder).iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def links(bridge=None):
    """Of the host, on that bridge or anywhere."""
    found = json.loads(ip("-json", "link", "show", *(["master", bridge] if bridge else [])) or "[]")
    return sorted(link["ifname"] for link in found if link.get("ifname", "").startswith("vu"))


def shown(link):
    return json.loads(ip("-json", "link", "show", link))[0]


def on_bridge(bridge="br0", address="10.9.0.2", mac="52:54:00:00:00:01", inner=""):
    return (f"<interface type='bridge'><mac address='{mac}'/><source bridge='{bridge}'/><ip address='{address}' prefix='24'/>"
            f"{inner}</interface>")


def root(user, name="web", *options):
    path = user.root(name, *options)
    (path / "sbin/init").write_text(INIT)
    return path


# ---- a client by hand ----

CLIENT = r"""
import array, socket, sys, time
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.settimeout(30)
client.connect(sys.argv[1])
files = array.array("i", map(int, sys.argv[3:]))
try:
    client.sendmsg([bytes.fromhex(sys.stdin.read())], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)] if files else [])
    print(client.recv(4096).hex() or "closed")
except ConnectionError:
    print("closed")
"""


def text(value):
    value = value.encode()
    return struct.pack(">I", len(value)) + value + bytes(-len(value) % 4)


def request(version=1, bridge="br0", guest="eth9", mac=MAC, mtu=None, is_up=1):
    return (struct.pack(">I", version) + text(bridge) + text(guest) + mac + b"\0\0"
            + (struct.pack(">I", 0) if mtu is None else struct.pack(">II", 1, mtu)) + struct.pack(">I", is_up))


def say(user, message, *files):
    """What the broker answers this user: the link's name, or the error's text."""
    said = subprocess.run([sys.executable, "-c", CLIENT, str(SOCKET), "-", *map(str, files)], input=message.hex(), text=True,
                          capture_output=True, pass_fds=files, timeout=60 * daemon_module.TIME_FACTOR, check=True,
                          **user.account()).stdout.strip()
    if said == "closed":
        return said
    answer = bytes.fromhex(said)
    offset = 4 if answer[:4] == bytes(4) else 12
    size, = struct.unpack_from(">I", answer, offset)
    return answer[offset + 4:offset + 4 + size].decode()


@contextlib.contextmanager
def namespace_of(*how, user=None):
    """A process in a network namespace of its own, and the descriptor of that."""
    process = subprocess.Popen(["unshare", *how, "sleep", "100"], **(user.account() if user else {}))
    file = -1
    try:
        eventually(lambda: namespace(process.pid, "net") != namespace(os.getpid(), "net"), "a namespace")
        file = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY)
        yield process.pid, file
    finally:
        os.close(file)
        process.kill()
        process.wait()


@test
def granted_links_reach_the_bridge(env):
    anna, elsa = env.users
    with host("anna:br0:2", "@elsa:br0:1"):
        for number, user in enumerate(env.users):
            user.start_daemon()
            user.start("web", root(user), devices=on_bridge(address=f"10.9.0.{2 + number}", mac=f"52:54:00:00:00:0{1 + number}",
                                                            inner="<guest dev='lan'/><mtu size='1400'/>"))
        equal(links("br0"), ["vu1001-0", "vu1002-0"])
        for address in ("10.9.0.2", "10.9.0.3"):
            eventually(lambda address=address: ask(address, 80) == "hello", f"{address} answers over the bridge")
        # One user's domain and the other's are neighbours.
        contains(anna.exec("web", "/bin/sh", "-c", "(echo hello; sleep 0.3) | busybox timeout 8 busybox nc -w 3 10.9.0.3 80").out, "hello")
        equal(anna.exec("web", "/bin/sh", "-c", "cat /sys/class/net/lan/address /sys/class/net/lan/mtu").ok().out.split(),
              ["52:54:00:00:00:01", "1400"])
        # A smaller mtu of the port would be the bridge's, and so everybody's.
        equal([shown(link)["mtu"] for link in ("br0", "vu1001-0")], [1500, 1500])
        for word in ("vu1001-0", "bridge", "br0"):
            contains(anna.virsh("domiflist", "web").ok().out, word)
        contains(anna.virsh("domifstat", "web", "vu1001-0").ok().out, "rx_bytes")
        anna.virsh("destroy", "web").ok()
        eventually(lambda: links() == ["vu1002-0"], "the link goes with the domain")
        os.kill(elsa.controller("web"), signal.SIGKILL)
        eventually(lambda: links() == [], "the link goes with a killed controller")


@test
def no_more_than_granted(env):
    anna, elsa = env.users
    with host("anna:br0:1", "anna:br1:1") as system:
        for user in env.users:
            user.start_daemon()
        path, more = root(anna), root(anna, "more", "--first", str(anna.first + 65536))
        anna.start("web", path, devices=on_bridge())
        anna.define("more", more, devices=on_bridge(address="10.9.0.3", mac="52:54:00:00:00:02")).ok()
        refused = ("interface 'eth0'", "user 'anna' has 1 links on bridge 'br0', and may have 1", f"{CONFIG}:3: 'anna:br0:1'")
        anna.virsh("start", "more").fails(*refused)
        # It keeps nothing: another one counts the same.
        system.end(signal.SIGKILL)
        eventually(lambda: ask("10.9.0.2", 80) == "hello", "the link lives on")
        anna.virsh("start", "more").fails("virtusernsd of the system", "user_links", "Connection refused")
        system.start()
        anna.virsh("start", "more").fails(*refused)
        # A boot takes the place of the last one's, though that may go a little later.
        before = anna.init("web")
        anna.virsh("reboot", "web").ok()
        eventually(lambda: anna.init("web") not in (None, before), "it boots again")
        eventually(lambda: ask("10.9.0.2", 80) == "hello", "it answers after the reboot")
        equal(links(), ["vu1001-0"])
        anna.virsh("destroy", "web").ok()
        anna.virsh("start", "more").ok()
        # Every bridge by itself, as far as granted.
        anna.virsh("undefine", "web").ok()
        anna.start("web", path, devices=on_bridge("br1", "10.9.1.2"))
        equal((links("br0"), links("br1")), (["vu1001-0"], ["vu1001-1"]))
        system.grant_again("anna:br0:1", "@nobodys:br1:1", "anna:nowhere0:1")
        anna.virsh("destroy", "web").ok()
        anna.virsh("start", "web").fails("user 'anna' may have no link on bridge 'br1'", "granted is only", ":3: 'anna:br0:1'")
        anna.virsh("undefine", "web").ok()
        anna.define("web", path, devices=on_bridge("nowhere0")).ok()
        anna.virsh("start", "web").fails("the host has no bridge 'nowhere0'", ":5: 'anna:nowhere0:1'")
        elsa.define("web", root(elsa), devices=on_bridge()).ok()
        elsa.virsh("start", "web").fails("user 'elsa' may have no link on bridge 'br0'", f"{CONFIG} grants him none", "elsa:br0:1")
        anna.virsh("destroy", "more").ok()
        eventually(lambda: links() == [], "nothing is left")
        for user in env.users:
            equal([pid for pid in pids_of(user.uid) if comm_of(pid).startswith("virtuserns-")], [], "left of the failed starts")


@test
def only_into_namespaces_of_ones_own(env):
    anna, elsa = env.users
    with host("anna:br0:9", "elsa:br0:9"), contextlib.ExitStack() as stack:
        elsa.start_daemon()
        elsa.start("web", root(elsa))
        of_elsas_domain = os.open(f"/proc/{elsa.init('web')}/ns/net", os.O_RDONLY)
        stack.callback(os.close, of_elsas_domain)
        _, annas = stack.enter_context(namespace_of("--map-root-user", "--net", user=anna))
        _, nested = stack.enter_context(namespace_of("--map-root-user", "unshare", "--map-root-user", "--net", user=anna))
        _, elsas = stack.enter_context(namespace_of("--map-root-user", "--net", user=elsa))
        _, roots = stack.enter_context(namespace_of("--net"))
        others = {path: os.open(path, os.O_RDONLY) for path in ("/proc/self/ns/net", "/proc/self/ns/user", "/proc/self/ns/mnt",
                                                               "/etc/passwd", "/dev/null", "/proc")}
        for file in others.values():
            stack.callback(os.close, file)
        for file in (of_elsas_domain, elsas, roots):
            contains(say(anna, request(), file), "the network namespace is not of uid 1001")
        contains(say(anna, request(), others.pop("/proc/self/ns/net")), "the host's own network")
        for path, file in others.items():
            contains(say(anna, request(), file), "of no network namespace")
        equal(links(), [], "made for nobody")
        # The same words, where they are right.
        equal(say(anna, request(), annas), "vu1001-0")
        equal(say(anna, request(), nested), "vu1001-1")
        equal(say(elsa, request(), of_elsas_domain), "vu1002-0")
        contains(say(anna, request(), annas), "there is a link of that name already")  # eth9 is there
        equal(links("br0"), ["vu1001-0", "vu1001-1", "vu1002-0"])
        check("UP" in shown("vu1001-0")["flags"], "the host's end is down")


# Connects, and leaves a descriptor behind whose last close waits: data that nobody reads, and SO_LINGER.
LINGER = r"""
import array, os, socket, struct, sys
listener = socket.create_server(("127.0.0.1", 0))
full = socket.create_connection(listener.getsockname())
other, _ = listener.accept()
full.setblocking(False)
try:
    while True: full.send(bytes(65536))
except BlockingIOError: pass
full.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.connect(sys.argv[1])
client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [full.fileno()]))])
os.close(full.detach())
print("left", flush=True)
sys.stdin.read()
"""


@test
def a_descriptor_that_takes_long_to_close(env):
    """It is the broker's time: the daemon serves, and ends when it is told to."""
    with host("anna:br0:1") as system:
        system.process.send_signal(signal.SIGSTOP)  # else it may close before the last of her own
        client = subprocess.Popen([sys.executable, "-c", LINGER, str(SOCKET)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                  **env.elsa.account())
        try:
            equal(client.stdout.readline(), "left\n")
            system.process.send_signal(signal.SIGCONT)
            subprocess.run(["virsh", "-c", "userns:///system", "list"], check=True, capture_output=True, timeout=10 * daemon_module.TIME_FACTOR)
            begun = time.monotonic()
            system.end()
            took = time.monotonic() - begun
            check(2 < took, "the test sees that the broker is held up")
            check(took < 20 * daemon_module.TIME_FACTOR, "the daemon waits with it")
            equal(system.process.returncode, 0)
        finally:
            client.communicate("")


@test
def hostile_messages(env):
    anna, elsa = env.users
    with host("anna:br0:9", "elsa:br0:1") as system, contextlib.ExitStack() as stack:
        pid, own = stack.enter_context(namespace_of("--map-root-user", "--net", user=anna))
        _, elsas = stack.enter_context(namespace_of("--map-root-user", "--net", user=elsa))
        good = request()
        for message, why in ((b"x", "request for a link"), (good[:-1], "request for a link"), (good + bytes(4), "request for a link"),
                             (b"\xff" * 64, "request for a link"), (bytes(100_000), "request for a link"),
                             (struct.pack(">II", 1, 2**31) + bytes(64), "request for a link"),
                             (request(version=2), "version 2"), (request(bridge="b" * 16), "request for a link"),
                             (request(bridge=""), "no name of a link"), (request(bridge="br0/.."), "no name of a link"),
                             (request(guest="x%d"), "no name of a link"), (request(guest=".."), "no name of a link"),
                             (request(guest="a b"), "no name of a link"), (request(mac=bytes(6)), "no address"),
                             (request(mac=b"\1" + bytes(5)), "no address"), (request(mtu=67), "mtu 67"), (request(mtu=65536), "mtu 65536")):
            contains(say(anna, message, own), why)
        contains(say(anna, good), "needs one descriptor")
        contains(say(anna, good, own, own), "needs one descriptor")
        contains(say(anna, good, *[own] * 17), "too large")
        # Who says nothing is in nobody's way but her own, and not for long.
        silent = subprocess.Popen([sys.executable, "-c", "import socket, sys\nall = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)"
                                   f" for _ in range(50)]\nfor one in all: one.connect('{SOCKET}')\nprint('all', flush=True)\n"
                                   "sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **anna.account())
        try:
            equal(silent.stdout.readline(), "all\n")
            equal(say(elsa, good, elsas), "vu1002-0")
            equal(say(anna, good, own), "closed")
        finally:
            silent.communicate("")
        eventually(lambda: say(anna, good, own) == "vu1001-0", "her turn again")
        files = len(os.listdir(f"/proc/{system.process.pid}/fd"))
        for _ in range(3):
            say(anna, good, *[own] * 17)
            say(anna, b"x", own)
        time.sleep(0.2)
        equal(len(os.listdir(f"/proc/{system.process.pid}/fd")), files, "descriptors of the daemon")
        # As container root she has all of her end, and nothing of the other.
        for words in (("link", "set", "eth9", "name", "lan"), ("link", "set", "lan", "down"), ("link", "set", "lan", "mtu", "600")):
            ip(*words, pid=pid)
        equal(links("br0"), ["vu1001-0", "vu1002-0"])
        equal(shown("br0")["mtu"], 1500)


if __name__ == "__main__":
    main()
