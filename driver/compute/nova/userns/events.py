"""Lifecycle of instances as the adapter tells it, to Nova: an instance that ended by itself becomes SHUTOFF at once."""

import contextlib
import threading

from oslo_log import log as logging

from nova.virt import event as virtevent
from nova.virt.userns import marshal

LOG = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 10
# What to say of an instance that is found in another state than the one that it was last seen in.
_EVENT_OF_STATE = {'running': 'started', 'paused': 'paused', 'shutdown': 'stopped', 'crashed': 'crashed',
                   'suspended': 'suspended'}
_STATE_OF_EVENT = {'started': 'running', 'resumed': 'running', 'rebooted': 'running', 'paused': 'paused',
                   'stopped': 'shutdown', 'crashed': 'crashed', 'suspended': 'suspended'}


class Events:
    """A thread (a green one under eventlet) that listens as long as the driver lives."""

    def __init__(self, adapter, emit):
        self._adapter, self._emit = adapter, emit
        self._stopped, self._connection, self._thread = threading.Event(), None, None
        self._heard = False
        self._states = None
        self._spawned = set()

    @contextlib.contextmanager
    def spawning(self, uuid):
        """Meanwhile Nova is not told that this one has started: it is waiting for that, and would look for it once more."""
        self._spawned.add(uuid)
        try:
            yield
        finally:
            self._spawned.discard(uuid)

    def start(self):
        self._thread = threading.Thread(target=self._run, name='userns-events', daemon=True)
        self._thread.start()

    def stop(self):
        self._stopped.set()
        connection = self._connection
        if connection:
            connection.interrupt()
        if self._thread:
            self._thread.join(timeout=5)

    def _run(self):
        pause = 0.1
        while not self._stopped.is_set():
            try:
                self._listen()
            except Exception as error:  # the thread has to go on, whatever one message was
                LOG.debug('No events from virtuserns-compute: %s', error)
            pause = 0.1 if self._heard else min(pause * 2, _LONGEST_PAUSE_S)
            self._stopped.wait(pause)

    def _listen(self):
        self._heard = False
        self._connection = connection = self._adapter.connect()
        try:
            connection.call('events.subscribe', {}, timeout=60)
            self._heard = True
            self._compare()
            while not self._stopped.is_set():
                message = connection.receive()
                if message.get('method') == 'event':
                    self._take(message['params'])
        finally:
            self._connection = None
            connection.close()

    def _take(self, event):
        if event['event'] == 'lost':
            self._compare()
            return
        if self._states is not None and event['event'] in _STATE_OF_EVENT:
            self._states[event['uuid']] = _STATE_OF_EVENT[event['event']]
        self._tell(event['uuid'], event['event'], event.get('at'))

    def _compare(self):
        """Find out what was missed. The first time there is nothing to compare with: Nova asks for itself at its start."""
        now = {entry['uuid']: entry['state'] for entry in self._adapter.call('instance.list')}
        before, self._states = self._states, now
        for uuid, state in now.items():
            if before is not None and before.get(uuid) != state and state in _EVENT_OF_STATE:
                self._tell(uuid, _EVENT_OF_STATE[state], None)

    def _tell(self, uuid, event, at):
        transition = marshal.TRANSITIONS.get(event)
        if transition is not None and not (event == 'started' and uuid in self._spawned):
            self._emit(virtevent.LifecycleEvent(uuid, transition, timestamp=at))
