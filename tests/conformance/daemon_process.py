"""The daemon as a process: socket activation, readiness, background, idle time-out, signals, exit codes."""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time

from harness import OURS, check, contains, equal, eventually, main, test

RUN = pathlib.Path("/run/libvirt")


def _without(arguments, options):
    """The pairs of `arguments` whose name is not among the options as well."""
    pairs = zip(arguments[::2], arguments[1::2])
    return [word for pair in pairs if pair[0] not in options for word in pair]


class Process:
    """A second daemon beside the suite's own: its directory is another, so the two do not meet."""

    def __init__(self, env, *options, wrap=(), environment=None, files=()):
        self.folder = pathlib.Path(env.folder, f"process-{time.monotonic_ns()}")
        self.folder.mkdir()
        self.log = self.folder / "output"
        config = self.folder / "conf"
        config.write_text(f'cgroup_parent = "{env.daemon.cgroup}"\n')
        defaults = ["--config", str(config)]
        for name in ("run", "driver-run", "log", "definitions", "state"):
            defaults += [f"--{name}-dir", str(self.folder / name)]
        program, *usual = env.daemon.argv()
        self.argv = [*wrap, program, *_without(usual + defaults, options), *options]
        self.socket = self.folder / "run" / "virtusernsd-sock"
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=self.log.open("a"),
                                        stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})},
                                        pass_fds=files)

    def uri(self):
        return f"userns+unix:///system?socket={self.socket}"

    def virsh(self, *words):
        return subprocess.run(["virsh", "-c", self.uri(), *words], capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL)

    def serves(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            return True
        return False

    def wait(self, timeout_s=15):
        return self.process.wait(timeout_s)

    def text(self):
        return self.log.read_text(errors="replace")


@contextlib.contextmanager
def running(env, *options, **how):
    daemon = Process(env, *options, **how)
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.process.send_signal(signal.SIGTERM)
            equal(daemon.wait(), 0, f"exit code after SIGTERM:\n{daemon.text()}")


def listening(path):
    listener = socket.socket(socket.AF_UNIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    listener.bind(str(path))
    listener.listen(8)
    return listener


@test(OURS)
def serves_the_sockets_that_were_passed(env):
    """sd_listen_fds(3): descriptors from 3 on, and the pid must be the daemon's own."""
    base = pathlib.Path(env.folder, "activation")
    with listening(base / "virtusernsd-sock") as full, listening(base / "virtusernsd-sock-ro") as read_only:
        script = f'exec 3<&{full.fileno()} 4<&{read_only.fileno()}; LISTEN_PID=$$ LISTEN_FDS=2 exec "$@"'
        # 10 and 11 could be what dup made of 3 and 4: nothing above them may stay open by chance.
        with running(env, wrap=("bash", "-c", script, "bash"), files=(full.fileno(), read_only.fileno())) as daemon:
            daemon.socket = base / "virtusernsd-sock"
            equal(daemon.virsh("list", "--all", "--name").returncode, 0, daemon.text())
            daemon.socket = base / "virtusernsd-sock-ro"
            refused = daemon.virsh("define", env.write_xml(env.domain_xml("refused")))
            equal(refused.returncode, 1)
            contains(refused.stderr, "read only")
            check(not (daemon.folder / "run" / "virtusernsd-sock").exists(), "made a socket of its own as well")
    check((base / "virtusernsd-sock").exists(), "removed a socket that is not its own")


@test(OURS)
def refuses_what_is_no_listening_socket(env):
    reading, writing = os.pipe()
    try:
        script = f'exec 3<&{reading}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        daemon = Process(env, wrap=("bash", "-c", script, "bash"), files=(reading,))
        equal(daemon.wait(), 1)
        contains(daemon.text(), "not a listening unix socket")
    finally:
        os.close(reading), os.close(writing)


@test(OURS)
def tells_the_service_manager(env):
    """sd_notify(3): READY=1 once it serves, RELOADING=1 and READY=1 around SIGHUP, STOPPING=1 at the end."""
    path = pathlib.Path(env.folder, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(15)
        said = lambda: manager.recv(4096).decode().splitlines()  # noqa: E731
        with running(env, environment={"NOTIFY_SOCKET": str(path)}) as daemon:
            contains(said(), "READY=1")
            check(daemon.serves(), "said that it is ready and does not serve")
            daemon.process.send_signal(signal.SIGHUP)
            reloading = said()
            contains(reloading, "RELOADING=1")
            check(any(line.startswith("MONOTONIC_USEC=") for line in reloading), "Type=notify-reload needs the time")
            contains(said(), "READY=1")
            daemon.process.send_signal(signal.SIGTERM)
            contains(said(), "STOPPING=1")
            equal(daemon.wait(), 0)


@test(OURS)
def goes_into_the_background_when_it_serves(env):
    pid_file = pathlib.Path(env.folder, "background.pid")
    daemon = Process(env, "--daemon", "--pid-file", str(pid_file))
    equal(daemon.wait(), 0, "exit code of the foreground")
    pid = int(pid_file.read_text())
    try:
        check(daemon.serves(), "left the foreground before it served")
        equal(os.getsid(pid), pid, "session")
        equal(os.readlink(f"/proc/{pid}/cwd"), "/", "working directory")
        for fd in range(3):
            equal(os.readlink(f"/proc/{pid}/fd/{fd}"), "/dev/null", f"descriptor {fd}")
        second = Process(env, "--pid-file", str(pid_file))
        equal(second.wait(), 1, "exit code of a second one with the same pid file")
        contains(second.text(), str(pid_file))
        equal(int(pid_file.read_text()), pid, "the first one's pid file")
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not daemon.serves(), "the daemon ends")
        eventually(lambda: not pathlib.Path(f"/proc/{pid}").exists() or
                   pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z", "the process is gone")


# conf/privileges.h
OF_STEM = {"chown": 0, "dac_override": 1, "fowner": 3, "kill": 5, "setgid": 6, "setuid": 7, "setpcap": 8, "net_admin": 12,
           "sys_chroot": 18, "sys_ptrace": 19, "sys_admin": 21, "sys_nice": 23, "mknod": 27}
OF_CONTROLLER = {"fsetid": 4, "setfcap": 31}
OF_WORKERS = {"dac_read_search": 2}


def capabilities(numbers):
    return sum(1 << number for number in numbers)


def of_threads(pid):
    """name -> the sets of each thread of that name"""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        lines = [line.split(":\t") for line in (task / "status").read_text().splitlines() if ":\t" in line]
        sets = {name: int(value, 16) for name, value in lines if name.startswith("Cap")}
        found.setdefault((task / "comm").read_text().strip(), []).append(sets)
    return found


@test(("userns",))
def holds_the_privileges_that_it_uses(env):
    threads = of_threads(env.daemon.process.pid)
    all_of_it = capabilities((OF_STEM | OF_CONTROLLER | OF_WORKERS).values())
    for name, sets in threads.items():
        for each in sets:
            equal((each["CapBnd"], each["CapInh"], each["CapAmb"]), (all_of_it, 0, 0), name)
            is_worker = name == "rpc-worker"
            equal(each["CapEff"], 0 if is_worker else all_of_it, name)
            equal(each["CapPrm"], capabilities(OF_WORKERS.values()) if is_worker else all_of_it, name)
    check(len(threads.get("rpc-worker", [])) >= 5, f"threads that decode what clients say: {list(threads)}")


@test(("userns",))
def the_privilege_of_workers_is_raised_where_it_is_needed(env):
    """A root file system in a folder that only its owner may enter."""
    import xml.etree.ElementTree as tree
    folder = pathlib.Path(env.folder, "of-somebody")
    folder.mkdir()
    definition = tree.fromstring(env.domain_xml("hidden"))
    source = definition.find("devices/filesystem/source")
    os.rename(source.get("dir"), folder / "root")
    source.set("dir", str(folder / "root"))
    os.chown(folder, 12345, 12345)
    folder.chmod(0o700)
    env.virsh("define", env.write_xml(tree.tostring(definition, encoding="unicode"))).ok()
    env.virsh("start", "hidden").ok()
    equal(env.state("hidden"), ("running", "booted"))
    env.virsh("destroy", "hidden").ok()


@test(OURS)
def a_failed_start_in_the_background_is_told(env):
    daemon = Process(env, "--daemon", "--module-dir", "/nowhere")
    equal(daemon.wait(), 1)
    contains(daemon.text(), "/nowhere")


@test(OURS)
def leaves_when_nobody_needs_it(env):
    with running(env, "--timeout", "1") as daemon:
        eventually(daemon.serves, "the daemon serves")
        import libvirt
        connection = libvirt.open(daemon.uri())
        time.sleep(2.5)
        equal(daemon.process.poll(), None, "left while a client was connected")
        domain = connection.createXML(env.domain_xml("needed"), 0)
        connection.close()
        time.sleep(2.5)
        equal(daemon.process.poll(), None, "left while a domain was running")
        connection = libvirt.open(daemon.uri())
        connection.lookupByName("needed").destroy()
        connection.close()
        del domain
        equal(daemon.wait(), 0)


@test(OURS)
def bad_options_are_usage_errors(env):
    for options, part in ((["--no-such-option"], "--no-such-option"), (["--timeout", "soon"], "--timeout"),
                          (["--config", "/nowhere/virtusernsd.conf"], "/nowhere/virtusernsd.conf")):
        daemon = Process(env, *options)
        equal(daemon.wait(), 2, f"exit code of {options}")
        contains(daemon.text(), part)
    daemon = Process(env, "--version")
    equal(daemon.wait(), 0)
    check(daemon.text().startswith("virtusernsd "), daemon.text())


@test(OURS)
def a_bad_configuration_is_named(env):
    daemon = Process(env)
    daemon.process.kill()
    daemon.wait()
    bad = daemon.folder / "bad.conf"
    bad.write_text("max_clients = 'many'\n")
    again = Process(env, "--config", str(bad))
    equal(again.wait(), 1)
    contains(again.text(), "max_clients")


if __name__ == "__main__":
    main()
