#!/usr/bin/python3
"""A suite that is killed leaves no process, also where a program of it has forked, which no death signal follows. No cloud."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
import daemon as daemon_module  # noqa: E402
import pid_namespace  # noqa: E402
from processes import Program  # noqa: E402

# A service that forks a worker, and one that leaves its session.
FORKS = 'sleep "$0" & setsid sleep "$0" & touch "$1"; wait'


def suite(mark: str, folder: str, how: str) -> None:
    """What is killed: its program forks, and then it waits."""
    if how == "enters":
        pid_namespace.enter()
    ready = pathlib.Path(folder, "ready")
    program = Program("forks", ["sh", "-c", FORKS, mark, str(ready)], pathlib.Path(folder, "log")).start()
    program.wait_until(ready.exists, "it has forked", 30)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    print("ready", flush=True)
    signal.pause()


def with_mark(mark: str) -> list[int]:
    found = []
    for task in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words, state = (task / "cmdline").read_bytes().split(b"\0"), (task / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if mark.encode() in words and words[0] == b"sleep" and state != "Z":
            found.append(int(task.name))
    return found


def left_by(how: str, number: int) -> tuple[list[int], int]:
    """What lives after a suite got the signal, and its exit code."""
    mark = f"987654.{os.getpid()}{number}"
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([sys.executable, __file__, "suite", mark, folder, how], stdout=subprocess.PIPE, text=True)
        if process.stdout.readline() != "ready\n":
            raise SystemExit("FAILED: the suite did not come up")
        if len(with_mark(mark)) != 2:
            raise SystemExit("FAILED: its program has not forked")
        process.send_signal(number)
        code = process.wait(60)
        deadline = time.monotonic() + 5 * daemon_module.TIME_FACTOR
        while (left := with_mark(mark)) and how == "enters" and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    return left, code


def main() -> int:
    if os.geteuid() != 0:
        print("skipped: a pid namespace needs root")
        return 77
    failed = 0
    for how, number, wanted, code in (("enters", signal.SIGKILL, 0, -9), ("enters", signal.SIGTERM, 0, 143),
                                      # What must be seen, so that the rest is worth something.
                                      ("stays", signal.SIGKILL, 2, -9)):
        left, ended = left_by(how, number)
        good = (len(left), ended) == (wanted, code)
        failed += not good
        print(f"{'ok' if good else 'FAILED'}: one that {how}, and gets {number.name}: {len(left)} processes left, exit code {ended}")
    return int(failed > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["suite"]:
        suite(*sys.argv[2:])
    sys.exit(main())
