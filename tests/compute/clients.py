"""Who may ask, and what may be asked: permissions, files of the caller's, frames and requests that make no sense, many at once."""
import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import threading
import uuid

from lab import USERNS, Adapter, Lab, instance
from api import ApiError, Client, Gone, file, refused
from harness import OURS, check, contains, equal, eventually, main, test

STRANGER, GROUP = 65534, 4  # nobody; adm
MAX_FRAME = 16 << 20
VERSION = "1.3"


def as_user(uid, gid, groups, act):
    """What `act` returned in a child of that identity, or the name of what it raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups), os.setgid(gid), os.setuid(uid)
            try:
                said = act()
            except ApiError as error:
                said = f"{error.kind}: {error.message}"
            except Exception as error:  # noqa: BLE001
                said = type(error).__name__
            os.write(writer, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said)


def version(path):
    with Client(path) as client:
        return client.call("api.version")["version"]


@contextlib.contextmanager
def opened_in(folder):
    """Names that somebody opens meanwhile (inotify(7))."""
    in_open, libc = 0x20, ctypes.CDLL(None)
    watch, names = libc.inotify_init1(os.O_NONBLOCK), []
    libc.inotify_add_watch(watch, str(folder).encode(), in_open)
    yield names
    with contextlib.suppress(BlockingIOError):
        events = os.read(watch, 65536)
        while events:
            size = struct.unpack_from("iIII", events)[3]
            names += [name for name in [events[16:16 + size].rstrip(b"\0").decode()] if name]
            events = events[16 + size:]
    os.close(watch)


@test(drivers=USERNS)
def only_the_group_is_let_in(env):
    with Lab(env, socket_group="adm") as lab:
        path = lab.adapter.socket
        state = os.stat(path)
        equal((state.st_mode & 0o777, state.st_gid), (0o660, GROUP))
        wanted = version(path)
        equal(as_user(STRANGER, GROUP, [], lambda: version(path)), wanted)
        equal(as_user(STRANGER, STRANGER, [5, GROUP, 6], lambda: version(path)), wanted)
        equal(as_user(STRANGER, STRANGER, [], lambda: version(path)), "PermissionError")
        os.chmod(path, 0o666)  # the mode is not all that keeps a stranger out
        check(as_user(STRANGER, STRANGER, [5, 6], lambda: version(path)) in ("Gone", "ConnectionResetError", "BrokenPipeError"),
              "a stranger was answered")
        equal(version(path), wanted)


@test(drivers=USERNS)
def a_path_is_a_file_of_the_callers_own(env):
    with Lab(env, socket_group="adm") as lab:
        folder, path = lab.adapter.folder / "files", lab.adapter.socket
        folder.mkdir()
        mine = folder / "mine"
        mine.write_bytes(pathlib.Path(lab.tar).read_bytes())
        os.chown(mine, STRANGER, STRANGER)
        secret = folder / "secret"
        secret.write_bytes(pathlib.Path(lab.tar).read_bytes())
        os.chmod(secret, 0o600)
        (folder / "link").symlink_to(mine)
        os.mkfifo(folder / "fifo")
        os.chown(folder / "fifo", STRANGER, STRANGER)
        (folder / "folder").mkdir()
        os.chown(folder / "folder", STRANGER, STRANGER)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "socket"))

        def add(key, which):
            with Client(path) as client:
                return client.call("image.add", key=key, format="root-tar", path=str(which))
        for name in ("secret", "link", "fifo", "folder", "socket", "missing"):
            said = as_user(STRANGER, GROUP, [], lambda: add("theirs", folder / name))
            contains(said, "invalid: ")
        for bad in ("relative", "", str(folder / "mine") + "\0x", "/dev/zero", "/dev/null"):
            with refused("invalid"):
                add("theirs", bad)
        with opened_in(folder) as opened:
            contains(as_user(STRANGER, GROUP, [], lambda: add("theirs", folder / "fifo")), "invalid: ")
        equal(opened, [], "opened to find out that it is none of the caller's: a watchdog would have been started by that")
        equal(lab.call("image.has", key="theirs"), {"present": False})
        check("bytes" in as_user(STRANGER, GROUP, [], lambda: add("mine", mine)), "its own file was refused")

        spec = instance()
        lab.spawn(spec)

        def snapshot(which):
            with Client(path) as client:
                return client.call("instance.snapshot", uuid=spec["uuid"], path=str(which))
        before = secret.read_bytes()
        for name in ("secret", "link", "fifo", "folder", "missing"):
            contains(as_user(STRANGER, GROUP, [], lambda: snapshot(folder / name)), "invalid: ")
        equal(secret.read_bytes(), before)
        check(not (folder / "missing").exists(), "a file was made")
        check("bytes" in as_user(STRANGER, GROUP, [], lambda: snapshot(mine)), "its own file was refused")
        equal(lab.client.state(spec["uuid"]), "running")


@test(drivers=OURS)
def requests_that_make_no_sense(env):
    with Lab(env) as lab:
        def code(text):
            lab.client.send(text if isinstance(text, bytes) else json.dumps(text).encode())
            answer = lab.client.receive()
            equal(answer["jsonrpc"], "2.0")
            return answer["error"]["code"], answer["id"]
        good = {"jsonrpc": "2.0", "id": 1, "method": "api.version"}
        for bad in (b"", b"{", b"\xff\xfe", b"nul", b"[" * 100000, b'{"a":' * 5000, b'{"id":1,"id":2}', b"{} {}", b'"\\ud800"'):
            equal(code(bad), (-32700, None), str(bad[:20]))
        for bad in ([], [good], 1, "x", None, True):
            equal(code(bad), (-32600, None), str(bad))
        for change in ({"jsonrpc": "1.0"}, {"jsonrpc": 2.0}, {"method": 1}, {"method": None}, {"method": "x" * 200}):
            equal(code({**good, **change}), (-32600, 1), str(change))
        for change in ({"id": None}, {"id": [1]}, {"id": {}}, {"id": True}, {"id": 1.5}):
            equal(code({**good, **change}), (-32600, None), str(change))
        equal(code({**good, "id": "text", "method": "no.such"}), (-32601, "text"))
        for params in ([], "x", 1, {"more": 1}):
            equal(code({**good, "params": params}), (-32602, 1), str(params))
        for params, says in (({}, "params.uuid is missing"), ({"uuid": 5}, "params.uuid: needs a string"), ({"uuid": "5"}, "uuid")):
            with refused("invalid", says):
                lab.call("instance.info", **params)
        equal(lab.call("api.version")["version"], VERSION)


@test(drivers=OURS)
def frames_that_lie(env):
    with Lab(env) as lab:
        path = lab.adapter.socket
        for bytes_sent in (struct.pack(">I", MAX_FRAME + 1), struct.pack(">I", 0xffffffff) + b"x" * 100, b"\0\0"):
            with Client(path) as client:
                client.socket.sendall(bytes_sent)
                client.socket.shutdown(socket.SHUT_WR)
                try:
                    client.receive()
                    check(False, f"{bytes_sent[:8]} was answered")
                except Gone:
                    pass
        with Client(path) as client:  # byte by byte
            content = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "api.version"}).encode()
            for byte in struct.pack(">I", len(content)) + content:
                client.socket.sendall(bytes([byte]))
            equal(client.end()["version"], VERSION)
        with Client(path) as client:  # the longest that is possible
            client.send(b" " * MAX_FRAME)
            equal(client.receive()["error"]["code"], -32700)
        # Memory is taken as bytes come, not as lengths promise.
        before = memory(lab)
        idle = [Client(path) for _ in range(60)]
        for client in idle:
            client.socket.sendall(struct.pack(">I", MAX_FRAME) + b"x" * 10)
        check(memory(lab) - before < 200 * 1024, "memory was taken for promises")
        for client in idle:
            client.close()


def memory(lab):
    for line in pathlib.Path(f"/proc/{lab.adapter.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


@test(drivers=OURS)
def the_65th_connection(env):
    with Lab(env) as lab:
        path = lab.adapter.socket
        others = []
        for _ in range(63):
            others.append(Client(path))
            equal(others[-1].call("api.version")["version"], VERSION)
        with Client(path) as client:
            try:
                client.call("api.version")
                check(False, "the 65th connection was answered")
            except (Gone, BrokenPipeError):
                pass
        equal(lab.call("api.version")["version"], VERSION)
        for client in others:
            client.close()
        eventually(lambda: not raises(lambda: version(path)), "there is room again")


def raises(act):
    try:
        act()
    except (Gone, OSError):
        return True
    return False


@test(drivers=OURS)
def asking_for_strangers_costs_nothing(env):
    with Lab(env) as lab:
        def ask(times):
            for _ in range(times):
                with refused("instance-not-found"):
                    lab.call("instance.pause", uuid=str(uuid.uuid4()))
        ask(100)
        before = memory(lab)
        ask(8000)
        check(memory(lab) - before < 1024, f"{memory(lab) - before} KiB were kept of 8000 instances that are none")


@test(drivers=USERNS)
def one_who_does_not_read_holds_up_nobody(env):
    with Lab(env) as lab, Client(lab.adapter.socket) as deaf:
        spec = instance()
        lab.spawn(spec)
        lab.sh(spec, "yes | head -c 400000 > /dev/console")
        # More answers than a socket holds, which nobody reads.
        deaf.socket.setblocking(False)
        try:
            while True:
                deaf.begin("instance.console_output", uuid=spec["uuid"], bytes=400000)
        except BlockingIOError:
            pass
        equal(lab.client.state(spec["uuid"]), "running")
        lab.destroy(spec)


@test(drivers=USERNS)
def several_at_once(env):
    with Lab(env) as lab:
        specs, failures = [instance(f"web{number}") for number in range(4)], []

        def live(spec):
            try:
                with lab.adapter.client() as client:
                    for _ in range(2):
                        lab.spawn(spec, client=client, files=[file("/etc/who", spec["name"].encode())])
                        equal(client.state(spec["uuid"]), "running")
                        client.call("instance.reboot", uuid=spec["uuid"], type="hard", network=[], volumes=[])
                        equal(lab.sh(spec, "cat /etc/who"), spec["name"])
                        client.call("instance.destroy", uuid=spec["uuid"], disks=True)
            except Exception as error:  # noqa: BLE001
                failures.append(f"{spec['name']}: {error}")
        threads = [threading.Thread(target=live, args=[spec]) for spec in specs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        equal(failures, [])
        lab.nothing_left()


@test(drivers=USERNS)
def one_instance_asked_for_by_many(env):
    with Lab(env) as lab:
        spec, outcomes = instance(), []

        def ask():
            with lab.adapter.client() as client:
                try:
                    lab.spawn(spec, client=client)
                    outcomes.append("made")
                except ApiError as error:
                    outcomes.append(error.kind)
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        equal(outcomes, ["made"] * 4)
        equal(lab.client.state(spec["uuid"]), "running")


@test(drivers=OURS)
def a_second_adapter_of_the_same_state(env):
    with Lab(env) as lab:
        other = subprocess.run([*lab.adapter.argv, "--socket", lab.adapter.socket + "2"], capture_output=True, text=True, timeout=60)
        equal(other.returncode, 1)
        contains(other.stderr, "another virtuserns-compute uses")
        equal(lab.call("api.version")["version"], VERSION)


@test(drivers=USERNS)
def a_daemon_that_hangs(env):
    """It takes connections, since the kernel does, and never answers."""
    env.daemon.process.send_signal(signal.SIGSTOP)
    adapter = Adapter(env, patience_s=1)
    try:
        adapter.start()
        with adapter.client() as client, adapter.client() as other:
            with refused("unavailable"):
                client.call("instance.list")
            with refused("unavailable"):
                other.call("host.resources")
            equal(client.call("api.version")["version"], VERSION)
        equal(adapter.stop(), 0, "its exit code at SIGTERM")
    finally:
        env.daemon.process.send_signal(signal.SIGCONT)
        if adapter.is_running():
            adapter.kill()
        shutil.rmtree(adapter.folder)


if __name__ == "__main__":
    main()
