#!/usr/bin/python3
"""Path B: our own compute driver in nova-compute, virtuserns-compute beside it, and virtusernsd behind that."""
import pathlib

import suite
import settings
from compute import STATE

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SOCKET = "/run/libvirt/compute.sock"  # each host sees its own

CONF = f"""[DEFAULT]
compute_driver = userns.UsernsDriver
[userns]
socket = {SOCKET}
[serial_console]
enabled = true
proxyclient_address = {{ip}}
"""

ADAPTER = """connect = "{uri}"
socket = "%s"
state = "{state}/adapter"
dumps = "{state}/adapter/dumps"
image_program = "{build}/tools/image/virt-userns-image"
host = "{name}"
migration_address = "{ip}"
migration_command = "ssh -o BatchMode=yes {{address}} {build}/driver/compute/virtuserns-compute --socket %s send {{uuid}} {{token}}"
log_level = 2
""" % (SOCKET, SOCKET)


def start_host(cloud, name, conf=CONF, adapter_conf=ADAPTER):
    """The adapter's program is returned."""
    host = cloud.host(name)
    host.start_ssh()
    host.start_daemon()
    config = settings.CONFIG / f"adapter-{name}.conf"
    config.write_text(adapter_conf.format(name=name, ip=host.ip, state=STATE, uri="userns:///system", build=host.build))
    adapter = host.start_beside("adapter", ["{build}/driver/compute/virtuserns-compute", "--config", str(config)])
    cloud.start_compute(name, conf, binary=str(SOURCE / "driver/compute/nova/nova-compute-userns"))
    return adapter


def start_hosts(cloud):
    for name in ("host1", "host2"):
        start_host(cloud, name)


REFUSALS = {
    "reboot-a-host": ("501: ", "a machine is restarted by those who administer it, and Nova can start what ran on it "
                      "(resume_guests_state_on_host_boot)"),
    "live-migrate": ("cold migration only", "containers of virtuserns cannot be moved while they run"),
}

if __name__ == "__main__":
    suite.main(suite.Path("B", start_hosts, REFUSALS))
