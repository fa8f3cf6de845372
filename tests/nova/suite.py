"""Runs the actions on one path, and the checks of what must always be so; writes what came of them as lines of JSON.

A path names the actions that it refuses: each with a pattern of what is then said, and why it is so. An action that is refused with
other words, or that suddenly works, is a failure: the list is then wrong, and so is the documentation that is made of it.
"""
import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "support")]
import boot_images  # noqa: E402
import cloud as cloud_module  # noqa: E402
import daemon as daemon_module  # noqa: E402
import host_state  # noqa: E402
import owned  # noqa: E402
import pid_namespace  # noqa: E402
from actions import ACTIONS  # noqa: E402
from invariants import INVARIANTS  # noqa: E402
from rest import Refused, WentWrong  # noqa: E402
from stage import Mismatch, Stage  # noqa: E402


class Path:
    """One way from Nova to our daemon."""

    def __init__(self, name: str, start_hosts, refusals: dict[str, tuple[str, str]], tried: tuple[str, ...] = (),
                 in_short: bool = True, actions: list | None = None):
        """`start_hosts`: gets the cloud, starts all compute hosts. `refusals`: action to a pattern of what is said, and why. `tried`: only
        these actions. `in_short`: whether a short run has it. `actions`: others than the subject's."""
        self.name, self.start_hosts, self.refusals, self.tried, self.in_short = name, start_hosts, refusals, tried, in_short
        self.actions = actions


class Suite:
    def __init__(self, path: Path, stage: Stage, results):
        self.path, self.stage, self.results = path, stage, results
        self.counts = {"pass": 0, "refused": 0, "FAIL": 0}

    def run(self, kind: str, name: str, rows, function) -> None:
        begin = time.monotonic()
        self.stage.doing = name
        verdict, reason, said = self._outcome(function, self.path.refusals.get(name) if kind == "action" else None)
        self.counts[verdict] += 1
        print(f"{verdict:7} {time.monotonic() - begin:5.1f} s  {name}" + (f": {reason or said}"[:600] if reason or said else ""), flush=True)
        if self.results:
            self.results.write(json.dumps({"path": self.path.name, kind: name, "rows": rows, "result": verdict, "reason": reason,
                                           "said": said}) + "\n")
            self.results.flush()

    def _outcome(self, function, refusal: tuple[str, str] | None) -> tuple[str, str, str]:
        """pass, refused or FAIL; why; and what was said."""
        try:
            note = function(self.stage) or ""
        except (Refused, WentWrong, Mismatch) as refused:
            said = " ".join(str(refused).split())
            is_known = refusal and re.search(refusal[0], said)
            return ("refused", refusal[1], said) if is_known else ("FAIL", "", said)
        except Exception as failure:  # noqa: BLE001 - an action may raise anything; the suite must go on
            where = traceback.extract_tb(failure.__traceback__)[-1]
            return "FAIL", "", f"[{pathlib.Path(where.filename).name}:{where.lineno}] {type(failure).__name__}: {failure}"
        return ("FAIL", "", "works, though it is listed as refused") if refusal else ("pass", note, "")


def _arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=os.environ.get("VIRTUSERNS_BUILD", "build"))
    parser.add_argument("--short", action="store_true", help="without what takes long and shows little more")
    parser.add_argument("-k", dest="pattern", default="", help="only actions and invariants whose name matches this expression")
    parser.add_argument("--results", help="a file for lines of JSON")
    parser.add_argument("--keep-logs", metavar="FOLDER", help="where the logs of the services go when something fails")
    arguments = parser.parse_args()
    if os.environ.get("VIRTUSERNS_NOVA") == "long":
        arguments.short = False
    arguments.matches = lambda name: re.search(arguments.pattern, name) is not None
    return arguments


def _end_in_order(number, _):
    raise SystemExit(128 + number)


@dataclasses.dataclass
class Subject:
    """What a suite is about: what is tried, on what kind of stage, and the cloud's cinder, neutron and barbican if it has them. `run`:
    another way to try it, with a path, a stage, the arguments and the file of results; it returns a Suite."""
    actions: list = dataclasses.field(default_factory=lambda: ACTIONS)
    invariants: list = dataclasses.field(default_factory=lambda: INVARIANTS)
    stage: type[Stage] = Stage
    volumes: object = None
    run: object = None
    network: object = None
    keys: object = None


def _run_all(path: Path, subject: Subject, stage: Stage, arguments, results) -> Suite:
    suite = Suite(path, stage, results)
    for action in path.actions or subject.actions:
        if path.tried and action.name not in path.tried:
            continue
        if arguments.matches(action.name) and (action.in_short or not arguments.short):
            suite.run("action", action.name, action.rows, action.function)
    for name, function in subject.invariants:
        if arguments.matches(name):
            suite.run("invariant", name, (), function)
    return suite


def _run_paths(paths: tuple[Path, ...], subject: Subject, image: str, arguments, results) -> collections.Counter:
    """One after another, in one cloud."""
    counts = collections.Counter()
    with cloud_module.Cloud(arguments.build, volumes=subject.volumes, network=subject.network, keys=subject.keys) as cloud:
        stage = subject.stage(cloud, image)
        for path in paths:
            if arguments.short and not path.in_short:
                continue
            path.start_hosts(cloud)
            stage.path = path.name
            print(f"up: {', '.join(f'{name} {seconds:.1f} s' for name, seconds in cloud.seconds.items())}", flush=True)
            suite = subject.run(path, stage, arguments, results) if subject.run else _run_all(path, subject, stage, arguments, results)
            counts.update(suite.counts)
            stage.delete_all()
    return counts


def _session(paths: tuple[Path, ...], subject: Subject, arguments) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_in_order)
    host_state.become_subreaper()
    with tempfile.TemporaryDirectory(prefix=owned.name("nova") + "-") as folder, contextlib.ExitStack() as stack:
        os.chmod(folder, 0o755)  # containers must be able to reach their roots
        state, files = os.path.join(folder, "state"), os.path.join(folder, "files")
        os.mkdir(state), os.mkdir(files)
        image = boot_images.busybox(files)
        results = stack.enter_context(open(arguments.results, "w")) if arguments.results else None
        cloud_module.enter(state, subject.network, subject.volumes)
        try:
            counts = _run_paths(paths, subject, image, arguments, results)
            failed = counts["FAIL"]
        except BaseException:
            failed = 1
            raise
        finally:
            if arguments.keep_logs and failed:
                shutil.copytree(f"{state}/log", arguments.keep_logs, dirs_exist_ok=True)
    print(f"{counts['pass']} passed, {counts['refused']} refused, {counts['FAIL']} failed")
    return 1 if failed else 0


def main(*paths: Path, subject: Subject | None = None) -> None:
    arguments = _arguments()
    owned.collect_dead()
    try:
        pid_namespace.enter()
        code = _session(paths, subject or Subject(), arguments)
    except daemon_module.NotPossible as reason:
        print(f"skipped: {reason}")
        code = 77
    except cloud_module.DidNotStart as reason:
        print(reason)
        code = 1
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    os._exit(code)  # without the interpreter's own end: libvirt's threads may still be inside a call
