#!/usr/bin/env python3
"""Mount targets that turn into links to the canary and back while a domain starts (CVE-2021-30465, 2024-45310).

    tests/isolation/swap_race.py --driver userns [--starts 1000]

A process outside exchanges a directory of the root filesystem with a symbolic link (renameat2(2), RENAME_EXCHANGE) as
fast as it can. A start may succeed or fail; nothing is ever made, opened or mounted in the canary, whose watch is
proven by a writer that goes by path as everybody used to.
"""
import ctypes
import os
import pathlib
import random
import shutil
import signal
import struct
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / part) for part in ("conformance", "support", "isolation")]
import harness  # noqa: E402
import host_state  # noqa: E402
from canary import Canary  # noqa: E402
from harness import check, main, test  # noqa: E402

AT_FDCWD, RENAME_EXCHANGE = -100, 2
SYS_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}
IN_ALL_EVENTS = 0xFFF
DEFAULT_STARTS = 240
CALL_LIMIT_S = 12.0
libc = ctypes.CDLL(None, use_errno=True)


def wanted_starts():
    if "--starts" in sys.argv:
        at = sys.argv.index("--starts")
        os.environ["VIRTUSERNS_STARTS"] = sys.argv[at + 1]
        del sys.argv[at:at + 2]
    return int(os.environ.get("VIRTUSERNS_STARTS", DEFAULT_STARTS))


