"""virsh event: everything that happens, in the order in which it happened, told to every watcher."""
import contextlib
import os
import re
import subprocess
import tempfile
import threading
import time

from harness import OURS, check, equal, eventually, main, test


class Watcher:
    """`virsh event --all --loop` in the background."""

    def __init__(self, env, read_only=False, only=()):
        self.env = env
        argv = ["virsh", "-c", env.uri] + (["-r"] if read_only else [])
        argv += ["event", "--loop"] + (list(only) or ["--all"])
        self.process = subprocess.Popen(["stdbuf", "-oL"] + argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, env={**os.environ, "LC_ALL": "C"})
        self.lines, self.lock = [], threading.Lock()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.process.stdout:
            if found := re.match(r"event '([\w-]+)' for domain '([^']*)'(?:: )?(.*)$", line.strip()):
                with self.lock:
                    self.lines.append(" ".join(part for part in found.groups() if part))

    def seen(self):
        with self.lock:
            return list(self.lines)

    def wait_until_it_watches(self):
        """virsh does not say when it is registered: something has to happen until it is told."""
        deadline = time.monotonic() + 15
        while not self.seen():
            check(time.monotonic() < deadline and self.process.poll() is None, "virsh event hears nothing")
            self.env.define("probe")
            self.env.virsh("undefine", "probe").ok()
            time.sleep(0.05)
        self.env.define("last-probe")
        eventually(lambda: "lifecycle last-probe Defined Added" in self.seen(), "the probe's event")
        self.env.virsh("undefine", "last-probe").ok()
        eventually(lambda: "lifecycle last-probe Undefined Removed" in self.seen(), "the probe's event")
        with self.lock:
            self.lines.clear()

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.thread.join()
        return self.seen()


@contextlib.contextmanager
def watching(env, **how):
    watcher = Watcher(env, **how)
    try:
        watcher.wait_until_it_watches()
        yield watcher
    finally:
        watcher.stop()


def live_a_life(env):
    """Does one of everything; returns the events that must be told, in order."""
    env.define("web")
    for command in ("start", "suspend", "resume", "destroy", "start", "shutdown"):
        if command == "shutdown":
            env.until_it_listens("web")
        env.virsh(command, "web").ok()
        if command == "shutdown":
            eventually(lambda: env.state("web")[0] == "shut off", "shut off")
    env.virsh("domrename", "web", "shop").ok()
    env.virsh("undefine", "shop").ok()
    wanted = ["web Defined Added", "web Started Booted", "web Suspended Paused", "web Resumed Unpaused",
              "web Stopped Destroyed", "web Started Booted", "web Stopped Shutdown", "web Undefined Renamed",
              "shop Defined Renamed", "shop Undefined Removed"]
    return ["lifecycle " + line for line in wanted]


@test()
def every_lifecycle_event_in_order(env):
    with watching(env) as watcher:
        wanted = live_a_life(env)
        eventually(lambda: len(watcher.seen()) >= len(wanted), f"{len(wanted)} events, seen {watcher.seen()}")
        equal(watcher.seen(), wanted)


@test()
def a_read_only_client_hears_the_same(env):
    with watching(env) as first, watching(env, read_only=True) as second:
        first.lines.clear()
        wanted = live_a_life(env)
        for watcher in (first, second):
            eventually(lambda: len(watcher.seen()) >= len(wanted), f"{len(wanted)} events, seen {watcher.seen()}")
            equal(watcher.seen(), wanted)


@test()
def redefinition_is_an_update(env):
    with watching(env) as watcher:
        uuid = "3f0e8a7c-5c57-4b87-9d9c-0f4fd5a1c0de"
        env.define("web", uuid=uuid)
        env.define("web", uuid=uuid)
        eventually(lambda: len(watcher.seen()) >= 2, "two events")
        equal(watcher.seen(), ["lifecycle web Defined Added", "lifecycle web Defined Updated"])


@test()
def transient_domains_start_and_stop(env):
    with watching(env) as watcher:
        env.virsh("create", env.write_xml(env.domain_xml("job"))).ok()
        env.virsh("destroy", "job").ok()
        eventually(lambda: len(watcher.seen()) >= 2, "two events")
        equal(watcher.seen(), ["lifecycle job Started Booted", "lifecycle job Stopped Destroyed"])


@test(OURS)
def reboot_has_its_own_event(env):
    env.start("web")
    env.until_it_listens("web")
    with watching(env) as watcher:
        env.virsh("reboot", "web").ok()
        eventually(lambda: "reboot web" in watcher.seen(), f"a reboot event, seen {watcher.seen()}")
        equal([line for line in watcher.seen() if line.startswith("lifecycle")], [])


@test(OURS)
def metadata_change(env):
    env.define("web")
    with watching(env) as watcher:
        env.virsh("desc", "web", "--title", "Shop").ok()
        env.virsh("metadata", "web", "--uri", "urn:x", "--key", "x", "--set", "<a/>").ok()
        eventually(lambda: len(watcher.seen()) >= 2, "two events")
        equal(watcher.seen(), ["metadata-change web type title, uri <null>", "metadata-change web type element, uri urn:x"])


@test(OURS)
def devices_added_and_removed(env):
    env.start("web")
    nic = env.write_xml("<interface type='ethernet'><mac address='52:54:00:00:00:01'/></interface>")
    ram = env.write_xml("<filesystem type='ram'><source usage='1024'/><target dir='/plugged'/></filesystem>")
    with watching(env) as watcher:
        for device in (nic, ram):
            env.virsh("attach-device", "web", device, "--live").ok()
            env.virsh("attach-device", "web", device, "--live").fails()
        for device in (ram, nic):
            env.virsh("detach-device", "web", device, "--live").ok()
        env.virsh("attach-device", "web", nic, "--config").ok()
        eventually(lambda: len(watcher.seen()) >= 4, "four events")
        equal(watcher.seen(), ["device-added web net0", "device-added web fs1", "device-removed web fs1", "device-removed web net0"])


@test()
def one_domain_only(env):
    """--domain filters on the server's side."""
    env.define("web")
    env.define("other")
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(["virsh", "-c", env.uri, "event", "--domain", "web", "--event", "lifecycle",
                                    "--timeout", "15"], stdout=out, stderr=subprocess.STDOUT)
        while process.poll() is None:
            env.virsh("start", "other").ok()
            env.virsh("destroy", "other").ok()
            env.virsh("start", "web").ok()
            env.virsh("destroy", "web").ok()
        out.seek(0)
        text = out.read()
    check("for domain 'web'" in text, text)
    check("other" not in text, text)


main()
