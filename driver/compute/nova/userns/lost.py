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
from nova.virt.userns import evacuated
from nova.virt.userns import mend

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_UNSHELVING = (tasks.UNSHELVING, tasks.SPAWNING)
# Tasks in which the next step may be that of another host than the instance's.
_MOVING = (tasks.RESIZE_PREP, tasks.RESIZE_MIGRATING, tasks.RESIZE_MIGRATED, tasks.RESIZE_FINISH, tasks.RESIZE_REVERTING)
_NOT_OURS = (*_UNSHELVING, *_MOVING, tasks.MIGRATING, tasks.DELETING)
_UNDER_WAY = ('pre-migrating', 'migrating', 'post-migrating')  # of a migration
_OF_VOLUMES = (instance_actions.ATTACH_VOLUME, instance_actions.DETACH_VOLUME)
# They change nothing of what is under way.
_BESIDE = (instance_actions.LOCK, instance_actions.UNLOCK, instance_actions.RESET_STATE)
_LOADED = ['flavor', 'info_cache', 'metadata', 'system_metadata']
_LOOKS = 10  # while something that is needed for it does not answer
_LAST_ACTIONS = 20  # among which there is one that does more
_POLL_S = 1


class LostRequests:
    def __init__(self, instances):
        """`instances`: the driver."""
        self._mender = mend.Mender(instances)
        self._evacuations = evacuated.Evacuations(instances, self._mender)
        self._stopped, self._thread = threading.Event(), None
        self._host, self._noted, self._reports = None, {}, 0

    def start(self, host):
        """Before anything is done here, by Nova's own start or by what waits in the queue: nothing under way is this host's then, and what
        is asked for later is not lost."""
        self._host = self._evacuations.host = host
        if CONF.userns.lost_requests_delay < 0:
            return
        context = nova.context.get_admin_context()
        try:
            self._reports = self._count_reports(context)
            self._note(context)
        except Exception:
            LOG.exception('Requests that may have been lost are not looked for')
            return
        self._thread = threading.Thread(target=self._run, name='userns-lost-requests', daemon=True)
        self._thread.start()

    def stop(self):
        self._stopped.set()
        if self._thread:
            self._thread.join(timeout=5)

    # ---- what may be lost

    def _note(self, context):
        # Nova would call them errors, from which there is no way to their image.
        for instance in self._with(context, host=self._host, vm_state=[vm_states.SHELVED_OFFLOADED], task_state=[tasks.SPAWNING]):
            self._guarded(self._mender.take_from_nova, instance)
        own = objects.InstanceList.get_by_host(context, self._host)
        others = self._of_other_hosts(context, {each.uuid for each in own})
        found = {instance.uuid: instance for instance in [*self._with(context, task_state=[*_UNSHELVING, *_MOVING, *evacuated.ARRIVING]),
                                                          *self._with(context, vm_state=[vm_states.RESIZED]), *own, *others]}
        others = {each.uuid for each in others}
        for instance in found.values():
            if instance.vm_state == vm_states.BUILDING:  # which Nova itself looks after
                continue
            if instance.host == self._host and instance.task_state == tasks.RESIZE_PREP:  # which Nova resets
                self._guarded(lambda each: self._give_back_move(context, each), instance)
            trail = _Trail.read(context, instance)
            is_wanted = instance.task_state or instance.vm_state == vm_states.RESIZED or instance.uuid in others
            if trail and (is_wanted or trail.action in _OF_VOLUMES):
                self._noted[instance.uuid] = trail

    def _give_back_move(self, context, instance):
        migration = self._migration_of(context, instance, None)
        if migration and migration.source_compute == self._host and migration.status in _UNDER_WAY:
            self._mender.give_back_move(context, instance, migration)

    def note_brought_back(self, context, instance, migration):
        """One that was killed on its way from here, by Nova's own start, which then says that it is as it was."""
        if CONF.userns.lost_requests_delay >= 0:
            self._guarded(lambda each: self._mender.give_back_move(context, each, migration), instance)

    def _of_other_hosts(self, context, own):
        """Those with an open evacuation to here, or a claim."""
        uuids = self._evacuations.open_ones(context)
        try:
            uuids |= _Claims(context, self._host).all() - own
        except Exception as error:
            LOG.warning('Claims of instances of other hosts are not looked at: %s', error)
        return self._with(context, uuid=list(uuids)) if uuids else []

    @staticmethod
    def _with(context, **filters):
        return objects.InstanceList.get_by_filters(context, {'deleted': False, **filters}, expected_attrs=_LOADED)

    @staticmethod
    def _guarded(function, instance):
        """What it returns; None: it could not be done. One that cannot be mended is no reason to leave the others."""
        try:
            return function(instance)
        except exception.InstanceNotFound:
            return True
        except Exception:
            LOG.exception('What was lost with a nova-compute that was killed is not mended', instance=instance)
            return None

    # ---- what is lost

    def _run(self):
        context = nova.context.get_admin_context()
        if not self._await_listening(context):
            return
        for _ in range(_LOOKS):
            if self._stopped.wait(CONF.userns.lost_requests_delay):
                return
            try:
                if self._look(context):
                    return
            except Exception:
                LOG.exception('Requests that may have been lost could not be looked at')

    def _count_reports(self, context):
        try:
            return objects.Service.get_by_compute_host(context, self._host).report_count
        except exception.ComputeHostNotFound:  # before its first start
            return 0

    def _await_listening(self, context):
        """A nova-compute reports that it lives when it has begun to listen."""
        while CONF.servicegroup_driver == 'db':
            if self._stopped.wait(_POLL_S):
                return False
            try:
                if self._count_reports(context) > self._reports:
                    break
            except Exception as error:  # the conductor is busy or away
                LOG.debug('No count of reports: %s', error)
        return True

    def _look(self, context):
        """Whether nothing is left to be looked at."""
        claims = _Claims(context, self._host)
        for uuid in list(self._noted):
            try:
                instance = objects.Instance.get_by_uuid(context, uuid, expected_attrs=_LOADED)
            except exception.InstanceNotFound:
                del self._noted[uuid]
                continue
            if self._guarded(lambda instance: self._take_up(context, instance, claims), instance):
                del self._noted[uuid]
        self._mender.free_confirmed(context, claims.all())
        return not self._noted

    def _take_up(self, context, instance, claims):
        """Whether it need not be looked at again."""
        noted, trail = self._noted[instance.uuid], _Trail.read(context, instance)
        self._evacuations.close_old(context, instance)
        if trail.action_id != noted.action_id or trail.reset_id != noted.reset_id or trail.has_begun_since(noted, self._host):
            return True
        trail.migration = self._migration_of(context, instance, claims)
        if trail.is_evacuation and instance.task_state in evacuated.ARRIVING and not trail.has_been_passed_on():
            return False
        if instance.task_state == tasks.RESIZE_REVERTING and trail.is_being_passed_on() and not noted.was_being_passed_on:
            noted.was_being_passed_on = True
            return False
        chosen = self._choose(context, instance, trail, claims)
        if chosen:
            LOG.warning('%(action)s (%(task)s) was lost with a nova-compute that was killed: %(what)s',
                        {'action': trail.action, 'task': instance.task_state, 'what': chosen.__name__.replace('_', ' ')}, instance=instance)
            chosen(context, instance, trail)
        return True

    def _migration_of(self, context, instance, claims):
        """The newest, of those that are known here; before that an evacuation to this host whose end is not written."""
        found = sorted(objects.MigrationList.get_by_filters(context, {'instance_uuid': instance.uuid}), key=lambda each: each.id)
        moves = [each for each in found if each.migration_type in ('resize', 'migration') and not each.cross_cell_move]
        return self._evacuations.find(instance, found, claims) or (moves[-1] if moves else None)

    # ---- whose turn it is

    def _choose(self, context, instance, trail, claims):
        """What of mend.Mender is to be done here; None: nothing, or it is for another host."""
        task, is_here = instance.task_state, instance.host == self._host
        if trail.is_evacuation:
            return self._evacuations.choose(instance, trail, claims)
        if trail.action == instance_actions.EVACUATE:  # another host's, and this one was thought to be dead; or there is one no more
            return None
        if task in _UNSHELVING:
            is_lost = instance.vm_state == vm_states.SHELVED_OFFLOADED and not instance.host and claims.have(instance.uuid)
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
            is_lost = not has_passed_it_on and not trail.is_at_work('prep_resize', self._host) and claims.have(instance.uuid)
            return self._mender.give_up_move if is_lost else None
        if task == tasks.RESIZE_REVERTING:
            has_begun, has_ended = trail.has_begun('finish_revert_resize'), trail.has_ended('revert_resize')
            if instance.host == destination and not has_ended and not has_begun and migration.status != 'reverted':
                # What goes back was sent by the source, or should have been.
                is_unsent = source == self._host and trail.action != instance_actions.REVERT_RESIZE and not trail.has_begun('revert_resize')
                return self._mender.revert if destination == self._host or is_unsent else None
            # The destination's last deed is to tell the source, which has heard it if it lives.
            is_untold = destination == self._host and not has_ended and not has_begun
            return self._mender.finish_revert if source == self._host or is_untold else None
        if task in (tasks.RESIZE_MIGRATED, tasks.RESIZE_FINISH):
            if task == tasks.RESIZE_FINISH or trail.has_ended('resize_instance') or trail.has_begun('finish_resize'):
                return self._mender.arrive if destination == self._host else None
            return self._mender.go_back if source == self._host else None
        return None


