"""Devices that come to a running domain and leave it under faults: one of each kind, and where each is found."""
import pathlib

import invariants


def devices(folder):
    """Kind -> XML. `folder`: what the host gives of its files."""
    return {
        "filesystem": f"<filesystem type='mount'><source dir='{folder}'/><target dir='/target'/></filesystem>",
        "ram": "<filesystem type='ram'><source usage='1024'/><target dir='/target/below'/></filesystem>",
        "interface": "<interface type='ethernet'><mac address='52:54:00:00:00:35'/><guest dev='plug0'/></interface>",
        "hostdev": "<hostdev mode='capabilities' type='misc'><source><char>/dev/fuse</char></source></hostdev>",
    }


def is_attached(domain, kind):
    """By what the daemon says."""
    mark = {"filesystem": "'/target'", "ram": "'/target/below'", "interface": "plug0", "hostdev": "/dev/fuse"}[kind]
    return mark in domain.XMLDesc(0)


def is_there(init, kind, folder):
    """In the container, wherever it has moved the place."""
    mounts = [line.split() for line in pathlib.Path(f"/proc/{init}/mountinfo").read_text().splitlines()]
    if kind == "filesystem":
        return any(fields[3].endswith(pathlib.Path(folder).name) for fields in mounts)
    if kind == "ram":
        return any("size=1024k" in fields[-1] for fields in mounts)
    if kind == "interface":
        return "plug0" in pathlib.Path(f"/proc/{init}/net/dev").read_text()
    return any(fields[4] == "/dev/fuse" for fields in mounts)


def disagreements(domain, folder, is_wanted=None):
    """Each kind is in what the daemon says and in the container, or in neither; where it is known, as it has to be."""
    init = invariants.inits(domain.ID())[0]
    wrong = []
    for kind in devices(folder):
        says, has = is_attached(domain, kind), is_there(init, kind, folder)
        if says != has or is_wanted not in (None, says):
            wrong.append(f"{kind}: the daemon says {says}, the container has {has}, wanted {is_wanted}")
    return wrong
