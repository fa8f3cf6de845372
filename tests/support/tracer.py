"""System calls of running processes: counted, and one of them made the last one or made to fail.

    with Tracer(Plan(count={"daemon"}, at=17, kill={"daemon"}), daemon=PID) as tracer:
        ... the operation ...
    tracer.report.calls[16].name       what it was
    tracer.report.fired                whether it came that far

A process has a role: the ones that are given have the role of their keyword; what a daemon forks is a "controller", what
a controller or its "stem" clones a "starter", and what a starter clones is "init" (as in driver/controller/boot.cpp). The
stem is the one child that a controller makes with an exit signal, which ptrace calls a fork. Calls of all threads
and processes of the roles in `count` are numbered together, in the order in which they are entered.

strace(1) can inject too, but counts each call for each thread by itself; "the 17th call of this operation" is nothing it
knows. So this is ptrace(2), from a process of its own, because a tracer sees the deaths of all its tracees.
"""
import ctypes
import dataclasses
import gc
import json
import os
import pathlib
import platform
import re
import select
import signal
import struct
import sys
import time

PTRACE_POKEUSER, PTRACE_CONT, PTRACE_SYSCALL = 6, 7, 24
PTRACE_GETEVENTMSG, PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_LISTEN = 0x4201, 0x4206, 0x4207, 0x4208
PTRACE_SETOPTIONS, PTRACE_GET_SYSCALL_INFO = 0x4200, 0x420E
O_SYSGOOD, O_FORK, O_VFORK, O_CLONE, O_EXEC = 1, 2, 4, 8, 16
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_STOP = 1, 2, 3, 4, 128
WALL = 0x40000000
PATH_MAX = 4096
ORIG_RAX, RAX = 15 * 8, 10 * 8  # struct user of x86_64
CHILD_ROLE = {"daemon": "controller", "controller": "starter", "stem": "starter", "starter": "init"}
OPTIONS = O_SYSGOOD | O_FORK | O_VFORK | O_CLONE | O_EXEC


def _syscall_names():
    # The distribution's header: it comes with the compiler that built the daemon.
    for header in ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h",
                   "/usr/include/asm-generic/unistd.h"):
        if os.path.exists(header):
            return {int(number): name for name, number in
                    re.findall(r"#define __NR_(\w+)\s+(\d+)", pathlib.Path(header).read_text())}
    return {}


NAMES = _syscall_names()


def can_inject_errors() -> bool:
    return platform.machine() == "x86_64" and bool(NAMES)


@dataclasses.dataclass
class Call:
    name: str
    role: str
    what: str = ""  # the path or descriptor, when the plan asks for it
    record: tuple = ()  # and all that it takes to do it again elsewhere (tests/fault/disk.py)


@dataclasses.dataclass
class Plan:
    """What is counted, and what happens at the call of number `at` (the first is 1; 0: only count)."""
    count: set
    at: int = 0
    kill: set = dataclasses.field(default_factory=set)     # roles that get SIGKILL as the call is entered
    errno: int = 0                                          # or the error with which the call fails, unexecuted
    persists: bool = False                                  # ... and all later ones that are counted
    names: set = dataclasses.field(default_factory=set)     # only these system calls are counted
    creating: bool = False                                  # of the opens only those that may make a file
    under: tuple = ()                                       # only those that name, or whose descriptor is, something below
    records: bool = False                                   # paths, flags and bytes of changes to files


@dataclasses.dataclass
class Report:
    calls: list
    fired: bool

    def name_of(self, number):
        return self.calls[number - 1].name if 0 < number <= len(self.calls) else "none"


