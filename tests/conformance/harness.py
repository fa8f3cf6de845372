"""Conformance: unmodified libvirt clients against the daemon, or against libvirt's own test driver.

    python3 tests/conformance/virsh_query.py --driver test       the in-memory module
    python3 tests/conformance/virsh_query.py --driver userns     real containers (root)
    python3 tests/conformance/virsh_query.py --driver reference  libvirtd with libvirt's own test driver: judges the test

A suite is a file of functions marked @test; each gets an Env. One line per test, the counts at the end, exit 0, 1 or 77
(the environment lacks something; the reason is printed). After the last test the host must look as before the first:
see tests/support/host_state.py.
"""
import argparse
import contextlib
import faulthandler
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import daemon as daemon_module  # noqa: E402
import host_state  # noqa: E402
import kernel_lists  # noqa: E402
import owned  # noqa: E402
from daemon import NotPossible  # noqa: E402

ALL_DRIVERS = ("test", "userns", "reference")
OURS = ("test", "userns")
TEST_TIMEOUT_S = 120 * daemon_module.TIME_FACTOR
TESTS = []
FOLDER = pathlib.Path(__file__).resolve().parents[1]


class Skip(Exception):
    pass


class Failure(AssertionError):
    pass


def test(drivers=ALL_DRIVERS):
    """Marks a test. `drivers`: which ones it is true for; libvirt's own test driver lacks or varies some things."""
    def mark(function):
        TESTS.append((function.__name__, function, drivers))
        return function
    return mark


# ---- checks -------------------------------------------------------------------------------------------------------

def check(condition, what="condition does not hold"):
    if not condition:
        raise Failure(what)


def equal(got, wanted, what=""):
    if got != wanted:
        raise Failure(f"{what + ': ' if what else ''}got {got!r}, wanted {wanted!r}")


def contains(text, part):
    if part not in text:
        raise Failure(f"{part!r} is not in {text!r}")


def matches(text, pattern):
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise Failure(f"{pattern!r} does not match {text!r}")
    return found


def eventually(condition, what, timeout_s=10.0):
    """For what happens in another process; never for what a reply already promises. `what`: a text, or a function that says what is so."""
    timeout_s *= daemon_module.TIME_FACTOR
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failure(f"did not happen within {timeout_s:g} s: {what() if callable(what) else what}")
        time.sleep(0.02)
    return value


