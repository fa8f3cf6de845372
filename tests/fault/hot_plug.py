#!/usr/bin/env python3
"""F35: devices of running domains. Nothing is attached to what runs, or detached from it, yet: each kind is refused by name,
while the container swaps the very places, and nothing of the domain or of the host has changed then.

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

SWAPPER = """#!/bin/sh
trap 'exit 0' TERM
mkdir /target
echo >/tmp/ready
while :; do
  mv /target /kept; ln -s /etc /target; rm /target; mv /kept /target
  ln -s /etc/passwd /dev/sda; rm /dev/sda
  mkdir /dev/sda; rmdir /dev/sda
done
"""


def devices(folder):
    return {
        "disk": "<disk type='file' device='disk'><source file='" + folder + "/disk.img'/><target dev='sda'/></disk>",
        "filesystem": "<filesystem type='mount'><source dir='" + folder + "'/><target dir='/target'/></filesystem>",
        "interface": "<interface type='bridge'><source bridge='" + invariants.BRIDGE + "'/></interface>",
        "hostdev": "<hostdev mode='capabilities' type='misc'><source><char>/dev/zero</char></source></hostdev>",
    }


def places(init):
    """The names where devices would be, without the one that the container swaps."""
    return sorted(set(os.listdir(f"/proc/{init}/root/dev")) - {"sda"})


def mounts(init):
    return pathlib.Path(f"/proc/{init}/mountinfo").read_text()


@test(["userns"])
def a_running_domain_refuses_devices(env):
    """F35"""
    import libvirt
    with Bench(env, is_served=False) as bench:
        name = f"{PREFIX}plug"
        xml = env.domain_xml(name)
        root = pathlib.Path(matches(xml, r"<source dir='([^']+)'/><target dir='/'/>").group(1))
        for program in ("mv", "ln", "rm", "mkdir", "rmdir"):
            (root / "bin" / program).symlink_to("busybox")
        (root / "sbin/init").write_text(SWAPPER)
        (root / "tmp").chmod(0o777)
        root.chmod(0o777)
        case = bench.case(Destroy)
        case.name = name
        domain = bench.connection.defineXML(xml)
        domain.create()
        eventually((root / "tmp/ready").exists, "the container swaps")
        init = invariants.inits(controllers(name)[name][0])[0]
        before = (domain.XMLDesc(0), domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), places(init), mounts(init),
                  invariants.descriptors(controllers(name)[name][0]))
        for _ in range(3):
            for kind, device in devices(env.folder).items():
                for act in (domain.attachDeviceFlags, domain.detachDeviceFlags, domain.updateDeviceFlags):
                    try:
                        act(device, libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG)
                    except libvirt.libvirtError as error:
                        check(error.get_error_code() in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
                                                         libvirt.VIR_ERR_CONFIG_UNSUPPORTED),
                              f"{act.__name__} of a {kind}: {error.get_error_message()}")
                    else:
                        raise AssertionError(f"{act.__name__} of a {kind} is not refused")
        after = (domain.XMLDesc(0), domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), places(init), mounts(init),
                 invariants.descriptors(controllers(name)[name][0]))
        for what, old, new in zip(("the live definition", "the stored one", "places", "mounts", "descriptors"), before, after):
            equal(new, old, what)
        equal(controllers(name)[name], [domain.ID()])
        del domain, act
        equal(bench.afterwards(case), [])


if __name__ == "__main__":
    parse_options()
    main()
