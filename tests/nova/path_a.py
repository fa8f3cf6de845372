#!/usr/bin/python3
"""Path A: Nova's own libvirt driver, unmodified, with virt_type=lxc, against virtusernsd."""
import suite

CONF = """[DEFAULT]
compute_driver = libvirt.LibvirtDriver
[libvirt]
virt_type = lxc
connection_uri = {uri}
images_type = raw
snapshot_image_format = raw
"""


def start_hosts(cloud):
    for name in ("host1", "host2"):
        cloud.host(name).start_ssh()
        cloud.start_compute(name, CONF)


REFUSALS = {}

if __name__ == "__main__":
    suite.main(suite.Path("A", start_hosts, REFUSALS))
