"""Resize and cold migration: what Nova does in order on two hosts, and the ticket that it carries from one to the other."""

import json

from oslo_log import log as logging

from nova.compute import task_states
from nova import exception
from nova.virt.userns import marshal
from nova.virt.userns import volumes

LOG = logging.getLogger(__name__)


class Migrations:
    """A part of the driver: its methods are those of ComputeDriver."""

    def migrate_disk_and_power_off(self, context, instance, dest, flavor, network_info, block_device_info=None,
                                   timeout=0, retry_interval=0, **kwargs):
        _refuse_smaller_disks(instance.flavor, flavor)
        answer = self._adapter.call_long('instance.migrate_out', uuid=instance.uuid, destination=dest, timeout=timeout,
                                         retry_interval=retry_interval)
        self._vifs.unplug(instance, network_info)
        volumes.disconnect_all(block_device_info)
        return json.dumps(answer['ticket'])

    def finish_migration(self, context, migration, instance, disk_info, network_info, image_meta, resize_instance,
                         allocations, block_device_info=None, power_on=True, **kwargs):
        connected = volumes.connect_all(block_device_info)
        ticket = json.loads(disk_info)
        with self._cleaning_up(context, instance, network_info, block_device_info, destroy=False):
            with self._vifs.plugged(instance, network_info, wait=power_on):
                # A host that has not the base fetches it as for a boot.
                answer = self._images.using_again(
                    context, instance.image_ref, instance.trusted_certs, ticket.get('image'),
                    lambda: self._adapter.call_long(
                        'instance.migrate_in', instance=marshal.instance(instance), ticket=ticket,
                        network=marshal.network(network_info), volumes=connected, resize=resize_instance,
                        power=power_on))
        marshal.note_ids(instance, answer['ids'])

    def confirm_migration(self, context, migration, instance, network_info, **kwargs):
        try:
            self._adapter.call_long('instance.migrate_confirm', uuid=instance.uuid)
        except exception.InstanceNotFound:
            LOG.warning('Nothing was kept of the migrated instance', instance=instance)

    def finish_revert_migration(self, context, instance, network_info, migration, block_device_info=None, power_on=True,
                                **kwargs):
        connected = volumes.connect_all(block_device_info)
        with self._vifs.plugged(instance, network_info, wait=power_on):
            self._adapter.call_long('instance.migrate_revert', uuid=instance.uuid,
                                    network=marshal.network(network_info), volumes=connected, power=power_on)
        if instance.task_state == task_states.RESIZE_MIGRATING:  # no revert, but Nova's start after it was killed
            self._lost.note_brought_back(context, instance, migration)

    # Containers move by cold migration: their processes do not travel. Nova is told before it begins.
    def check_can_live_migrate_destination(self, context, instance, src_compute_info, dst_compute_info,
                                           block_migration=False, disk_over_commit=False, **kwargs):
        raise exception.MigrationPreCheckError(reason='user-namespace containers are moved by cold migration only')


def _refuse_smaller_disks(old, new):
    if new.root_gb < old.root_gb or new.ephemeral_gb < old.ephemeral_gb:
        raise exception.InstanceFaultRollback(exception.ResizeError(
            reason='the disks of the new flavor are smaller than those that the instance has'))