def is_first_of_its_namespace(pid):
    return bool(re.search(r"^NSpid:.*\t1$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))


def has_handler(pid, number):
    """Of a signal that would be lost before: the kernel drops what the first process of a namespace does not handle."""
    caught = re.search(r"^SigCgt:\s*(\w+)$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught[1], 16) >> (number - 1) & 1)


def state_of(pid):
    """As proc(5) has it; None: there is none."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return None


CHANNEL = 4  # driver/controller/protocol.h
# A script for inside: a dump of so many takes a moment.
MANY_PROCESSES = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do for j in 1 2 3 4 5 6 7 8 9 10; do sleep 98765 & done; done"


def is_at_its_dump(pid):
    """It has copied the descriptor that it writes to: what comes before, to end with the daemon as well, is done."""
    links = {number: os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
    return any(int(number) > CHANNEL and link == links.get(str(CHANNEL)) for number, link in links.items())


@contextlib.contextmanager
def libvirt_error(code, part=""):
    """The block must raise a libvirt error of this code whose message has `part` in it."""
    import libvirt
    try:
        yield
    except libvirt.libvirtError as error:
        equal(error.get_error_code(), code, f"error code of {error.get_error_message()!r}")
        contains(error.get_error_message(), part)
        return
    raise Failure(f"no error, wanted code {code}")


# ---- what a test works with -----------------------------------------------------------------------------------------

class Virsh:
    """The outcome of one virsh run."""

    def __init__(self, argv, result):
        self.argv, self.code = argv, result.returncode
        self.out, self.err = result.stdout, result.stderr

    def ok(self):
        if self.code != 0:
            raise Failure(f"{' '.join(self.argv)}: exit {self.code}: {self.err.strip()}")
        return self

    def fails(self, *parts, code=1):
        equal(self.code, code, f"exit code of {' '.join(self.argv)} ({self.out.strip()} {self.err.strip()})")
        for part in parts:
            contains(self.err, part)
        return self

    def table(self):
        """Rows of a virsh table without its head, split at blanks."""
        lines = self.out.splitlines()
        rule = next((i for i, line in enumerate(lines) if line.startswith("---")), None)
        if rule is None:
            raise Failure(f"no table in {self.out!r}")
        return [line.split() for line in lines[rule + 1:] if line.strip()]

    def fields(self, separator=":"):
        """'Name:  value' lines as a dictionary."""
        pairs = (line.split(separator, 1) for line in self.out.splitlines() if separator in line)
        return {name.strip(): value.strip() for name, value in pairs}


class Env:
    def __init__(self, daemon, folder):
        self.daemon, self.folder = daemon, folder
        self.driver, self.uri = daemon.driver, daemon.uri
        self.is_reference = daemon.is_reference
        self._roots = 0

    # -- clients --
    def virsh(self, *words, read_only=False, stdin=None, timeout_s=60):
        argv = ["virsh", "-c", self.uri] + (["-r"] if read_only else []) + [str(word) for word in words]
        timeout_s *= daemon_module.TIME_FACTOR
        result = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout_s,
                                env={**os.environ, "LC_ALL": "C", "TERM": "dumb"})
        return Virsh(argv, result)

    def open(self, read_only=False):
        import libvirt
        return libvirt.openReadOnly(self.uri) if read_only else libvirt.open(self.uri)

    # -- domains --
    def domain_xml(self, name, memory_kib=262144, vcpus=1, devices="", extra="", uuid=None, top="", init=None):
        uuid_xml = f"<uuid>{uuid}</uuid>" if uuid else ""
        memory = f"<memory unit='KiB'>{memory_kib}</memory><vcpu>{vcpus}</vcpu>"
        if self.is_reference:
            return (f"<domain type='test'><name>{name}</name>{uuid_xml}{top}{memory}"
                    f"<os><type arch='i686'>hvm</type></os>{extra}<devices>{devices}</devices></domain>")
        root = self.root_tree() if self.driver == "userns" else "/"
        return (f"<domain type='lxc'><name>{name}</name>{uuid_xml}{top}{memory}"
                f"<os><type>exe</type><init>{init or '/sbin/init'}</init></os>{extra}<devices>"
                f"<filesystem type='mount'><source dir='{root}'/><target dir='/'/></filesystem>"
                f"{devices}<console type='pty'/></devices></domain>")

    def write_xml(self, xml):
        path = tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".xml", delete=False)
        with path:
            path.write(xml)
        return path.name

    def define(self, name, **how):
        self.virsh("define", self.write_xml(self.domain_xml(name, **how))).ok()
        return name

    def start(self, name, **how):
        self.define(name, **how)
        self.virsh("start", name).ok()
        return name

    def until_it_listens(self, name):
        """Init is a shell, which takes a moment until its traps are set."""
        if self.driver != "userns":
            return
        controller = int(self.virsh("domid", name).ok().out)

        def does_it():
            for child in pathlib.Path(f"/proc/{controller}/task/{controller}/children").read_text().split():
                with contextlib.suppress(OSError):
                    if is_first_of_its_namespace(child) and has_handler(child, signal.SIGTERM):
                        return True
            return False
        eventually(does_it, f"init of {name} handles SIGTERM")

    def stop_dumper(self, client=None):
        """The program that makes a dump, as soon as it is there and before it has ended, so that the dump lasts, as of a domain that
        holds up whoever looks at it. None: `client` has got its dump before that."""
        deadline = time.monotonic() + 10 * daemon_module.TIME_FACTOR
        while time.monotonic() < deadline:
            for children in pathlib.Path(f"/proc/{self.daemon.process.pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    for pid in children.read_text().split():
                        if b"\0--dump\0" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() and is_at_its_dump(pid):
                            os.kill(int(pid), signal.SIGSTOP)
                            eventually(lambda: state_of(pid) in ("T", "Z", None), "it stops")
                            if state_of(pid) == "T":
                                return int(pid)
            if client and client.poll() is not None:
                equal(client.returncode, 0, f"a dump: {client.communicate()}")
                return None
        raise Failure("no program makes a dump")

    def root_tree(self):
        """A busybox root filesystem whose init greets on the console, echoes, and knows the usual signals."""
        self._roots += 1
        root = pathlib.Path(self.folder, f"root{self._roots}")
        for part in ("bin", "sbin", "proc", "sys", "dev", "tmp", "etc"):
            (root / part).mkdir(parents=True)
        busybox = shutil.which("busybox")
        if not busybox:
            raise Skip("busybox (static) is not installed")
        shutil.copy(busybox, root / "bin/busybox")
        for name in ("sh", "cat", "sleep", "hostname", "reboot", "poweroff", "ls", "id"):
            (root / "bin" / name).symlink_to("busybox")
        init = root / "sbin/init"
        init.write_text("#!/bin/sh\ntrap 'exit 0' TERM INT PWR USR2\ntrap 'reboot -f' HUP\n"
                        "echo \"Connected to $(hostname)\"\ncat <&0 &\nwhile :; do sleep 1000 & wait $!; done\n")
        init.chmod(0o755)
        root.chmod(0o755)
        return str(root)

    def state(self, name):
        """('running', 'booted')"""
        found = matches(self.virsh("domstate", name, "--reason").ok().out, r"^([a-z ]+) \(([a-z ]+)\)$")
        return found.group(1), found.group(2)

    def uuid(self, name):
        return self.virsh("domuuid", name).ok().out.strip()

    def cleanup(self):
        """Ends and undefines whatever a test left, so that tests do not depend on one another."""
        import libvirt
        connection = self.open()
        try:
            for domain in connection.listAllDomains():
                with contextlib.suppress(libvirt.libvirtError):
                    if domain.isActive():
                        domain.destroy()
                with contextlib.suppress(libvirt.libvirtError):
                    domain.undefine()
            left = [domain.name() for domain in connection.listAllDomains()]
        finally:
            connection.close()
        if left:
            raise Failure(f"domains that cannot be removed: {left}")


# ---- running ------------------------------------------------------------------------------------------------------

def _require_clients():
    try:
        import libvirt
    except ImportError:
        raise NotPossible("python3-libvirt is not installed (or this is not /usr/bin/python3)")
    # Errors are checked where they matter, not printed where they happen.
    libvirt.registerErrorHandler(lambda *_: None, None)
    if not shutil.which("virsh"):
        raise NotPossible("virsh is not installed")


def _run_one(name, function, env):
    # A call into libvirt that does not return cannot be interrupted: say where it is, and end (the daemon ends too).
    faulthandler.dump_traceback_later(TEST_TIMEOUT_S, exit=True)
    try:
        function(env)
    except Skip as skip:
        return "skip", str(skip)
    except subprocess.TimeoutExpired as timeout:
        return "FAIL", f"timeout: {timeout}"
    except Exception as failure:  # noqa: BLE001 - a test may raise anything; the runner must go on
        where = traceback.extract_tb(failure.__traceback__)
        lines = [f"{pathlib.Path(frame.filename).name}:{frame.lineno}" for frame in where
                 if pathlib.Path(frame.filename).resolve().is_relative_to(FOLDER) and "harness" not in frame.filename]
        return "FAIL", f"[{' '.join(lines)}] {type(failure).__name__}: {failure}"
    finally:
        faulthandler.cancel_dump_traceback_later()
    return "ok", ""


def _run_all(env, selected, suite, verbose):
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    for name, function, drivers in selected:
        if env.driver not in drivers:
            verdict, reason = "skip", f"not for driver {env.driver}"
        else:
            if not env.daemon.is_running():
                env.daemon.start()
                env.served = _first_service(env)
            verdict, reason = _run_one(name, function, env)
            try:
                if env.daemon.is_running():
                    env.cleanup()
            except Exception as failure:  # noqa: BLE001
                verdict, reason = "FAIL", f"{reason} cleanup: {failure}".strip()
            if not env.daemon.is_running() and getattr(env, "expects_death", False) is False:
                verdict, reason = "FAIL", f"{reason} the daemon ended: {env.daemon.log_text()}".strip()
        env.expects_death = False
        counts[verdict] += 1
        print(f"{verdict:4} {suite}.{name}" + (f": {reason}" if reason else ""), flush=True)
        if verdict == "FAIL" and verbose:
            print(env.daemon.log_text())
    return counts


def _parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--driver", choices=ALL_DRIVERS, default="test")
    parser.add_argument("--build", default=os.environ.get("VIRTUSERNS_BUILD", "build"))
    parser.add_argument("-k", dest="pattern", default="", help="only tests whose name matches this expression")
    parser.add_argument("-v", dest="verbose", action="store_true", help="show the daemon's log after a failure")
    parser.add_argument("--repeat", type=int, default=1)
    return parser.parse_args()


def _end_in_order(number, _):
    """Whoever waits for a suite too long says so by a signal first: it has the time to leave nothing."""
    raise SystemExit(128 + number)


def _end_everything(daemon):
    """Of a run that is cut short. Containers outlive their daemon: they go by their groups."""
    if daemon.is_running():
        daemon.kill()
    daemon.log.close()
    owned.collect([path for path in owned.traces() if path.name == daemon.cgroup])


def _session(arguments, suite):
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_in_order)
    host_state.become_subreaper()
    if removed := owned.collect_dead():
        print(f"note: removed what runs that were killed had left: {' '.join(sorted(set(map(os.path.basename, removed))))}")
    kernel_lists.own_session_keyring()
    daemon_module.enter_private_namespaces()
    _require_clients()
    selected = [entry for entry in TESTS if re.search(arguments.pattern, entry[0])] * arguments.repeat
    daemon = daemon_module.Daemon(arguments.driver, os.path.abspath(arguments.build))
    daemon.argv()  # before anything else: is there something to run?
    with tempfile.TemporaryDirectory(prefix=owned.name("conformance") + "-") as folder:
        os.chmod(folder, 0o755)  # containers must be able to reach their roots
        daemon.configure()
        look = lambda: host_state.snapshot(daemon_module.PRIVATE_FOLDERS, daemon.cgroup + "/machine/", [folder])  # noqa: E731
        before = look()
        env = Env(daemon, folder)
        try:
            counts = _run_all(env, selected, suite, arguments.verbose)
        except BaseException:
            print(daemon.log_text())
            _end_everything(daemon)
            raise
        left = _leaks_of_daemon(env)
        code = daemon.stop() if daemon.is_running() else 0
        left += [] if daemon.is_reference else host_state.lasting_differences(before, look, ignore_files=IGNORED_FILES)
    daemon.remove_cgroups()
    if code != 0 and not daemon.is_reference:
        left.append(f"daemon's exit code at SIGTERM: {code}\n{daemon.log_text()}")
    return report(suite, f" ({arguments.driver})", counts, left)


def report(suite, of_what, counts, left):
    """The last lines of a suite: what was left, and the counts. Its exit code."""
    for line in left:
        print(f"FAIL {suite}.host_is_as_before: {line}")
    counts["FAIL"] += 1 if left else 0
    print(f"{suite}{of_what}: {counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    return 1 if counts["FAIL"] else 0


def _first_service(env):
    """What the daemon holds when it has served one client and nothing else."""
    if env.is_reference:
        return None
    with contextlib.suppress(Exception):  # what is wrong with it is for the tests to say
        env.open().close()
    return host_state.Service.of(env.daemon.process.pid)


def _leaks_of_daemon(env):
    """Of the one that runs still: tests may have ended others."""
    served = getattr(env, "served", None)
    if not served or not env.daemon.is_running() or env.daemon.process.pid != served.pid:
        return []
    return [f"daemon: {line}" for line in host_state.service_leaks(served)]


# What a daemon that ended well may leave: its (empty) folders, its logs, and its own files in the run directory. (The
# sockets stay on purpose: libvirt's client then says "connection refused" of our path, where a missing socket makes
# it ask for libvirtd.) Definitions, leases and status of domains that are gone are leftovers.
IGNORED_FILES = (r"^/var/log/libvirt(/|$)|^/(run|etc|var/lib)/libvirt/(userns|test)(/[a-z-]+)?$|\.lock$"
                 r"|^/run/libvirt/virtusernsd(-sock|-sock-ro|\.pid)$")


def main():
    suite = pathlib.Path(sys.argv[0]).stem
    try:
        code = _session(_parse_arguments(), suite)
    except NotPossible as reason:
        print(f"skipped: {reason}")
        code = 77
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    # Without the interpreter's own end: libvirt's event loop thread may still be inside a call.
    os._exit(code)
