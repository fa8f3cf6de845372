"""virsh console through a terminal: text both ways, ^] to leave, end of file when the domain ends."""
import os
import pty
import select
import subprocess
import termios
import time

from harness import OURS, check, daemon_module, equal, eventually, main, matches, test


class Terminal:
    """virsh on the far side of a pseudo terminal."""

    def __init__(self, env, *words):
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(["virsh", "-c", env.uri, *words], stdin=theirs, stdout=theirs, stderr=theirs,
                                        start_new_session=True, env={**os.environ, "LC_ALL": "C", "TERM": "dumb"})
        os.close(theirs)
        self.text = ""

    def wait_for(self, part, timeout_s=10):
        deadline = time.monotonic() + timeout_s * daemon_module.TIME_FACTOR
        while part not in self.text:
            check(time.monotonic() < deadline, f"{part!r} does not come; so far {self.text!r}")
            if select.select([self.ours], [], [], 0.1)[0]:
                try:
                    got = os.read(self.ours, 4096)
                except OSError:
                    got = b""
                check(got, f"terminal ended before {part!r}; so far {self.text!r}")
                self.text += got.decode(errors="replace")

    def wait_for_raw_mode(self, timeout_s=10):
        """virsh throws away what was typed before it took the terminal over."""
        self.wait_for("Escape character is ^]")
        eventually(lambda: not termios.tcgetattr(self.ours)[3] & termios.ICANON, "raw mode", timeout_s)

    def type(self, text):
        os.write(self.ours, text.encode())

    def end(self, timeout_s=10):
        code = self.process.wait(timeout_s * daemon_module.TIME_FACTOR)
        os.close(self.ours)
        return code


@test(OURS)
def text_in_and_out(env):
    env.start("web")
    terminal = Terminal(env, "console", "web")
    terminal.wait_for("Escape character is ^]")
    terminal.wait_for("Connected to web")
    terminal.type("hello there\r")
    terminal.wait_for("hello there")
    terminal.type("\x1d")
    equal(terminal.end(), 0, "exit code after ^]")
    equal(env.state("web")[0], "running")


@test(OURS)
def again_after_leaving(env):
    env.start("web")
    for _ in range(3):
        terminal = Terminal(env, "console", "web", "--force")
        terminal.wait_for_raw_mode()
        terminal.type("ping\r")
        terminal.wait_for("ping")
        terminal.type("\x1d")
        equal(terminal.end(), 0)


@test(OURS)
def ends_with_the_domain(env):
    env.start("web")
    terminal = Terminal(env, "console", "web")
    terminal.wait_for("Connected to web")
    env.virsh("destroy", "web").ok()
    terminal.end()


@test(OURS)
def start_with_console(env):
    env.define("web")
    terminal = Terminal(env, "start", "web", "--console")
    terminal.wait_for("Connected to web")
    terminal.type("\x1d")
    equal(terminal.end(), 0)


@test(("test",))
def one_at_a_time(env):
    env.start("web")
    first = Terminal(env, "console", "web")
    first.wait_for("Connected to web")
    second = Terminal(env, "console", "web")
    second.wait_for("Active console session exists for this domain")
    check(second.end() != 0)
    third = Terminal(env, "console", "web", "--force")
    third.wait_for("Connected to web")
    first.end()
    third.type("\x1d")
    equal(third.end(), 0)


@test(OURS)
def needs_a_running_domain(env):
    env.define("web")
    terminal = Terminal(env, "console", "web")
    terminal.wait_for("The domain is not running")
    check(terminal.end() != 0)


def open_terminal(env, name):
    """The console as a file, by the name that virsh ttyconsole prints: what programs do that do not speak libvirt's streams."""
    path = env.virsh("ttyconsole", name).ok().out.strip()
    return os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)


def read_until(terminal, part, timeout_s=10):
    text = ""
    deadline = time.monotonic() + timeout_s * daemon_module.TIME_FACTOR
    while part not in text:
        check(time.monotonic() < deadline, f"{part!r} does not come; so far {text!r}")
        if select.select([terminal], [], [], 0.1)[0]:
            text += os.read(terminal, 4096).decode(errors="replace")
    return text


@test(("userns",))
def a_terminal_of_the_host(env):
    log = f"{env.folder}/console.log"
    console = f"<console type='pty'><log file='{log}' append='off'/><target type='lxc' port='0'/></console>"
    env.virsh("create", env.write_xml(env.domain_xml("web").replace("<console type='pty'/>", console))).ok()
    eventually(lambda: "Connected to web" in open(log).read(), "init greets")
    terminal = open_terminal(env, "web")
    try:
        equal(os.fstat(terminal).st_mode & 0o7777, 0o600, "mode of the terminal")
        # What nobody was there to read is in the log, once, and not here as well.
        equal(select.select([terminal], [], [], 0)[0], [], "something to read at once")
        os.write(terminal, b"typed by a program\r")
        read_until(terminal, "typed by a program")
        eventually(lambda: "typed by a program" in open(log).read(), "it is in the log too")
    finally:
        os.close(terminal)
    path = env.virsh("ttyconsole", "web").ok().out.strip()
    env.virsh("destroy", "web").ok()
    check(not os.path.lexists(path), f"{path} is gone with its domain")


@test(("userns",))
def a_terminal_beside_a_console_and_after_a_reboot(env):
    env.start("web")
    env.until_it_listens("web")
    console = Terminal(env, "console", "web")
    console.wait_for_raw_mode()
    terminal = open_terminal(env, "web")
    try:
        console.type("from the console\r")
        read_until(terminal, "from the console")
        os.write(terminal, b"from the terminal\r")
        console.wait_for("from the terminal")
        env.virsh("reboot", "web").ok()
        read_until(terminal, "Connected to web")
    finally:
        os.close(terminal)
        console.type("\x1d")
        console.end()


@test(("userns",))
def a_terminal_that_is_not_read(env):
    """It stops neither the container nor who reads elsewhere."""
    xml = env.domain_xml("web")
    init = matches(xml, r"<source dir='([^']*)'/>").group(1) + "/sbin/init"
    with open(init, "w") as file:
        file.write("#!/bin/sh\ntrap 'exit 0' TERM\nread go\nfor i in $(seq 20000); do echo line $i; done\nsleep 1000\n")
    os.symlink("busybox", init.replace("sbin/init", "bin/seq"))
    env.virsh("create", env.write_xml(xml)).ok()
    terminal = open_terminal(env, "web")
    console = Terminal(env, "console", "web")
    console.wait_for_raw_mode()
    try:
        console.type("go\r")
        console.wait_for("line 20000", 60)
        read_until(terminal, "line 1\r\n")
    finally:
        os.close(terminal)
        console.type("\x1d")
        console.end()


main()
