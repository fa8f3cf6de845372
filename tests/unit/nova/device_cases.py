"""Devices that come and go, and refusals: what is undone, and in what words Nova hears of it."""
import unittest.mock

import compute_api
import nova_objects
from driver_cases import DriverCase
from nova import exception
from nova import objects
from nova.virt.userns import adapter as userns_adapter
from nova.virt.userns import client
from nova_objects import CONF, CONTEXT, UUID


class DeviceTest(DriverCase):
    def test_interface(self):
        vif = nova_objects.vif()
        self.driver.attach_interface(CONTEXT, self.instance, None, vif)
        self.driver.detach_interface(CONTEXT, self.instance, vif)
        self.assertEqual(self.adapter.methods(), ["instance.attach_interface", "instance.detach_interface"])
        self.assertEqual(self.adapter.asked("instance.attach_interface")[0]["vif"]["device"], "tapcccccccc-00")
        self.assertEqual((self.plug.call_count, self.unplug.call_count), (1, 1))

    def test_interface_that_is_refused_is_unplugged(self):
        for kind in ("unsupported", "internal"):
            self.refuse("instance.attach_interface", kind, "no")
            with self.assertRaisesRegex(exception.NovaException, "no"):
                self.driver.attach_interface(CONTEXT, self.instance, None, nova_objects.vif())
        self.assertEqual(self.unplug.call_count, 2)

    def test_interface_that_is_gone(self):
        self.refuse("instance.detach_interface", "device-not-found")
        self.driver.detach_interface(CONTEXT, self.instance, nova_objects.vif())
        self.unplug.assert_called_once()

    def tags(self):
        metadata = self.instance.device_metadata
        return [(getattr(each, "mac", None) or each.path, each.tags) for each in metadata.devices] if metadata else []

    def test_tags(self):
        vif = nova_objects.vif()
        self.vif_records += [objects.VirtualInterface(address=vif["address"], tag="front"),
                             objects.VirtualInterface(address="fa:16:3e:00:00:99", tag=None)]
        self.mappings += [objects.BlockDeviceMapping(tag="data", volume_id=nova_objects.UUID, device_name="/dev/vdb"),
                          objects.BlockDeviceMapping(tag=None, volume_id=None, device_name="/dev/vda")]
        self.driver.attach_interface(CONTEXT, self.instance, None, vif)
        self.assertEqual(self.tags(), [(vif["address"], ["front"]), ("/dev/vdb", ["data"])])
        self.driver.detach_interface(CONTEXT, self.instance, vif)
        self.assertEqual(self.tags(), [("/dev/vdb", ["data"])])
        self.assertEqual(self.instance.save.call_count, 2)

    def test_vifs_of_a_restarted_service(self):
        self.driver.plug_vifs(self.instance, self.network)
        self.driver.unplug_vifs(self.instance, self.network)
        self.assertEqual((self.plug.call_count, self.unplug.call_count), (1, 1))

    def test_volume(self):
        info = nova_objects.volume()["connection_info"]
        expected = {"device": "/dev/vdc", "path": "/dev/loop7", "readonly": False, "shared": False, "boot_index": None,
                    "serial": "dddddddd-0000-4000-8000-000000000001"}
        self.driver.attach_volume(CONTEXT, info, self.instance, "/dev/vdc")
        self.driver.detach_volume(CONTEXT, info, self.instance, "/dev/vdc")
        self.assertEqual(self.adapter.requests, [("instance.attach_volume", {"uuid": UUID, "volume": expected}),
                                                 ("instance.detach_volume", {"uuid": UUID, "volume": expected})])

    def test_volume_that_is_refused_is_disconnected(self):
        self.refuse("instance.attach_volume", "invalid", "no such node")
        with unittest.mock.patch("nova.virt.userns.volumes.disconnect") as disconnect:
            with self.assertRaises(exception.InvalidInput):
                self.driver.attach_volume(CONTEXT, nova_objects.volume()["connection_info"], self.instance, "/dev/vdc")
        disconnect.assert_called_once()

    def test_volume_that_is_gone(self):
        for kind in ("device-not-found", "instance-not-found"):
            self.refuse("instance.detach_volume", kind)
            self.driver.detach_volume(CONTEXT, nova_objects.volume()["connection_info"], self.instance, "/dev/vdc")

    def test_volume_that_is_in_use(self):
        """Nova then has it attached as before; what it hears has to be what it acts upon."""
        CONF.set_override("reconnect_timeout", 0, group="userns")
        driver = nova_objects.load_driver(self.adapter.path, reconnect_timeout=0)
        self.addCleanup(driver._adapter.close)
        self.refuse("instance.detach_volume", "busy", "process 5 has it", retryable=True)
        with unittest.mock.patch("nova.virt.userns.volumes.disconnect") as disconnect:
            with self.assertRaisesRegex(exception.DeviceDetachFailed, "process 5 has it"):
                driver.detach_volume(CONTEXT, nova_objects.volume()["connection_info"], self.instance, "/dev/vdc")
        disconnect.assert_not_called()

    def test_volume_of_several(self):
        info = {**nova_objects.volume()["connection_info"], "multiattach": True}
        self.driver.attach_volume(CONTEXT, info, self.instance, "/dev/vdc")
        self.assertIs(self.adapter.asked("instance.attach_volume")[0]["volume"]["shared"], True)

    def test_extend(self):
        """By its serial: Nova does not say where it is. And of a transport that has nothing to look for again."""
        self.driver.extend_volume(CONTEXT, nova_objects.volume()["connection_info"], self.instance, 2 << 30)
        asked = self.adapter.asked("instance.extend_volume")[0]["volume"]
        self.assertEqual((asked["device"], asked["serial"]), ("", "dddddddd-0000-4000-8000-000000000001"))

    def test_swap(self):
        old, new = (nova_objects.volume(path=path)["connection_info"] for path in ("/dev/loop7", "/dev/loop8"))
        with unittest.mock.patch("nova.virt.userns.volumes.disconnect") as disconnect:
            self.driver.swap_volume(CONTEXT, old, new, self.instance, "/dev/vdc", 0)
            disconnect.assert_called_once_with(old)
            self.refuse("instance.swap_volume", "invalid", "it is smaller")
            with self.assertRaisesRegex(exception.InvalidInput, "smaller"):
                self.driver.swap_volume(CONTEXT, old, new, self.instance, "/dev/vdc", 0)
            self.assertEqual(disconnect.call_args.args, (new,))
        asked = self.adapter.asked("instance.swap_volume")[0]
        self.assertEqual([(asked[name]["device"], asked[name]["path"]) for name in ("volume", "next")],
                         [("/dev/vdc", "/dev/loop7"), ("/dev/vdc", "/dev/loop8")])

    def test_tag_of_a_volume(self):
        self.mappings += [
            objects.BlockDeviceMapping(tag="data", device_name="/dev/vdc", volume_id="dddddddd-0000-4000-8000-000000000001"),
            objects.BlockDeviceMapping(tag=None, device_name="/dev/vdd", volume_id=UUID)]
        self.driver.attach_volume(CONTEXT, nova_objects.volume()["connection_info"], self.instance, "/dev/vdc")
        disk, = self.instance.device_metadata.devices
        self.assertEqual((disk.tags, disk.path, disk.serial), (["data"], "/dev/vdc", "dddddddd-0000-4000-8000-000000000001"))
        self.instance.save.assert_called()

    def test_encrypted_volume(self):
        with self.assertRaises(exception.VolumeEncryptionNotSupported):
            self.driver.attach_volume(CONTEXT, nova_objects.volume()["connection_info"], self.instance, "/dev/vdc",
                                      encryption={"provider": "luks"})

    def test_transport_without_a_device(self):
        with self.assertRaises(exception.VolumeDriverNotFound):
            self.driver.attach_volume(CONTEXT, nova_objects.volume(transport="rbd")["connection_info"], self.instance, "/dev/vdc")

    def test_one_of_two_volumes_fails(self):
        devices = nova_objects.block_device_info(nova_objects.volume(), nova_objects.volume(transport="rbd"))
        with unittest.mock.patch("nova.virt.userns.volumes.disconnect") as disconnect:
            with self.assertRaises(exception.VolumeDriverNotFound):
                self.driver.power_on(CONTEXT, self.instance, self.network, devices)
        disconnect.assert_called_once_with(devices["block_device_mapping"][0]["connection_info"])
        self.assertEqual(self.adapter.methods(), [])

    def test_connector(self):
        """os-brick would look at the initiators of this host, as root."""
        with unittest.mock.patch("os_brick.initiator.connector.get_connector_properties") as properties:
            self.assertIs(self.driver.get_volume_connector(self.instance), properties.return_value)
        self.assertEqual(properties.call_args.args[1], CONF.my_block_storage_ip)
        self.assertEqual(properties.call_args.kwargs["host"], "compute-1")


