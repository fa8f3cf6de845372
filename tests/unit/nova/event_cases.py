"""Events of the adapter's become Nova's, and none is lost for good."""
from nova.virt import event as virtevent
from nova_objects import UUID
from shim_case import ShimCase

OTHER = "3f2c1d5e-0000-4000-8000-000000000002"


class EventTest(ShimCase):
    def setUp(self):
        super().setUp()
        self.seen = []
        self.driver.register_event_listener(lambda event: self.seen.append((event.uuid, event.transition)))

    def start(self, **states):
        self.states(**states)
        self.driver.init_host("compute-1")
        self.addCleanup(self.driver.cleanup_host, "compute-1")
        self.eventually("the states are asked for", lambda: self.adapter.asked("instance.list"))

    def states(self, **states):
        uuids = {"first": UUID, "second": OTHER}
        self.adapter.answers["instance.list"] = [{"uuid": uuids[name], "name": name, "state": state}
                                                 for name, state in states.items()]

    def expect(self, *events):
        self.eventually(f"{events} are seen", lambda: len(self.seen) >= len(events))
        self.assertEqual(self.seen, list(events))

    def test_each(self):
        self.start(first="running")
        for event in ("stopped", "started", "paused", "resumed", "suspended", "rebooted", "crashed"):
            self.adapter.notify(UUID, event)
        self.expect((UUID, virtevent.EVENT_LIFECYCLE_STOPPED), (UUID, virtevent.EVENT_LIFECYCLE_STARTED),
                    (UUID, virtevent.EVENT_LIFECYCLE_PAUSED), (UUID, virtevent.EVENT_LIFECYCLE_RESUMED),
                    (UUID, virtevent.EVENT_LIFECYCLE_SUSPENDED), (UUID, virtevent.EVENT_LIFECYCLE_STOPPED))

    def test_that_one_started_is_no_news_to_who_starts_it(self):
        self.start()
        with self.driver._events.spawning(UUID):
            self.adapter.notify(UUID, "started")
            self.adapter.notify(OTHER, "started")
            self.adapter.notify(UUID, "stopped")
            self.expect((OTHER, virtevent.EVENT_LIFECYCLE_STARTED), (UUID, virtevent.EVENT_LIFECYCLE_STOPPED))
        self.adapter.notify(UUID, "started")
        self.eventually("the next one is", lambda: len(self.seen) == 3)

    def test_time_of_the_event(self):
        times = []
        self.driver.register_event_listener(lambda event: times.append(event.timestamp))
        self.start()
        self.adapter.notify(UUID, "stopped", at=12.5)
        self.eventually("it is seen", lambda: times)
        self.assertEqual(times, [12.5])

    def test_nothing_at_the_start(self):
        """Nova asks for every state itself then."""
        self.start(first="running", second="shutdown")
        self.adapter.notify(UUID, "paused")
        self.expect((UUID, virtevent.EVENT_LIFECYCLE_PAUSED))

    def test_lost(self):
        self.start(first="running", second="running")
        self.states(first="shutdown", second="running")
        self.adapter.notify("", "lost")
        self.expect((UUID, virtevent.EVENT_LIFECYCLE_STOPPED))

    def test_known_by_an_event_is_no_difference(self):
        self.start(first="running")
        self.adapter.notify(UUID, "stopped")
        self.states(first="shutdown")
        self.adapter.notify("", "lost")
        self.adapter.notify(OTHER, "started")
        self.expect((UUID, virtevent.EVENT_LIFECYCLE_STOPPED), (OTHER, virtevent.EVENT_LIFECYCLE_STARTED))

    def test_adapter_is_restarted(self):
        self.start(first="running", second="paused")
        self.adapter.stop()
        self.states(first="crashed", second="paused")
        self.adapter.start()
        self.expect((UUID, virtevent.EVENT_LIFECYCLE_STOPPED))
        self.adapter.notify(OTHER, "resumed")
        self.expect((UUID, virtevent.EVENT_LIFECYCLE_STOPPED), (OTHER, virtevent.EVENT_LIFECYCLE_RESUMED))

    def test_one_that_is_unknown_or_malformed(self):
        self.start(first="running")
        self.adapter.notify(UUID, "exploded")
        self.adapter.notify(None, None)
        self.adapter.notify(UUID, "paused")
        self.expect((UUID, virtevent.EVENT_LIFECYCLE_PAUSED))

    def test_listener_that_fails(self):
        self.start(first="running")
        seen = []

        def fail(event):
            seen.append(event)
            raise RuntimeError
        self.driver.register_event_listener(fail)
        self.adapter.notify(UUID, "paused")
        self.adapter.notify(UUID, "resumed")
        self.eventually("both are seen", lambda: len(seen) == 2)
