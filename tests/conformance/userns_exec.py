"""virt-userns-exec: a command in a running domain, with its ids, groups, terminal and end."""
import contextlib
import fcntl
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

from harness import check, contains, daemon_module, equal, eventually, main, matches, test

USERNS = ("userns",)
SECRET = "exec-secret-of-the-caller"


def tool(env):
    return os.path.join(env.daemon.build, "driver", "exec", "virt-userns-exec")


def environment():
    return {**os.environ, "LC_ALL": "C", "TERM": "xterm", "CALLERS_SECRET": SECRET}


def start(env, *words, **how):
    how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    return subprocess.Popen([tool(env), "-c", env.uri, *words], env=environment(), **how)


def run(env, *words, stdin=b"", code=0, timeout_s=30):
    process = start(env, *words)
    out, err = process.communicate(stdin, timeout=timeout_s * daemon_module.TIME_FACTOR)
    equal(process.returncode, code, f"exit status of {' '.join(words)} ({out!r} {err!r})")
    return out.decode(), err.decode()


def sh(env, script, *options, **how):
    return run(env, "web", *options, "--", "sh", "-c", script, **how)[0]


def web(env):
    """A domain with users of its own and more programs."""
    tree = env.root_tree
    def with_users():
        root = pathlib.Path(tree())
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/home/web:/bin/sh\n33:x:0:0::/:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\nweb:x:34:\nextra:x:77:web\n")
        (root / "root").mkdir()
        (root / "etc/secret").mkdir(mode=0o700)
        (root / "etc/plain").write_text("no program\n")
        (root / "out").mkdir()
        (root / "out").chmod(0o777)
        for name in ("tty", "stty", "env", "readlink", "grep", "stat", "head", "wc", "kill", "cut", "ps", "touch", "true", "sort"):
            (root / "bin" / name).symlink_to("busybox")
        env.web_root = root
        return str(root)
    env.root_tree = with_users
    try:
        env.start("web")
    finally:
        env.root_tree = tree


def file_of(env, name):
    path = env.web_root / name
    return eventually(lambda: path.exists() and path.read_text().strip(), f"{name} is written")


def host_pid(env, marker):
    """The host's number of the one process whose command line holds `marker`."""
    def find():
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "cmdline").read_bytes().endswith(marker.encode() + b"\0") and \
                        b"virt-userns-exec" not in (entry / "cmdline").read_bytes():
                    return int(entry.name)
        return None
    return eventually(find, f"a process {marker}")


def is_alive(pid):
    with contextlib.suppress(OSError):
        return " Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text()
    return False


# ---- what a user sees -------------------------------------------------------------------------------------------------

