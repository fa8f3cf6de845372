"""A pid namespace for a suite. What it starts may fork, and what is forked hears no death signal; but all of it ends with the first process
of its namespace, however that ends."""
import contextlib
import ctypes
import os
import select
import signal
import subprocess

import daemon as daemon_module

PR_SET_PDEATHSIG = 1


def enter() -> None:
    """Returns in a new process, the first of its namespace, which sees /proc as from there. This one waits for it, passes on what it is told,
    and ends as it does. Call it before anything is started; without the rights for it nothing is done."""
    if os.geteuid() != 0:
        return
    os.environ["VIRTUSERNS_OWNER"] = str(os.getpid())  # owned.py
    reader, writer = os.pipe()
    daemon_module.unshare(daemon_module.CLONE_NEWPID)
    first = os.fork()
    if first != 0:
        os.close(reader)
        _end_as(first)
    os.close(writer)
    _die_with(reader)
    # A signal to our group is one to whoever waits for us, who passes it on: once is enough.
    os.setpgid(0, 0)
    daemon_module.unshare(daemon_module.CLONE_NEWNS)
    for words in (("--make-rprivate", "/"), ("-t", "proc", "proc", "/proc")):
        subprocess.run(["mount", *words], check=True)


def _die_with(reader: int) -> None:
    """`reader`: of a pipe that the parent writes to. It has no number here by which to see that it had died before."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if select.select([reader], [], [], 0)[0]:
        os._exit(1)
    os.close(reader)


def _end_as(first: int) -> None:
    def pass_on(number, _):
        with contextlib.suppress(ProcessLookupError):
            os.kill(first, number)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    os._exit(code if code >= 0 else 128 - code)
