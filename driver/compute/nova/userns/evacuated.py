"""Evacuations to this host that were lost with its nova-compute (lost.py): whose end is not written, and what is done about it.

Until its end an instance is its lost host's. Nova has that host, when it comes back, remove what it has of one whose migration is open.
"""

from oslo_log import log as logging

from nova.compute import instance_actions
from nova.compute import power_state
from nova.compute import rpcapi
from nova.compute import task_states as tasks
from nova.compute import vm_states
from nova import availability_zones
from nova import exception
from nova import objects
from nova.scheduler.client import report
from nova.virt import driver
from nova.virt.userns import mend

LOG = logging.getLogger(__name__)

ARRIVING = (tasks.REBUILDING, tasks.REBUILD_BLOCK_DEVICE_MAPPING, tasks.REBUILD_SPAWNING)
_POWER_OF = {state: power for power, state in mend.OF_POWER.items()}


class Evacuations:
    def __init__(self, instances, mender):
        """`instances`: the driver."""
        self._instances, self._mender, self.host = instances, mender, None

    # ---- which they are

    def open_ones(self, context):
        """Instances', whatever has become of their task."""
        found = objects.MigrationList.get_by_filters(context, {'host': self.host, 'migration_type': 'evacuation', 'status': 'pre-migrating'})
        return {each.instance_uuid for each in found if each.dest_compute == self.host}

    def find(self, instance, migrations, claims):
        """Of the migrations of an instance, by their numbers, the evacuation to here that its end is to be written of."""
        evacuations = [] if instance.host == self.host else self._from(instance.host, migrations)
        if not evacuations:
            return None
        newest, is_newest = migrations[-1], evacuations[-1] is migrations[-1]
        for each in reversed(evacuations):
            if each.status == 'pre-migrating' and (is_newest or newest.status != 'pre-migrating'):
                return each
        # The lost host, when it is back, calls it completed, and this one may have died when it had failed.
        if is_newest and instance.task_state in ARRIVING:
            return newest
        has_claim = is_newest and newest.status in ('accepted', 'completed') and claims.have(instance.uuid)
        return newest if has_claim and instance.task_state in (None, tasks.POWERING_OFF) else None

    def _from(self, source, migrations):
        """Those from there that may be to this host."""
        return [each for each in migrations if each.migration_type == 'evacuation' and each.source_compute == source
                and each.dest_compute in (None, self.host)]

    def choose(self, instance, trail, claims):
        """What is to be done; None: nothing."""
        if trail.is_at_work('rebuild_instance', self.host):
            return None
        if instance.task_state in ARRIVING:
            is_to_here = trail.migration.dest_compute == self.host or claims.have(instance.uuid)
            return self.give_up_evacuation if is_to_here and trail.action == instance_actions.EVACUATE else None
        # Nova writes down that there is no power before it is made. An operator may have reset the task of one that was not.
        is_made = instance.power_state != power_state.NOSTATE and self._mender.is_here(instance)
        if trail.migration.status == 'completed':  # the lost host is back, and may have made it anew since
            return self.end_evacuation if is_made and trail.action == instance_actions.EVACUATE else None
        return self.end_evacuation if is_made else self.give_up_evacuation

    # ---- what is done

    def give_up_evacuation(self, context, instance, trail):
        """As Nova does with one that fails, but it is no error: whoever asked for it may do so again."""
        has_been_removed = trail.migration.status == 'completed'  # there, by the lost host when it came back
        trail.migration.dest_compute = self.host  # of one that Nova had not begun: so it is known again, should this be killed
        trail.migration.save()
        # Before that nothing of it is made here, and its volumes may be connected as they were there.
        if instance.task_state == tasks.REBUILD_SPAWNING or (instance.task_state not in ARRIVING and self._mender.is_here(instance)):
            self._remove(context, instance)
        self._give_back_claims(context, instance)
        self._close(context, instance, trail, 'failed')
        instance.drop_migration_context()
        if has_been_removed:
            instance.vm_state, instance.power_state = vm_states.ERROR, power_state.NOSTATE
        else:
            instance.power_state = _POWER_OF.get(instance.vm_state, instance.power_state)
        instance.availability_zone = _zone_of(context, instance)
        mend.save(instance, None if instance.task_state in ARRIVING else instance.task_state)

    def end_evacuation(self, context, instance, trail):
        """It is whole here, and Nova does not know that it is this host's."""
        instance.apply_migration_context()
        instance.host, instance.node = self.host, trail.migration.dest_node
        if 'compute_id' in instance.fields:  # of newer releases
            instance.compute_id = objects.ComputeNode.get_by_host_and_nodename(context, instance.host, instance.node).id
        if instance.task_state == tasks.POWERING_OFF:  # as it was on its lost host
            mend.save(instance, instance.task_state)
            rpcapi.ComputeAPI().stop_instance(context, instance)
        elif instance.task_state == tasks.DELETING:
            mend.save(instance, instance.task_state)
            rpcapi.ComputeAPI().terminate_instance(context, instance, _mappings(context, instance))
        else:
            self._mender.set_back(context, instance, trail)
        instance.drop_migration_context()
        self._close(context, instance, trail, 'done')

    def close_old(self, context, instance):
        """Open ones of an instance that has gone on since to this host or to another one."""
        migrations = objects.MigrationList.get_by_filters(context, {'instance_uuid': instance.uuid})
        for each in migrations if instance.task_state is None else []:
            is_open = each.migration_type == 'evacuation' and each.status == 'pre-migrating' and each.dest_compute == self.host
            if not is_open or each.source_compute == instance.host:
                continue
            if instance.host != self.host:
                if self._mender.is_here(instance):
                    self._remove(context, instance)
                self._give_back_claims(context, instance)
            has_arrived = instance.host == self.host and each.id == max(other.id for other in migrations)
            each.status = 'done' if has_arrived else 'failed'
            each.save()

    def _remove(self, context, instance):
        self._instances.remove_arrival(instance, instance.get_network_info(),
                                       driver.get_block_device_info(instance, _mappings(context, instance)))

    def _give_back_claims(self, context, instance):
        client = report.report_client_singleton()
        for node in objects.ComputeNodeList.get_all_by_host(context, self.host):
            is_claimed = node.uuid in client.get_allocs_for_consumer(context, instance.uuid)['allocations']
            if is_claimed and not client.remove_provider_tree_from_instance_allocation(context, instance.uuid, node.uuid):
                raise exception.AllocationDeleteFailed(consumer_uuid=instance.uuid, error='Placement has refused it')

    def _close(self, context, instance, trail, status):
        """And earlier ones, whose task somebody has reset."""
        found = objects.MigrationList.get_by_filters(context, {'instance_uuid': instance.uuid, 'status': ['accepted', 'pre-migrating']})
        for each in self._from(trail.migration.source_compute, found):
            if each.id != trail.migration.id:
                each.status = 'failed'
                each.save()
        if status != 'done' or trail.migration.status != 'completed':  # else the lost host would do its part again
            trail.migration.status = status
            trail.migration.save()


def _mappings(context, instance):
    return objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid)


def _zone_of(context, instance):
    """Of its host; what it has been where Nova's conductor cannot reach what says so."""
    try:
        return availability_zones.get_host_availability_zone(context, instance.host)
    except Exception as error:
        LOG.warning('No availability zone of %(host)s: %(error)s', {'host': instance.host, 'error': error}, instance=instance)
        return instance.availability_zone