@test(USERNS)
def output_and_exit_status(env):
    web(env)
    out, err = run(env, "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    equal((out, err), ("out\n", "err\n"))
    equal(run(env, "web", "id", "-u")[0], "0\n")  # also without --
    run(env, "web", "--", "sh", "-c", "kill -9 $$", code=137)
    run(env, "web", "--", "sh", "-c", "kill -TERM $$", code=143)


@test(USERNS)
def input_reaches_it_whole(env):
    web(env)
    data = os.urandom(3_000_000)
    process = start(env, "web", "--", "cat")
    out, _ = process.communicate(data, timeout=60 * daemon_module.TIME_FACTOR)
    equal(process.returncode, 0)
    check(out == data, f"{len(out)} bytes came back of {len(data)}")
    equal(sh(env, "head -c 5", stdin=b"x" * 1_000_000), "xxxxx")


@test(USERNS)
def output_waits_for_who_reads_it(env):
    """More than the pipes hold, so that the command has ended while bytes of it are still on their way."""
    web(env)
    process = start(env, "web", "--", "sh", "-c", "head -c 150000 /dev/zero")
    time.sleep(1)
    out, _ = process.communicate(timeout=60 * daemon_module.TIME_FACTOR)
    equal((process.returncode, len(out)), (0, 150_000))


@test(USERNS)
def cannot_run_and_not_found(env):
    web(env)
    contains(run(env, "web", "--", "no-such-program", code=127)[1], "No such file or directory")
    contains(run(env, "web", "--", "/etc/plain", code=126)[1], "Permission denied")
    contains(run(env, "web", "--cwd", "/nowhere", "--", "true", code=125)[1], "/nowhere")


@test(USERNS)
def own_errors(env):
    env.define("off")
    contains(run(env, "off", "--", "true", code=125)[1], "Requested operation is not valid: domain is not running")
    contains(run(env, "nobody", "--", "true", code=125)[1], "Domain not found")
    contains(run(env, "off", code=125)[1], "no command")
    contains(run(env, "off", "--env", "x", "--", "true", code=125)[1], "NAME=VALUE")
    contains(run(env, "off", "--cwd", "x", "--", "true", code=125)[1], "absolute")
    result = subprocess.run([tool(env), "-c", "userns:///system?socket=/nowhere", "web", "true"], capture_output=True)
    equal(result.returncode, 125)


@test(USERNS)
def users_and_groups(env):
    web(env)
    equal(sh(env, "id -u; id -g; id -G; echo $HOME"), "0\n0\n0\n/root\n")
    equal(sh(env, "id -u; id -g; id -G; echo $HOME", "--user", "web"), "33\n34\n34 77\n/home/web\n")
    equal(sh(env, "id -u; id -g; id -G", "--user", "+1000:+50"), "1000\n50\n50\n")
    equal(sh(env, "id -u; id -g", "--user", "web:extra"), "33\n77\n")
    # A name of digits is a name and no id.
    equal(sh(env, "id -u", "--user", "33"), "0\n")
    contains(run(env, "web", "--user", "34", "--", "true", code=125)[1], "no user '34'")
    # The directory is entered as the user.
    contains(run(env, "web", "--user", "web", "--cwd", "/etc/secret", "--", "true", code=125)[1], "Permission denied")
    equal(sh(env, "grep CapEff /proc/self/status | cut -f2", "--user", "web"), "0000000000000000\n")


@test(USERNS)
def environment_is_clean(env):
    web(env)
    uuid = env.uuid("web")
    equal(sorted(run(env, "web", "--env", "A=b=c", "--", "env")[0].split()),
          sorted(["A=b=c", "HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                  "container=lxc-libvirt", f"container_uuid={uuid}"]))
    equal(sh(env, "pwd", "--cwd", "/etc"), "/etc\n")


@test(USERNS)
def signals_are_forwarded(env):
    web(env)
    for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH"):
        process = start(env, "web", "--", "sh", "-c", f"trap 'echo got {name}; exit 3' {name}; echo ready; while :; do sleep 1; done")
        equal(process.stdout.readline(), b"ready\n")
        process.send_signal(getattr(signal, f"SIG{name}"))
        out, _ = process.communicate(timeout=20 * daemon_module.TIME_FACTOR)
        equal((process.returncode, out), (3, f"got {name}\n".encode()))


# ---- where it runs ------------------------------------------------------------------------------------------------------

@test(USERNS)
def same_confinement_as_init(env):
    web(env)
    script = ("for n in user mnt net uts ipc cgroup pid; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo other $n; done; "
              "for f in CapBnd CapInh CapAmb CapPrm Seccomp NoNewPrivs; do "
              "[ \"$(grep ^$f: /proc/self/status)\" = \"$(grep ^$f: /proc/1/status)\" ] || echo differs $f; done; "
              "[ \"$(cat /proc/self/limits)\" = \"$(cat /proc/1/limits)\" ] || echo limits; "
              "[ \"$(cat /proc/self/oom_score_adj)\" = \"$(cat /proc/1/oom_score_adj)\" ] || echo oom; "
              "[ \"$(cut -d: -f2- /proc/self/cgroup)\" = \"$(cut -d: -f2- /proc/1/cgroup)\" ] || cat /proc/self/cgroup; "
              "grep ^Groups /proc/self/status; cat /proc/self/sessionid > /dev/null; grep ^PPid /proc/self/status")
    out = sh(env, script)
    equal(out.split("PPid")[0].strip(), "Groups:", "what differs from init")


@test(USERNS)
def nothing_of_the_host(env):
    web(env)
    # One descriptor more is the directory that ls reads.
    equal(sh(env, "ls /proc/self/fd | wc -l"), "4\n")
    with open("/etc/hostname") as host_file:
        os.set_inheritable(host_file.fileno(), True)
        process = start(env, "web", "--", "sh", "-c", "for n in 0 1 2; do readlink /proc/$$/fd/$n; done",
                        stdin=host_file, pass_fds=[host_file.fileno()])
        out, _ = process.communicate(timeout=30)
        equal(re.findall(r"^pipe:", out.decode(), re.MULTILINE), ["pipe:"] * 3)
    process = start(env, "web", "--", "sleep", "1234")
    pid = host_pid(env, "1234")
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    host_uid = matches(status, r"^Uid:\t(\d+)\t\1\t\1\t\1$").group(1)
    check(int(host_uid) >= 65536, status)
    equal(matches(status, r"^Groups:(.*)$").group(1).strip() in ("", host_uid), True, status)
    contains(pathlib.Path(f"/proc/{pid}/cgroup").read_text(), env.uuid("web"))
    check(SECRET.encode() not in pathlib.Path(f"/proc/{pid}/environ").read_bytes(), "the caller's environment")
    init = int(matches(pathlib.Path(f"/proc/{pid}/status").read_text(), r"^PPid:\t(\d+)$").group(1))
    contains(pathlib.Path(f"/proc/{init}/cmdline").read_bytes().decode(), "virtuserns-controller")
    process.kill()
    process.communicate()


# ---- how it ends --------------------------------------------------------------------------------------------------------

@test(USERNS)
def ends_with_its_client(env):
    web(env)
    process = start(env, "web", "--", "sh", "-c", "trap 'echo hup > /out/hup; exit' HUP; echo ready; exec > /dev/null 2>&1; while :; do sleep 1; done")
    process.stdout.readline()
    process.kill()
    process.communicate()
    equal(file_of(env, "out/hup"), "hup")
    # One that ignores SIGHUP is killed.
    process = start(env, "web", "--", "sh", "-c", "trap '' HUP; echo ready; sleep 4321")
    process.stdout.readline()
    pid = host_pid(env, "4321")
    process.kill()
    process.communicate()
    eventually(lambda: not is_alive(pid), "the command is killed", 15)


@test(USERNS)
def ends_with_the_domain(env):
    web(env)
    process = start(env, "web", "--", "sleep", "1000")
    host_pid(env, "1000")
    terminal = Terminal(env, "web", "-t", "--", "cat")
    env.virsh("destroy", "web").ok()
    process.communicate(timeout=20)
    equal(process.returncode, 137)
    equal(terminal.end(), 137)


@test(USERNS)
def outlives_the_daemon(env):
    web(env)
    process = start(env, "web", "--", "sh", "-c", "echo ready; read line; echo \"got $line\"; exit 5")
    process.stdout.readline()
    env.daemon.kill()
    env.daemon.start()
    out, _ = process.communicate(b"word\n", timeout=20)
    equal((process.returncode, out), (5, b"got word\n"))


@test(USERNS)
def a_paused_domain_refuses_at_once(env):
    web(env)
    env.virsh("suspend", "web").ok()
    begun = time.monotonic()
    contains(run(env, "web", "--", "true", code=125)[1], "paused")
    check(time.monotonic() - begun < 5 * daemon_module.TIME_FACTOR, "it was slow to refuse")
    env.virsh("resume", "web").ok()
    run(env, "web", "--", "true")


@test(USERNS)
def many_at_once_and_no_worker_held(env):
    web(env)
    running = [start(env, "web", "--", "cat") for _ in range(30)]
    equal(sh(env, "echo more"), "more\n")
    env.virsh("list").ok()
    for process in running:
        out, _ = process.communicate(b"x\n", timeout=30)
        equal((process.returncode, out), (0, b"x\n"))


@test(USERNS)
def never_read_only(env):
    import raw_rpc
    web(env)
    program = 0x75736e73
    for number, socket in enumerate(("/run/libvirt/virtusernsd-sock-ro", "/run/libvirt/virtusernsd-sock")):
        client = raw_rpc.RawClient(socket).open(read_only=number == 1)
        try:
            # Not even decoded: the arguments are nonsense.
            client.call(1, b"\xff" * 64, program=program)
        except raw_rpc.RemoteError as error:
            contains(error.message, "read only access prevents virt-userns-exec")
        else:
            check(False, "it was not refused")
        finally:
            client.close()


@test(USERNS)
def enter_namespace_names_it(env):
    web(env)
    contains(env.virsh("lxc-enter-namespace", "web", "--noseclabel", "/bin/true").fails().err, "virt-userns-exec")


# ---- terminals ----------------------------------------------------------------------------------------------------------

class Terminal:
    """The tool on the far side of a pseudo terminal."""

    def __init__(self, env, *words, rows=30, columns=90):
        self.ours, self.theirs = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.theirs)
        self.process = subprocess.Popen([tool(env), "-c", env.uri, *words], stdin=self.theirs, stdout=self.theirs,
                                        stderr=self.theirs, start_new_session=True, env=environment(),
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.text = ""
        eventually(lambda: not termios.tcgetattr(self.theirs)[3] & termios.ICANON or self.process.poll() is not None,
                   "raw mode")

    def resize(self, rows, columns):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, pattern, timeout_s=10):
        deadline = time.monotonic() + timeout_s * daemon_module.TIME_FACTOR
        while not (found := re.search(pattern, self.text)):
            check(time.monotonic() < deadline, f"{pattern!r} does not come; so far {self.text!r}")
            if select.select([self.ours], [], [], 0.1)[0]:
                self.text += os.read(self.ours, 4096).decode(errors="replace")
        return found

    def type(self, text):
        os.write(self.ours, text.encode())

    def end(self, timeout_s=20):
        code = self.process.wait(timeout_s * daemon_module.TIME_FACTOR)
        equal(termios.tcgetattr(self.theirs), self.before, "the caller's terminal afterwards")
        os.close(self.ours)
        os.close(self.theirs)
        return code


@test(USERNS)
def a_terminal_of_the_containers_own(env):
    web(env)
    terminal = Terminal(env, "web", "-t", "--", "sh", "-c", "echo tty $(tty) term $TERM size $(stty size); stat -c %u:%t $(tty); read x; echo \"<$x>\"; exit 9")
    terminal.wait_for(r"tty /dev/pts/\d+ term xterm size 30 90")
    terminal.wait_for("0:88")
    # The same file system as the container's console: the caller's terminal is of another.
    equal(sh(env, "stat -c %d /dev/pts/0"), sh(env, "stat -c %d /dev/pts/ptmx"))
    terminal.type("word\r")
    terminal.wait_for("<word>")
    equal(terminal.end(), 9)


@test(USERNS)
def window_size_and_job_control(env):
    web(env)
    terminal = Terminal(env, "web", "-t", "--", "sh", "-c", "trap 'echo size $(stty size)' WINCH; trap 'echo stopped by hand; exit 4' INT; echo ready; while :; do sleep 0.2; done")
    terminal.wait_for("ready")
    terminal.resize(41, 101)
    terminal.wait_for("size 41 101")
    terminal.type("\x03")
    terminal.wait_for("stopped by hand")
    equal(terminal.end(), 4)


@test(USERNS)
def raw_mode_is_restored(env):
    web(env)
    terminal = Terminal(env, "web", "-t", "--", "sleep", "1000")
    terminal.process.send_signal(signal.SIGTERM)
    equal(terminal.end(), 143)
    terminal = Terminal(env, "web", "-t", "--", "no-such-program")
    equal(terminal.end(), 127)


@test(USERNS)
def a_terminal_for_another_user(env):
    web(env)
    terminal = Terminal(env, "web", "-t", "--user", "web", "--", "sh", "-c", "stat -c owner=%u $(tty); echo again > $(tty); sleep 0.1")
    terminal.wait_for("owner=33")
    terminal.wait_for("again")
    equal(terminal.end(), 0)


main()
