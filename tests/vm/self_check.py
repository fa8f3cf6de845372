#!/usr/bin/env python3
"""What runs the suites in the guest must tell every way in which a test can end, or a failure there would be lost."""
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CASES = [
    ("passes", ["true"], 5, "OK"),
    ("fails", ["sh", "-c", "echo because; exit 3"], 5, "FAIL"),
    ("skips", ["sh", "-c", "echo no such thing; exit 77"], 5, "SKIP"),
    ("hangs", ["sh", "-c", "trap '' TERM; sleep 60 & sleep 60"], 0.5, "TIMEOUT"),
    ("dies", ["sh", "-c", "kill -SEGV $$"], 5, "FAIL"),
    ("is not there", ["/no/such/program"], 5, "FAIL"),
    ("sees its environment", ["sh", "-c", 'test "$WORD" = value'], 5, "OK"),
]


def main():
    with tempfile.TemporaryDirectory() as folder:
        tests, log = pathlib.Path(folder, "tests.json"), pathlib.Path(folder, "log.json")
        tests.write_text(json.dumps([{"name": name, "cmd": command, "timeout": timeout, "suite": "unit",
                                      "env": {"WORD": "value"}} for name, command, timeout, _ in CASES]))
        run = subprocess.run([sys.executable, str(HERE / "run-tests"), "--results", str(log), str(tests)],
                             capture_output=True, text=True, timeout=60)
        results = {entry["name"]: entry for entry in map(json.loads, log.read_text().splitlines())}
        bad = [f"{name}: {results.get(f'unit / {name}', {}).get('result')}, wanted {wanted}"
               for name, _, _, wanted in CASES if results.get(f"unit / {name}", {}).get("result") != wanted]
        if run.returncode != 1:
            bad.append(f"exit status {run.returncode} although tests failed")
        if "(no such thing)" not in run.stdout:
            bad.append("the reason of a skip is not printed")
        if "        because" not in run.stdout:
            bad.append("what a failed test said is not printed")
    usage = subprocess.run([sys.executable, str(HERE / "vm"), "--help"], capture_output=True, text=True)
    if usage.returncode != 0 or "unified" not in usage.stdout:
        bad.append("vm --help")
    for line in bad:
        print(line)
    return 1 if bad else 0


sys.exit(main())
