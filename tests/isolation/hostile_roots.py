#!/usr/bin/env python3
"""Root filesystems made to lead the daemon and the controller astray, through a domain's whole life with virsh.

    tests/isolation/hostile_roots.py --driver userns [-k NAME]

Each case prepares a tree, then: define, start, console, devices that come and go, information calls, reboot and shutdown by initctl and by
signal, a second start, destroy, undefine. Whatever the tree is, the canary outside is neither read nor written, the
host's nodes and mounts are as before, every call returns in time, nothing is left, and an error names cause and object.
"""
import contextlib
import functools
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / part) for part in ("conformance", "support", "isolation")]
import daemon as daemon_module  # noqa: E402
import harness  # noqa: E402
import host_state  # noqa: E402
from canary import Canary, host_mounts_below  # noqa: E402
from harness import Failure, check, contains, main  # noqa: E402

CALL_LIMIT_S = 12.0  # of one call; a start may wait 10 s for a child that was killed
CASES = []


class Tree:
    """A case's root filesystem, and what of the domain's XML depends on it."""

    def __init__(self, env, canary):
        self.env, self.canary = env, canary
        self.root = pathlib.Path(env.root_tree())
        self.source = self.root
        self.filesystems, self.os, self.init = "", "", "/sbin/init"
        self._undo = []
        for part in ("run", "data", "a", "b"):
            (self.root / part).mkdir()
        (self.root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/sh\n")
        (self.root / "etc/group").write_text("root:x:0:\nweb:x:33:\n")
        for name in ("ln", "mkfifo", "rm", "mkdir", "mv", "mknod"):
            (self.root / "bin" / name).symlink_to("busybox")

    def __truediv__(self, name):
        return self.root / name

    def clear(self, name):
        place = self.root / name
        if place.is_symlink() or place.is_file():
            place.unlink()
        elif place.exists():
            shutil.rmtree(place)
        return place

    def link(self, name, target):
        self.clear(name).symlink_to(target)

    def fifo(self, name):
        os.mkfifo(self.clear(name), 0o666)

    def node(self, name, kind, major, minor):
        os.mknod(self.clear(name), kind | 0o666, os.makedev(major, minor))

    def socket(self, name):
        # By a short name: addresses are 108 bytes.
        place = self.clear(name)
        with contextlib.chdir(place.parent), socket.socket(socket.AF_UNIX) as listener:
            listener.bind(place.name)

    def at_boot(self, script):
        """Container root does this before init waits: what the image cannot have, because /dev is ours."""
        init = self.root / "sbin/init"
        init.write_text(init.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{script}\n", 1))

    def mount(self, name, fstype="tmpfs", options="mode=755", source="tmpfs"):
        subprocess.run(["mount", "-t", fstype, "-o", options, source, str(self.root / name)], check=True)
        self.undo(lambda: subprocess.run(["umount", "-l", str(self.root / name)], check=True))

    def undo(self, action):
        self._undo.append(action)

    def add(self, target, kind="mount", source=None, readonly=False):
        """A second filesystem: an innocent directory of the host at `target`."""
        if source is None:
            data = pathlib.Path(self.env.folder, "innocent")
            data.mkdir(exist_ok=True)
            (data / "here").write_text("x")
            source = data
        inner = {"mount": f"<source dir='{source}'/>", "bind": f"<source dir='{source}'/>",
                 "ram": "<source usage='1024' units='KiB'/>",
                 "file": f"<driver type='loop' format='raw'/><source file='{source}'/>"}
        self.filesystems += (f"<filesystem type='{kind}'>{inner[kind]}<target dir='{target}'/>"
                             f"{'<readonly/>' if readonly else ''}</filesystem>")

    def xml(self, name):
        return (f"<domain type='lxc'><name>{name}</name><memory unit='KiB'>131072</memory><vcpu>1</vcpu>"
                f"<os><type>exe</type><init>{self.init}</init>{self.os}</os><devices>"
                f"<filesystem type='mount'><source dir='{self.source}'/><target dir='/'/></filesystem>"
                f"{self.filesystems}<console type='pty'/></devices></domain>")

    def remove(self):
        for action in reversed(self._undo):
            action()
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.root)], check=True)