def exchange(one, other):
    number = SYS_RENAMEAT2[os.uname().machine]
    return libc.syscall(number, AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


class Swapper:
    """Exchanges pairs of names until it is ended; a process, so that it does not wait for the interpreter's lock."""

    def __init__(self, pairs, seed):
        self.pairs = pairs
        self.pid = os.fork()
        if self.pid == 0:
            libc.prctl(1, signal.SIGKILL, 0, 0, 0)
            rng = random.Random(seed)
            while True:
                for one, other in pairs:
                    exchange(one, other)
                # Now and then long enough for a start to get through, so that both outcomes are seen.
                if rng.random() < 0.02:
                    time.sleep(rng.uniform(0.0, 0.004))

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Watch:
    """Everything that happens in the canary, also what is undone at once. Opening by O_PATH is no event."""

    def __init__(self, canary):
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        check(self.fd >= 0, f"inotify_init1: {os.strerror(ctypes.get_errno())}")
        for path in (canary.path, canary.path / "below"):
            check(libc.inotify_add_watch(self.fd, os.fsencode(path), IN_ALL_EVENTS) > 0, "inotify_add_watch")

    def events(self):
        found = []
        while True:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                return found
            while data:
                _, mask, _, size = struct.unpack_from("iIII", data)
                found.append(f"{mask:#x} {data[16:16 + size].rstrip(bytes(1)).decode(errors='replace')}")
                data = data[16 + size:]

    def close(self):
        os.close(self.fd)


class Race:
    def __init__(self, env):
        self.env = env
        self.canary = Canary(env.folder)
        self.watch = Watch(self.canary)
        self.root = pathlib.Path(env.root_tree())
        self.data = pathlib.Path(env.folder, "data-outside")
        self.data.mkdir(exist_ok=True)
        for name in ("data", "run", "srv"):
            (self.root / name).mkdir()
        (self.root / "etc/passwd").write_text("web:x:33:33::/:/bin/sh\n")

    def pairs(self, place, to):
        """The place and a link beside it."""
        link = self.root / f"{place}.link"
        link.unlink(missing_ok=True)
        link.symlink_to(to)
        return [(str(self.root / place), str(link))]

    def restore(self, pairs):
        for one, other in pairs:
            if os.path.islink(one):
                exchange(one, other)
            os.unlink(other)

    def xml(self, name):
        return (f"<domain type='lxc'><name>{name}</name><memory unit='KiB'>65536</memory><vcpu>1</vcpu>"
                "<os><type>exe</type><init>/sbin/init</init><inituser>web</inituser></os><devices>"
                f"<filesystem type='mount'><source dir='{self.root}'/><target dir='/'/></filesystem>"
                f"<filesystem type='mount'><source dir='{self.data}'/><target dir='/data/below/new'/></filesystem>"
                "<filesystem type='ram'><source usage='64' units='KiB'/><target dir='/srv/below'/></filesystem>"
                "<console type='pty'/></devices></domain>")

    def start(self, connection, name):
        """Whether it started; ends it again."""
        import libvirt
        started = time.monotonic()
        try:
            domain = connection.createXML(self.xml(name))
        except libvirt.libvirtError as error:
            return False, error.get_error_message()
        finally:
            took = time.monotonic() - started
            check(took < CALL_LIMIT_S * harness.daemon_module.TIME_FACTOR, f"a start took {took:.1f} s")
        mounted = mounts_of_everybody(self.canary.path)
        try:
            domain.destroy()
        except libvirt.libvirtError:
            pass  # its init has ended by itself
        check(not mounted, f"mounted outside: {mounted}")
        return True, ""

    def clear_made(self):
        """What a start made in the tree, so that the next one has to make it again."""
        for name in ("data/below", "srv/below"):
            shutil.rmtree(self.root / name, ignore_errors=True)

    def close(self):
        self.watch.close()
        self.canary.close()


def mounts_of_everybody(path):
    found = set()
    for pid in host_state.descendants(os.getpid()):
        try:
            lines = pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        except OSError:
            continue
        found |= {f"{pid}: {line}" for line in lines if str(path) in line.split()[4]}
    return found


def outside(race):
    """What was done to the canary. Looking is an event too, so the watch is read first."""
    events = race.watch.events()
    wrong = race.canary.differences()
    race.watch.events()
    return events + wrong


@test(["userns"])
def a_naive_writer_is_seen(env):
    """The control: a program that checks and then goes by path loses this race, and the watch says so."""
    race = Race(env)
    race.watch.events()
    pairs = race.pairs("data", race.canary.path)
    swapper = Swapper(pairs, 1)
    try:
        deadline = time.monotonic() + 20
        wrong = []
        while not wrong and time.monotonic() < deadline:
            for _ in range(200):
                place = race.root / "data"
                if place.is_dir() and not place.is_symlink():
                    try:
                        (place / "made").mkdir()
                        (place / "made").rmdir()
                    except OSError:
                        pass
            wrong = outside(race)
    finally:
        swapper.end()
        race.restore(pairs)
    check(any("made" in line for line in wrong), f"the watch saw nothing: {wrong}")
    shutil.rmtree(race.canary.path)
    race.close()


@test(["userns"])
def nothing_is_written_outside(env):
    starts = wanted_starts()
    race = Race(env)
    race.watch.events()
    below = race.canary.path / "below"
    places = [("data", race.canary.path), ("data", f"../../../../../../..{race.canary.path}"), ("srv", below),
              ("data", f"/proc/1/root{race.canary.path}"), ("dev", below), ("proc", below), ("sys", below),
              ("etc", below)]
    connection = env.open()
    before = host_state.snapshot(harness.daemon_module.PRIVATE_FOLDERS, env.daemon.cgroup + "/machine/", [env.folder])
    counts = {}
    try:
        for number in range(starts):
            place, to = places[number % len(places)]
            pairs = race.pairs(place, to)
            if place in ("data", "srv") and number % 3 == 0:  # the last part too, which is made when it is missing
                (race.root / place / "below").mkdir(exist_ok=True)
                pairs += race.pairs(f"{place}/below", below)
            swapper = Swapper(pairs, number)
            try:
                is_started, why = race.start(connection, f"race-{os.getpid()}-{number}")
            finally:
                swapper.end()
                # The inner pair first: it hangs below the outer one.
                if os.path.islink(race.root / place):
                    exchange(*pairs[0])
                race.restore(pairs[1:])
                race.restore(pairs[:1])
            race.clear_made()
            counts.setdefault(place, [0, 0])[0 if is_started else 1] += 1
            names_it = any(part in why for part in (place, "web", "passwd"))
            check(is_started or names_it, f"the error names nothing: {why}")
            wrong = outside(race)
            check(not wrong, f"start {number} ({place} -> {to}): {wrong}")
    finally:
        connection.close()
    after = host_state.snapshot(harness.daemon_module.PRIVATE_FOLDERS, env.daemon.cgroup + "/machine/", [env.folder])
    left = host_state.differences(before, after, ignore_files=harness.IGNORED_FILES)
    check(not left, f"left: {left}")
    print("     " + ", ".join(f"/{place}: {yes} started, {no} refused" for place, (yes, no) in sorted(counts.items())))
    check(sum(yes for yes, _ in counts.values()) > 0 and sum(no for _, no in counts.values()) > 0,
          f"only one outcome was seen, nothing raced: {counts}")
    shutil.rmtree(race.canary.path)
    race.close()


@test(["userns"])
def nothing_that_is_attached_comes_outside(env):
    """The same with a domain that runs, and a filesystem that comes and goes."""
    import libvirt
    race = Race(env)
    race.watch.events()
    target = "/data/below/new"
    device = f"<filesystem type='mount'><source dir='{race.data}'/><target dir='{target}'/></filesystem>"
    places = [race.canary.path, f"../../../../../../..{race.canary.path}", f"/proc/1/root{race.canary.path}", "/proc", "/"]
    connection = env.open()
    env.start("race-plug")
    domain = connection.lookupByName("race-plug")
    root = pathlib.Path(harness.matches(domain.XMLDesc(0), r"<source dir='([^']+)'/>\s*<target dir='/'/>").group(1))
    (root / "data").mkdir()
    race.root = root
    counts = [0, 0]
    try:
        for number in range(wanted_starts() // 2):
            pairs = race.pairs("data", places[number % len(places)])
            swapper = Swapper(pairs, number)
            try:
                domain.attachDeviceFlags(device, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                counts[0] += 1
            except libvirt.libvirtError:
                counts[1] += 1
            else:
                check(not mounts_of_everybody(race.canary.path), f"mounted outside: {mounts_of_everybody(race.canary.path)}")
                domain.detachDeviceFlags(device, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            finally:
                swapper.end()
                if os.path.islink(root / "data"):
                    exchange(*pairs[0])
                race.restore(pairs)
            check(target not in domain.XMLDesc(0), "it is still said to be there")
            shutil.rmtree(root / "data/below", ignore_errors=True)
            wrong = outside(race)
            check(not wrong, f"attach {number}: {wrong}")
    finally:
        domain.destroy()
        connection.close()
    print(f"     {counts[0]} attached, {counts[1]} refused")
    check(all(counts), f"only one outcome was seen, nothing raced: {counts}")
    race.close()


if __name__ == "__main__":
    wanted_starts()  # takes its option before the harness reads the others
    harness.TEST_TIMEOUT_S = (60 + wanted_starts()) * harness.daemon_module.TIME_FACTOR
    main()
