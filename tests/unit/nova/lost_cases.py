"""Requests that were lost with a nova-compute: which are taken for lost, whose turn it is, and what is done."""
import types
import unittest.mock

import nova_objects
from nova import exception
from nova.compute import power_state
from lost_case import HERE, LostCase, MIGRATION, THERE, event
from nova_objects import UUID


class LostTest(LostCase):
    # ---- of this host

    def test_that_an_instance_is_set_back_to_what_it_is(self):
        instance = self.instance("rebooting")
        self.start()
        self.assertEqual((instance.task_state, instance.vm_state, instance.power_state), (None, "stopped", power_state.SHUTDOWN))
        instance.save.assert_called_once_with(expected_task_state=["rebooting"])

    def test_that_an_old_migration_does_not_delay_it(self):
        self.migration("reverted")
        instance = self.instance("rebooting")
        self.start(looks=1)
        self.assertIsNone(instance.task_state)

    def test_states_that_are_not_of_power_stay(self):
        for state in ("rescued", "error", "shelved"):
            self.instances.clear()
            instance = self.instance("unrescuing", vm_state=state)
            self.start()
            self.assertEqual((instance.task_state, instance.vm_state), (None, state))

    def test_what_is_under_way_is_left_alone(self):
        instance = self.instance("rebooting")

        def ask_again():
            self.action = types.SimpleNamespace(id=2, action="reboot")
        def lock():
            self.locked.append(types.SimpleNamespace(id=3, action="lock"))
            self.events.append(event("reboot_instance", HERE, ended=False))
        for meanwhile in (ask_again, lock, lambda: self.events.append(event("reboot_instance", HERE, ended=False))):
            self.start(meanwhile)
            self.assertEqual(instance.task_state, "rebooting")
        instance.save.assert_not_called()

    def test_one_that_an_operator_resets_meanwhile_is_left_alone(self):
        instance = self.instance("rebooting")

        def reset():
            self.locked.append(types.SimpleNamespace(id=5, action="resetState"))
        self.start(reset)
        self.assertEqual(instance.task_state, "rebooting")

    def test_what_is_asked_for_later_is_not_lost(self):
        instance = self.instance(None)

        def ask():
            instance.task_state = "rebooting"
        self.start(ask)
        self.assertEqual(instance.task_state, "rebooting")

    def test_what_nova_itself_or_another_host_looks_after(self):
        for task, vm_state in [("migrating", "active"), ("deleting", "active"), ("spawning", "building")]:
            self.instances.clear()
            instance = self.instance(task, vm_state=vm_state)
            self.start()
            self.assertEqual(instance.task_state, task)

    def test_that_it_is_tried_again(self):
        instance = self.instance("rebooting")
        self.host.get_info.side_effect = [exception.ComputeServiceUnavailable("restarting", host=HERE), unittest.mock.DEFAULT]
        self.start()
        self.assertIsNone(instance.task_state)

    def test_that_it_may_be_left_to_an_operator(self):
        nova_objects.CONF.set_override("lost_requests_delay", -1, group="userns")
        self.addCleanup(nova_objects.CONF.clear_override, "lost_requests_delay", group="userns")
        instance = self.instance("rebooting")
        self.start()
        self.assertEqual(instance.task_state, "rebooting")
        self.assertIsNone(self.lost._thread)

    def test_that_only_what_needs_them_waits_for_claims(self):
        self.placement.get_allocations_for_resource_provider.side_effect = RuntimeError
        instance = self.instance("rebooting")
        self.start()
        self.assertIsNone(instance.task_state)

    def test_that_it_is_not_looked_before_nova_listens(self):
        instance = self.instance("rebooting")
        with unittest.mock.patch("nova.objects.Service.get_by_compute_host", return_value=types.SimpleNamespace(report_count=7)):
            self.start(looks=5)
        self.assertEqual(instance.task_state, "rebooting")

    def test_that_an_offloading_is_asked_for_again(self):
        instance = self.instance("shelving_offloading")
        self.start()
        instance.task_state, self.is_volume_backed.return_value = "shelving", True
        self.start()
        self.assertEqual(self.rpc.shelve_offload_instance.call_count, 2)

    # ---- of moves

    def move(self, task, host, *events, looks=2):
        self.instances.clear()
        self.events = list(events)
        self.instance(task, host=host)
        self.start(looks=looks)
        asked = [call[0] for call in self.rpc.method_calls]
        self.rpc.reset_mock()
        return asked

    def test_whose_turn_a_revert_is(self):
        migration = self.migration("reverting", source=HERE, destination=THERE)
        self.assertEqual(self.move("resize_reverting", THERE), ["revert_resize"])  # of a move that goes back, and did not get to this
        self.action.action = "revertResize"
        begun, done = event("revert_resize", THERE, ended=False), event("revert_resize", THERE)
        finishing = event("finish_revert_resize", HERE, ended=False)
        # The source's.
        self.assertEqual(self.move("resize_reverting", THERE, done), ["finish_revert_resize"])
        self.assertEqual(self.move("resize_reverting", HERE, done, finishing), ["finish_revert_resize"])
        self.assertEqual(self.move("resize_reverting", THERE), [])
        self.assertEqual(self.move("resize_reverting", THERE, begun), [])
        migration.status = "reverted"
        self.assertEqual(self.move("resize_reverting", THERE, begun, looks=1), [])  # it may be telling
        self.assertEqual(self.move("resize_reverting", THERE, begun), ["finish_revert_resize"])
        # The destination's.
        migration.source_compute, migration.dest_compute, migration.status = THERE, HERE, "reverting"
        begun, done = event("revert_resize", HERE, ended=False), event("revert_resize", HERE)
        self.assertEqual(self.move("resize_reverting", HERE), ["revert_resize"])
        self.assertEqual(self.move("resize_reverting", HERE, begun), ["revert_resize"])
        self.assertEqual(self.move("resize_reverting", HERE, done), [])
        self.assertEqual(self.move("resize_reverting", THERE, begun, event("finish_revert_resize", THERE, ended=False)), [])
        migration.status = "reverted"
        self.assertEqual(self.move("resize_reverting", HERE, begun), ["finish_revert_resize"])

    def test_that_a_disk_that_came_back_is_not_taken_for_the_one_to_be_removed(self):
        """On one host the second half is at work when the end of the first was not written down."""
        self.migration("reverting", source=HERE, destination=HERE)
        begun = event("revert_resize", HERE, ended=False)
        self.assertEqual(self.move("resize_reverting", HERE, begun, event("finish_revert_resize", HERE, ended=False)), ["finish_revert_resize"])

    def test_one_that_did_not_arrive_goes_back(self):
        migration = self.migration("post-migrating", source=THERE, destination=HERE)
        left, finishing = event("resize_instance", THERE), event("finish_resize", HERE, ended=False)
        self.host.get_info.side_effect = exception.InstanceNotFound(instance_id=UUID)
        self.assertEqual(self.move("resize_migrated", HERE, event("resize_instance", THERE, ended=False)), [])
        self.assertEqual(migration.status, "post-migrating")
        self.assertEqual(self.move("resize_migrated", HERE, left), ["revert_resize"])
        self.assertEqual((migration.status, self.instances[0].task_state), ("reverting", "resize_reverting"))
        self.assertEqual(self.move("resize_finish", HERE, left, finishing), ["revert_resize"])
        # Told, but not written down.
        self.assertEqual(self.move("resize_migrated", HERE, event("resize_instance", THERE, ended=False), finishing), ["revert_resize"])
        migration.source_compute, migration.dest_compute = HERE, THERE
        self.assertEqual(self.move("resize_migrated", THERE, event("resize_instance", HERE, ended=False)), ["revert_resize"])
        self.assertEqual(self.move("resize_migrated", THERE, event("resize_instance", HERE)), [])
        self.assertEqual(self.move("resize_migrated", THERE, event("resize_instance", HERE, ended=False),
                                   event("finish_resize", THERE, ended=False)), [])

    def test_one_that_has_arrived_stays(self):
        migration = self.migration("post-migrating", source=THERE, destination=HERE)
        self.mappings.append(types.SimpleNamespace(volume_id="volume", attachment_id="attachment"))
        self.assertEqual(self.move("resize_finish", HERE, event("resize_instance", THERE), event("finish_resize", HERE, ended=False)), [])
        self.assertEqual((migration.status, self.instances[0].vm_state, self.instances[0].task_state), ("finished", "resized", None))
        self.host.note_ids.assert_called_once_with(self.instances[0])
        self.cinder.attachment_complete.assert_called_once_with(unittest.mock.ANY, "attachment")

    def test_one_that_has_not_left_stays_with_its_claims(self):
        migration = self.migration("pre-migrating", source=THERE, destination=None)
        self.move("resize_prep", THERE)
        self.assertEqual(migration.status, "pre-migrating")  # the scheduler has chosen another host
        self.claims = [UUID]
        self.move("resize_prep", THERE, event("prep_resize", "compute-3", ended=False))
        self.assertEqual(migration.status, "pre-migrating")
        migration.dest_compute = HERE
        self.move("resize_prep", THERE, event("prep_resize", HERE))
        self.assertEqual(migration.status, "pre-migrating")  # it is the source's turn
        migration.dest_compute = None
        self.move("resize_prep", THERE, event("prep_resize", "compute-3"))  # rescheduled
        self.placement.move_allocations.assert_called_once_with(unittest.mock.ANY, MIGRATION, UUID)
        self.assertEqual((migration.status, self.instances[0].task_state), ("error", None))
        self.assertEqual(self.spec.flavor, self.instances[0].flavor)

    def test_one_that_nova_has_brought_back_gives_up_its_migration(self):
        for status in ("pre-migrating", "migrating", "post-migrating"):
            self.instances.clear()
            self.migrations.clear()
            migration, instance = self.migration(status), self.instance("resize_migrating")

            def bring_back():
                instance.task_state = None  # noqa: B023
            self.start(bring_back)
            self.assertEqual(migration.status, "error")
        self.placement.move_allocations.assert_called_with(unittest.mock.ANY, MIGRATION, UUID)

    def test_that_claims_are_back_before_nova_says_so(self):
        """Its owner may ask for another move at once."""
        migration, instance = self.migration("pre-migrating"), self.instance("resize_prep")

        def ask_again():
            self.assertEqual(migration.status, "error")
            self.placement.move_allocations.assert_called_once_with(unittest.mock.ANY, MIGRATION, UUID)
            self.action = types.SimpleNamespace(id=2, action="resize")
        self.start(ask_again)
        self.assertEqual(instance.task_state, "resize_prep")  # Nova's to reset
        old = self.migration("confirmed")
        self.start()
        self.assertEqual(old.status, "confirmed")

    def test_that_one_that_nova_brings_back_has_its_claims(self):
        migration, instance = self.migration("migrating"), self.instance("resize_migrating")
        self.start()
        self.placement.move_allocations.return_value = False
        self.lost.note_brought_back("context", instance, migration)
        self.assertEqual(migration.status, "migrating")
        self.placement.move_allocations.return_value = True
        self.lost.note_brought_back("context", instance, migration)
        self.assertEqual(migration.status, "error")

    def test_that_a_confirmation_is_asked_for_again(self):
        migration, instance = self.migration("confirming"), self.instance(None, vm_state="resized", host=THERE)
        self.start()
        self.rpc.confirm_resize.assert_called_once_with(unittest.mock.ANY, instance, migration, HERE)
        migration.source_compute = THERE
        self.start()
        self.rpc.confirm_resize.assert_called_once()

    def test_that_a_confirmation_is_ended(self):
        """Its status is written first, and Nova takes it for done then."""
        self.migration("confirmed")
        instance = self.instance(None, vm_state="resized", host=THERE, power_state=power_state.RUNNING)
        self.claims = [UUID, MIGRATION]
        self.start()
        self.assertEqual(instance.vm_state, "active")
        self.placement.delete_allocation_for_instance.assert_called_once_with(unittest.mock.ANY, MIGRATION, consumer_type="migration",
                                                                              force=True)

    # ---- of unshelving

    def test_one_that_was_being_unshelved_is_shelved(self):
        other = "bbbbbbbb-0000-4000-8000-000000000001"
        for task, claims, ends in [("unshelving", [], "unshelving"), ("unshelving", [UUID], None), ("spawning", [UUID], None)]:
            self.instances.clear()
            self.claims = claims
            instance = self.instance(task, vm_state="shelved_offloaded", host=None, image_ref=other,
                                     system_metadata={"image_base_image_ref": nova_objects.IMAGE_ID})
            self.start()
            self.assertEqual(instance.task_state, ends)
        self.assertEqual((instance.vm_state, instance.image_ref), ("shelved_offloaded", nova_objects.IMAGE_ID))
        self.placement.delete_allocation_for_instance.assert_called_with(unittest.mock.ANY, UUID, force=True)

    def test_that_nova_does_not_see_it_unless_it_is_whole(self):
        instance = self.instance("spawning", vm_state="shelved_offloaded")
        self.claims = [UUID]
        self.start(lambda: self.assertEqual(instance.host, HERE))
        self.assertEqual(instance.task_state, "spawning")
        self.host.destroy.assert_not_called()
        self.host.get_info.side_effect = exception.InstanceNotFound(instance_id=UUID)
        self.mappings.append(types.SimpleNamespace(volume_id="volume", attachment_id="old", save=unittest.mock.Mock()))
        self.cinder.attachment_create.return_value = {"id": "new"}
        with unittest.mock.patch("nova.virt.driver.get_block_device_info"):
            self.start(lambda: self.assertIsNone(instance.host))
        self.host.destroy.assert_called_once()
        self.cinder.attachment_delete.assert_called_once_with(unittest.mock.ANY, "old")
        self.assertEqual((instance.host, instance.task_state, self.mappings[0].attachment_id), (None, None, "new"))

    # ---- of volumes

    def test_volumes(self):
        self.volumes = {status: {"status": status} for status in ("in-use", "detaching", "reserved")}
        self.volumes["shared"] = {"status": "detaching", "multiattach": True}
        self.mappings += [types.SimpleNamespace(volume_id=volume, attachment_id="a") for volume in (*self.volumes, None)]
        self.instance(None)
        for name, asked in [("attach_volume", "reserved"), ("detach_volume", "detaching")]:
            self.action = types.SimpleNamespace(id=1, action=name)
            self.rpc.reset_mock()
            self.start()
            (called, arguments, _), = self.rpc.method_calls
            self.assertEqual(called, name)
            self.assertEqual(getattr(arguments[2], "volume_id", arguments[2]), asked)
        self.rpc.reset_mock()
        self.events = [event("detach_volume", HERE)]
        self.start()
        self.assertEqual(self.rpc.method_calls, [])
