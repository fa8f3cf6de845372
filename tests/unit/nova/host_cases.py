"""The node: its resources, what Placement is told, and that a driver says no more than its adapter."""
import json

import os_traits
from nova.compute import provider_tree

import fake_adapter
import nova_objects
from nova_objects import CONF
from shim_case import ShimCase
from nova import exception


class HostTest(ShimCase):
    def start(self):
        self.driver.init_host("compute-1")
        self.addCleanup(self.driver.cleanup_host, "compute-1")

    def test_nodes(self):
        self.start()
        self.assertEqual(self.driver.get_available_nodes(), ["node-1"])
        self.assertTrue(self.driver.node_is_available("node-1"))
        self.assertFalse(self.driver.node_is_available("node-2"))

    def test_node_name_of_the_configuration(self):
        CONF.set_override("node_name", "rack-7", group="userns")
        self.addCleanup(CONF.clear_override, "node_name", group="userns")
        self.assertEqual(self.driver.get_available_nodes(), ["rack-7"])

    def test_resources(self):
        found = self.driver.get_available_resource("node-1")
        expected = {"vcpus": 2, "vcpus_used": 1, "memory_mb": 4096, "memory_mb_used": 1024, "local_gb": 40, "local_gb_used": 5,
                    "disk_available_least": 30, "hypervisor_type": "userns", "hypervisor_version": 1000,
                    "hypervisor_hostname": "node-1", "supported_instances": [("x86_64", "lxc", "exe")],
                    "pci_passthrough_devices": "[]", "numa_topology": None}
        self.assertEqual({name: found[name] for name in expected}, expected)
        self.assertEqual(json.loads(found["cpu_info"])["topology"], {"sockets": 1, "cores": 2, "threads": 1})

    def test_not_there_at_the_start(self):
        self.adapter.stop()
        driver = nova_objects.load_driver(self.adapter.path, reconnect_timeout=0)
        with self.assertRaisesRegex(exception.ComputeServiceUnavailable, "compute.sock"):
            driver.init_host("compute-1")
        self.adapter.start()

    def inventory(self, traits=()):
        tree = provider_tree.ProviderTree()
        tree.new_root("node-1", nova_objects.UUID, generation=1)
        tree.add_traits("node-1", *traits)
        self.driver.update_provider_tree(tree, "node-1")
        return tree.data("node-1")

    def test_inventory(self):
        CONF.set_override("reserved_host_memory_mb", 256)
        CONF.set_override("cpu_allocation_ratio", 4.0)
        CONF.set_override("reserved_id_ranges", 3, group="userns")
        for name, group in (("reserved_host_memory_mb", None), ("cpu_allocation_ratio", None), ("reserved_id_ranges", "userns")):
            self.addCleanup(CONF.clear_override, name, group=group)
        found = self.inventory().inventory
        self.assertEqual(set(found), {"VCPU", "MEMORY_MB", "DISK_GB", "CUSTOM_IDMAP_RANGE"})
        self.assertEqual((found["VCPU"]["total"], found["VCPU"]["allocation_ratio"]), (2, 4.0))
        self.assertEqual((found["MEMORY_MB"]["total"], found["MEMORY_MB"]["reserved"]), (4096, 256))
        ranges = found["CUSTOM_IDMAP_RANGE"]
        self.assertEqual((ranges["total"], ranges["max_unit"], ranges["allocation_ratio"], ranges["reserved"]), (100, 1, 1.0, 3))

    def test_nothing_is_no_inventory(self):
        self.adapter.answers["host.inventory"] = {"inventory": {"VCPU": {"total": 2, "max_unit": 2},
                                                                "CUSTOM_IDMAP_RANGE": {"total": 0, "max_unit": 0}}, "traits": []}
        self.assertEqual(set(self.inventory().inventory), {"VCPU"})

    def test_traits(self):
        told = fake_adapter.ANSWERS["host.inventory"]
        self.adapter.answers["host.inventory"] = {**told, "traits": told["traits"] + ["HW_CPU_X86_OF_TOMORROW"]}
        found = self.inventory(traits=["CUSTOM_GOLD", "HW_CPU_X86_MMX", "CUSTOM_USERNS_OLD"]).traits
        self.assertEqual(found, {"CUSTOM_GOLD", "HW_CPU_X86_AVX2", "CUSTOM_USERNS"})

    def test_capabilities_are_the_adapters(self):
        self.assertFalse(self.driver.capabilities["supports_attach_interface"])
        self.start()
        self.assertTrue(self.driver.capabilities["supports_attach_interface"])
        self.assertTrue(self.driver.capabilities["supports_image_type_qcow2"])
        self.assertFalse(self.driver.capabilities["supports_image_type_vmdk"])
        self.assertFalse(self.driver.capabilities["supports_secure_boot"])
        self.assertTrue(self.driver.capabilities_as_traits()[os_traits.COMPUTE_NET_ATTACH_INTERFACE])
        self.adapter.answers["host.describe"] = {**fake_adapter.DESCRIBED, "features": {}, "image_formats": []}
        self.driver.get_available_resource("node-1")
        self.assertFalse(self.driver.capabilities["supports_attach_interface"])
        self.assertFalse(self.driver.capabilities["supports_image_type_qcow2"])

    def test_uptime(self):
        self.assertEqual(self.driver.get_host_uptime(), " up 1 days,  1:01,  2 users,  load average: 0.10, 0.25, 0.30")

    def test_cpu_stats(self):
        self.assertEqual(self.driver.get_host_cpu_stats(), {"kernel": 1, "user": 2, "idle": 3, "iowait": 4, "frequency": 2400})

    def test_address(self):
        self.assertEqual(self.driver.get_host_ip_addr(), CONF.my_ip)
