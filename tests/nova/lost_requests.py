#!/usr/bin/python3
"""A request that nova-compute has taken from its queue and dies with before it has written down anything, for each action on path B.

    tests/nova/lost_requests.py --build build-check/gcc [-k 'resize|step'] [--short]

kills.py meets this moment by chance only. Here nova-compute is dead when it is asked, and what it was asked is taken out of its queue
before it lives again. Then the instance comes to rest without an operator, and as in kills.py it can be brought back with its disk by who
owns it, the same action does what it should, and nothing is left. Actions that are several requests between hosts are tried with each.
An evacuation is its operator's, who can ask for it again.
"""
import contextlib
import threading
import time

import suite  # the first: it knows where the others are
import daemon as daemon_module
import kill_trials
import kills
import kombu
import libvirt
import settings
from actions import lost_host_of
from kills import HARD, MIGRATE, REVERT, Operation
from matrix import BY_HAND
from rest import Refused
from stage import Server, check, equal

# Of a migration and of a revert, beside the first: who is asked, and in which task.
STEPS = {
    "second-step-of-a-migration": (Operation(MIGRATE, after=(REVERT,)), "source", None),
    "third-step-of-a-migration": (Operation(MIGRATE, after=(REVERT,)), "destination", "resize_migrating"),
    "second-step-of-a-revert": (Operation(REVERT, before=(MIGRATE,)), "source", None),
}
EVACUATE = ("evacuate", "ACTIVE", {})
EVACUATIONS = ("evacuation", "evacuation-that-has-begun")
# Killed on its way from its host, which Nova's start brings back, and asked for again before anybody has looked for what was lost.
AT_ONCE = "migration-and-another-at-once"
# Nova's own start looks after these, and calls it an error.
ENDS_IN_ERROR = ("rebuild",)


class LostRequests(kills.Kills):
    victims = {"B": ("its-request",)}
    done_to_them = "lost"
    in_short = 3

    def __init__(self, stage):
        super().__init__(stage)
        self.names = (*self.operations, *STEPS, AT_ONCE, *EVACUATIONS)

    def act(self, name: str, victim: str) -> str:
        if name == AT_ONCE:
            return self._ask_again_at_once()
        return self._evacuate(name) if name in EVACUATIONS else self._lose_and_repeat(name)

    def _ask_again_at_once(self) -> str:
        server = self._prepared(Operation(MIGRATE))
        host = server.host
        server.act(MIGRATE[0], MIGRATE[2])
        self._await_task(server, "resize_migrating")
        self._kill([host])
        host.compute.start()
        found = self.settled(server)
        if found == "ACTIVE":
            self._walk(server, (MIGRATE,))
        equal(self.settled(server), "VERIFY_RESIZE", f"its status, which was {found}")  # that at once: it had left already
        self._walk(server, (REVERT,))
        equal(server.read("marker"), "mine", "a file from before")
        self.delete(server)
        check(not self.put_right, f"no operator has to do anything: {self.put_right}")
        return found

    def _evacuate(self, name: str) -> str:
        server = self._prepared(Operation(EVACUATE))
        with lost_host_of(self.stage, server) as lost:
            if name == EVACUATIONS[0]:
                self._lose(server, EVACUATE, "destination", None)
            else:
                self._lose_in_its_middle(server)
            equal(self.settled(server), "ACTIVE", "its status, which is as before")
            has_arrived = self._has_arrived(server, lost)
            if not has_arrived:
                self._walk(server, (EVACUATE,))
                check(server.host is not lost, "asked for again, it is on the other host")
        self.await_hosts()
        self._walk(server, (HARD,))
        self.delete(server)
        check(not self.put_right, f"no operator has to do more: {self.put_right}")
        return "ACTIVE, on the other host" if has_arrived else "ACTIVE"

    def _has_arrived(self, server: Server, lost) -> bool:
        """When one host has a claim, as it has in the end: whether it is another one than the lost."""
        claims = self.still(lambda: len(self.stage.admin.allocations(server.id)), lambda now: now == 1)
        equal(claims, 1, "hosts on which there is a claim for it")
        return server.host is not lost

    def _lose_in_its_middle(self, server: Server) -> None:
        """As soon as there is something of it. The adapter goes on, and there is nobody who hears of it."""
        host = next(each for each in self.stage.cloud.hosts.values() if each is not server.host)
        with libvirt.open(host.uri) as connection:
            before = len(connection.listAllDomains())
            server.act(EVACUATE[0], EVACUATE[2])
            deadline = time.monotonic() + 60 * daemon_module.TIME_FACTOR
            while len(connection.listAllDomains()) == before:
                check(time.monotonic() < deadline, f"something of it is on {host.name}")
                time.sleep(0.005)
        host.compute.kill()
        host.compute.start()

    def _lose_and_repeat(self, name: str) -> str:
        operation, role, task = STEPS.get(name, (self.operations.get(name), None, None))
        server = self._prepared(operation)
        self._lose(server, operation.step, role, task)
        found = self.settled(server)
        self.await_hosts()
        check("," not in found, f"nothing is under way: {found}")
        check(found != "ERROR" or name in ENDS_IN_ERROR, f"it is no error: {server.reason()}")
        notes = self._bring_back(server, found, operation.step)
        self._judge_disk(server, operation)
        notes += self._repeat(server, (*operation.before, operation.step, *operation.after))
        self._judge_disk(server, operation)
        self.delete(server)
        check(BY_HAND not in notes + self.put_right, f"no operator has to do anything: {found}{notes}{self.put_right}")
        return found + notes

    def _lose(self, server: Server, step: tuple, role: str | None, task: str | None) -> None:
        """`role`: of a migration, who loses it; None: whoever is asked first. `task`: in which that is killed; None: before the request."""
        hosts = list(self.stage.cloud.hosts.values())
        if role:
            other = next(each for each in hosts if each is not server.host)
            # A server that has moved has its source behind it.
            hosts = [server.host if (role == "source") != (step is REVERT) else other]
        if task is None:
            self._kill(hosts)
        asking = threading.Thread(target=self._ask, args=(server, step))
        asking.start()
        try:
            if task is not None:
                self._await_task(server, task)
                self._kill(hosts)
            with kombu.Connection(settings.BROKER.replace("rabbit:", "amqp:")) as broker:
                left = self.stage.eventually_empty(lambda: [] if self._purge(broker, hosts) else ["no request"])
        finally:
            for host in hosts:
                host.compute.start()
            asking.join()
        check(not left, "somebody was asked")

    def _ask(self, server: Server, step: tuple) -> None:
        """For a password Nova waits for the answer, and says that there is none."""
        with contextlib.suppress(Refused, OSError):
            server.act(step[0], self._filled_in(server, step[2]))

    def _await_task(self, server: Server, task: str) -> None:
        """It is a short one."""
        deadline = time.monotonic() + 60 * daemon_module.TIME_FACTOR
        while self.stage.admin.server(server.id)["OS-EXT-STS:task_state"] != task:
            check(time.monotonic() < deadline, f"its task is {task}")
            time.sleep(0.01)

    @staticmethod
    def _kill(hosts) -> None:
        for host in hosts:
            host.compute.kill()

    @staticmethod
    def _purge(broker, hosts) -> int:
        return sum(broker.default_channel.queue_purge(f"compute.{host.name}") for host in hosts)


if __name__ == "__main__":
    suite.main(suite.Path("B", kills.start_hosts, {}), subject=suite.Subject(run=kill_trials.runner(LostRequests)))
