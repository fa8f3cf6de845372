"""docs/compute-api.md as something that requests are checked against: the document is what both sides are held to."""
import pathlib
import re

DOCUMENT = pathlib.Path(__file__).resolve().parents[3] / "docs" / "compute-api.md"

# Members whose own members are free: names that a tenant or an operator chooses.
_FREE = {"extra_specs", "image_properties", "ticket"}
# What a parameter is called, and the paragraph of "Structures" that describes it.
_STRUCTURE_OF = {"instance": "instance", "image": "image", "network": "network", "vif": "network", "volumes": "volumes",
                 "volume": "volumes", "next": "volumes", "files": "files", "config_drive": "files"}
_TYPES = {
    "uuid": str, "name": str, "hostname": str, "project": str, "user": str, "display_name": str, "vcpus": int,
    "memory_mb": int, "root_gb": int, "ephemeral_gb": int, "swap_mb": int, "key": str, "format": str, "id": str, "mac": str,
    "bridge": str, "device": str, "mtu": (int, type(None)), "active": bool, "address": str, "prefix": int, "to": str,
    "via": str, "path": str, "readonly": bool, "shared": bool, "boot_index": (int, type(None)), "serial": str, "content": str, "mode": int,
    "power": bool, "disks": bool, "rebuild": bool, "resize": bool, "timeout": int, "retry_interval": int, "password": (str, type(None)),
    "destination": str, "bytes": int, "ticket": dict, "type": str, "max_mb": (int, type(None)),
    "max_age_s": int, "keep_unused_for_s": int,
}


def _section(title):
    return re.search(rf"^## {title}$(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.S | re.M).group(1)


def _rows():
    """(method, parameters, result) of the table; a row may have several methods, the later ones without their prefix."""
    for line in _section("Methods").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) < 3 or not cells[0].startswith("`"):
            continue
        prefix = ""
        for name in re.findall(r"`([a-z_.]+)`", cells[0]):
            prefix = name.split(".")[0] if "." in name else prefix
            yield name if "." in name else f"{prefix}.{name}", cells[1], cells[2]


def parameters():
    """Method to the names of its parameters; one that may be left out has a question mark."""
    found = {}
    for method, cell, _ in _rows():
        quoted = re.match(r"`([^`]*)`", cell)
        found[method] = [re.match(r"\w+\??", word.strip()).group() for word in quoted.group(1).split(",")] if quoted else []
    return found


def results():
    """Method to the members that its result may have, at any depth."""
    return {method: set(re.findall(r'"(\w+)"', cell)) for method, _, cell in _rows()}


def features():
    text = re.search(r"^`features` of `host.describe`(.*?)`refused` has", DOCUMENT.read_text(), re.S | re.M).group(1)
    return set(re.findall(r"`(\w+)`", text))


def kinds():
    return set(re.findall(r"^\| `([a-z-]+)` \|", _section("Transport"), re.M))


def structure_members(name):
    text = _section("Structures")
    paragraph = re.search(rf"^`{name}`[:,].*?(?=^`\w+`[:,]|^Honoured|\Z)", text, re.S | re.M).group()
    return set(re.findall(r'"(\w+)":', paragraph))


def complaints(method, params):
    """What is wrong with a request, in words; empty if nothing is."""
    known = parameters()
    if method not in known:
        return [f"there is no method '{method}'"]
    wrong = [f"{method}: '{name}' is missing" for name in known[method] if not name.endswith("?") and name not in params]
    wrong += [f"{method}: '{name}' is unknown" for name in params if not {name, f"{name}?"} & set(known[method])]
    for name, value in params.items():
        wrong += _wrong(f"{method}: {name}", name, value, structure_members(_STRUCTURE_OF[name])
                        if name in _STRUCTURE_OF else None)
    return wrong


def _wrong(where, name, value, members):
    expected = _TYPES.get(name)
    if expected and not isinstance(value, expected) or expected is int and isinstance(value, bool):
        return [f"{where} is {value!r}"]
    if isinstance(value, list):
        return [text for index, entry in enumerate(value) for text in _wrong(f"{where}[{index}]", "", entry, members)]
    if not isinstance(value, dict) or name in _FREE or members is None:
        return []
    found = []
    for member, inner in value.items():
        if member not in members:
            found.append(f"{where}.{member} is not in the document")
        found += _wrong(f"{where}.{member}", member, inner, members)
    return found