def case(refused=None, runs=None, name=None):
    """Marks a case. refused: the start fails and says this (a regular expression, of cause and object). runs=True: init
    greets on the console. Neither: both are fine, as long as the promises hold."""
    def mark(prepare):
        CASES.append((name or prepare.__name__, prepare, refused, runs))
        return prepare
    return mark


def cases(names, function, **how):
    for name, arguments in names.items():
        case(name=name, **how)(functools.partial(function, **arguments))


# ---- the life of one domain ------------------------------------------------------------------------------------------

def call(env, *words):
    """One virsh call, which must return in time whatever it answers."""
    started = time.monotonic()
    try:
        answer = env.virsh(*words, timeout_s=CALL_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise Failure(f"virsh {' '.join(words)} hangs")
    took = time.monotonic() - started
    check(took < CALL_LIMIT_S * daemon_module.TIME_FACTOR, f"virsh {' '.join(words)} took {took:.1f} s")
    # What the tree is called must not reach the caller's terminal as control characters.
    check(not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", answer.out + answer.err), f"control characters in {answer.err!r}")
    if answer.code != 0:
        check(len(answer.err.strip()) > 20, f"virsh {words[0]} says nothing of use: {answer.err!r}")
    return answer


def greeting(env, name, timeout_s=5.0):
    """What the console says until the greeting, within the time."""
    import libvirt
    if not hasattr(env, "timer"):
        libvirt.virEventRegisterDefaultImpl()
        env.timer = libvirt.virEventAddTimeout(20, lambda *_: None, None)
    connection = env.open()
    try:
        stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        try:
            connection.lookupByName(name).openConsole(None, stream, 0)
        except libvirt.libvirtError:  # it has ended meanwhile
            return ""
        stream.send(b"hello\n")
        said, deadline = b"", time.monotonic() + timeout_s * daemon_module.TIME_FACTOR
        while time.monotonic() < deadline and b"hello" not in said:
            libvirt.virEventRunDefaultImpl()  # what arrives is read by the loop, and the timer wakes it
            got = stream.recv(4096)
            if got == b"":
                break
            said += got if got != -2 else b""
        with contextlib.suppress(libvirt.libvirtError):
            stream.abort()
        return said.decode(errors="replace")
    finally:
        connection.close()


def plug(env, name, runs):
    """Devices for a domain that runs, at places that the tree has made what it likes. Whatever becomes of it, they can be taken away."""
    source = pathlib.Path(env.folder, "plugged")
    source.mkdir(exist_ok=True)
    devices = [f"<filesystem type='mount'><source dir='{source}'/><target dir='{target}'/></filesystem>"
               for target in ("/a/plugged", "/run", "/etc/plugged")]
    devices += ["<interface type='ethernet'><guest dev='plug0'/><mac address='52:54:00:00:01:02'/></interface>",
                "<hostdev mode='capabilities' type='misc'><source><char>/dev/fuse</char></source></hostdev>"]
    for device in devices:
        path = env.write_xml(device)
        attached = call(env, "attach-device", name, path, "--live")
        if attached.code == 0:
            gone = call(env, "detach-device", name, path, "--live")
            check(gone.code == 0 or "not running" in gone.err, f"detach: {gone.err.strip()}")
        elif runs and "<interface" in device:
            raise Failure(f"attach: {attached.err.strip()}")


def information(env, name):
    for words in (("dominfo", name), ("domstats", name), ("domifaddr", name), ("domfsinfo", name), ("dumpxml", name),
                  ("guestinfo", name), ("domhostname", name)):
        call(env, *words)


def is_running(env, name):
    return call(env, "domstate", name).out.strip() == "running"


def is_off_when_asked(env, name):
    """Asked again each time: what a domain hears before it has rebooted it forgets, as every machine does."""
    if not is_running(env, name):
        return True
    call(env, "shutdown", name, "--mode", "signal")
    return False


def live(env, tree, name, refused, runs):
    answer = call(env, "define", env.write_xml(tree.xml(name)))
    if answer.code == 0:
        answer = call(env, "start", name)
    if refused:
        check(answer.code != 0, "was started")
        harness.matches(answer.err, refused)
    if runs:
        check(answer.code == 0, answer.err.strip())
    if answer.code == 0:
        said = greeting(env, name, 5.0 if runs else 0.5)
        if runs:
            contains(said, "hello")
        plug(env, name, runs)
        information(env, name)
        for verb in ("reboot", "shutdown"):
            for way in ("initctl", "signal"):
                call(env, verb, name, "--mode", way)
        if runs:
            harness.eventually(lambda: is_off_when_asked(env, name), "shut off after a signal")
        call(env, "start", name)
    if call(env, "domstate", name).out.strip() == "running":
        destroyed = call(env, "destroy", name)
        # It may have ended by itself since it was asked.
        check(destroyed.code == 0 or "domain is not running" in destroyed.err, f"destroy failed: {destroyed.err.strip()}")
    call(env, "undefine", name)
    check(call(env, "domstate", name).code != 0, "is still defined")


def run_case(prepare, refused, runs, env):
    if not hasattr(env, "canary"):
        env.canary = Canary(env.folder)
    look = lambda: host_state.snapshot(  # noqa: E731
        daemon_module.PRIVATE_FOLDERS, env.daemon.cgroup + "/machine/", [env.folder])
    tree = Tree(env, env.canary)
    try:
        prepare(tree)
        before = look()
        live(env, tree, f"h{len(env.folder)}-{prepare_name(prepare)}"[:40], refused, runs)
        # Its controller says that everything is gone, and only then ends itself.
        wrong = host_state.lasting_differences(before, look, ignore_files=harness.IGNORED_FILES)
    finally:
        tree.remove()
    wrong += env.canary.differences()
    wrong += [f"host's mount: {line}" for line in host_mounts_below(env.folder)]
    check(not wrong, "; ".join(wrong))


def prepare_name(prepare):
    return re.sub("[^a-z]", "", getattr(prepare, "func", prepare).__name__)


@harness.test(["userns"])
def the_canary_sees_everything(env):
    """The control: whatever somebody does to a canary is in its differences."""
    def mount(path):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(path / "below")], check=True)

    def fifo(path):
        fd = os.open(path / "fifo", os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, b"request")
        os.close(fd)

    deeds = {"read": lambda path: (path / "file").read_text(), "write": lambda path: (path / "file").write_text("x"),
             "make": lambda path: (path / "below/new").mkdir(), "remove": lambda path: (path / "passwd").unlink(),
             "mode": lambda path: (path / "file").chmod(0o600), "owner": lambda path: os.chown(path / "file", 1, 1),
             "link": lambda path: os.link(path / "file", path / "other"), "mount": mount, "fifo": fifo,
             "run": lambda path: subprocess.run([path / "program"], check=True)}
    if os.statvfs(env.folder).f_flag & os.ST_NOATIME:
        deeds.pop("read")
    for deed, act in deeds.items():
        canary = Canary(pathlib.Path(env.folder, f"deed-{deed}"))
        harness.equal(canary.differences(), [])
        act(canary.path)
        check(canary.differences(), f"nothing was seen of: {deed}")
        if deed == "mount":
            subprocess.run(["umount", str(canary.path / "below")], check=True)
        canary.close()


