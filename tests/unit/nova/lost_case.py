"""For tests of requests that were lost with a nova-compute: what Nova and others have written down, and a start."""
import types
import unittest.mock

import nova_objects
from nova import exception
from nova.compute import power_state
from nova_objects import UUID
from shim_case import ShimCase

HERE, THERE = "compute-1", "compute-2"
MIGRATION = "eeeeeeee-0000-4000-8000-000000000001"
ids = iter(range(1, 1000000))


def event(step, host, ended=True):
    return types.SimpleNamespace(id=next(ids), event=f"compute_{step}", host=host, finish_time=ended or None)


class LostCase(ShimCase):
    def setUp(self):
        super().setUp()
        from nova.virt.userns import lost
        self.instances, self.migrations, self.events, self.claims, self.volumes = [], [], [], [], {}
        self.action = types.SimpleNamespace(id=1, action="any")
        for name, look in [("InstanceActionList.get_by_instance_uuid", lambda *_a, **_k: [*self.locked, *([self.action] if self.action else [])]),
                           ("InstanceActionEventList.get_by_action", lambda *_: list(self.events)),
                           ("InstanceList.get_by_filters", self._find_instances),
                           ("InstanceList.get_by_host", lambda _c, host, **_k: [each for each in self.instances if each.host == host]),
                           ("Instance.get_by_uuid", self._instance_of),
                           ("MigrationList.get_by_filters", self._find_migrations),
                           ("ComputeNodeList.get_all_by_host", lambda *_: [types.SimpleNamespace(uuid="node")]),
                           ("Service.get_by_compute_host", lambda *_: types.SimpleNamespace(report_count=next(ids))),
                           ("RequestSpec.get_by_instance_uuid", lambda *_: self.spec)]:
            self._patch(f"nova.objects.{name}", side_effect=look)
        self.locked = []
        self._patch("nova.objects.Instance.get_network_info", return_value=nova_objects.network_info())
        self.spec = unittest.mock.Mock()
        self.rpc = self._patch("nova.compute.rpcapi.ComputeAPI").return_value
        self.placement = self._patch("nova.scheduler.client.report.report_client_singleton").return_value
        self.placement.get_allocations_for_resource_provider.side_effect = lambda *_: types.SimpleNamespace(allocations=self.claims)
        self.placement.get_allocs_for_consumer.return_value = {"allocations": {"node": {}}}
        self._patch("nova.availability_zones.get_host_availability_zone", side_effect=lambda _context, host: f"zone of {host}")
        self.cinder = self._patch("nova.volume.cinder.API").return_value
        self.cinder.get.side_effect = lambda _context, volume: self.volumes[volume]
        self.is_volume_backed = self._patch("nova.compute.utils.is_volume_backed_instance", return_value=False)
        self.host = unittest.mock.Mock()
        self.host.get_info.return_value.state = power_state.SHUTDOWN
        self.lost = lost.LostRequests(self.host)

    def _patch(self, what, **more):
        patch = unittest.mock.patch(what, **more)
        self.addCleanup(patch.stop)
        return patch.start()

    def _find_instances(self, _context, filters, **_more):
        self.assertIs(filters["deleted"], False)
        wanted = {name: value if isinstance(value, list) else [value] for name, value in filters.items() if name != "deleted"}
        return [each for each in self.instances if all(getattr(each, name) in values for name, values in wanted.items())]

    def _instance_of(self, _context, uuid, **_more):
        for each in self.instances:
            if each.uuid == uuid:
                return each
        raise exception.InstanceNotFound(instance_id=uuid)

    def _find_migrations(self, _context, filters):
        wanted = {name: value if isinstance(value, list) else [value] for name, value in filters.items() if name != "host"}
        return [each for each in self.migrations if all(getattr(each, name) in values for name, values in wanted.items())
                and filters.get("host", each.source_compute) in (each.source_compute, each.dest_compute)]

    def instance(self, task, vm_state="active", **changes):
        found = nova_objects.instance(**{"task_state": task, "vm_state": vm_state, "old_flavor": None, "new_flavor": None, **changes})
        found.drop_migration_context = found.apply_migration_context = unittest.mock.Mock()
        self.instances.append(found)
        return found

    def migration(self, status, source=HERE, destination=THERE, kind="migration"):
        found = types.SimpleNamespace(id=next(ids), uuid=MIGRATION, status=status, source_compute=source, dest_compute=destination,
                                      dest_node=f"node of {destination}", instance_uuid=UUID, migration_type=kind, cross_cell_move=False,
                                      save=unittest.mock.Mock())
        self.migrations.append(found)
        return found

    def start(self, meanwhile=lambda: None, looks=2):
        """What a nova-compute does. `meanwhile`: before it has looked."""
        with unittest.mock.patch("threading.Thread") as thread:
            self.lost.start(HERE)
            meanwhile()
            if not thread.called:
                return
        with unittest.mock.patch.object(self.lost._stopped, "wait", side_effect=[False, *[False] * looks, True]):
            self.lost._run()