class Tracer:
    def __init__(self, plan: Plan, **processes: int):
        self.plan, self.processes = plan, processes
        self.report = Report([], False)

    def __enter__(self):
        ready, ready_in = os.pipe()
        self._result, result_in = os.pipe()
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            # Objects of libvirt are the parent's: to collect one in here waits for threads that were not forked.
            gc.disable()
            os.close(ready), os.close(self._result)
            _Loop(self.plan, self.processes, ready_in, result_in).main()
        os.close(ready_in), os.close(result_in)
        # It has nothing to wait for. Where a thread of ours was inside a lock at the fork, it would wait for ever.
        if not select.select([ready], [], [], 30 * float(os.environ.get("VIRTUSERNS_TIME_FACTOR", "1")))[0]:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(ready), os.close(self._result)
            return self.__enter__()
        said = os.read(ready, 1)
        os.close(ready)
        if said != b"r":
            raise RuntimeError(f"cannot trace {self.processes}: {self._read_all()}")
        return self

    def __exit__(self, *_):
        # A tracer that has killed ends by itself when its victims are dead.
        try:
            os.kill(self._pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        text = self._read_all()
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass
        result = json.loads(text) if text else {"error": "the tracer died"}
        if "error" in result:
            raise RuntimeError(f"tracer: {result['error']}")
        self.report = Report([Call(*call) for call in result["calls"]], result["fired"])

    def _read_all(self):
        parts = []
        while not select.select([self._result], [], [], 0.2)[0]:
            collect_orphans()
        while part := os.read(self._result, 65536):
            parts.append(part)
        os.close(self._result)
        return b"".join(parts).decode()


def collect_orphans():
    """Of a killed controller, when we are who they come to. The first process of a pid namespace does not end before all others of
    it are collected, and the tracer waits for its end."""
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children", encoding="ascii") as children:
        pids = children.read().split()
    for pid in pids:
        try:
            name, state = re.match(r"\d+ \((.*)\) (\w)", pathlib.Path(f"/proc/{pid}/stat").read_text()).groups()
            if state == "Z" and name.startswith("virtuserns-"):
                os.waitpid(int(pid), os.WNOHANG | WALL)
        except OSError:
            pass


class _Stop(Exception):
    pass


class _Gone(Exception):
    """The tracee was killed under us: it is reported by waitpid."""


class _Loop:
    """Lives in the process of its own."""

    def __init__(self, plan, processes, ready, result):
        self.plan, self.given = plan, processes
        self.ready, self.result = ready, result
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self.libc.ptrace.restype = ctypes.c_long
        self.role, self.group = {}, {}       # of a thread id: its role, its process
        self.waiting = {}                    # children that stopped before their parent's event came
        self.failing = {}                    # thread id: errno to put in at the exit of the call
        self.calls, self.fired, self.done, self.is_over = [], False, False, False
        self.victims = set()                 # processes that got their SIGKILL and are not dead yet

    def ptrace(self, request, tid, address=0, data=0):
        result = self.libc.ptrace(request, tid, address, data)
        if result < 0:
            code = ctypes.get_errno()
            if code == 3:  # ESRCH
                raise _Gone
            raise OSError(code, f"ptrace {request:#x} of {tid}")
        return result

    def main(self):
        outcome = {}
        try:
            signal.signal(signal.SIGTERM, self.on_term)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self.seize()
            os.write(self.ready, b"r")
            self.run()
        except _Stop:
            pass
        except BaseException as error:  # noqa: BLE001 - it must reach the parent
            outcome = {"error": repr(error)}
        self.is_over = True
        outcome |= {"calls": [[call.name, call.role, call.what, call.record] for call in self.calls], "fired": self.fired}
        data = json.dumps(outcome).encode()
        while data:
            data = data[os.write(self.result, data):]
        os._exit(0)  # detaches from all

    def on_term(self, *_):
        # Not in the middle of a kill: the victims' deaths are waited for. Nor while the result is written.
        if self.is_over or (self.fired and self.plan.kill):
            return
        raise _Stop

    def seize(self):
        for role, pid in self.given.items():
            seen = set()
            while new := set(map(int, os.listdir(f"/proc/{pid}/task"))) - seen:
                for tid in new:
                    seen.add(tid)
                    try:
                        self.ptrace(PTRACE_SEIZE, tid, 0, OPTIONS)
                        self.role[tid], self.group[tid] = role, pid
                        self.ptrace(PTRACE_INTERRUPT, tid)
                    except _Gone:
                        continue
                    except PermissionError:  # a new thread of one that is traced already
                        self.role[tid], self.group[tid] = role, pid

    def run(self):
        while not self.done:
            try:
                tid, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                # Everybody is gone; the parent may still be busy with the operation.
                self.done = self.fired
                time.sleep(0.005)
                continue
            try:
                self.on_wait(tid, status)
            except _Gone:
                pass

    def on_wait(self, tid, status):
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            self.role.pop(tid, None), self.group.pop(tid, None), self.failing.pop(tid, None)
            self.victims.discard(tid)
            self.done = self.fired and bool(self.plan.kill) and not self.victims
            return
        number, event = os.WSTOPSIG(status), status >> 16
        if tid not in self.role:
            self.waiting[tid] = (number, event)
            return
        if event in (EVENT_FORK, EVENT_VFORK, EVENT_CLONE):
            self.on_child(tid, event)
            return self.go_on(tid)
        if event == EVENT_STOP:
            if number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
                self.ptrace(PTRACE_LISTEN, tid)
                return None
            return self.go_on(tid)
        if event == EVENT_EXEC:
            if self.role[tid] == "init":
                self.role[tid] = "inside"  # from here on it is the container's business
            if self.role[tid] == "starter":
                self.role[tid] = "jailed"  # it was none, but what reads images
            return self.go_on(tid)
        if number == signal.SIGTRAP | 0x80:
            return self.on_call(tid)
        return self.go_on(tid, number)

    def on_child(self, tid, event):
        message = ctypes.c_ulong()
        self.ptrace(PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(message))
        child = message.value
        try:
            is_thread = child in map(int, os.listdir(f"/proc/{self.group[tid]}/task"))
        except OSError:
            is_thread = False
        is_stem = self.role[tid] == "controller" and event == EVENT_FORK
        self.role[child] = self.role[tid] if is_thread else "stem" if is_stem else CHILD_ROLE.get(self.role[tid], "inside")
        self.group[child] = self.group[tid] if is_thread else child
        if child in self.waiting:
            del self.waiting[child]
            try:
                self.go_on(child)
            except _Gone:  # killed with its pid namespace, say; its parent must go on
                pass

    def go_on(self, tid, number=0):
        is_counted = self.role[tid] in self.plan.count and not (self.fired and not self.plan.errno)
        self.ptrace(PTRACE_SYSCALL if is_counted or tid in self.failing else PTRACE_CONT, tid, 0, number)

    def on_call(self, tid):
        info = ctypes.create_string_buffer(88)
        self.ptrace(PTRACE_GET_SYSCALL_INFO, tid, len(info), ctypes.addressof(info))
        if info.raw[0] == 1:
            numbers = struct.unpack_from("<7Q", info.raw, 24)
            self.on_entry(tid, numbers[0], numbers[1:])
        elif tid in self.failing:
            self.ptrace(PTRACE_POKEUSER, tid, RAX, -self.failing.pop(tid) & (1 << 64) - 1)
        self.go_on(tid)

    def on_entry(self, tid, number, arguments):
        name = NAMES.get(number, str(number))
        if self.plan.names and name not in self.plan.names:
            return
        if self.plan.creating and name in ("open", "openat") and not arguments[2 if name == "openat" else 1] & os.O_CREAT:
            return
        what = self.object_of(tid, name, arguments) if self.plan.under else ""
        if self.plan.under and not what.startswith(self.plan.under):
            return
        if not self.fired or self.plan.errno:
            self.calls.append(Call(name, self.role[tid], what, self.record_of(tid, name, arguments) if self.plan.records else ()))
        is_due = len(self.calls) == self.plan.at or (self.plan.persists and self.fired)
        if not self.plan.at or not is_due:
            return
        self.fired = True
        if self.plan.errno:
            self.ptrace(PTRACE_POKEUSER, tid, ORIG_RAX, (1 << 64) - 1)
            self.failing[tid] = self.plan.errno
            return
        self.victims = {self.group[other] for other, role in self.role.items() if role in self.plan.kill}
        for pid in self.victims:
            os.kill(pid, signal.SIGKILL)
        self.done = not self.victims

    @staticmethod
    def bytes_at(tid, address, count):
        with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(count)

    def string_at(self, tid, address):
        # Page by page: the next is there for certain only when the string goes on in it.
        text = b""
        while b"\0" not in text and len(text) < PATH_MAX:
            text += self.bytes_at(tid, address + len(text), 4096 - (address + len(text)) % 4096)
        return text.split(b"\0")[0].decode(errors="replace")

    @staticmethod
    def place(tid, fd):
        fd &= 0xffffffff
        try:
            return os.readlink(f"/proc/{tid}/cwd" if fd == 0xffffff9c else f"/proc/{tid}/fd/{fd}")
        except OSError:
            return ""

    def record_of(self, tid, name, arguments):
        """(what it does, then its objects); of a call that changes nothing: ()."""
        here = 0xffffff9c

        def path(fd, address):
            return os.path.join(self.place(tid, fd), self.string_at(tid, address))
        a = arguments
        if name in ("open", "openat"):
            fd, address, flags = (here, a[0], a[1]) if name == "open" else a[:3]
            return ("open", path(fd, address), flags) if flags & (os.O_CREAT | os.O_TRUNC) else ()
        if name == "write":
            return ("write", self.place(tid, a[0]), self.bytes_at(tid, a[1], a[2]).decode("latin-1"))
        if name in ("fsync", "fdatasync"):
            return ("fsync", self.place(tid, a[0]))
        if name in ("rename", "link"):
            return (name, path(here, a[0]), path(here, a[1]))
        if name in ("renameat", "renameat2", "linkat"):
            return (name.removesuffix("2").removesuffix("at"), path(a[0], a[1]), path(a[2], a[3]))
        if name == "symlink":
            return ("symlink", self.string_at(tid, a[0]), path(here, a[1]))
        if name in ("unlink", "rmdir", "mkdir"):
            return (name, path(here, a[0]))
        if name == "mkdirat":
            return ("mkdir", path(a[0], a[1]))
        if name == "unlinkat":
            return ("rmdir" if a[2] & 0x200 else "unlink", path(a[0], a[1]))
        return ()

    def object_of(self, tid, name, arguments):
        def place(fd):
            return self.place(tid, fd)
        try:
            if name in ("open", "mkdir", "rmdir", "unlink", "rename", "creat", "stat", "lstat", "access", "chmod"):
                return os.path.join(place(0xffffff9c), self.string_at(tid, arguments[0]))
            if name in ("symlink", "link"):
                return os.path.join(place(0xffffff9c), self.string_at(tid, arguments[1]))
            if name in ("openat", "mkdirat", "unlinkat", "renameat", "renameat2", "mknodat", "newfstatat", "openat2"):
                return os.path.join(place(arguments[0]), self.string_at(tid, arguments[1]))
            if name == "linkat":
                return os.path.join(place(arguments[2]), self.string_at(tid, arguments[3]))
            if name in ("symlinkat",):
                return os.path.join(place(arguments[1]), self.string_at(tid, arguments[2]))
            return place(arguments[0])
        except (OSError, OverflowError, ValueError):
            return ""
