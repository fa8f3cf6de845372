#!/usr/bin/env python3
"""A container as one would build it in an afternoon: every wall that the probes know is missing. Never for real use.

    naive.py plain|user ROOT ABSTRACT PROGRAM ARGUMENT...

plain: host root in namespaces for mounts, processes and names, and a chroot. user: the same, and a user namespace that
host root has made, entered without a change of ids, as libvirt's lxc-enter-namespace does. Both leak a descriptor, the
working directory, the environment, the groups and the terminal of whoever starts it; pid 1 is this program.
"""
import ctypes
import os
import pathlib
import pty
import socket
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000
BASE = 7_500_000


def unshare(flags):
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def mount(source, target, kind=None, flags=0, data=None):
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), None if data is None else data.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount on {target}")


BIND, REC, PRIVATE, RDONLY, REMOUNT = 4096, 16384, 1 << 18, 1, 32


def build(root, has_sys):
    mount(root, root, None, BIND)
    mount("proc", f"{root}/proc", "proc", 2 | 4 | 8)
    mount("/dev", f"{root}/dev", None, BIND | REC)
    mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666")
    if has_sys:
        mount("/sys", f"{root}/sys", None, BIND | REC)
    mount(None, root, None, REC | PRIVATE)
    # Something that looks like a mask and a read-only mount, so that there is something to undo.
    mount("/dev/null", f"{root}/proc/keys" if not has_sys else f"{root}/proc/key-users", None, BIND)
    mount(f"{root}/proc/bus", f"{root}/proc/bus", None, BIND)
    mount(None, f"{root}/proc/bus", None, BIND | REMOUNT | RDONLY | 2 | 4 | 8)


def inherit_capabilities():
    header = struct.pack("Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    libc.capget(header, data)
    words = list(struct.unpack("6I", data.raw))
    words[2], words[5] = words[1], words[4]
    libc.capset(header, struct.pack("6I", *words))


def make_user_namespace(root):
    """By host root, from outside: a helper in the first namespace writes the maps."""
    reader, writer = os.pipe()
    parent = os.getpid()
    helper = os.fork()
    if helper == 0:
        os.read(reader, 1)
        for name in ("uid_map", "gid_map"):
            # That of our own processes: the numbers are not those of the host's /proc.
            pathlib.Path(f"{root}/proc/{parent}/{name}").write_text(f"0 {BASE} 65536")
        os._exit(0)
    unshare(NEWUSER)
    os.write(writer, b"x")
    os.waitpid(helper, 0)


def inside(how, root, program):
    if how == "plain":
        inherit_capabilities()
    leaked = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(leaked, True)
    _, terminal = pty.openpty()
    os.open(f"{root}/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)  # a terminal of somebody else
    child = os.fork()
    if child == 0:
        if how == "user":
            make_user_namespace(root)
        os.dup2(leaked, 0)
        os.dup2(terminal, 2)
        os.chroot(root)  # and no chdir: where we are is outside
        os.execve(program[0], program, {**os.environ, "SSH_AUTH_SOCK": "/run/agent"})
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def main():
    how, root, name, *program = sys.argv[1:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(b"\0" + name.encode())
    listener.listen()
    os.setgroups([4, 20])
    unshare(NEWNS | NEWUTS | NEWIPC)
    mount(None, "/", None, REC | PRIVATE)
    libc.shmget(0, 4096, 0o1600)  # dies with the namespace
    unshare(NEWPID)
    child = os.fork()
    if child == 0:
        libc.prctl(1, 9, 0, 0, 0)
        # The listener stays open outside only.
        listener.close()
        build(root, has_sys=how == "plain")
        inside(how, root, program)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
