#!/usr/bin/python3
"""The commands of docs/openstack.md are such as Debian's clients take: each goes through the client's own parser.

Nothing is asked of a cloud. What a line leaves out (`...`, a name) is not missed; a command, an option or a value that the
client does not know is an error. commands.py [PAGE...]
"""
import argparse
import configparser
import contextlib
import importlib
import io
import pathlib
import re
import shlex
import sys

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "openstack.md"
PACKAGES = pathlib.Path("/usr/lib/python3/dist-packages")


def documented(page):
    """Lines of code and what is quoted, by one of the clients."""
    text = re.sub(r"\$\([^()]*\$?\([^()]*\)[^()]*\)|\$\([^()]*\)|\$[A-Z]+", "X", page.read_text())
    for line in re.findall(r"^ {4,}(.*)$", text, re.M) + re.findall(r"`([^`]+)`", text):
        line = re.sub(r"\s#.*| \.\.\.$", "", line.replace("\n", " "))
        for part in re.split(r" && | \|\| | \| ", line):
            if re.match(r"(openstack|glance) -*\w", part):
                yield part
    # The inner commands of $(...).
    yield from re.findall(r"\$\((openstack [^()]*)\)", page.read_text())


def openstack_commands():
    found = {}
    for path in PACKAGES.glob("*-info/entry_points.txt"):
        points = configparser.RawConfigParser(delimiters="=")
        points.optionxform = str
        points.read(path)
        for name in sorted(points.sections()):  # a service's newest version is the last
            if name.startswith("openstack."):
                found.update(points[name])
    return found


def lenient(parser):
    """One that misses nothing."""
    for action in parser._actions:  # pylint: disable=protected-access
        action.required = False
        if not action.option_strings and action.nargs is None:
            action.nargs = "?"
    for group in parser._mutually_exclusive_groups:  # pylint: disable=protected-access
        group.required = False
    return parser


def openstack_parser(words, known):
    """(parser, its words); None: there is no such command."""
    if words[:1] == ["--os-compute-api-version"]:
        words = words[2:]
    for count in range(min(5, len(words)), 0, -1):
        name = "_".join(words[:count]).replace("-", "_")
        if name in known:
            module, _, cls = known[name].partition(":")
            command = getattr(importlib.import_module(module), cls.strip())
            return lenient(command(argparse.Namespace(), None).get_parser(name)), words[count:]
    return None


def glance_parser(words):
    from glanceclient import shell  # pylint: disable=import-outside-toplevel
    return shell.OpenStackImagesShell().get_subcommand_parser(2, words), words


def complaint(command, known):
    """None where the client takes it."""
    program, *words = shlex.split(command)
    found = openstack_parser(words, known) if program == "openstack" else glance_parser(words)
    if not found:
        return "no such command"
    parser, rest = found
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            parser.parse_args(rest)
        except SystemExit:
            reason = said.getvalue().strip().splitlines()[-1]
            return None if reason.endswith("expected one argument") else reason
    return None


def main():
    try:
        importlib.import_module("openstackclient.shell")
        importlib.import_module("glanceclient.shell")
        importlib.import_module("osc_placement")
    except ImportError as error:
        print(f"not installed: python3-openstackclient, python3-glanceclient or python3-osc-placement ({error})")
        return 77
    known, failed, commands = openstack_commands(), 0, []
    for page in [pathlib.Path(name) for name in sys.argv[1:]] or [PAGE]:
        commands += documented(page)
    for command in dict.fromkeys(commands):
        wrong = complaint(command, known)
        failed += wrong is not None
        print(f"{'ok' if wrong is None else 'FAILED'}: {command}{'' if wrong is None else ': ' + wrong}")
    # What must be refused, so that the rest is worth something.
    for command in ("openstack server nonesuch", "openstack server create --nonesuch web",
                    "openstack image create --disk-format nonesuch tiny"):
        if complaint(command, known) is None:
            failed += 1
            print(f"FAILED: {command}: was taken")
    if not commands:
        failed += 1
        print("FAILED: there are no commands")
    return bool(failed)


sys.exit(main())
