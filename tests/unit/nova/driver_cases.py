"""What each call of Nova's asks of the adapter, what is around it, and what is left when it fails."""
import json
import threading
import unittest.mock

import fake_adapter
import nova_objects
from nova import exception
from nova import objects
from nova.compute import power_state
from nova.network import model
from nova.objects import fields
from nova.virt import block_device
from nova_objects import CONF, CONTEXT, UUID
from shim_case import ShimCase


class DriverCase(ShimCase):
    def setUp(self):
        super().setUp()
        self.instance = nova_objects.instance()
        self.network = nova_objects.network_info()

    def spawn(self, instance=None, block_device_info=None, files=(), **more):
        self.driver.spawn(CONTEXT, instance or self.instance, nova_objects.image_meta(), list(files), "secret", {},
                          network_info=self.network, block_device_info=block_device_info, **more)

    def override(self, name, value, group=None):
        CONF.set_override(name, value, group=group)
        self.addCleanup(CONF.clear_override, name, group=group)


class SpawnTest(DriverCase):
    def test_request(self):
        self.spawn(files=[("/etc/motd", b"hello")])
        request, = self.adapter.asked("instance.spawn")
        self.assertEqual(request["instance"]["name"], "instance-00000001")
        self.assertEqual(request["image"], {"key": "sha512-" + "a" * 128 + "-raw", "format": "raw"})
        self.assertEqual([vif["mac"] for vif in request["network"]], ["fa:16:3e:00:00:01"])
        self.assertEqual(request["files"], [{"path": "/etc/motd", "content": "aGVsbG8=", "mode": 420}])
        self.assertEqual((request["volumes"], request["config_drive"], request["password"], request["power"]),
                         ([], [], "secret", True))

    def test_an_image_that_is_cached_costs_one_request(self):
        self.spawn()
        self.assertEqual(self.adapter.methods(), ["instance.spawn"])

    def test_ids_are_kept_and_asked_for_again(self):
        self.spawn()
        self.assertEqual(json.loads(self.instance.system_metadata["userns_idmap"]), {"first": 2000000, "count": 65536})
        self.instance.save.assert_not_called()  # Nova does, and once more would be 20 ms
        self.driver.destroy(CONTEXT, self.instance, self.network)
        self.spawn()
        self.assertEqual(self.adapter.asked("instance.spawn")[1]["instance"]["ids"], {"first": 2000000, "count": 65536})

    def test_root_on_a_volume(self):
        self.spawn(block_device_info=nova_objects.block_device_info(nova_objects.volume(boot_index=0)))
        request, = self.adapter.asked("instance.spawn")
        self.assertIsNone(request["image"])
        self.assertEqual(request["volumes"], [{"device": "/dev/vdb", "path": "/dev/loop7", "readonly": False, "boot_index": 0,
                                               "shared": False, "serial": "dddddddd-0000-4000-8000-000000000001"}])
        self.assertEqual(self.glance.asked, [])

    def test_root_that_is_refused(self):
        """In words that reach the user: it is no matter of the host."""
        self.refuse("instance.spawn", "unsupported", "set root_volumes")
        with self.assertRaisesRegex(exception.InvalidInput, "set root_volumes"):
            self.spawn(block_device_info=nova_objects.block_device_info(nova_objects.volume(boot_index=0)))
        self.assertEqual(self.adapter.methods()[-1], "instance.destroy")

    def test_image_and_a_volume(self):
        self.spawn(block_device_info=nova_objects.block_device_info(nova_objects.volume()))
        request, = self.adapter.asked("instance.spawn")
        self.assertIsNotNone(request["image"])
        self.assertIsNone(request["volumes"][0]["boot_index"])

    def test_tags_of_links_that_are_allocated_meanwhile(self):
        class Late(model.NetworkInfo):
            def __iter__(late):
                self.vif_records[:] = [objects.VirtualInterface(address="fa:16:3e:00:00:01", tag="front")]
                return super().__iter__()
        self.network = Late([nova_objects.vif()])
        self.spawn()
        self.assertEqual([(each.mac, each.tags) for each in self.instance.device_metadata.devices],
                         [("fa:16:3e:00:00:01", ["front"])])

    def test_tags_are_asked_for_while_the_adapter_works(self):
        """Which are two questions to Nova's conductor, and some 20 ms."""
        is_made = threading.Event()

        def late(*_arguments):
            self.assertTrue(is_made.wait(60), "the adapter was not asked before the tags were there")
            return [objects.VirtualInterface(address="fa:16:3e:00:00:01", tag="front")]

        def make(**_params):
            is_made.set()
            return fake_adapter.ANSWERS["instance.spawn"]
        self.script("instance.spawn", make)
        with unittest.mock.patch.object(objects.VirtualInterfaceList, "get_by_instance_uuid", side_effect=late):
            self.spawn()
        self.assertEqual([each.tags for each in self.instance.device_metadata.devices], [["front"]])

    def test_tags_that_need_not_be_asked_for(self):
        """It has no links, and the disks are Nova's own."""
        root = objects.BlockDeviceMapping(nova_objects.CONTEXT, source_type="image", destination_type="local", no_device=False, volume_size=1,
                                          device_name="/dev/vda", disk_bus=None, device_type="disk", boot_index=0, guest_format=None,
                                          tag="root", volume_id=None, image_id=None, encrypted=False, encryption_format=None,
                                          encryption_options=None, encryption_secret_uuid=None)
        disks = {**nova_objects.block_device_info(), "image": block_device.convert_local_images(objects.BlockDeviceMappingList(objects=[root]))}
        self.assertEqual(len(disks["image"]), 1)
        self.network = model.NetworkInfo([])
        with unittest.mock.patch.object(objects.VirtualInterfaceList, "get_by_instance_uuid", side_effect=AssertionError), \
                unittest.mock.patch.object(objects.BlockDeviceMappingList, "get_by_instance_uuid", side_effect=AssertionError):
            self.spawn(block_device_info=disks)
        self.assertEqual([(each.tags, each.path) for each in self.instance.device_metadata.devices], [(["root"], "/dev/vda")])
        # A disk of which it is not known is asked for.
        self.mappings.append(objects.BlockDeviceMapping(tag="data", volume_id=None, device_name="/dev/vdb"))
        self.spawn(block_device_info=nova_objects.block_device_info(nova_objects.volume()))
        self.assertEqual([each.path for each in self.instance.device_metadata.devices], ["/dev/vdb"])

    def test_tags_that_cannot_be_asked_for(self):
        with unittest.mock.patch.object(objects.VirtualInterfaceList, "get_by_instance_uuid",
                                        side_effect=exception.OrphanedObjectError(method="get", objtype="tags")), \
                self.assertRaises(exception.OrphanedObjectError):
            self.spawn()
        self.assertEqual(self.adapter.methods(), ["instance.spawn", "instance.destroy"])

    def test_config_drive(self):
        drive = [("openstack/latest/meta_data.json", b"{}"), ("openstack/latest/user_data", "#!")]
        with unittest.mock.patch("nova.api.metadata.base.InstanceMetadata") as metadata:
            metadata.return_value.metadata_for_config_drive.return_value = iter(drive)
            self.spawn(nova_objects.instance(config_drive="True"), files=[("/a", b"b")])
        self.assertEqual(metadata.call_args.kwargs["extra_md"], {"admin_pass": "secret"})
        self.assertEqual(metadata.call_args.kwargs["content"], [("/a", b"b")])
        self.assertEqual([entry["path"] for entry in self.adapter.asked("instance.spawn")[0]["config_drive"]],
                         [path for path, _ in drive])

    def test_password_is_the_operators_choice(self):
        self.override("inject_password", False, "userns")
        self.spawn()
        self.assertIsNone(self.adapter.asked("instance.spawn")[0]["password"])

    def test_waits_for_neutron(self):
        self.spawn()
        self.assertEqual(self.driver.virtapi.waited_for, [("network-vif-plugged", "cccccccc-0000-4000-8000-000000000001")])
        self.plug.assert_called_once()

    def test_waits_for_nothing_that_is_there_or_stays_off(self):
        self.network = nova_objects.network_info(nova_objects.vif(active=True))
        self.spawn()
        self.network = nova_objects.network_info()
        self.spawn(power_on=False)
        self.override("vif_plugging_timeout", 0)
        self.spawn()
        self.assertEqual(self.driver.virtapi.waited_for, [])

    def neutron_is_late(self):
        def late(_callback):
            from eventlet import timeout
            raise timeout.Timeout(300)
        self.driver.virtapi.outcome = late

    def test_neutron_is_late(self):
        self.neutron_is_late()
        self.override("vif_plugging_is_fatal", False)
        self.spawn()
        self.assertEqual(self.adapter.methods(), ["instance.spawn"])

    def test_neutron_is_late_and_that_is_fatal(self):
        self.neutron_is_late()
        with self.assertRaises(exception.VirtualInterfaceCreateException):
            self.spawn()
        self.assertEqual(self.adapter.asked("instance.destroy"), [{"uuid": UUID, "disks": True, "rebuild": False, "revert": False}])
        self.unplug.assert_called_once()

    def test_neutron_reports_a_failure(self):
        self.driver.virtapi.outcome = lambda callback: callback("network-vif-plugged", self.instance)
        with self.assertRaises(exception.VirtualInterfaceCreateException):
            self.spawn()
        self.assertEqual(len(self.adapter.asked("instance.destroy")), 1)

    def test_failure_leaves_nothing(self):
        self.refuse("instance.spawn", "no-space", "no range is left")
        with self.assertRaisesRegex(exception.ComputeResourcesUnavailable, "no range is left"):
            self.spawn()
        self.assertEqual(self.adapter.asked("instance.destroy"), [{"uuid": UUID, "disks": True, "rebuild": False, "revert": False}])
        self.unplug.assert_called_once()
        self.assertEqual(self.instance.system_metadata.get("userns_idmap"), None)

    def test_what_is_there_is_not_destroyed(self):
        self.refuse("instance.spawn", "instance-exists")
        with self.assertRaises(exception.InstanceExists):
            self.spawn()
        self.assertEqual(self.adapter.asked("instance.destroy"), [])

    def test_failing_to_clean_up_hides_no_reason(self):
        self.refuse("instance.spawn", "image-refused", "a symbolic link that leads out")
        self.refuse("instance.destroy", "internal", "cannot")
        with self.assertRaisesRegex(exception.ImageUnacceptable, "a symbolic link that leads out"):
            self.spawn()

    def test_adapter_is_gone(self):
        """A boot then goes to another host: any exception but the few that Nova takes for a user's mistake does that."""
        self.driver._adapter._client._reconnect_timeout = 0
        self.adapter.stop()
        self.addCleanup(self.adapter.start)
        with self.assertRaises(exception.ComputeServiceUnavailable):
            self.spawn()


