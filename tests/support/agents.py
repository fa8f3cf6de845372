"""Processes with an identity of their own that do what they are told and say what the kernel answered.

An agent is forked, given namespaces and maps (written by us, who are root), ids, groups and capabilities, and then reads
one line of JSON for each thing to try. Its answer is 0 or an errno.
"""
import contextlib
import ctypes
import dataclasses
import errno
import json
import os
import pathlib
import signal
import socket

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000,
                                                             0x20000000, 0x40000000)
ALL = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
PR_SET_DUMPABLE, PR_SET_PDEATHSIG, PR_SET_NAME = 4, 1, 15
SYS_CAPSET, SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_FSOPEN, SYS_FSCONFIG = 126, 428, 429, 430, 431
SYS_FSMOUNT, SYS_MOUNT_SETATTR = 432, 442

_libc = ctypes.CDLL(None, use_errno=True)


def call(function, *arguments) -> int:
    result = function(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def set_capabilities(mask: int) -> None:
    class Head(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]

    class Data(ctypes.Structure):
        _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]

    low, high = mask & 0xffffffff, mask >> 32
    call(_libc.syscall, SYS_CAPSET, ctypes.byref(Head(0x20080522, 0)),
         (Data * 2)(Data(low, low, 0), Data(high, high, 0)))


def _open(path, access):
    flags = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}[access]
    os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))


def _exec(path):
    """The kernel's own check before an exec, as the caller's effective ids: execve itself would end us."""
    child = os.fork()
    if child == 0:
        try:
            os.execv(path, [path])
        except OSError as error:
            os._exit(error.errno)
    status = os.waitpid(child, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise OSError(code, "")


def _signal(pid):
    os.kill(pid, 0)


def _trace(pid):
    call(_libc.ptrace, PTRACE_ATTACH, pid, None, None)
    os.waitpid(pid, 0x40000000)
    call(_libc.ptrace, PTRACE_DETACH, pid, None, None)


def _mount(kind):
    """A new file system that is attached nowhere."""
    context = call(_libc.syscall, SYS_FSOPEN, kind.encode(), 1)
    try:
        call(_libc.syscall, SYS_FSCONFIG, context, 6, None, None, 0)  # FSCONFIG_CMD_CREATE
        os.close(call(_libc.syscall, SYS_FSMOUNT, context, 1, 0))
    finally:
        os.close(context)


def _bind(port):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", port))


ACTIONS = {"open": _open, "device": _open, "exec": _exec, "signal": _signal, "trace": _trace, "mount": _mount, "bind": _bind}


def _serve(channel) -> None:
    for line in channel.makefile():
        action, *arguments = json.loads(line)
        try:
            ACTIONS[action](*arguments)
            answer = 0
        except OSError as error:
            answer = error.errno
        channel.sendall(f"{answer}\n".encode())


@dataclasses.dataclass
class Identity:
    name: str
    namespaces: int = 0
    uid_map: str = ""  # of the new user namespace, as written to uid_map
    gid_map: str = ""
    uid: int = 0  # in it
    gid: int = 0
    groups: tuple = ()
    capabilities: int | None = None  # None: what the ids give
    uids: tuple = ()  # real, effective, saved, when they are not all `uid`
    before: object = None  # called outside, before the namespaces are made
    prepare: object = None  # called in them, before ids are set
    is_dumpable: bool = True


class Agent:
    """`parent`: an agent in whose namespaces this one is made."""

    def __init__(self, identity: Identity, parent: "Agent | None" = None):
        self.identity = identity
        ours, theirs = socket.socketpair()
        go_read, go_write = os.pipe()
        said_read, said_write = os.pipe()
        self._outer = os.fork()
        if self._outer == 0:
            try:
                _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                self._become(theirs, go_read, said_write, parent)
            except BaseException as error:  # noqa: BLE001: nothing of ours may run on in the child
                with contextlib.suppress(OSError):
                    os.write(said_write, f"error {type(error).__name__} {error}\n".encode())
            os._exit(1)
        theirs.close()
        os.close(said_write), os.close(go_read)
        with os.fdopen(said_read) as said:
            self._expect(said, "made")
            if identity.namespaces & NEWUSER:
                self._write_maps(parent)
            os.write(go_write, b"g")
            os.close(go_write)
            self.pid = int(self._expect(said, "pid"))
            self._expect(said, "ready")
        self._channel = ours
        self._answers = ours.makefile()

    def _write_maps(self, parent) -> None:
        """Of the outer process, whose child is born in the same namespace. Only the namespace around it may write them."""
        def write():
            for name, text in (("uid_map", self.identity.uid_map), ("gid_map", self.identity.gid_map)):
                pathlib.Path(f"/proc/{self._outer}/{name}").write_text(text)
        if parent is None:
            return write()
        writer = os.fork()
        if writer == 0:
            try:
                call(_libc.setns, os.pidfd_open(parent.pid), NEWUSER)
                write()
                os._exit(0)
            finally:
                os._exit(1)
        if os.waitpid(writer, 0)[1] != 0:
            raise RuntimeError("agent: its maps could not be written")

    @staticmethod
    def _expect(said, word: str) -> str:
        line = said.readline().split(maxsplit=1)
        if not line or line[0] != word:
            raise RuntimeError(f"agent: {line}")
        return line[1].strip() if len(line) > 1 else ""

    def _become(self, channel, go: int, said: int, parent) -> None:
        identity = self.identity
        if parent is not None:
            pidfd = os.pidfd_open(parent.pid)
            call(_libc.setns, pidfd, ALL if identity.namespaces & NEWPID else ALL & ~NEWPID)
            os.setresgid(0, 0, 0), os.setresuid(0, 0, 0)
        if identity.before:
            identity.before()
        call(_libc.unshare, identity.namespaces)
        os.write(said, b"made\n")
        os.read(go, 1)
        born_read, born_write = os.pipe()
        inner = os.fork()
        if inner != 0:
            os.write(said, f"pid {inner}\n".encode())
            os.write(born_write, b"b")
            os.waitpid(inner, 0)
            os._exit(0)
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.read(born_read, 1)  # our number has been said
        if identity.namespaces & NEWUSER:
            os.setresgid(0, 0, 0), os.setresuid(0, 0, 0)  # until now nobody there
        if identity.prepare:
            identity.prepare()
        if identity.capabilities is not None:
            _libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
        os.setgroups(list(identity.groups))
        os.setresgid(*(identity.gid,) * 3)
        os.setresuid(*(identity.uids or (identity.uid,) * 3))
        if identity.capabilities is not None:
            set_capabilities(identity.capabilities)
        # Changed ids end dumpability, which only an exec or this brings back.
        _libc.prctl(PR_SET_DUMPABLE, int(identity.is_dumpable), 0, 0, 0)
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # changed ids cleared it
        _libc.prctl(PR_SET_NAME, identity.name.encode(), 0, 0, 0)
        os.write(said, b"ready\n")
        os.close(said)
        _serve(channel)
        os._exit(0)

    def ask(self, action: str, *arguments) -> int:
        """0, or the errno."""
        self._channel.sendall((json.dumps([action, *arguments]) + "\n").encode())
        return int(self._answers.readline())

    def end(self) -> None:
        for pid in (self.pid, self._outer):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._outer, 0)
        self._channel.close()


def name_of(code: int) -> str:
    return errno.errorcode.get(code, str(code)) if code else "ok"