# ---- the trees -------------------------------------------------------------------------------------------------------

SYSTEM = ("dev", "proc", "sys")


def _link(tree, place, to):
    tree.link(place, to.format(canary=tree.canary.path))


# /dev, /proc and /sys as links: to the canary, up and out, to themselves, to nothing, and through a magic link.
for _place in SYSTEM:
    cases({f"{_place}_is_a_link_to_the_canary": {"place": _place, "to": "{canary}"},
           f"{_place}_is_a_link_up_and_out": {"place": _place, "to": "../../../../../../../..{canary}"},
           f"{_place}_is_a_link_to_itself": {"place": _place, "to": _place},
           f"{_place}_is_a_link_to_nothing": {"place": _place, "to": "/nothing/here"},
           f"{_place}_is_a_magic_link": {"place": _place, "to": "/proc/1/root{canary}"}},
          _link, refused=rf"'/{_place}' of the container: a symbolic link is in the way")


def _odd(tree, place, kind):
    if kind == "fifo":
        tree.fifo(place)
    elif kind == "socket":
        tree.socket(place)
    elif kind == "file":
        tree.clear(place).write_text("")
    elif kind == "block":
        tree.node(place, stat.S_IFBLK, 7, 200)
    else:
        tree.node(place, stat.S_IFCHR, 1, 5)


