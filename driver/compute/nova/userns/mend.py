"""What is done about a request that was lost with a nova-compute (lost.py): asked for again, ended, or set back, so that nothing is under way."""

from oslo_log import log as logging
from oslo_utils import timeutils

from nova.compute import instance_actions
from nova.compute import power_state
from nova.compute import rpcapi
from nova.compute import task_states as tasks
from nova.compute import vm_states
from nova import exception
from nova import objects
from nova.scheduler.client import report
from nova.virt import driver
from nova.volume import cinder

LOG = logging.getLogger(__name__)

# States that say what the hypervisor does, and what they are by that.
OF_POWER = {power_state.RUNNING: vm_states.ACTIVE, power_state.SHUTDOWN: vm_states.STOPPED, power_state.PAUSED: vm_states.PAUSED,
             power_state.SUSPENDED: vm_states.SUSPENDED}


class Mender:
    """Each method gets an instance, and its trail with the newest migration. A state is only written over the one that was read."""

    def __init__(self, instances):
        """`instances`: the driver, which knows what there is of an instance and can destroy it."""
        self._instances = instances

    # ---- set back

    def set_back(self, _context, instance, _trail):
        """It is what it is seen to be."""
        instance.power_state = self._power(instance)
        if instance.vm_state in OF_POWER.values():
            instance.vm_state = OF_POWER.get(instance.power_state, instance.vm_state)
        save(instance, None)

    def give_up_move(self, context, instance, trail):
        """One that has not left its host: that it stays there."""
        self.give_back_move(context, instance, trail.migration)
        if instance.task_state:
            save(instance, None)

    @staticmethod
    def give_back_move(context, instance, migration):
        """What the move has taken, before anybody hears that it is no more: it may be asked for again at once."""
        try:
            is_moved = report.report_client_singleton().move_allocations(context, migration.uuid, instance.uuid)
        except KeyError as error:  # of one whose claims were moved and lost
            LOG.warning('Its claims are not as they were: no %s', error, instance=instance)
            is_moved = True
        if not is_moved:
            raise exception.AllocationMoveFailed(source_consumer=migration.uuid, target_consumer=instance.uuid, error='Placement has refused it')
        _set_flavor(context, instance, instance.flavor)
        migration.status = 'error'
        migration.save()
        instance.drop_migration_context()

    def take_from_nova(self, instance):
        """One that was being unshelved here, before Nova looks at it: give_back comes later. Where it is whole it is more than its image,
        which may be gone: Nova then calls it an error, and it can be started."""
        if not self.is_here(instance):
            instance.host = instance.node = None
            instance.save(expected_task_state=[tasks.SPAWNING])

    def give_back(self, context, instance, _trail):
        """One that was being unshelved: shelved, on no host. Nova has put the image that it was to be made of in place of its own."""
        mappings = objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid)
        self._instances.destroy(context, instance, instance.get_network_info(), driver.get_block_device_info(instance, mappings))
        for mapping in mappings:
            if mapping.volume_id and mapping.attachment_id:
                _reserve_again(context, instance, mapping)
        report.report_client_singleton().delete_allocation_for_instance(context, instance.uuid, force=True)
        instance.image_ref = instance.system_metadata.get('image_base_image_ref') or instance.image_ref
        instance.host = instance.node = instance.launched_on = instance.availability_zone = None
        if 'compute_id' in instance.fields:  # of newer releases
            instance.compute_id = None
        save(instance, None)

    # ---- asked for again

    def offload(self, context, instance, _trail):
        rpcapi.ComputeAPI().shelve_offload_instance(context, instance, clean_shutdown=False, accel_uuids=[])

    def confirm(self, context, instance, trail):
        rpcapi.ComputeAPI().confirm_resize(context, instance, trail.migration, trail.migration.source_compute)

    def revert(self, context, instance, trail):
        rpcapi.ComputeAPI().revert_resize(context, instance, trail.migration, trail.migration.dest_compute, _request_spec(context, instance))

    def finish_revert(self, context, instance, trail):
        rpcapi.ComputeAPI().finish_revert_resize(context, instance, trail.migration, trail.migration.source_compute,
                                                 _request_spec(context, instance))

    def mend_volumes(self, context, instance, trail):
        """What Cinder calls under way, of volumes that are no other instance's too."""
        for mapping in objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid):
            if not mapping.volume_id:
                continue
            volume = cinder.API().get(context, mapping.volume_id)
            if volume.get('multiattach'):
                continue
            if trail.action == instance_actions.DETACH_VOLUME and volume['status'] in ('detaching', 'available'):
                rpcapi.ComputeAPI().detach_volume(context, instance, mapping.volume_id, mapping.attachment_id)
            elif trail.action == instance_actions.ATTACH_VOLUME and volume['status'] in ('reserved', 'attaching'):
                rpcapi.ComputeAPI().attach_volume(context, instance, mapping)

    # ---- ended

    def arrive(self, context, instance, trail):
        """One that has left its host, and is whole here or goes back."""
        if instance.task_state != tasks.RESIZE_FINISH or not self.is_here(instance):
            self.go_back(context, instance, trail)
            return
        for mapping in objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid):
            if mapping.volume_id and mapping.attachment_id:
                cinder.API().attachment_complete(context, mapping.attachment_id)
        trail.migration.status = 'finished'
        trail.migration.save()
        instance.vm_state, instance.power_state = vm_states.RESIZED, self._power(instance)
        instance.launched_at = timeutils.utcnow()
        self._instances.note_ids(instance)
        save(instance, None)

    def go_back(self, context, instance, trail):
        """As if it had arrived, and were reverted. No confirmation may remove its disk."""
        if instance.old_flavor:
            _set_flavor(context, instance, instance.old_flavor)
        trail.migration.status = 'reverting'
        trail.migration.save()
        save(instance, tasks.RESIZE_REVERTING)
        self.revert(context, instance, trail)

    def end_confirmation(self, context, instance, _trail):
        """The source has let go of it already."""
        instance.drop_migration_context()
        instance.vm_state = vm_states.STOPPED if instance.power_state == power_state.SHUTDOWN else vm_states.ACTIVE
        instance.old_flavor = instance.new_flavor = None
        instance.system_metadata.pop('old_vm_state', None)
        save(instance, None)

    @staticmethod
    def free_confirmed(context, claims):
        """What migrations still claim here of which the confirmation was lost at its end."""
        if not claims:
            return
        for migration in objects.MigrationList.get_by_filters(context, {'uuid': list(claims), 'status': 'confirmed'}):
            report.report_client_singleton().delete_allocation_for_instance(context, migration.uuid, consumer_type='migration', force=True)

    # ---- what is seen

    def is_here(self, instance):
        return self._power(instance) != power_state.NOSTATE

    def _power(self, instance):
        try:
            return self._instances.get_info(instance).state
        except exception.InstanceNotFound:
            return power_state.NOSTATE


def save(instance, task_state):
    expected, instance.task_state = instance.task_state, task_state
    instance.save(expected_task_state=[expected])  # as a list, because None alone would be anything


def _reserve_again(context, instance, mapping):
    """The volume stays the instance's, and is of no host."""
    volumes, old = cinder.API(), mapping.attachment_id
    mapping.attachment_id = volumes.attachment_create(context, mapping.volume_id, instance.uuid)['id']
    volumes.attachment_delete(context, old)
    mapping.save()


def _set_flavor(context, instance, flavor):
    """Of what the scheduler goes by."""
    spec = _request_spec(context, instance)
    if spec:
        spec.flavor = flavor
        spec.save()


def _request_spec(context, instance):
    """None: Nova's conductor cannot reach it, or it is of an old instance; both halves of a revert go without."""
    try:
        return objects.RequestSpec.get_by_instance_uuid(context, instance.uuid)
    except Exception as error:
        LOG.warning('No request specification: %s', error, instance=instance)
        return None
