"""The Python binding with an event loop: callbacks, close callbacks, keepalive, console streams that do not block."""
import os
import signal
import threading
import time

from harness import OURS, check, equal, eventually, libvirt_error, main, test

try:
    import libvirt
except ImportError:
    libvirt = None  # harness.main() says so

_loop = None


def event_loop():
    """One for the process: libvirt's default implementation, in a thread."""
    global _loop
    if _loop is None:
        libvirt.virEventRegisterDefaultImpl()
        _loop = threading.Thread(target=lambda: [libvirt.virEventRunDefaultImpl() for _ in iter(int, 1)], daemon=True)
        _loop.start()


@test()
def lifecycle_callbacks(env):
    event_loop()
    connection = env.open()
    seen = []
    number = connection.domainEventRegisterAny(
        None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
        lambda _c, domain, event, detail, _o: seen.append((domain.name(), domain.UUIDString(), event, detail)), None)
    domain = connection.defineXML(env.domain_xml("web"))
    uuid = domain.UUIDString()
    domain.create()
    domain.suspend()
    domain.resume()
    domain.destroy()
    domain.undefine()
    wanted = [("web", uuid, event, detail) for event, detail in (
        (libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_DEFINED_ADDED),
        (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED),
        (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED),
        (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED),
        (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED),
        (libvirt.VIR_DOMAIN_EVENT_UNDEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED_REMOVED))]
    eventually(lambda: len(seen) >= len(wanted), f"six events, seen {seen}")
    equal(seen, wanted)
    connection.domainEventDeregisterAny(number)
    connection.defineXML(env.domain_xml("later")).undefine()
    time.sleep(0.2)
    equal(len(seen), len(wanted), "events after deregistering")
    connection.close()


@test()
def callbacks_of_one_domain(env):
    event_loop()
    connection = env.open()
    web, other = (connection.defineXML(env.domain_xml(name)) for name in ("web", "other"))
    filtered, legacy = [], []
    connection.domainEventRegisterAny(web, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                      lambda _c, domain, event, _d, _o: filtered.append((domain.name(), event)), None)
    connection.domainEventRegister(lambda _c, domain, event, _d, _o: legacy.append((domain.name(), event)), None)
    for domain in (other, web):
        domain.create()
        domain.destroy()
    eventually(lambda: len(legacy) >= 4, f"four events, seen {legacy}")
    started, stopped = libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STOPPED
    equal(filtered, [("web", started), ("web", stopped)])
    equal(legacy, [("other", started), ("other", stopped), ("web", started), ("web", stopped)])
    connection.close()


@test(OURS)
def event_comes_no_later_than_the_reply(env):
    """Emitted before the operation returns: on one connection the event is on the wire before the reply is."""
    import raw_rpc
    import struct
    client = raw_rpc.RawClient(env.daemon.socket).open()
    client.call(316, raw_rpc.u32(0) + raw_rpc.u32(0))  # CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY lifecycle, any domain
    serial = client.send(350, raw_rpc.string(env.domain_xml("web")) + raw_rpc.u32(0))  # DOMAIN_DEFINE_XML_FLAGS
    order = []
    while len(order) < 2:
        procedure, kind, answered, status, _ = client.receive()
        if kind == 2 and procedure == 318:
            order.append("event")
        elif kind == 1 and answered == serial:
            equal(status, 0)
            order.append("reply")
    equal(order, ["event", "reply"])
    client.close()


@test()
def close_callback_at_daemon_death(env):
    event_loop()
    connection = env.open()
    reasons = []
    connection.registerCloseCallback(lambda _c, reason, _o: reasons.append(reason), None)
    env.expects_death = True
    env.daemon.kill()
    eventually(lambda: reasons, "the close callback")
    equal(reasons, [libvirt.VIR_CONNECT_CLOSE_REASON_EOF])
    equal(connection.isAlive(), 0)
    with libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, ""):
        connection.listAllDomains()
    if not env.is_reference:
        env.daemon.start()  # over the stale socket
        again = env.open()
        equal(again.isAlive(), 1)
        again.close()


@test()
def keepalive_holds_and_breaks(env):
    event_loop()
    connection = env.open()
    equal(connection.setKeepAlive(1, 2), 0)
    time.sleep(4)
    equal(connection.isAlive(), 1, "an idle connection under keepalive")
    reasons = []
    connection.registerCloseCallback(lambda _c, reason, _o: reasons.append(reason), None)
    os.kill(env.daemon.process.pid, signal.SIGSTOP)
    try:
        eventually(lambda: reasons, "the close callback of a connection to a stopped daemon", 15)
    finally:
        os.kill(env.daemon.process.pid, signal.SIGCONT)
    equal(reasons, [libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE])


# ---- console streams ----------------------------------------------------------------------------------------------

@test(("test",))
def a_client_that_does_not_read_stalls_nobody(env):
    """The stream of a client that only writes fills up; everything else goes on."""
    event_loop()
    lazy, busy = env.open(), env.open()
    domain = lazy.createXML(env.domain_xml("job"))
    stream = lazy.newStream(libvirt.VIR_STREAM_NONBLOCK)
    domain.openConsole(None, stream, 0)
    block = b"x" * 65536
    for _ in range(200):
        if stream.send(block) == -2:
            time.sleep(0.005)
    began = time.monotonic()
    for _ in range(20):
        equal(busy.lookupByName("job").isActive(), 1)
    check(time.monotonic() - began < 5, "other clients wait for a lazy one")
    domain.destroy()
    lazy.close()
    busy.close()


@test(OURS)
def event_driven_stream(env):
    event_loop()
    connection = env.open()
    domain = connection.createXML(env.domain_xml("job"))
    stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
    domain.openConsole(None, stream, 0)
    text = bytearray()

    def readable(stream_, events, _opaque):
        if events & libvirt.VIR_STREAM_EVENT_READABLE:
            got = stream_.recv(4096)
            if isinstance(got, bytes):
                text.extend(got)
    stream.eventAddCallback(libvirt.VIR_STREAM_EVENT_READABLE, readable, None)
    eventually(lambda: b"Connected to job" in text, f"the greeting, got {bytes(text)!r}")
    check(stream.send(b"ping\n") == 5)
    eventually(lambda: b"ping" in text, "the echo")
    stream.eventRemoveCallback()
    stream.finish()
    connection.close()


main()