for _place in SYSTEM:
    cases({f"{_place}_is_a_{kind}": {"place": _place, "kind": kind}
           for kind in ("fifo", "socket", "file", "char", "block")}, _odd,
          refused=rf"'/{_place}' of the container: Not a directory")


@case(runs=True)
def no_dev_proc_sys(tree):
    for place in SYSTEM:
        tree.clear(place)


@case(runs=True)
def names_in_dev_lead_to_the_canary(tree):
    for name in ("null", "console", "tty1", "ptmx", "initctl", "log"):
        tree.link(f"dev/{name}", tree.canary.path / "file")
    for name in ("pts", "shm", "mqueue"):
        tree.link(f"dev/{name}", tree.canary.path / "below")


# -- /etc, and the files of accounts, which are read for <inituser> only --

@case(runs=True)
def etc_is_a_link_to_the_canary(tree):
    tree.link("etc", tree.canary.path)


@case(refused="no user 'web'|inituser 'web' cannot be looked up")
def etc_is_a_link_to_the_canary_and_a_user_is_wanted(tree):
    tree.link("etc", tree.canary.path)
    tree.os = "<inituser>web</inituser>"


@case(refused="no user 'web'|inituser 'web' cannot be looked up")
def passwd_is_a_link_up_and_out(tree):
    tree.link("etc/passwd", f"../../../../../../../..{tree.canary.path}/passwd")
    tree.os = "<inituser>web</inituser>"


def _passwd(tree, kind):
    _odd(tree, "etc/passwd", kind)
    tree.os = "<inituser>web</inituser>"


cases({f"passwd_is_a_{kind}": {"kind": kind} for kind in ("fifo", "socket", "char", "block")}, _passwd,
      refused="inituser 'web' cannot be looked up in the container: open '/etc/passwd'")


@case(refused="inituser 'web' cannot be looked up in the container: open '/etc/passwd'")
def passwd_is_a_directory(tree):
    tree.clear("etc/passwd").mkdir()
    tree.os = "<inituser>web</inituser>"


@case(refused="inituser 'web' cannot be looked up in the container: open '/etc/passwd'")
def passwd_is_a_loop(tree):
    tree.link("etc/passwd", "passwd")
    tree.os = "<inituser>web</inituser>"


@case(refused="inituser 'web' cannot be looked up in the container: read '/etc/passwd': larger than")
def passwd_is_a_sparse_gigabyte(tree):
    os.truncate(tree / "etc/passwd", 1 << 30)
    tree.os = "<inituser>web</inituser>"


@case(refused="no user 'web'")
def passwd_is_garbage(tree):
    lines = b"\nweb:x\nweb:x:-1:0\nweb:x:4294967296:0::/:\n:::::\n"
    (tree / "etc/passwd").write_bytes(os.urandom(65536) + lines + b"a" * 65536)
    tree.os = "<inituser>web</inituser>"


@case(refused="no user 'web'|inituser 'web'")
def passwd_names_an_id_that_is_not_mapped(tree):
    (tree / "etc/passwd").write_text("web:x:4294967295:4294967295::/:/bin/sh\n")
    tree.os = "<inituser>web</inituser>"


# -- init --

@case(refused="exec '/sbin/init'")
def init_is_a_link_to_a_program_outside(tree):
    tree.link("sbin/init", tree.canary.path / "program")


@case(refused="exec '/sbin/init'")
def init_climbs_out(tree):
    tree.link("sbin/init", f"../../../../../../../../..{tree.canary.path}/program")


