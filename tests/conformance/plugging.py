"""Devices of running domains, for the suites hotplug_*: attached and detached by the clients, and looked for in the kernel."""
import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import xml.etree.ElementTree as ET

from harness import equal
from image_files import define, directory, exec_argv, init_of, sh, tree
from world import ip

BRIDGE = "plugbr0"
REFUSED = "Operation not permitted"


def start(env, *devices, name="web", parts="", root=""):
    """The root of what runs then, as the host sees it. `root`: what is said of it."""
    path = pathlib.Path(tree(env))
    for applet in ("ip", "umount", "mv", "mknod"):
        (path / "bin" / applet).symlink_to("busybox")
    define(env, name, directory(path, "/", root), *devices, parts=parts)
    env.virsh("start", name).ok()
    return path


def attach(env, xml, *flags, name="web"):
    return env.virsh("attach-device", name, env.write_xml(xml), *(flags or ["--live"]))


def detach(env, xml, *flags, name="web"):
    return env.virsh("detach-device", name, env.write_xml(xml), *(flags or ["--live"]))


def definition(env, *flags, name="web"):
    return env.virsh("dumpxml", name, *flags).ok().out


def devices(env, *flags, name="web"):
    return ET.fromstring(definition(env, *flags, name=name)).find("devices")


def links(pid=None):
    """Of the host, or of where that process is: name -> what ip(8) says."""
    return {link["ifname"]: link for link in json.loads(ip("-json", "-details", "addr", pid=pid)) if link}


def links_inside(env, name="web"):
    return links(init_of(env, name))


@contextlib.contextmanager
def spare_links(*names):
    """Of the host, for a domain to be given. Each goes with its peer, wherever it is by then: also with a namespace that ends."""
    for name in names:
        ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
        for end in (name, f"{name}-peer"):
            ip("link", "set", end, "up")
    try:
        yield
    finally:
        for name in set(links()) & {f"{name}-peer" for name in names}:
            ip("link", "del", name)


def mac(number):
    return f"52:54:00:00:09:{number:02x}"


def nic(number, inner="", kind="bridge", source=f"<source bridge='{BRIDGE}'/>"):
    return f"<interface type='{kind}'><mac address='{mac(number)}'/>{source}{inner}</interface>"


def source(env):
    path = pathlib.Path(tempfile.mkdtemp(dir=env.folder), "plugged")
    path.mkdir()
    (path / "of-root").write_text("here\n")
    (path / "of-user").write_text("")
    os.chown(path / "of-user", 1000, 1001)
    return path


def ram(target, kib=2048):
    return f"<filesystem type='ram'><source usage='{kib}' units='KiB'/><target dir='{target}'/></filesystem>"


def character(path):
    return f"<hostdev mode='capabilities' type='misc'><source><char>{path}</char></source></hostdev>"


def opens(env, path, how="<"):
    """What a shell of container root's says when it cannot."""
    return sh(env, "web", f"(exec 3{how}{path}) 2>&1 && echo opened", fails=True)


def mounts(env, name="web"):
    """Of the container: place -> fields of its mountinfo; what lies on top."""
    lines = pathlib.Path(f"/proc/{init_of(env, name)}/mountinfo").read_text().splitlines()
    return {fields[4]: fields for fields in map(str.split, lines)}


@contextlib.contextmanager
def unchanged(env, *more, name="web"):
    """What is refused leaves the definitions, links, mounts and what `more` looks at as they were."""
    def look():
        return (definition(env, name=name), definition(env, "--inactive", name=name), sorted(links()),
                sorted(links_inside(env, name)), sorted(mounts(env, name).items()), *[one() for one in more])
    before = look()
    yield
    for was, now in zip(before, look()):
        equal(now, was, "after what was refused")


@contextlib.contextmanager
def staying(env, script, name="web"):
    """A shell of the container's that does this, and stays as it is for the block."""
    process = subprocess.Popen(exec_argv(env, name, f"{script} && echo ready && cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True)
    try:
        equal(process.stdout.readline(), "ready\n", script)
        yield
    finally:
        process.communicate("")