class LifeTest(DriverCase):
    def test_requests(self):
        """Each of Nova's calls, and what the adapter is asked because of it."""
        network = [dict(vif, active=False) for vif in self.expected_network()]
        with_links = {"uuid": UUID, "network": network, "volumes": []}
        driver, instance = self.driver, self.instance
        cases = [
            (lambda: driver.power_off(instance, 60, 10), "power_off", {"uuid": UUID, "timeout": 60, "retry_interval": 10}),
            (lambda: driver.power_off(instance), "power_off", {"uuid": UUID, "timeout": 0, "retry_interval": 0}),
            (lambda: driver.power_on(CONTEXT, instance, self.network), "power_on", with_links),
            (lambda: driver.reboot(CONTEXT, instance, self.network, "SOFT"), "reboot", {**with_links, "type": "soft"}),
            (lambda: driver.reboot(CONTEXT, instance, self.network, "HARD"), "reboot", {**with_links, "type": "hard"}),
            (lambda: driver.pause(instance), "pause", {"uuid": UUID}),
            (lambda: driver.unpause(instance), "unpause", {"uuid": UUID}),
            (lambda: driver.suspend(CONTEXT, instance), "suspend", {"uuid": UUID}),
            (lambda: driver.resume(CONTEXT, instance, self.network), "resume", with_links),
            (lambda: driver.unrescue(CONTEXT, instance), "unrescue", {"uuid": UUID}),
            (lambda: driver.destroy(CONTEXT, instance, self.network), "destroy", {"uuid": UUID, "disks": True, "rebuild": False, "revert": False}),
            (lambda: driver.destroy(CONTEXT, instance, self.network, None, False),
             "destroy", {"uuid": UUID, "disks": False, "rebuild": False, "revert": False}),
            (lambda: driver.remove_arrival(instance, self.network, None), "destroy",
             {"uuid": UUID, "disks": True, "rebuild": False, "revert": True}),
            (lambda: driver.cleanup(CONTEXT, instance, None), "destroy", {"uuid": UUID, "disks": True, "rebuild": False, "revert": False}),
            (lambda: driver.delete_instance_files(instance), "destroy", {"uuid": UUID, "disks": True, "rebuild": False, "revert": False}),
            (lambda: driver.set_admin_password(instance, "new"), "set_password",
             {"uuid": UUID, "user": "root", "password": "new"}),
            (lambda: driver.trigger_crash_dump(instance), "crash_dump", {"uuid": UUID}),
            (lambda: driver.quiesce(CONTEXT, instance, None), "quiesce", {"uuid": UUID}),
            (lambda: driver.unquiesce(CONTEXT, instance, None), "unquiesce", {"uuid": UUID}),
            (lambda: driver.confirm_migration(CONTEXT, None, instance, self.network), "migrate_confirm", {"uuid": UUID}),
            (lambda: driver.finish_revert_migration(CONTEXT, instance, self.network, None), "migrate_revert",
             {**with_links, "power": True}),
        ]
        for call, method, params in cases:
            with self.subTest(method):
                self.adapter.requests.clear()
                with unittest.mock.patch.object(type(instance), "image_meta", nova_objects.image_meta()):
                    call()
                self.assertEqual(self.adapter.requests, [(f"instance.{method}", params)])

    def expected_network(self):
        from nova.virt.userns import marshal
        return marshal.network(self.network)

    def test_off_of_what_is_gone(self):
        """As after a rebuild that failed: with an exception Nova leaves the next rebuild in its midst."""
        self.refuse("instance.power_off", "instance-not-found")
        self.driver.power_off(self.instance, 60, 10)

    def test_ports_of_open_vswitch_are_made_again(self):
        """Between the old link and the new one."""
        self.network = nova_objects.network_info(nova_objects.vif("ovs", active=True))
        self.instance.info_cache = objects.InstanceInfoCache(network_info=self.network)
        order = []
        self.unplug.side_effect = lambda *_: order.append("unplug")
        self.plug.side_effect = lambda *_: order.append("plug")
        for method in ("power_off", "power_on", "reboot", "resume", "unrescue"):
            self.script(f"instance.{method}", lambda _method=method, **_params: order.append(_method) or {})
        for wanted, call in [
                (["power_off", "unplug", "plug", "reboot"], lambda: self.driver.reboot(CONTEXT, self.instance, self.network, "SOFT")),
                (["power_off", "unplug", "plug", "reboot"], lambda: self.driver.reboot(CONTEXT, self.instance, self.network, "HARD")),
                (["unplug", "plug", "power_on"], lambda: self.driver.power_on(CONTEXT, self.instance, self.network)),
                (["power_off", "unplug", "plug", "unrescue"], lambda: self.driver.unrescue(CONTEXT, self.instance)),
                (["plug", "resume"], lambda: self.driver.resume(CONTEXT, self.instance, self.network))]:
            order.clear()
            call()
            self.assertEqual(order, wanted)

    def test_soft_reboot_of_what_is_off_is_a_hard_one(self):
        def only_hard(type, **_params):
            if type == "soft":
                raise fake_adapter.Refusal("invalid-state", "it is off")
            return {}
        self.script("instance.reboot", only_hard)
        self.driver.reboot(CONTEXT, self.instance, self.network, "SOFT")
        self.assertEqual([params["type"] for params in self.adapter.asked("instance.reboot")], ["soft", "hard"])

    def test_states(self):
        for state, expected in {"running": power_state.RUNNING, "paused": power_state.PAUSED, "shutdown": power_state.SHUTDOWN,
                                "crashed": power_state.SHUTDOWN, "suspended": power_state.SUSPENDED,
                                "nostate": power_state.NOSTATE}.items():
            self.adapter.answers["instance.info"] = {**fake_adapter.ANSWERS["instance.info"], "state": state}
            self.assertEqual(self.driver.get_info(self.instance).state, expected)

    def test_lists(self):
        self.adapter.answers["instance.list"] = [{"uuid": UUID, "name": "instance-00000001", "state": "running"}]
        self.assertEqual(self.driver.list_instances(), ["instance-00000001"])
        self.assertEqual(self.driver.list_instance_uuids(), [UUID])
        self.assertEqual(self.driver.get_num_instances(), 1)
        self.assertTrue(self.driver.instance_exists(self.instance))

    def test_what_has_left_something_is_for_nova_to_reap(self):
        self.adapter.answers["instance.remains"] = [{"uuid": UUID}]
        self.assertEqual(self.driver.list_instance_uuids(), [UUID])
        self.assertEqual(self.driver.get_num_instances(), 0)
        self.assertFalse(self.driver.instance_exists(self.instance))

    def test_a_rebuild_keeps_the_ids(self):
        self.instance.task_state = "rebuilding"
        self.instance.host = CONF.host
        self.driver.destroy(CONTEXT, self.instance, self.network)
        self.instance.host = "where-it-is-evacuated-to"
        self.driver.destroy(CONTEXT, self.instance, self.network)
        self.assertEqual([asked["rebuild"] for asked in self.adapter.asked("instance.destroy")], [True, False])

    def test_only_a_revert_goes_back(self):
        for task in ("resize_reverting", "deleting", None):
            self.instance.task_state = task
            self.driver.destroy(CONTEXT, self.instance, self.network)
        self.assertEqual([asked["revert"] for asked in self.adapter.asked("instance.destroy")], [True, False, False])

    def test_destroy_of_what_is_gone(self):
        self.refuse("instance.destroy", "instance-not-found")
        self.unplug.side_effect = exception.InternalError("no bridge")
        self.driver.destroy(CONTEXT, self.instance, self.network,
                            nova_objects.block_device_info(nova_objects.volume(transport="nonesuch")))

    def test_volumes_are_connected_for_a_start(self):
        devices = nova_objects.block_device_info(nova_objects.volume())
        for call, method in ((self.driver.power_on, "power_on"), (self.driver.resume, "resume")):
            call(CONTEXT, self.instance, self.network, devices)
            self.assertEqual(self.adapter.asked(f"instance.{method}")[0]["volumes"][0]["path"], "/dev/loop7")

    def test_host_boot(self):
        """Newer releases say share_info before block_device_info."""
        devices = nova_objects.block_device_info(nova_objects.volume())
        self.driver.resume_state_on_host_boot(CONTEXT, self.instance, self.network, devices)
        self.assertEqual(self.adapter.asked("instance.power_on"), [])
        self.adapter.answers["instance.info"] = {**fake_adapter.ANSWERS["instance.info"], "state": "shutdown"}
        for arguments in ((devices,), ([], devices)):
            self.driver.resume_state_on_host_boot(CONTEXT, self.instance, self.network, *arguments)
        self.driver.resume_state_on_host_boot(CONTEXT, self.instance, self.network, block_device_info=devices, share_info=[])
        self.assertEqual([len(params["volumes"]) for params in self.adapter.asked("instance.power_on")], [1, 1, 1])

    def test_rescue(self):
        self.driver.rescue(CONTEXT, self.instance, self.network, nova_objects.image_meta(), "secret", None)
        request, = self.adapter.asked("instance.rescue")
        self.assertEqual((request["uuid"], request["password"], request["image"]["format"]), (UUID, "secret", "raw"))
        # Newer releases have one argument more.
        self.driver.rescue(CONTEXT, self.instance, self.network, nova_objects.image_meta(), "secret", None, [])

    def test_console(self):
        self.assertEqual(self.driver.get_console_output(CONTEXT, self.instance), b"hello\n")
        console = self.driver.get_serial_console(CONTEXT, self.instance)
        self.assertEqual((console.host, console.port), ("127.0.0.1", 10000))

    def test_diagnostics(self):
        found = self.driver.get_instance_diagnostics(self.instance)
        self.assertEqual((found.state, found.uptime, found.num_cpus, found.num_nics, found.num_disks), ("running", None, 1, 1, 1))
        self.assertEqual((found.memory_details.maximum, found.nic_details[0].tx_errors, found.disk_details[0].write_requests),
                         (512, 8, 4))
        self.assertIn(found.driver, fields.HypervisorDriver.ALL)