for _kind in ("fifo", "socket", "char", "block"):
    case(name=f"init_is_a_{_kind}", refused="exec '/sbin/init'")(functools.partial(_odd, place="sbin/init", kind=_kind))


@case(refused="exec '/sbin/init'")
def init_is_a_directory(tree):
    tree.clear("sbin/init").mkdir()


@case(refused="exec '/sbin/init'")
def init_is_a_loop(tree):
    tree.link("sbin/init", "init")


@case()
def init_is_the_program_that_starts_it(tree):
    # CVE-2019-5736: the interpreter is whatever runs at that moment, which is the host's controller.
    tree.clear("sbin/init").write_text("#!/proc/self/exe\n")
    (tree / "sbin/init").chmod(0o755)


@case(refused="enter '.*canary'")
def directory_of_init_leads_out(tree):
    tree.os = f"<initdir>{tree.canary.path}</initdir>"


def _directory_is_a_descriptor(tree, number):
    # CVE-2024-21626: a directory of the host that is still open.
    tree.os = f"<initdir>/proc/self/fd/{number}/../../../../../../..</initdir>"


# All that the controller may have open when init enters it: which numbers are directories changes with every line of code.
cases({f"directory_of_init_is_descriptor_{number}": {"number": number} for number in range(3, 16)},
      _directory_is_a_descriptor, refused="enter '/proc/self/fd")


# -- initctl: where a shutdown is asked for --

def _initctl_in_image(tree, kind):
    if kind == "link":
        tree.link("run/initctl", tree.canary.path / "fifo")
    elif kind == "directory":
        (tree / "run/initctl").mkdir()
    elif kind == "up":
        tree.link("run/initctl", f"../../../../../../../..{tree.canary.path}/fifo")
    else:
        _odd(tree, "run/initctl", kind)


cases({f"run_initctl_is_a_{kind}": {"kind": kind}
       for kind in ("link", "up", "fifo", "socket", "char", "block", "file", "directory")}, _initctl_in_image,
      runs=True)


@case(runs=True)
def run_is_a_link_to_the_canary(tree):
    (pathlib.Path(tree.clear("run"))).symlink_to(tree.canary.path)
    tree.at_boot(f"ln -s {tree.canary.path}/fifo /dev/initctl")


@case(runs=True)
def dev_initctl_is_a_link_out(tree):
    tree.at_boot(f"ln -s {tree.canary.path}/fifo /dev/initctl; ln -s /proc/1/root{tree.canary.path}/fifo /run/initctl")


@case(runs=True)
def dev_initctl_is_a_fifo_nobody_reads(tree):
    tree.at_boot("mkfifo /dev/initctl; mkfifo /run/initctl")


@case(runs=True)
def initctl_is_swapped_all_the_time(tree):
    tree.at_boot(f"(mkfifo /run/x; ln -s {tree.canary.path}/fifo /run/y; while :; do mv -f /run/x /run/initctl; "
                 "mv /run/initctl /run/x; mv /run/y /run/initctl; mv /run/initctl /run/y; done) 2>/dev/null &")


# -- targets of other filesystems --

NOT_THERE = "filesystem '/data.*'.*(No such file|Not a directory|symbolic link|Too many levels|File exists)"


def _target(tree, to, target="/data", kind="mount"):
    tree.link("data", to.format(canary=tree.canary.path))
    tree.add(target, kind)


cases({"target_is_a_link_to_the_canary": {"to": "{canary}"},
       "target_below_a_link_to_the_canary": {"to": "{canary}", "target": "/data/below"},
       "new_target_below_a_link_to_the_canary": {"to": "{canary}", "target": "/data/new/deep"},
       "target_is_a_link_up_and_out": {"to": "../../../../../../../../..{canary}"},
       "target_is_a_magic_link": {"to": "/proc/self/root{canary}"},
       "target_is_a_loop": {"to": "data"},
       "target_dangles": {"to": "/nothing/here"}}, _target, refused=NOT_THERE)
