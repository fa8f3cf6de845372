#!/usr/bin/env python3
"""A good client is answered within 2 s, whatever 10,000 others do (promise 9; faults F22 to F32).

    tests/fault/bad_clients.py --driver test|userns

The bad ones are of another user than root where that matters: root is the administrator, whose own clients are not
counted against anybody. Some kinds come as root as well, because then no quota helps.
"""
import contextlib
import multiprocessing
import os
import pathlib
import resource
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from daemon import die_with_parent  # noqa: E402
from harness import OURS, check, main, test  # noqa: E402
from raw_rpc import RawClient, optional_string, string, u32  # noqa: E402

LIMIT_S = 2.0
STRANGER = 65534
DEFINE_XML_FLAGS, LIST_DOMAINS, DOMAIN_EVENT_REGISTER = 350, 273, 316
CONNECT_GET_HOSTNAME = 59
CHILDREN = 4


def answer_time(env):
    """Of a new client that connects, asks two things, and leaves."""
    begin = time.monotonic()
    connection = env.open()
    connection.listAllDomains()
    connection.getHostname()
    connection.close()
    return time.monotonic() - begin


def watch(env, abuse, seconds=2.5):
    """The slowest answer while the abuse goes on; the daemon's memory before, during and after."""
    before = rss_kb(env)
    with abuse:
        slowest, most, until = 0.0, before, time.monotonic() + seconds
        while time.monotonic() < until:
            slowest = max(slowest, answer_time(env))
            most = max(most, rss_kb(env))
            time.sleep(0.05)
    check(slowest < LIMIT_S, f"a good client waited {slowest:.2f} s")
    check(env.daemon.is_running(), f"the daemon ended:\n{env.daemon.log_text()}")
    return before, most


