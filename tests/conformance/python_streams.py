"""Console streams that block: a process without an event loop.

With one, libvirt's client (9.0) loses wake-ups: virNetClientStreamRecvPacket looks whether data is there, lets go of the
stream, and only then queues itself as waiting. What the thread of the event loop receives in between wakes nobody, and
recv() sleeps on with the data in the stream's queue. A program uses one or the other; python_events has streams with a loop.
"""
from harness import OURS, check, equal, libvirt_error, main, test

try:
    import libvirt
except ImportError:
    libvirt = None  # harness.main() says so


def read_until(stream, part, text=b""):
    while part not in text:
        got = stream.recv(4096)
        check(isinstance(got, bytes) and got, f"stream ended before {part!r}: {text!r}")
        text += got
    return text


@test(OURS)
def blocking_stream(env):
    connection = env.open()
    domain = connection.defineXML(env.domain_xml("web"))
    stream = connection.newStream()
    with libvirt_error(libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running"):
        domain.openConsole(None, stream, 0)
    domain.create()
    stream = connection.newStream()
    domain.openConsole(None, stream, 0)
    read_until(stream, b"Connected to web")
    stream.send(b"over the stream\n")
    read_until(stream, b"over the stream")
    stream.finish()
    connection.close()


@test(OURS)
def stream_ends_with_the_domain(env):
    connection = env.open()
    domain = connection.createXML(env.domain_xml("job"))
    stream = connection.newStream()
    domain.openConsole(None, stream, 0)
    read_until(stream, b"Connected to job")
    domain.destroy()
    rest = b"?"
    while rest:
        rest = stream.recv(4096)
    stream.finish()
    connection.close()


@test(OURS)
def aborted_stream_leaves_the_console_free(env):
    connection = env.open()
    domain = connection.createXML(env.domain_xml("job"))
    for _ in range(3):
        stream = connection.newStream()
        domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        stream.send(b"hello\n")
        read_until(stream, b"hello")
        stream.abort()
    equal(connection.isAlive(), 1)
    connection.close()


@test(("test",))
def a_mebibyte_comes_back_whole(env):
    connection = env.open()
    domain = connection.createXML(env.domain_xml("job"))
    stream = connection.newStream()
    domain.openConsole(None, stream, 0)
    read_until(stream, b"Connected to job\n")
    block = bytes(range(256)) * 64
    for _ in range(64):
        sent = 0
        while sent < len(block):
            sent += stream.send(block[sent:])
        got = b""
        while len(got) < len(block):
            got += stream.recv(65536)
        equal(got == block, True, "echoed block")
    stream.finish()
    connection.close()


main()
