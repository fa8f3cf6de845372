"""Requests that nova-compute had taken from its queue and was killed with: which they are, and whose turn it is. mend.py is what is done.

Nova acknowledges a request before it works on it, and mends some of what is lost so when it starts (ComputeManager.init_host); for the
rest a task state would stay until an operator resets it. docs/decisions/0032-lost-requests.md
"""

import threading

from oslo_log import log as logging

from nova.compute import instance_actions
from nova.compute import task_states as tasks
from nova.compute import utils as compute_utils
from nova.compute import vm_states
import nova.conf
import nova.context
from nova import exception
from nova import objects
from nova.scheduler.client import report
from nova.virt.userns import mend

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_UNSHELVING = (tasks.UNSHELVING, tasks.SPAWNING)
# Tasks in which the next step may be that of another host than the instance's.
_MOVING = (tasks.RESIZE_PREP, tasks.RESIZE_MIGRATING, tasks.RESIZE_MIGRATED, tasks.RESIZE_FINISH, tasks.RESIZE_REVERTING)
_NOT_OURS = (*_UNSHELVING, *_MOVING, tasks.MIGRATING, tasks.DELETING)
_UNDER_WAY = ('pre-migrating', 'migrating', 'post-migrating')  # of a migration
_OF_VOLUMES = (instance_actions.ATTACH_VOLUME, instance_actions.DETACH_VOLUME)
_LOADED = ['flavor', 'info_cache', 'metadata', 'system_metadata']
_LOOKS = 10  # while something that is needed for it does not answer