cases({"tmpfs_target_is_a_link_to_the_canary": {"to": "{canary}", "kind": "ram"},
       "tmpfs_target_below_a_link_to_the_canary": {"to": "{canary}", "target": "/data/new", "kind": "ram"}}, _target,
      refused=NOT_THERE.replace("filesystem", "tmpfs"))
cases({"target_is_a_link_to_proc": {"to": "/proc"}, "target_is_a_link_to_sys": {"to": "/sys/firmware"},
       "target_is_a_link_to_the_root": {"to": "/"}, "target_is_a_link_to_dev": {"to": "/dev"}}, _target,
      refused="filesystem '/data': the target leads to '/.*' of the container")


@case(refused="filesystem '/data': .*'/data' of the container: Not a directory")
def target_is_a_fifo(tree):
    tree.fifo("data")
    tree.add("/data")


@case(refused="filesystem '/data': .*'/data' of the container: Not a directory")
def target_is_a_device(tree):
    tree.node("data", stat.S_IFCHR, 1, 5)
    tree.add("/data")


@case(refused="filesystem '/data'")
def source_inside_leads_out(tree):
    tree.link("a", tree.canary.path)
    tree.add("/data", "bind", "/a")


@case(refused="filesystem '/data'")
def source_inside_is_a_magic_link(tree):
    tree.link("a", "/proc/1/root")
    tree.add("/data", "bind", "/a")


@case(refused="filesystem '/a'.*Too many levels")
def two_targets_are_links_to_each_other(tree):
    tree.link("a", "b")
    tree.link("b", "a")
    tree.add("/a")
    tree.add("/b", "ram")


@case(runs=True)
def two_targets_are_swapped(tree):
    (tree / "one").mkdir()
    (tree / "two").mkdir()
    tree.link("a", "two")
    tree.link("b", "one")
    tree.add("/a")
    tree.add("/b", "ram")
    tree.add("/two", "ram")


# The mounts of a reboot are made again in a tree that container root has had in its hands.

def _changed(tree, to):
    (tree / "data/below").mkdir()
    tree.add("/data/below/new")
    tree.at_boot(f"[ -L /data ] || {{ mv /data /old; ln -s {to.format(canary=tree.canary.path)} /data; reboot -f; }}")


cases({"a_target_becomes_a_link_to_the_canary_before_a_reboot": {"to": "{canary}"},
       "a_target_becomes_a_link_up_and_out_before_a_reboot": {"to": "../../../../../../..{canary}"},
       "a_target_becomes_a_link_to_proc_before_a_reboot": {"to": "/proc"}}, _changed)


# -- sizes and names --

@case()
def target_is_a_thousand_deep(tree):
    tree.add("/data" + "/d" * 1000)


