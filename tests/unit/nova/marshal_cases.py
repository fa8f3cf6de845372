"""Nova's objects as the adapter gets them."""
import json
import unittest

import nova_objects
from nova import exception
from nova.compute import power_state
from nova.network import model
from nova.virt.userns import marshal


class MarshalTest(unittest.TestCase):
    def test_instance(self):
        self.assertEqual(marshal.instance(nova_objects.instance()), {
            "uuid": nova_objects.UUID, "name": "instance-00000001", "hostname": "web", "project": "project", "user": "user",
            "display_name": "web", "image_properties": {"userns_init": "/lib/systemd/systemd"}, "ids": None,
            "flavor": {"vcpus": 1, "memory_mb": 512, "root_gb": 1, "ephemeral_gb": 0, "swap_mb": 0,
                       "extra_specs": {"quota:cpu_shares": "512"}}})

    def test_ids_are_kept_with_the_instance(self):
        instance = nova_objects.instance()
        marshal.note_ids(instance, {"first": 2000000, "count": 65536})
        self.assertEqual(json.loads(instance.system_metadata["userns_idmap"]), {"first": 2000000, "count": 65536})
        self.assertEqual(marshal.instance(instance)["ids"], {"first": 2000000, "count": 65536})
        instance.save.assert_not_called()  # Nova does
        marshal.note_ids(instance, None)  # what other guests than containers have
        self.assertEqual(marshal.instance(instance)["ids"], {"first": 2000000, "count": 65536})

    def test_bridge(self):
        self.assertEqual(marshal.vif(nova_objects.vif()), {
            "id": "cccccccc-0000-4000-8000-000000000001", "mac": "fa:16:3e:00:00:01", "type": "bridge",
            "bridge": "brqbbbbbbbb-00", "device": "tapcccccccc-00", "mtu": 1450, "active": False,
            "ips": [{"address": "10.0.0.5", "prefix": 24}],
            "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}, {"to": "192.168.0.0/16", "via": "10.0.0.9"}],
            "dns": ["10.0.0.2"]})

    def test_open_vswitch(self):
        found = marshal.vif(nova_objects.vif("ovs"))
        self.assertEqual((found["type"], found["bridge"], found["device"]), ("ovs", "brqbbbbbbbb-00", "tapcccccccc-00"))

    def test_open_vswitch_with_a_bridge_for_the_firewall(self):
        found = marshal.vif(nova_objects.vif("ovs", ovs_hybrid_plug=True))
        self.assertEqual((found["type"], found["bridge"]), ("bridge", "qbrcccccccc-00"))

    def test_links_that_a_container_cannot_have(self):
        with self.assertRaisesRegex(exception.VirtualInterfacePlugException, "no interface of type 'vhostuser'"):
            marshal.vif(nova_objects.vif("vhostuser", vhostuser_socket="/s", vhostuser_mode="client"))

    def test_no_subnets_no_gateway_no_mtu(self):
        vif = nova_objects.vif()
        vif["network"]["subnets"] = [model.Subnet(cidr="fd00::/64", ips=[model.FixedIP(address="fd00::5")])]
        del vif["network"]["meta"]["mtu"]
        found = marshal.vif(vif)
        self.assertEqual((found["ips"], found["routes"], found["dns"], found["mtu"]),
                         ([{"address": "fd00::5", "prefix": 64}], [], [], None))

    def test_files(self):
        self.assertEqual(marshal.files([("/a", b"\0\xff"), ("/b", "é")]),
                         [{"path": "/a", "content": "AP8=", "mode": 420}, {"path": "/b", "content": "w6k=", "mode": 420}])
        self.assertEqual(marshal.files(None), [])

    def test_states_have_events_that_agree(self):
        """Nova drops an event whose state get_info does not confirm."""
        implied = {"started": power_state.RUNNING, "resumed": power_state.RUNNING, "stopped": power_state.SHUTDOWN,
                   "crashed": power_state.SHUTDOWN, "paused": power_state.PAUSED, "suspended": power_state.SUSPENDED}
        self.assertEqual(set(implied), set(marshal.TRANSITIONS))
        for event, state in (("started", "running"), ("stopped", "shutdown"), ("crashed", "crashed"), ("paused", "paused"),
                             ("suspended", "suspended"), ("resumed", "running")):
            self.assertEqual(marshal.POWER_STATES[state], implied[event], event)
