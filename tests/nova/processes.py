"""Programs that a cloud consists of: each leads a process group, logs to a file of its own, and dies with whoever started it.

By three means, since these programs are others' and each ends in its own way: the kernel kills a program whose parent is gone
(setpriv --pdeathsig); what such a program forked follows it by settings of its own (settings.py); and `stop` ends the group.
"""
import contextlib
import http.client
import os
import pathlib
import signal
import socket
import subprocess
import time

import daemon as daemon_module


class DidNotStart(Exception):
    """The message has the end of the log."""


class Program:
    def __init__(self, name: str, argv: list[str], log: pathlib.Path, environment: dict[str, str] | None = None,
                 folder: str = "/"):
        self.name, self.argv, self.log = name, argv, log
        self.environment, self.folder = environment or {}, folder
        self.process: subprocess.Popen | None = None

    def start(self) -> "Program":
        # Nothing of Python's is done in the child between fork and exec: daemon.py says why.
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self.argv], stdin=subprocess.DEVNULL,
                                            stdout=output, stderr=output, start_new_session=True, cwd=self.folder,
                                            env=program_environment(self.environment))
        return self

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """As a crash would: the whole group, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        """Until it is killed: it answers nobody."""
        os.killpg(self.pid, signal.SIGSTOP)

    def tell_to_end(self) -> None:
        if self.is_running():
            os.kill(self.pid, signal.SIGTERM)

    def stop(self, timeout_s: float = 20.0) -> bool:
        """SIGTERM, and SIGKILL for what is left of the group. False where that was needed."""
        if self.process is None:
            return True
        self.tell_to_end()
        try:
            self.process.wait(timeout_s * daemon_module.TIME_FACTOR)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        self.kill()
        return ended

    def await_port(self, port: int, timeout_s: float = 90.0) -> None:
        self.wait_until(lambda: _listens(port), f"port {port} is open", timeout_s)

    def await_answer(self, port: int, timeout_s: float = 90.0) -> None:
        """Of HTTP: uwsgi listens long before it has loaded what answers."""
        self.wait_until(lambda: _answers(port), f"port {port} answers", timeout_s)

    def await_text(self, log: pathlib.Path, text: str, timeout_s: float = 90.0) -> None:
        self.wait_until(lambda: log.exists() and text in log.read_text(errors="replace"), f"{text!r} is in {log}", timeout_s)

    def wait_until(self, condition, what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s * daemon_module.TIME_FACTOR
        while not condition():
            if not self.is_running():
                raise DidNotStart(f"{self.name} ended with {self.process.returncode}:\n{self.log_text()}")
            if time.monotonic() > deadline:
                raise DidNotStart(f"{self.name}: not within {timeout_s:g} s: {what}:\n{self.log_text()}")
            time.sleep(0.05)

    def log_text(self, last_lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-last_lines:])


def program_environment(more: dict[str, str]) -> dict[str, str]:
    """Not ours: what a developer has in it must not reach the services."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/root", **more}


def run(argv: list[str], log: pathlib.Path, environment: dict[str, str] | None = None, stdin: bytes = b"",
        timeout_s: float = 300.0) -> None:
    """To its end, which must be a good one."""
    with open(log, "ab") as output:
        result = subprocess.run(["setpriv", "--pdeathsig", "KILL", *argv], input=stdin, stdout=output, stderr=output,
                                env=program_environment(environment or {}), timeout=timeout_s * daemon_module.TIME_FACTOR)
    if result.returncode != 0:
        text = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise DidNotStart(f"{' '.join(argv)}: exit {result.returncode}:\n{text}")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException), \
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as link:
        link.request("GET", "/")
        return link.getresponse().status < 500
    return False
