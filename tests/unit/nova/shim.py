#!/usr/bin/python3
"""Nova's driver (driver/compute/nova) with Nova's own classes, against an adapter that is scripted.

shim.py [--eventlet] [unittest's arguments]; with --eventlet as nova-compute of today runs it, else with native threads.
"""
import sys

if "--eventlet" in sys.argv:
    sys.argv.remove("--eventlet")
    import eventlet
    eventlet.monkey_patch()
try:
    import nova.virt.driver  # noqa: F401
except ImportError as error:
    print(f"Nova is not installed (package python3-nova): {error}")
    sys.exit(77)
import unittest

import fake_adapter
import nova_objects


class ServiceTest(unittest.TestCase):
    def setUp(self):
        self.adapter = fake_adapter.FakeAdapter()
        self.addCleanup(self.adapter.close)
        self.driver = nova_objects.load_driver(self.adapter.path)

    def test_start(self):
        self.driver.init_host("compute-1")
        self.addCleanup(self.driver.cleanup_host, "compute-1")
        self.assertEqual(self.driver.get_available_nodes(), ["node-1"])
        self.assertEqual(self.driver.get_available_resource("node-1")["vcpus"], 2)
        self.assertEqual(self.adapter.complaints, [])


if __name__ == "__main__":
    unittest.main()