@case(runs=True)
def the_tree_is_a_thousand_deep(tree):
    here = os.open(tree / "data", os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@case(runs=True)
def names_of_255_bytes(tree):
    for name in ("n" * 255, "\u00e4" * 127):
        (tree / "data" / name).mkdir()
        tree.add(f"/data/{name}/{name[:100]}")


@case(refused="filesystem '/data/n+.*File name too long")
def a_target_longer_than_a_name(tree):
    tree.add("/data/" + "n" * 256)


@case(runs=True)
def thousands_of_links(tree):
    (tree / "data/file").write_text("")
    for number in range(20000):
        os.link(tree / "data/file", tree / f"data/h{number}")
        os.symlink(tree.canary.path, tree / f"etc/s{number}")


@case(refused="filesystem '/data'.*Too many levels")
def a_chain_of_links(tree):
    for number in range(65):
        tree.link(f"data{number}", f"data{number + 1}")
    tree.link("data", "data0")
    tree.add("/data")


@case(runs=True)
def names_with_control_characters(tree):
    for name in (b"\x1b[2J\x07", b"a\nb", b"\xff\xfe\x80", b"\xed\xa0\x80", b"-rf *", b"%s%n", b"$(reboot)"):
        for folder in ("etc", "dev", "run", "data"):
            os.mkdir(os.fsencode(tree / folder) + b"/" + name)
            os.symlink(os.fsencode(tree.canary.path), os.fsencode(tree / folder) + b"/l" + name)


@case()
def a_link_with_control_characters_in_the_way(tree):
    os.symlink(b"\x1b]0;title\x07\xff\xfe\n", os.fsencode(tree.clear("data")))
    tree.add("/data/x")


# -- mounts, modes and owners --

def _mounted(tree, place):
    tree.mount(place)
    (tree / place / "marker").write_text("x")


cases({f"{place}_is_a_mount_point": {"place": place} for place in ("dev", "proc", "sys", "etc", "run")}, _mounted,
      runs=True)


@case(runs=True)
def the_root_is_a_mount_point(tree):
    # Of its own file system, with flags of its own; not a tmpfs, of which the kernel of Debian 12 has no idmapped mounts.
    copy = pathlib.Path(tree.env.folder, "mounted-root")
    copy.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", str(tree.root), str(copy)], check=True)
    tree.undo(lambda: subprocess.run(["umount", "-l", str(copy)], check=True))
    subprocess.run(["mount", "-o", "remount,bind,nosuid,nodev", str(copy)], check=True)
    tree.source = copy


@case()
def the_root_is_read_only_on_the_host(tree):
    tree.clear("sys")
    subprocess.run(["mount", "--bind", str(tree.root), str(tree.root)], check=True)
    tree.undo(lambda: subprocess.run(["umount", "-l", str(tree.root)], check=True))
    subprocess.run(["mount", "-o", "remount,ro,bind", str(tree.root)], check=True)
    tree.add("/data/new")


@case(refused="filesystem '/data/new': create '/data/new' in the container: ")
def the_target_is_immutable(tree):
    if subprocess.run(["chattr", "+i", str(tree / "data")], capture_output=True).returncode != 0:
        raise harness.Skip("this file system has no immutable files")
    tree.undo(lambda: subprocess.run(["chattr", "-i", str(tree / "data")], check=True))
    tree.add("/data/new")


@case(runs=True)
def set_user_id_files(tree):
    for name in ("bin/busybox", "sbin/init"):
        (tree / name).chmod(0o6755)
    os.chmod(tree / "data", 0o7777)


@case()
def everything_belongs_to_strangers(tree):
    for number, path in enumerate([tree.root, *tree.root.rglob("*")]):
        os.chown(path, 4_000_000_000 + number, 4_000_000_000, follow_symlinks=False)


@case()
def nothing_may_be_entered(tree):
    for name in ("bin", "sbin", "etc", "data"):
        (tree / name).chmod(0)
    tree.root.chmod(0o700)


# -- the root itself --

@case()
def the_root_is_a_link(tree):
    link = pathlib.Path(tree.env.folder, "root-link")
    link.unlink(missing_ok=True)
    link.symlink_to(tree.root)
    tree.source = link


def _root_is(tree, kind):
    place = pathlib.Path(tree.env.folder, f"root-{kind}")
    if kind == "file":
        place.write_text("")
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "loop":
        place.symlink_to(place)
    elif kind == "node":
        os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    tree.source = place
    tree.undo(lambda: place.unlink(missing_ok=True))


cases({f"the_root_is_a_{kind}": {"kind": kind} for kind in ("file", "fifo", "loop", "node", "hole")}, _root_is,
      refused=r"root-[a-z]+'?.*(directory|levels|No such file)|root: the source is no directory")


@case(refused="no file system was recognised|not a block device|loop|superblock")
def an_image_is_garbage(tree):
    image = pathlib.Path(tree.env.folder, "image")
    image.write_bytes(os.urandom(1 << 20))
    tree.add("/data", "file", image)


@case(refused="image")
def an_image_is_a_fifo(tree):
    image = pathlib.Path(tree.env.folder, "image-fifo")
    if not image.exists():
        os.mkfifo(image)
    tree.add("/data", "file", image)


for _name, _prepare, _refused, _runs in CASES:
    harness.TESTS.append((_name, functools.partial(run_case, _prepare, _refused, _runs), ["userns"]))

if __name__ == "__main__":
    main()
