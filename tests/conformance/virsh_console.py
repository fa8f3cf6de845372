"""virsh console through a terminal: text both ways, ^] to leave, end of file when the domain ends."""
import os
import pty
import select
import subprocess
import termios
import time

from harness import OURS, check, daemon_module, equal, eventually, main, test


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


main()