def rss_kb(env):
    for line in pathlib.Path(f"/proc/{env.daemon.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def descriptors(env):
    return len(os.listdir(f"/proc/{env.daemon.process.pid}/fd"))


@contextlib.contextmanager
def children(work, user=None, count=CHILDREN):
    """`work(number, ready)` in processes of their own, killed at the end."""
    ready = multiprocessing.Semaphore(0)

    def begin(number):
        die_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        if user is not None:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        work(number, ready)

    processes = [multiprocessing.get_context("fork").Process(target=begin, args=(number,), daemon=True)
                 for number in range(count)]
    for process in processes:
        process.start()
    try:
        for _ in processes:
            if not ready.acquire(timeout=60):
                raise AssertionError("the bad clients did not get ready")
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    client.connect(path)
    return client


def idle(path, count):
    def work(_, ready):
        kept = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                kept.append(connect(path))
        ready.release()
        time.sleep(3600)
    return work


def frame(procedure, payload=b"", serial=1):
    return struct.pack(">IIIiiIi", 28 + len(payload), 0x20008086, 1, procedure, 0, serial, 0) + payload


@test(OURS)
def ten_thousand_idle_clients_of_a_stranger(env):
    """On the read-only socket, which everybody may connect to."""
    watch(env, children(idle(env.daemon.socket + "-ro", 10_000 // CHILDREN), user=STRANGER))


@test(OURS)
def ten_thousand_idle_clients_of_root(env):
    """No quota is root's; the oldest that never said anything make room."""
    before = descriptors(env)
    watch(env, children(idle(env.daemon.socket, 10_000 // CHILDREN)))
    deadline = time.monotonic() + 10
    while descriptors(env) > before + 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    check(descriptors(env) <= before + 8, f"{descriptors(env) - before} descriptors stayed open")


@test(OURS)
def five_hundred_slow_clients(env):
    """One byte of a message every now and then."""
    message = frame(66)

    def work(_, ready):
        kept = [connect(env.daemon.socket) for _ in range(500 // CHILDREN)]
        ready.release()
        for byte in message[:-1]:
            for client in kept:
                with contextlib.suppress(OSError):
                    client.send(bytes([byte]))
            time.sleep(0.2)
        time.sleep(3600)
    watch(env, children(work))


@test(OURS)
def half_messages_of_the_largest_size(env):
    """Memory follows what has arrived, not what was announced."""
    def work(_, ready):
        kept = []
        for _ in range(16):
            client = connect(env.daemon.socket)
            client.settimeout(2)
            with contextlib.suppress(OSError):
                client.sendall(struct.pack(">I", 32 * 1024 * 1024))
                client.sendall(b"\0" * (16 * 1024 * 1024))
            kept.append(client)
        ready.release()
        time.sleep(3600)
    before, most = watch(env, children(work))
    check(most - before < 64 * 1024, f"the daemon grew by {(most - before) // 1024} MiB")


@test(OURS)
def clients_that_ask_and_never_read(env):
    def work(_, ready):
        kept = []
        for _ in range(50):
            client = RawClient(env.daemon.socket).open()
            client.socket.setblocking(False)
            kept.append(client)
        ready.release()
        while True:
            for client in kept:
                with contextlib.suppress(OSError):
                    client.socket.send(frame(CONNECT_GET_HOSTNAME) * 8)
            time.sleep(0.01)
    before, most = watch(env, children(work))
    check(most - before < 64 * 1024, f"the daemon grew by {(most - before) // 1024} MiB")


@test(OURS)
def clients_that_flood_with_keepalive(env):
    """F25: pings without end, and nobody reads the answers."""
    ping = struct.pack(">IIIiiIi", 28, 0x6b656570, 1, 1, 2, 0, 0)

    def work(_, ready):
        kept = []
        for _ in range(50):
            client = RawClient(env.daemon.socket).open()
            client.socket.setblocking(False)
            kept.append(client)
        ready.release()
        while True:
            for client in kept:
                with contextlib.suppress(OSError):
                    client.socket.send(ping * 64)
            time.sleep(0.01)
    before, most = watch(env, children(work), seconds=1.0)
    check(most - before < 64 * 1024, f"the daemon grew by {(most - before) // 1024} MiB")


@test(OURS)
def clients_that_close_one_half(env):
    """F25: the end of what a client says is the end of it: it is let go of, soon, and whatever it had asked."""
    before, kept = descriptors(env), []
    for _ in range(200):
        client = RawClient(env.daemon.socket).open()
        client.socket.sendall(frame(CONNECT_GET_HOSTNAME, serial=9))
        client.socket.shutdown(socket.SHUT_WR)
        kept.append(client)
    check(answer_time(env) < LIMIT_S, "a good client waits")
    deadline = time.monotonic() + 5
    while descriptors(env) > before + 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    check(descriptors(env) <= before + 4, f"{descriptors(env) - before} descriptors stayed open")
    for client in kept:
        client.close()


@test(OURS)
def clients_that_send_garbage_and_come_again(env):
    """F22: lengths that cannot be, wrong programs, versions and types, and then the connection is cut."""
    def work(number, ready):
        ready.release()
        lengths = [0, 1, 3, 4, 27, 28, 33_554_437, 1 << 31, (1 << 32) - 1]
        turn = number
        while True:
            turn += 1
            with contextlib.suppress(OSError), connect(env.daemon.socket) as client:
                length = lengths[turn % len(lengths)]
                client.sendall(struct.pack(">IIIiiIi", length, turn * 2654435761 % (1 << 32), turn % 3, turn % 500,
                                           turn % 7 - 1, turn, turn % 4 - 1) + b"\xff" * (turn % 64))
    watch(env, children(work))


def hostile_documents():
    deep = "<a>" * 100_000
    attributes = "<domain " + " ".join(f"a{i}='x'" for i in range(50_000)) + "/>"
    laughs = ("<?xml version='1.0'?><!DOCTYPE d [<!ENTITY a 'ha'>" +
              "".join(f"<!ENTITY {chr(98 + i)} '{f'&{chr(97 + i)};' * 10}'>" for i in range(9)) + "]><domain>&j;</domain>")
    outside = "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain type='lxc'><name>&x;</name></domain>"
    text = "<domain type='lxc'><name>" + "n" * 3_000_000 + "</name></domain>"
    many = "<domain type='lxc'><name>m</name><devices>" + "<console type='pty'/>" * 60_000 + "</devices></domain>"
    return [deep, attributes, laughs, outside, text, many]


@test(OURS)
def hostile_xml_all_the_time(env):
    """F30. As root, because nobody else may define; each must also be refused, and soon."""
    documents = hostile_documents()

    def work(number, ready):
        client = RawClient(env.daemon.socket).open()
        ready.release()
        turn = number
        while True:
            turn += 1
            with contextlib.suppress(Exception):
                client.call(DEFINE_XML_FLAGS, string(documents[turn % len(documents)]) + u32(0))
                continue
            with contextlib.suppress(Exception):
                client = RawClient(env.daemon.socket).open()
    _, most = watch(env, children(work))
    check(most < 512 * 1024, f"the daemon takes {most // 1024} MiB")
    import libvirt
    connection = env.open()
    for document in documents:
        begin = time.monotonic()
        try:
            connection.defineXML(document)
        except libvirt.libvirtError as error:
            check("root:" not in str(error), "a file of the host is in the error")
        else:
            raise AssertionError(f"defined {document[:60]!r}...")
        check(time.monotonic() - begin < LIMIT_S, f"{time.monotonic() - begin:.1f} s for {document[:60]!r}...")
    connection.close()


@test(OURS)
def clients_that_vanish_in_the_middle_of_a_call(env):
    before = descriptors(env)
    for _ in range(1000):
        with connect(env.daemon.socket) as client:
            client.sendall(frame(66) + frame(1, optional_string(env.uri) + u32(0), 2) + frame(CONNECT_GET_HOSTNAME, serial=3))
    check(answer_time(env) < LIMIT_S, "a good client waits")
    deadline = time.monotonic() + 5
    while descriptors(env) > before + 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    check(descriptors(env) <= before + 4, f"{descriptors(env) - before} descriptors stayed open")


@test(OURS)
def subscribers_of_events_that_never_read(env):
    """F32: the others get every event, in order, and the daemon's memory stays bounded."""
    import libvirt
    names = [f"flood-{i}" for i in range(20)]
    deaf = []
    for _ in range(200):
        client = RawClient(env.daemon.socket).open()
        client.call(DOMAIN_EVENT_REGISTER, u32(0) + u32(0))
        deaf.append(client)
    before = rss_kb(env)
    got, loop = [], threading.Event()
    libvirt.virEventRegisterDefaultImpl()
    listener = env.open()
    hear = lambda _c, domain, event, _d, _o: got.append((domain.name(), event))  # noqa: E731
    registration = listener.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, hear, None)

    def pump():
        while not loop.is_set():
            libvirt.virEventRunDefaultImpl()
    timer = libvirt.virEventAddTimeout(100, lambda *_: None, None)
    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    connection = env.open()
    for _ in range(10):
        domains = [connection.defineXML(env.domain_xml(name)) for name in names] if env.driver == "test" else \
            [connection.defineXML(env.domain_xml(names[0]))]
        for domain in domains:
            domain.undefine()
    wanted = 10 * 2 * (len(names) if env.driver == "test" else 1)
    deadline = time.monotonic() + 10
    while len(got) < wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    # While its loop still runs: only then does the library let go of the connection.
    listener.domainEventDeregisterAny(registration)
    listener.close()
    connection.close()
    loop.set()
    thread.join(5)
    libvirt.virEventRemoveTimeout(timer)
    check(len(got) == wanted, f"{len(got)} of {wanted} events came")
    check(all(event in (libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED) for _, event in got))
    for name in names[:1]:
        mine = [event for other, event in got if other == name]
        check(mine == [0, 1] * 10, f"out of order: {mine}")
    check(rss_kb(env) - before < 64 * 1024, f"the daemon grew by {(rss_kb(env) - before) // 1024} MiB")
    for client in deaf:
        client.close()


main()
