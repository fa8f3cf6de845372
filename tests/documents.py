#!/usr/bin/python3
"""What tables of the documentation say is what the code has: the compute API, settings, options, what a build needs.

documents.py SOURCE
"""
import ast
import pathlib
import re
import sys

SOURCE = pathlib.Path(sys.argv[1])
COMPUTE = SOURCE / "driver" / "compute"
sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / "tests" / "unit" / "nova"))
import compute_api  # noqa: E402  the document as what the driver's requests are checked against

wrong = []


def same(where, documented, real):
    for word in sorted(set(real) - set(documented)):
        wrong.append(f"{where}: no word of {word}")
    for word in sorted(set(documented) - set(real)):
        wrong.append(f"{where}: there is no {word}")
    if not real:
        wrong.append(f"{where}: nothing was found to compare it with")


def section(text, first, last):
    found = re.search(rf"{first}(.*?){last}", text, re.S)
    return found.group(1) if found else ""


def methods():
    """Rows of the tables of methods: {"instance.list", handler, {"uuid", ...}, ...}."""
    for path in COMPUTE.glob("handlers_*.cpp"):
        for name, params in re.findall(r'\{"([a-z_.]+)",\s*[a-z_]+,\s*\{([^}]*)\}', path.read_text()):
            yield name, tuple(re.findall(r'"(\w+)"', params))


def check_api():
    page = "docs/compute-api.md"
    documented = compute_api.parameters()
    real = dict(methods())
    same(f"{page}, methods", documented, real)
    for name in set(documented) & set(real):
        if documented[name] or real[name]:
            same(f"{page}, {name}", [param.rstrip("?") for param in documented[name]], real[name])
    same(f"{page}, features", compute_api.features(),
         re.findall(r'"(\w+)"', section((COMPUTE / "guests.h").read_text(), r"kFeatures\[\] = \{", r"\};")))
    same(f"{page}, kinds", compute_api.kinds(), re.findall(r'return \{"([a-z-]+)"', (COMPUTE / "kinds.cpp").read_text()))
    version = section((COMPUTE / "methods.h").read_text(), 'kApiVersion = "', '"')
    if f"# The compute API, version {version}\n" not in (SOURCE / page).read_text():
        wrong.append(f"{page}: its title has not version {version}")


def check_settings():
    """Names and defaults, of the structure, the example and the manual page. That the example has the defaults is
    Settings.EveryLineOfTheExampleCanBeUncommented."""
    real = re.findall(r'\{"(\w+)", \w+\(&S::', (COMPUTE / "settings.cpp").read_text())
    example = dict(re.findall(r"^#([a-z_]+) = (.*)$", (SOURCE / "tools/data/virtuserns-compute.conf").read_text(), re.M))
    same("tools/data/virtuserns-compute.conf", example, real)
    page = section((SOURCE / "docs/manual/virtuserns-compute.8").read_text(), r"\.SH CONFIGURATION", r"\.SH FILES")
    page = page.replace(r"\(dq", '"').replace(r"\-", "-")
    manual = {}
    for tag in re.findall(r'^\.TP\n\.BR (.*)$', page, re.M):
        for names, said in re.findall(r'((?:\w+ ", " )?\w+) " \(([^)]*)\)', tag):
            for name in names.split(' ", " '):
                manual[name] = said
    same("virtuserns-compute(8)", manual, real)
    for name, said in manual.items():
        default = example.get(name)
        said = re.search("default:? (.*)", said).group(1)
        if default and default != '""' and said != default:
            wrong.append(f"virtuserns-compute(8): {name} is {default}, not {said}")


def check_options():
    """The section [userns] of nova-compute."""
    page = section((SOURCE / "docs/openstack.md").read_text(), r"\| option \| default \| is \|\n", r"\n\n")
    documented = {}
    for line in page.splitlines()[1:]:
        names, defaults = (cell.strip() for cell in line.strip("|").split("|")[:2])
        names = re.findall(r"`(\w+)`", names)
        documented.update(zip(names, defaults.split(", ") if len(names) > 1 else [defaults]))
    real = {}
    for call in ast.walk(ast.parse((COMPUTE / "nova/userns/conf.py").read_text())):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "").endswith("Opt") and call.args:
            real[call.args[0].value] = next((key.value.value for key in call.keywords if key.arg == "default"), None)
    same("docs/openstack.md, [userns]", documented, real)
    for name, default in real.items():
        said = documented.get(name, "").strip("`")
        if default is not None and said != (str(default).lower() if isinstance(default, bool) else str(default)):
            wrong.append(f"docs/openstack.md, [userns]: {name} is {default}, not {said}")


def check_packages():
    """tools/packages and the packages' own Build-Depends."""
    groups = {}
    for line in (SOURCE / "tools/packages").read_text().splitlines():
        if line.startswith("["):
            group = groups.setdefault(line.strip("[]"), set())
        elif line and not line.startswith("#"):
            group.add(line)
    depends = section((SOURCE / "tools/debian/control").read_text(), "Build-Depends:", "\n\n")
    depends = {re.match(r"[a-z0-9.+-]+", word.strip()).group() for word in depends.split(",")}
    depends = {"debhelper" if name == "debhelper-compat" else name for name in depends}
    for name in sorted(groups["build"] - depends):
        wrong.append(f"tools/debian/control: Build-Depends has not {name} of [build]")
    # dh-python has python3; build-essential is what every package is built with, and never named.
    for name in sorted((depends | {"build-essential"}) - groups["build"] - groups["packaging"] - {"python3"}):
        wrong.append(f"tools/packages: [packaging] has not {name}")


check_api()
check_settings()
check_options()
check_packages()
print("\n".join(wrong))
sys.exit(bool(wrong))
