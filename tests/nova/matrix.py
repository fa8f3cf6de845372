#!/usr/bin/python3
"""matrix.py RESULTS... [--into FILE]: the table of what works on which path, out of what the suites wrote, as Markdown.

With --into it replaces what is between <!-- matrix --> and <!-- /matrix --> of the file.
"""
import argparse
import json
import pathlib
import sys

BEGIN, END = "<!-- matrix -->", "<!-- /matrix -->"
BY_HAND = "state set by hand"  # as kills.py says it
BY_HAND_NOTE = ("kill -9 at random moments: the action ends, well or with an error, and can be done again by who asked for it; \"by hand\": "
                "now and then not without an operator (a request of path A's was lost with nova-compute, `openstack server set --state active` and a "
                "hard reboot bring the instance back; a volume's or a port's own state is set; what Nova's driver leaves of a start that failed "
                "is removed)")
SIGNS = {"pass": "yes", "refused": "no", "FAIL": "**broken**"}


def read(paths: list[str]) -> list[dict]:
    return [json.loads(line) for path in paths for line in pathlib.Path(path).read_text().splitlines()]


def cell(result: dict | None, notes: list[str]) -> str:
    if result is None:
        return "not tried"
    text = SIGNS[result["result"]]
    if reason := result["reason"] or (result["said"] if result["result"] == "FAIL" else ""):
        if reason not in notes:
            notes.append(reason)
        text += f" ({notes.index(reason) + 1})"
    return text


def table(results: list[dict], kind: str, head: str, notes: list[str]) -> list[str]:
    paths = sorted({result["path"] for result in results})
    lines = ["| " + " | ".join([head, *(f"path {path}" for path in paths)]) + " |", "|---" * (len(paths) + 1) + "|"]
    by_name: dict[str, dict[str, dict]] = {}
    for result in results:
        if kind in result:
            by_name.setdefault(result[kind], {})[result["path"]] = result
    for name, of_paths in by_name.items():
        rows = next(iter(of_paths.values()))["rows"]
        title = name.replace("-", " ") + (f" <br> `{'`, `'.join(rows)}`" if rows else "")
        lines.append("| " + " | ".join([title, *(cell(of_paths.get(path), notes) for path in paths)]) + " |")
    return lines


def kills(results: list[dict], path: str, notes: list[str]) -> list[str]:
    """What became of actions in the middle of which something was killed: the worst of all tries."""
    worst: dict[str, dict[str, tuple[int, str]]] = {}
    for result in results:
        if "kill" not in result or result["path"] != path:
            continue
        action, victim = result["kill"].removesuffix("-is-killed").split("-when-")
        victim = victim.replace("its-request-is-lost", "its request is lost")
        by_hand = result["result"] == "pass" and "by hand" in result["reason"]
        text = "**broken**" if result["result"] != "pass" else "by hand" if by_hand else "yes"
        found = (["yes", "by hand", "**broken**"].index(text), text)
        of_action = worst.setdefault(action, {})
        of_action[victim] = max(found, of_action.get(victim, found))
    if not worst:
        return []
    victims = list(dict.fromkeys(victim for of_action in worst.values() for victim in of_action))
    if BY_HAND_NOTE not in notes:
        notes.append(BY_HAND_NOTE)
    lines = [f"| killed in the middle, path {path} | " + " | ".join(victims) + f" ({notes.index(BY_HAND_NOTE) + 1}) |",
             "|---" * (len(victims) + 1) + "|"]
    for action, of_action in worst.items():
        cells = [of_action.get(victim, (0, "not tried"))[1] for victim in victims]
        lines.append("| " + " | ".join([action.replace("-", " "), *cells]) + " |")
    return [*lines, ""]


def make(results: list[dict]) -> str:
    notes: list[str] = []
    lines = [*table(results, "action", "action", notes), "", *table(results, "invariant", "always", notes), "",
             *kills(results, "B", notes), *kills(results, "A", notes)]
    lines += [f"{number}. {note.rstrip('.')}." for number, note in enumerate(notes, 1)]
    return "\n".join(lines).strip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+")
    parser.add_argument("--into")
    arguments = parser.parse_args()
    text = make(read(arguments.results))
    if not arguments.into:
        sys.stdout.write(text)
        return 0
    page = pathlib.Path(arguments.into)
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"matrix: {page} has no {BEGIN} ... {END}")
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
