"""Nova's own objects, as nova-compute gets them, and the driver loaded the way that nova-compute loads it."""
import contextlib
import os
import pathlib
import unittest.mock

import nova.conf
import os_vif
from nova import context as nova_context
from nova import objects
from nova.network import model
from nova import virt
from nova.virt import driver as nova_driver
from nova.virt import virtapi

virt.__path__.append(str(pathlib.Path(__file__).resolve().parents[3] / "driver" / "compute" / "nova"))
CONF = nova.conf.CONF
CONTEXT = nova_context.RequestContext("user", "project", is_admin=True)
UUID = "3f2c1d5e-0000-4000-8000-000000000001"
IMAGE_ID = "aaaaaaaa-0000-4000-8000-000000000001"
objects.register_all()
os_vif.initialize()


class VirtAPI(virtapi.VirtAPI):
    """Events of Neutron: `waited_for` has what the driver waited for; `outcome` is what then happens."""

    def __init__(self):
        self.waited_for, self.outcome = [], None

    @contextlib.contextmanager
    def wait_for_instance_event(self, instance, event_names, deadline=300, error_callback=None):
        yield
        self.waited_for += event_names
        if self.outcome and event_names:
            self.outcome(error_callback)


def load_driver(socket, **options):
    """A driver on a socket, as `compute_driver = userns.UsernsDriver` makes it."""
    CONF([], project="nova", default_config_files=[])
    folder = os.path.dirname(socket)
    from nova.virt.userns import conf
    conf.register()
    CONF.set_override("host", "compute-1")
    CONF.set_override("state_path", folder)
    CONF.set_override("lock_path", folder, group="oslo_concurrency")
    settings = {"socket": socket, "request_timeout": 20, "reconnect_timeout": 10, **options}
    for name, value in settings.items():
        CONF.set_override(name, value, group="userns")
    return nova_driver.load_compute_driver(VirtAPI(), "userns.UsernsDriver")


def flavor(**changes):
    values = dict(id=1, name="small", flavorid="1", vcpus=1, memory_mb=512, root_gb=1, ephemeral_gb=0, swap=0,
                  rxtx_factor=1.0, vcpu_weight=0, disabled=False, is_public=True, extra_specs={"quota:cpu_shares": "512"})
    return objects.Flavor(CONTEXT, **{**values, **changes})


def image_meta(**changes):
    values = {"id": IMAGE_ID, "name": "debian", "status": "active", "disk_format": "raw", "container_format": "bare",
              "properties": {}}
    return objects.ImageMeta.from_dict({**values, **changes})


def instance(**changes):
    values = dict(id=1, uuid=UUID, hostname="web", display_name="web", project_id="project", user_id="user", image_ref=IMAGE_ID,
                  host="compute-1", node="node-1", flavor=flavor(), config_drive="", launched_at=None, os_type=None, task_state=None,
                  system_metadata={"image_userns_init": "/lib/systemd/systemd", "image_min_disk": "1"}, metadata={},
                  trusted_certs=None, key_name=None, key_data=None, user_data=None, root_device_name="/dev/vda",
                  availability_zone="nova", created_at=None, reservation_id="r-1", launch_index=0, kernel_id="", ramdisk_id="",
                  device_metadata=None, numa_topology=None, info_cache=None, keypairs=objects.KeyPairList(objects=[]),
                  security_groups=objects.SecurityGroupList(objects=[]))
    found = objects.Instance(CONTEXT, **{**values, **changes})
    found.obj_reset_changes()
    found.save = unittest.mock.Mock(name="save")
    return found


def vif(kind="bridge", active=False, **details):
    subnet = model.Subnet(cidr="10.0.0.0/24", dns=[model.IP("10.0.0.2")], gateway=model.IP("10.0.0.1"),
                          ips=[model.FixedIP(address="10.0.0.5")],
                          routes=[model.Route(cidr="192.168.0.0/16", gateway=model.IP("10.0.0.9"))])
    network = model.Network(id="bbbbbbbb-0000-4000-8000-000000000001", bridge="brqbbbbbbbb-00", label="net", subnets=[subnet],
                            mtu=1450, injected=False)
    return model.VIF(id="cccccccc-0000-4000-8000-000000000001", address="fa:16:3e:00:00:01", network=network, type=kind,
                     details=details, devname="tapcccccccc-00", ovs_interfaceid="cccccccc-0000-4000-8000-000000000001",
                     active=active, vnic_type="normal", delegate_create=True)


def network_info(*vifs):
    return model.NetworkInfo(vifs or [vif()])


def volume(boot_index=None, path="/dev/loop7", transport="local"):
    """An entry of block_device_info's mapping."""
    return {"connection_info": {"driver_volume_type": transport, "serial": "dddddddd-0000-4000-8000-000000000001",
                                "data": {"device_path": path, "access_mode": "rw"}},
            "mount_device": "/dev/vdb", "boot_index": boot_index}


def block_device_info(*entries):
    return {"root_device_name": "/dev/vda", "image": [], "ephemerals": [], "swap": None, "block_device_mapping": list(entries)}