class RefusalTest(DriverCase):
    EXPECTED = {
        "instance-not-found": exception.InstanceNotFound, "instance-exists": exception.InstanceExists,
        "invalid-state": exception.InstanceInvalidState, "unsupported": NotImplementedError, "invalid": exception.InvalidInput,
        "image-missing": userns_adapter.ImageMissing, "image-refused": exception.ImageUnacceptable,
        "image-too-large": exception.FlavorDiskSmallerThanImage,
        "no-space": exception.ComputeResourcesUnavailable, "device-not-found": exception.DeviceNotFound,
        "busy": exception.ComputeServiceUnavailable, "unavailable": exception.ComputeServiceUnavailable,
        "internal": exception.NovaException,
    }

    def test_each_kind(self):
        self.assertEqual(set(self.EXPECTED), compute_api.kinds())
        for kind, expected in self.EXPECTED.items():
            self.refuse("instance.pause", kind, "because of that")
            with self.subTest(kind), self.assertRaises(expected) as caught:
                self.driver.pause(self.instance)
            if kind not in ("instance-not-found", "instance-exists"):
                self.assertIn("because of that", str(caught.exception))

    def test_every_exception_crosses_to_the_conductor(self):
        """oslo.messaging makes them anew there out of class, message and arguments."""
        for kind in compute_api.kinds() - {"unsupported"}:
            error = userns_adapter.to_nova(client.AdapterError("m", kind, "why"), UUID)
            again = type(error)(*error.args, **getattr(error, "kwargs", {}))
            self.assertEqual(str(again), str(error))

    def test_words_of_nova(self):
        self.refuse("instance.crash_dump", "unsupported")
        self.refuse("instance.quiesce", "unsupported")
        with self.assertRaises(exception.TriggerCrashDumpNotSupported):
            self.driver.trigger_crash_dump(self.instance)
        with self.assertRaises(exception.InstanceQuiesceNotSupported):
            self.driver.quiesce(CONTEXT, self.instance, None)
        self.refuse("instance.set_password", "unsupported")
        with unittest.mock.patch.object(type(self.instance), "image_meta", nova_objects.image_meta()):
            with self.assertRaises(NotImplementedError):
                self.driver.set_admin_password(self.instance, "new")
