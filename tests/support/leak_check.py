#!/usr/bin/env python3
"""leak_check.py PROGRAM ARGUMENT...: runs a root test, and fails when the host does not look as before (host_state.py).

The program gets mount and network namespaces of its own, in which it stays (VIRTUSERNS_TEST_MACHINE says so), so that
what it leaves in them is seen; and a directory of its own for temporary files. A test must clean up by itself: what is
reported here is undone only as far as it is this process's to undo.
"""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import daemon as daemon_module
import host_state
import kernel_lists
import owned


def enter_machine() -> None:
    daemon_module.unshare(daemon_module.CLONE_NEWNS | daemon_module.CLONE_NEWNET)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def wait(pid: int) -> int:
    """As an init: orphans are collected at once. Signals of whoever ends us are the program's."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: os.kill(pid, received))
    while True:
        child, status = os.waitpid(-1, 0)
        if child == pid:
            return os.waitstatus_to_exitcode(status)


def main() -> int:
    program = sys.argv[1:]
    if os.geteuid() != 0:
        return subprocess.run(program).returncode  # which says why it cannot run
    host_state.become_subreaper()
    kernel_lists.own_session_keyring()
    try:
        enter_machine()
    except (daemon_module.NotPossible, subprocess.CalledProcessError) as reason:
        print(f"skipped: {reason}")
        return 77
    folder = tempfile.mkdtemp(prefix=owned.name("leaks") + "-")
    os.chmod(folder, 0o711)  # containers must be able to reach their roots
    before = host_state.snapshot([folder], "", [folder], cgroups=False)
    process = subprocess.Popen(program, env={**os.environ, "TMPDIR": folder, "VIRTUSERNS_TEST_MACHINE": "1"})
    code = wait(process.pid)
    # Its groups carry its pid: other people run the same tests.
    look = lambda: host_state.snapshot([folder], rf"/virtuserns-[a-z]+-{process.pid}(/|$)", [folder])  # noqa: E731
    left = host_state.lasting_differences(before, look)
    for line in left:
        print(f"FAIL {pathlib.Path(program[0]).name} left something: {line}")
    # What is ours: processes that came back to us, and the directory.
    for pid in host_state.descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    host_state.reap()
    shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.flush()
    return (code if code >= 0 else 128 - code) or (1 if left else 0)


if __name__ == "__main__":
    sys.exit(main())