class LostRequests:
    def __init__(self, instances):
        """`instances`: a ComputeDriver, which knows what there is of an instance and can destroy it."""
        self._mender = mend.Mender(instances)
        self._stopped, self._thread = threading.Event(), None
        self._host, self._noted = None, {}

    def note(self, host):
        """Before anything is done here, by Nova's own start or by what waits in the queue: nothing under way is this host's then, and what
        is asked for later is not lost."""
        self._host = host
        if CONF.userns.lost_requests_delay < 0:
            return
        try:
            self._note(nova.context.get_admin_context())
        except Exception:
            LOG.exception('Requests that may have been lost are not looked for')

    def look(self):
        """Once, when all has begun that waited in the queue. Called as nova-compute is about to listen to that."""
        if self._host and CONF.userns.lost_requests_delay >= 0 and not self._thread:
            self._thread = threading.Thread(target=self._run, name='userns-lost-requests', daemon=True)
            self._thread.start()

    def stop(self):
        self._stopped.set()
        if self._thread:
            self._thread.join(timeout=5)

    # ---- what may be lost

    def _note(self, context):
        for instance in self._shelved_and_begun(context):
            self._guarded(self._mender.shelve_again, context, instance)
        found = {instance.uuid: instance for instance in [*self._with(context, task_state=[*_UNSHELVING, *_MOVING]),
                                                          *self._with(context, vm_state=[vm_states.RESIZED]),
                                                          *objects.InstanceList.get_by_host(context, self._host)]}
        for instance in found.values():
            if instance.vm_state == vm_states.BUILDING:  # which Nova itself looks after
                continue
            trail = _Trail.read(context, instance)
            if trail and (instance.task_state or instance.vm_state == vm_states.RESIZED or trail.action in _OF_VOLUMES):
                self._noted[instance.uuid] = trail

    def _shelved_and_begun(self, context):
        """Nova would call them errors, from which there is no way to their image."""
        return self._with(context, host=self._host, vm_state=[vm_states.SHELVED_OFFLOADED], task_state=[tasks.SPAWNING])

    @staticmethod
    def _with(context, **filters):
        return objects.InstanceList.get_by_filters(context, {'deleted': False, **filters}, expected_attrs=_LOADED)

    @staticmethod
    def _guarded(function, context, instance):
        """Whether it could be done. One that cannot be mended is no reason to leave the others."""
        try:
            function(context, instance)
        except exception.InstanceNotFound:
            pass
        except Exception:
            LOG.exception('What was lost with a nova-compute that was killed is not mended', instance=instance)
            return False
        return True

    # ---- what is lost

    def _run(self):
        context = nova.context.get_admin_context()
        for _ in range(_LOOKS):
            if self._stopped.wait(CONF.userns.lost_requests_delay):
                return
            try:
                self._look(context)
            except Exception:
                LOG.exception('Requests that may have been lost could not be looked at')
            if not self._noted:
                return

    def _look(self, context):
        claims = self._claims(context)
        for uuid in list(self._noted):
            try:
                instance = objects.Instance.get_by_uuid(context, uuid, expected_attrs=_LOADED)
            except exception.InstanceNotFound:
                del self._noted[uuid]
                continue
            if self._guarded(lambda context, instance: self._take_up(context, instance, claims), context, instance):
                del self._noted[uuid]
        self._mender.free_confirmed(context, claims)

    def _claims(self, context):
        """Who has been given a place on this host: instances, and migrations."""
        found = set()
        for node in objects.ComputeNodeList.get_all_by_host(context, self._host):
            found |= set(report.report_client_singleton().get_allocations_for_resource_provider(context, node.uuid).allocations)
        return found

    def _take_up(self, context, instance, claims):
        noted, trail = self._noted[instance.uuid], _Trail.read(context, instance)
        if trail.action_id != noted.action_id or trail.has_begun_since(noted, self._host):
            return
        trail.migration = _migration_of(context, instance)
        chosen = self._choose(context, instance, trail, claims)
        if chosen:
            LOG.warning('%(action)s (%(task)s) was lost with a nova-compute that was killed: %(what)s',
                        {'action': trail.action, 'task': instance.task_state, 'what': chosen.__name__.replace('_', ' ')}, instance=instance)
            chosen(context, instance, trail)

    # ---- whose turn it is

    def _choose(self, context, instance, trail, claims):
        """What of mend.Mender is to be done here; None: nothing, or it is for another host."""
        task, is_here = instance.task_state, instance.host == self._host
        if trail.action == instance_actions.EVACUATE:  # by another host, from one that was thought to be dead
            return None
        if task in _UNSHELVING:
            is_lost = instance.vm_state == vm_states.SHELVED_OFFLOADED and not instance.host and instance.uuid in claims
            return self._mender.give_back if is_lost else None
        if task in _MOVING:
            return trail.migration and self._choose_of_move(instance, trail, claims)
        if task is None and trail.migration and trail.migration.source_compute == self._host:
            if instance.vm_state == vm_states.RESIZED:
                return {'confirming': self._mender.confirm, 'confirmed': self._mender.end_confirmation}.get(trail.migration.status)
            if is_here and trail.migration.status in _UNDER_WAY:  # Nova itself has brought it back
                return self._mender.give_up_move
        if not is_here or task in _NOT_OURS:
            return None
        if task is None:
            return self._mender.mend_volumes if trail.action in _OF_VOLUMES and not trail.has_ended(trail.action) else None
        if task == tasks.SHELVING_OFFLOADING or (task == tasks.SHELVING and compute_utils.is_volume_backed_instance(context, instance)):
            return self._mender.offload
        return self._mender.set_back

    def _choose_of_move(self, instance, trail, claims):
        task, migration = instance.task_state, trail.migration
        source, destination = migration.source_compute, migration.dest_compute
        if task == tasks.RESIZE_PREP:
            # Of the destination. Where the source was killed Nova itself lets go of it.
            has_passed_it_on = destination == self._host and trail.has_ended('prep_resize')
            is_lost = instance.uuid in claims and not has_passed_it_on and not trail.is_at_work('prep_resize', self._host)
            return self._mender.give_up_move if is_lost else None
        if task == tasks.RESIZE_REVERTING:
            has_begun, has_ended = trail.has_begun('finish_revert_resize'), trail.has_ended('revert_resize')
            if instance.host == destination and not has_ended and not has_begun and migration.status != 'reverted':
                return self._mender.revert if destination == self._host else None
            # The destination's last deed is to tell the source, which has heard it if it lives.
            is_untold = destination == self._host and not has_ended and not has_begun
            return self._mender.finish_revert if source == self._host or is_untold else None
        if task in (tasks.RESIZE_MIGRATED, tasks.RESIZE_FINISH):
            if task == tasks.RESIZE_FINISH or trail.has_ended('resize_instance') or trail.has_begun('finish_resize'):
                return self._mender.arrive if destination == self._host else None
            return self._mender.go_back if source == self._host else None
        return None


class _Trail:
    """What Nova has written down of the newest action on an instance: an event for each step. `migration`: its newest."""

    def __init__(self, action, events):
        self.action, self.action_id, self._events, self.migration = action.action, action.id, events, None

    @classmethod
    def read(cls, context, instance):
        actions = objects.InstanceActionList.get_by_instance_uuid(context, instance.uuid, limit=1)
        return cls(actions[0], list(objects.InstanceActionEventList.get_by_action(context, actions[0].id))) if actions else None

    def _of(self, step):
        return [event for event in self._events if event.event == f'compute_{step}']

    def has_begun(self, step):
        return bool(self._of(step))

    def has_ended(self, step):
        return any(event.finish_time for event in self._of(step))

    def is_at_work(self, step, but):
        """On another host."""
        return any(event.host != but and not event.finish_time for event in self._of(step))

    def has_begun_since(self, earlier, host):
        known = {event.id for event in earlier._events}
        return any(event.host == host and event.id not in known for event in self._events)


def _migration_of(context, instance):
    found = [each for each in objects.MigrationList.get_by_filters(context, {'instance_uuid': instance.uuid})
             if each.migration_type in ('resize', 'migration') and not each.cross_cell_move]
    return max(found, key=lambda each: each.id, default=None)
