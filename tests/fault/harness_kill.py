#!/usr/bin/env python3
"""A suite that is ended in its middle leaves nothing: at once when it is told to end (SIGTERM), with the next run when it
was killed (SIGKILL).

    tests/fault/harness_kill.py --driver userns
"""
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from harness import check, equal, eventually, main, test  # noqa: E402
import owned  # noqa: E402

VICTIM = "VIRTUSERNS_VICTIM"


def victim(env):
    """A run with a running domain, a paused one and one whose controller hangs."""
    for name in ("runs", "paused", "hangs"):
        env.start(f"victim-{name}")
    env.virsh("suspend", "victim-paused").ok()
    pids = [int(env.virsh("domid", f"victim-{name}").ok().out) for name in ("runs", "paused", "hangs")]
    os.kill(pids[2], signal.SIGSTOP)
    print("ready", env.daemon.process.pid, *pids, flush=True)
    time.sleep(600)


def begin():
    """(the run, its daemon and controllers)"""
    environment = {**os.environ, VICTIM: "1"}
    process = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--driver", "userns", "--build",
                                os.environ["VIRTUSERNS_BUILD"]], env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("ready"):
            return process, list(map(int, line.split()[1:]))
    raise AssertionError("the victim did not start")


def traces_of(pid):
    return [str(path) for path in owned.traces() if path.name.endswith(f"-{pid}") or f"-{pid}-" in path.name]


def end(process, number):
    process.send_signal(number)
    process.stdout.read()
    return process.wait(30)


def gone(pids):
    """The controllers may be our children by now (a subreaper's): nobody but us takes their exit codes."""
    def state(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "Z"
    return all(state(pid) == "Z" for pid in pids)


def told_to_end(env):
    process, pids = begin()
    check(traces_of(process.pid), "the victim owns nothing?")
    equal(end(process, signal.SIGTERM), 128 + signal.SIGTERM, "exit code")
    equal(traces_of(process.pid), [], "left by a run that was told to end")
    eventually(lambda: gone(pids), "its daemon and its controllers are gone")


def killed(env):
    """Judges the test above too: what it looks for is there after a kill."""
    process, pids = begin()
    end(process, signal.SIGKILL)
    kinds = {pathlib.Path(path).parent.name for path in traces_of(process.pid)}
    check("tmp" in kinds and len(kinds) > 1, f"a run that was killed left no groups or no files: {kinds}")
    check(not gone(pids[1:]), "its containers ended with it")
    os.environ.pop("VIRTUSERNS_OWNER", None)
    removed = owned.collect_dead()
    equal(traces_of(process.pid), [], "left after a later run")
    check(any(str(process.pid) in path for path in removed), "what was collected is not told")
    eventually(lambda: gone(pids), "its daemon and its controllers are gone")
    check(traces_of(os.getpid()), "it took what is ours")


if VICTIM in os.environ:
    test(["userns"])(victim)
else:
    test(["userns"])(told_to_end)
    test(["userns"])(killed)
main()