class _Claims:
    """Who has been given a place on a host: instances, and migrations. Placement is asked by the first who needs it, once: where it is
    away the others are mended all the same."""

    def __init__(self, context, host):
        self._context, self._host, self._found = context, host, None

    def all(self):
        if self._found is None:
            client, nodes = report.report_client_singleton(), objects.ComputeNodeList.get_all_by_host(self._context, self._host)
            self._found = {uuid for node in nodes
                           for uuid in client.get_allocations_for_resource_provider(self._context, node.uuid).allocations}
        return self._found

    def have(self, uuid):
        return uuid in self.all()


class _Trail:
    """What Nova has written down of the newest action on an instance: an event for each step. `migration`: its newest."""

    def __init__(self, action, events):
        self.action, self.action_id, self.reset_id = action.action, action.id, None
        self.migration, self.was_being_passed_on = None, False
        self._events = sorted(events, key=lambda event: event.id)

    @classmethod
    def read(cls, context, instance):
        actions = objects.InstanceActionList.get_by_instance_uuid(context, instance.uuid, limit=_LAST_ACTIONS)
        found = next((each for each in actions if each.action not in _BESIDE), None)
        if found is None:
            return None
        trail = cls(found, objects.InstanceActionEventList.get_by_action(context, found.id))
        trail.reset_id = max((each.id for each in actions if each.action == instance_actions.RESET_STATE), default=None)
        return trail

    def _of(self, step):
        return [event for event in self._events if event.event == f'compute_{step}']

    def has_begun(self, step):
        return bool(self._of(step))

    def has_ended(self, step):
        return any(event.finish_time for event in self._of(step))

    def is_at_work(self, step, but):
        """On another host. Of several hosts that tried the newest counts: Nova writes the end of any into the first."""
        return any(event.host != but and not event.finish_time for event in self._of(step)[-1:])

    def has_begun_since(self, earlier, host):
        known = {event.id for event in earlier._events}
        return any(event.host == host and event.id not in known for event in self._events)

    @property
    def is_evacuation(self):
        return self.migration and self.migration.migration_type == 'evacuation'

    def has_been_passed_on(self):
        """By the conductor, to the host that it is evacuated to."""
        return self.has_begun('rebuild_instance') or any(event.event == 'rebuild_server' and event.finish_time for event in self._events)

    def is_being_passed_on(self):
        """By a destination that has reverted all it had, and tells the source in this moment or has died."""
        return self.migration and self.migration.status == 'reverted' and not self.has_ended('revert_resize')
