#!/usr/bin/env python3
"""F35: devices come to a running domain and leave it while the container swaps the very places. What is attached is in the container and in
what the daemon says, or in neither; nothing is mounted, made or written elsewhere.

    tests/fault/hot_plug.py --driver userns
"""
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
from bench import PREFIX, Bench, Destroy, parse_options  # noqa: E402
from harness import Skip, check, equal, eventually, main, matches, test  # noqa: E402
from image_files import directory, init_of  # noqa: E402
from invariants import controllers  # noqa: E402
from plugged import devices, is_attached, is_there  # noqa: E402
from plugging import attach, detach, mounts, start, unchanged  # noqa: E402

SWAPPER = """#!/bin/sh
trap 'exit 0' TERM
mkdir /target
echo >/tmp/ready
while :; do
  mv /target /kept; ln -s /etc /target; rm /target; mv /kept /target
  ln -s /etc/passwd /dev/fuse; rm /dev/fuse
  mkdir /dev/fuse; rmdir /dev/fuse
done
"""

ROUNDS = 12


@test(["userns"])
def devices_of_a_domain_that_swaps_their_places(env):
    """F35"""
    import libvirt
    with Bench(env, is_served=False) as bench:
        name = f"{PREFIX}plug"
        xml = env.domain_xml(name)
        root = pathlib.Path(matches(xml, r"<source dir='([^']+)'/><target dir='/'/>").group(1))
        for program in ("mv", "ln", "rm", "mkdir", "rmdir"):
            (root / "bin" / program).symlink_to("busybox")
        (root / "sbin/init").write_text(SWAPPER)
        for folder in ("tmp", ""):
            (root / folder).chmod(0o777)
        source = pathlib.Path(env.folder, "plugged-source")
        source.mkdir(exist_ok=True)
        case = bench.case(Destroy)
        case.name = name
        domain = bench.connection.defineXML(xml)
        domain.create()
        eventually((root / "tmp/ready").exists, "the container swaps")
        init = invariants.inits(controllers(name)[name][0])[0]
        ours = pathlib.Path("/proc/self/mountinfo").read_text()
        done = dict.fromkeys(devices(source), 0)
        for _ in range(ROUNDS):
            for kind, device in devices(source).items():
                for act in (domain.attachDeviceFlags, domain.detachDeviceFlags):
                    try:
                        act(device, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                        done[kind] += 1
                    except libvirt.libvirtError:
                        pass  # the place was something else just then
                    equal(is_there(init, kind, source), is_attached(domain, kind), f"{kind} after {act.__name__}")
        check(all(done.values()), f"some of each kind came and went: {done}")
        equal(pathlib.Path("/proc/self/mountinfo").read_text(), ours, "mounts of the host")
        equal(controllers(name)[name], [domain.ID()])
        del domain, act
        equal(bench.afterwards(case), [])


# Of container root's: a file system at that place, of which nobody ever answers for anything.
SILENT = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
init, place = sys.argv[1:]
for space in [os.open(f"/proc/{init}/ns/{kind}", os.O_RDONLY) for kind in ("user", "mnt")]:
    if libc.setns(space, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")
os.setgid(0), os.setuid(0)
fuse = os.open("/dev/fuse", os.O_RDWR)
os.mkdir(place)
if libc.mount(b"none", place.encode(), b"fuse", 0, f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()) != 0:
    raise OSError(ctypes.get_errno(), "mount")
print("mounted", flush=True)
sys.stdin.read()
"""


@test(["userns"])
def a_place_that_does_not_answer(env):
    """F35: the ask for it ends with an error, and everything else goes on."""
    if not os.path.exists("/dev/fuse"):
        raise Skip("this machine has no /dev/fuse")
    source = pathlib.Path(env.folder, "plugged-source")
    source.mkdir(exist_ok=True)
    start(env)
    attach(env, devices(source)["hostdev"]).ok()
    server = subprocess.Popen([sys.executable, "-c", SILENT, str(init_of(env, "web")), "/hung"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    try:
        equal(server.stdout.readline(), "mounted\n")
        with unchanged(env):
            attach(env, directory(source, "/hung/below")).fails("'/hung/below'", "does not answer")
        for device in (directory(source, "/elsewhere"), devices(source)["interface"]):
            attach(env, device).ok()
            detach(env, device).ok()
    finally:
        server.communicate("")
    check("/hung" in mounts(env), "the test is about nothing")
    attach(env, directory(source, "/elsewhere")).ok()
    equal(sorted(place for place, fields in mounts(env).items() if fields[3].endswith("/plugged-source")), ["/elsewhere"])


if __name__ == "__main__":
    parse_options()
    main()
