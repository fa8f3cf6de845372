"""Runs the actions on one path, and the checks of what must always be so; writes what came of them as lines of JSON.

A path names the actions that it refuses, each with a part of the reason. An action that is refused for another reason, or that
suddenly works, is a failure: the list is then wrong, and so is the documentation that is made of it.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "support")]
import cloud as cloud_module  # noqa: E402
import daemon as daemon_module  # noqa: E402
import host_state  # noqa: E402
import boot_images  # noqa: E402
import owned  # noqa: E402
from actions import ACTIONS  # noqa: E402
from rest import Refused, WentWrong  # noqa: E402
from stage import Mismatch, Stage  # noqa: E402


class Path:
    """One way from Nova to our daemon."""

    def __init__(self, name: str, start_hosts, refusals: dict[str, str], not_short: tuple[str, ...] = ()):
        """`start_hosts`: gets the cloud, starts all compute hosts. `refusals`: action to a pattern of its reason."""
        self.name, self.start_hosts, self.refusals, self.not_short = name, start_hosts, refusals, not_short


def outcome(function, stage, refusal: str | None) -> tuple[str, str]:
    """pass, refused or FAIL, and why."""
    try:
        function(stage)
    except (Refused, WentWrong) as refused:
        reason = " ".join(str(refused).split())
        if refusal and re.search(refusal, reason):
            return "refused", reason
        return "FAIL", reason
    except Mismatch as mismatch:
        reason = str(mismatch)
        if refusal and re.search(refusal, reason):
            return "refused", reason
        return "FAIL", reason
    except Exception as failure:  # noqa: BLE001 - an action may raise anything; the suite must go on
        where = traceback.extract_tb(failure.__traceback__)[-1]
        return "FAIL", f"[{pathlib.Path(where.filename).name}:{where.lineno}] {type(failure).__name__}: {failure}"
    return ("FAIL", "works, though it is listed as refused") if refusal else ("pass", "")


def run_actions(path: Path, stage: Stage, pattern: str, results) -> dict[str, int]:
    counts = {"pass": 0, "refused": 0, "FAIL": 0}
    for name, rows, function in ACTIONS:
        if not re.search(pattern, name):
            continue
        begin = time.monotonic()
        verdict, reason = outcome(function, stage, path.refusals.get(name))
        counts[verdict] += 1
        took = time.monotonic() - begin
        print(f"{verdict:7} {took:5.1f} s  {name}" + (f": {reason[:400]}" if reason else ""), flush=True)
        if results:
            results.write(json.dumps({"path": path.name, "action": name, "rows": rows, "result": verdict, "reason": reason}) + "\n")
            results.flush()
    return counts


def _arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=os.environ.get("VIRTUSERNS_BUILD", "build"))
    parser.add_argument("-k", dest="pattern", default="", help="only actions whose name matches this expression")
    parser.add_argument("--results", help="a file for lines of JSON; default: BUILD/nova-results/PATH.json, if all are run")
    parser.add_argument("--keep-logs", help="where the logs of the services go, when something fails")
    return parser.parse_args()


def _end_in_order(number, _):
    raise SystemExit(128 + number)


def _session(path: Path, arguments) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_in_order)
    host_state.become_subreaper()
    owned.collect_dead()
    with tempfile.TemporaryDirectory(prefix=owned.name("nova") + "-") as folder, contextlib.ExitStack() as stack:
        os.chmod(folder, 0o755)  # containers must be able to reach their roots
        state, files = os.path.join(folder, "state"), os.path.join(folder, "files")
        os.mkdir(state), os.mkdir(files)
        image = boot_images.busybox(files)
        cloud_module.enter(state)
        cloud = stack.enter_context(cloud_module.Cloud(arguments.build))
        path.start_hosts(cloud)
        print(f"up: {', '.join(f'{name} {seconds:.1f} s' for name, seconds in cloud.seconds.items())}", flush=True)
        stage = Stage(cloud, image)
        results = stack.enter_context(open(arguments.results, "w")) if arguments.results else None
        counts = run_actions(path, stage, arguments.pattern, results)
        if arguments.keep_logs and counts["FAIL"]:
            os.system(f"cp -r {state}/log {arguments.keep_logs}")
    print(f"{counts['pass']} passed, {counts['refused']} refused, {counts['FAIL']} failed")
    return 1 if counts["FAIL"] else 0


def main(path: Path) -> None:
    try:
        code = _session(path, _arguments())
    except daemon_module.NotPossible as reason:
        print(f"skipped: {reason}")
        code = 77
    sys.stdout.flush()
    os._exit(code)  # without the interpreter's own end: libvirt's threads may still be inside a call
