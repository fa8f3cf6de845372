#!/usr/bin/env python3
"""F35: devices come to a running domain and leave it while the container swaps the very places. What is attached is in the container and in
what the daemon says, or in neither; nothing is mounted, made or written elsewhere.

    tests/fault/hot_plug.py --driver userns
"""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
from bench import PREFIX, Bench, Destroy, parse_options  # noqa: E402
from harness import check, equal, eventually, main, matches, test  # noqa: E402
from invariants import controllers  # noqa: E402
from plugged import devices, is_attached, is_there  # noqa: E402

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
        source.mkdir()
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


if __name__ == "__main__":
    parse_options()
    main()