class MigrationTest(DriverCase):
    def test_out(self):
        self.assertEqual(
            json.loads(self.driver.migrate_disk_and_power_off(CONTEXT, self.instance, "10.1.1.2", nova_objects.flavor(),
                                                              self.network, None, 60, 10)),
            fake_adapter.ANSWERS["instance.migrate_out"]["ticket"])
        self.assertEqual(self.adapter.asked("instance.migrate_out"),
                         [{"uuid": UUID, "destination": "10.1.1.2", "timeout": 60, "retry_interval": 10}])
        self.unplug.assert_called_once()

    def test_out_to_smaller_disks(self):
        for smaller in (nova_objects.flavor(root_gb=0), nova_objects.flavor(ephemeral_gb=-1)):
            with self.assertRaises(exception.InstanceFaultRollback) as caught:
                self.driver.migrate_disk_and_power_off(CONTEXT, self.instance, "10.1.1.2", smaller, self.network)
            self.assertIsInstance(caught.exception.inner_exception, exception.ResizeError)
        self.assertEqual(self.adapter.methods(), [])

    def finish(self, **more):
        self.driver.finish_migration(CONTEXT, None, self.instance, '{"host": "a"}', self.network, nova_objects.image_meta(),
                                     True, {}, **more)

    def test_in(self):
        self.finish(power_on=False)
        request, = self.adapter.asked("instance.migrate_in")
        self.assertEqual((request["ticket"], request["resize"], request["power"]), ({"host": "a"}, True, False))
        self.assertIn("userns_idmap", self.instance.system_metadata)

    def test_in_without_the_base(self):
        answers = [fake_adapter.Refusal("image-missing"), None]

        def first_without(**_params):
            answer = answers.pop(0)
            if answer:
                raise answer
            return fake_adapter.ANSWERS["instance.migrate_in"]
        self.script("instance.migrate_in", first_without)
        self.adapter.answers["image.has"] = {"present": False}
        self.finish()
        self.assertEqual(len(self.adapter.asked("image.add")), 1)

    def test_in_fails(self):
        """What can be tried again is not destroyed."""
        self.refuse("instance.migrate_in", "no-space")
        with self.assertRaises(exception.ComputeResourcesUnavailable):
            self.finish()
        self.assertEqual(self.adapter.asked("instance.destroy"), [])
        self.unplug.assert_called_once()

    def test_confirm_of_what_is_gone(self):
        self.refuse("instance.migrate_confirm", "instance-not-found")
        self.driver.confirm_migration(CONTEXT, None, self.instance, self.network)

    def test_live_migration_is_refused_before_it_begins(self):
        with self.assertRaises(exception.MigrationPreCheckError):
            self.driver.check_can_live_migrate_destination(CONTEXT, self.instance, {}, {})
