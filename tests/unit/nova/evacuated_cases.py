"""Evacuations to this host that were lost with its nova-compute."""
import types
import unittest.mock

from nova import exception
from nova.compute import power_state
from lost_case import HERE, LostCase, THERE, event, ids
from nova_objects import UUID


class EvacuatedTest(LostCase):
    def evacuation(self, task, *events, status="pre-migrating", destination=HERE, action="evacuate", is_sent=True, earlier=(), **changes):
        """Of an instance of another host, whose start it does not live to see."""
        self.instances.clear()
        self.migrations[:] = earlier
        self.events, self.action.action = [types.SimpleNamespace(id=next(ids), event="rebuild_server", host="conductor", finish_time=is_sent),
                                           *events], action
        migration = self.migration(status, source=THERE, destination=destination, kind="evacuation")
        instance = self.instance(task, host=THERE, **{"power_state": power_state.NOSTATE, **changes})
        self.start()
        return migration.status, instance.host, instance.task_state

    def test_an_evacuation_that_did_not_end_is_given_up(self):
        given_up, begun = ("failed", THERE, None), event("rebuild_instance", HERE, ended=False)
        for task in ("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"):
            self.host.remove_arrival.reset_mock()
            self.assertEqual(self.evacuation(task, begun), given_up)
            self.assertEqual(self.host.remove_arrival.called, task == "rebuild_spawning")
            self.placement.remove_provider_tree_from_instance_allocation.assert_called_with(unittest.mock.ANY, UUID, "node")
        self.assertEqual(self.evacuation("rebuilding"), given_up)
        self.claims = [UUID]
        self.assertEqual(self.evacuation("rebuilding", status="accepted", destination=None), given_up)
        self.assertEqual(self.migrations[0].dest_compute, HERE)
        found = self.instances[0]
        self.assertEqual((found.vm_state, found.power_state, found.availability_zone), ("active", power_state.RUNNING, f"zone of {THERE}"))

    def test_that_it_is_given_up_again(self):
        """Killed in the middle of that; or in the middle of Nova's own failure, or when the lost host was back before."""
        for status, state in (("failed", "active"), ("completed", "error")):
            self.assertEqual(self.evacuation("rebuilding", status=status), ("failed", THERE, None))
            self.assertEqual(self.instances[0].vm_state, state)

    def test_that_it_is_not_given_up_without_its_claim(self):
        self.placement.remove_provider_tree_from_instance_allocation.return_value = False
        self.assertEqual(self.evacuation("rebuilding"), ("pre-migrating", THERE, "rebuilding"))

    def test_that_earlier_ones_do_not_stay_open(self):
        """The lost host would remove what it has."""
        first = self.migration("pre-migrating", source=THERE, destination=HERE, kind="evacuation")
        self.assertEqual(self.evacuation("rebuilding", earlier=[first]), ("failed", THERE, None))
        self.assertEqual(first.status, "failed")
        first.status = "pre-migrating"  # Nova may take the earlier one for the later request
        self.claims = [UUID]
        self.assertEqual(self.evacuation("rebuilding", earlier=[first], status="accepted", destination=None), ("failed", THERE, None))
        self.assertEqual(first.status, "failed")

    def test_that_the_lost_host_leaves_it_alone(self):
        for status in ("accepted", "pre-migrating", "completed", "failed"):
            for task in ("rebuilding", "rebuild_spawning", "powering-off"):
                self.instances.clear()
                self.action.action = "evacuate"
                self.migrations[:] = []
                self.migration(status, source=HERE, destination=THERE, kind="evacuation")
                instance = self.instance(task)
                self.start()
                self.assertEqual(instance.task_state, task)
        # But it is a host like others when it is back.
        self.action.action = "reboot"
        instance.task_state = "rebooting"
        self.start()
        self.assertIsNone(instance.task_state)

    def test_whose_an_evacuation_is(self):
        left = ("accepted", THERE, "rebuilding")
        self.assertEqual(self.evacuation("rebuilding", status="accepted", destination=None), left)  # of another host, which has a claim
        self.assertEqual(self.evacuation("rebuilding", status="accepted", destination="compute-3"), left)
        self.claims = [UUID]
        other = event("rebuild_instance", "compute-3", ended=False)
        self.assertEqual(self.evacuation("rebuilding", other, status="accepted", destination=None), left)
        self.assertEqual(self.evacuation("rebuilding", status="accepted", is_sent=False), left)
        later = self.migration("pre-migrating", source=THERE, destination="compute-3", kind="evacuation")
        later.id += 1000000
        self.assertEqual(self.evacuation("rebuilding", earlier=[later]), ("pre-migrating", THERE, "rebuilding"))
        self.placement.remove_provider_tree_from_instance_allocation.assert_not_called()

    def test_an_evacuation_that_has_arrived_is_ended(self):
        done, begun = ("done", HERE, None), event("rebuild_instance", HERE, ended=False)
        self.assertEqual(self.evacuation(None, begun, power_state=power_state.RUNNING), done)
        self.assertEqual((self.instances[0].node, self.instances[0].vm_state), (f"node of {HERE}", "stopped"))
        self.assertEqual(self.evacuation("powering-off", begun, power_state=power_state.RUNNING), ("done", HERE, "powering-off"))
        self.rpc.stop_instance.assert_called_once_with(unittest.mock.ANY, self.instances[0])
        # Its owner has asked for something meanwhile.
        self.assertEqual(self.evacuation("rebooting", action="reboot", power_state=power_state.RUNNING), done)
        self.assertEqual(self.evacuation("deleting", action="delete", power_state=power_state.RUNNING), ("done", HERE, "deleting"))
        self.rpc.terminate_instance.assert_called_once()
        self.host.remove_arrival.assert_not_called()

    def test_an_evacuation_that_has_arrived_when_the_lost_host_is_back(self):
        """It has removed what it had. This is all there is, unless it was made there again."""
        self.assertEqual(self.evacuation(None, status="completed", power_state=power_state.RUNNING), ("completed", THERE, None))
        self.claims = [UUID]
        self.assertEqual(self.evacuation(None, status="completed", power_state=power_state.RUNNING, action="rebuild")[1], THERE)
        self.assertEqual(self.evacuation(None, status="completed", power_state=power_state.RUNNING), ("completed", HERE, None))

    def test_an_evacuation_of_one_that_has_gone_on(self):
        """Reset, and evacuated once more."""
        for host, ends, removed in (("compute-3", "failed", True), (HERE, "failed", False)):
            self.instances.clear()
            self.host.remove_arrival.reset_mock()
            self.migrations[:] = []
            old = self.migration("pre-migrating", source=THERE, destination=HERE, kind="evacuation")
            self.migration("done", source=THERE, destination=host, kind="evacuation")
            self.instance("rebooting", host=host)
            self.events = [event("reboot_instance", host, ended=False)]
            self.start()
            self.assertEqual(old.status, "pre-migrating")  # something is under way
            self.instances[0].task_state = None
            self.start()
            self.assertEqual((old.status, self.host.remove_arrival.called), (ends, removed))
        self.migrations[:] = [self.migration("pre-migrating", source=THERE, destination=HERE, kind="evacuation")]
        self.start()  # killed before Nova wrote that it was done
        self.assertEqual(self.migrations[0].status, "done")

    def test_an_evacuation_that_an_operator_has_reset_has_not_arrived(self):
        """Before it was made, or while it was."""
        self.locked = [types.SimpleNamespace(id=4, action="resetState")]
        given_up, begun = ("failed", THERE, None), event("rebuild_instance", HERE, ended=False)
        self.assertEqual(self.evacuation(None, begun), given_up)
        self.host.remove_arrival.assert_called_once()
        self.host.get_info.side_effect = exception.InstanceNotFound(instance_id=UUID)
        self.assertEqual(self.evacuation(None, begun, power_state=power_state.RUNNING), given_up)
        self.claims = [UUID]
        self.assertEqual(self.evacuation(None, status="accepted", destination=None, power_state=power_state.RUNNING), given_up)
        self.host.remove_arrival.assert_called_once()
