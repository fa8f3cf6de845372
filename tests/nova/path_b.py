#!/usr/bin/python3
"""Path B: our own compute driver in nova-compute, virtuserns-compute beside it, and virtusernsd behind that."""
import pathlib

import suite  # the first: it knows where the others are
import actions
import boot_images
import settings
from compute import STATE
from stage import check, equal

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

OWN_ACTIONS: list[actions.Action] = []
action = actions.marker(OWN_ACTIONS)


@action()
def image_larger_than_the_flavors_disk(stage):
    """Nova says so as it does of its own driver, tries no other host, and nothing of it is left."""
    path = boot_images.large(pathlib.Path(stage.image_path).parent)
    image = stage.admin.upload_image("large", path, "qcow2")
    folders = [host.state / "adapter/images/bases" for host in stage.cloud.hosts.values()]

    def bases():
        return {path for folder in folders if folder.exists() for path in folder.iterdir()}
    before = bases()
    server = stage.begin_boot(image=image, flavor=stage.large)
    found = server.await_status("ERROR", "ACTIVE")
    said = " ".join(found.get("fault", {}).get("message", "").split())
    equal(found["status"], "ERROR", "status")
    check("choose a flavor with a larger disk" in said and "aborted" in said, f"the fault says it: {said}")
    equal(bases(), before, "images that the hosts have")
    equal([path for host in stage.cloud.hosts.values() for path in (host.state / "adapter/instances").glob(f"{server.id}*")], [],
          "what is left of it")
    server.delete()
    stage.admin.delete_image(image)
    pathlib.Path(path).unlink()


if __name__ == "__main__":
    suite.main(suite.Path("B", start_hosts, REFUSALS, actions=[*actions.ACTIONS, *OWN_ACTIONS]))
