#!/usr/bin/python3
"""kill -9 of nova-compute, of virtuserns-compute or of virtusernsd in the middle of each action, on path B; and of what path A has of
them.

    VIRTUSERNS_SEED=1 tests/nova/kills.py --build build-check/gcc [-k 'resize|nova-compute'] [--short]

Each action is tried undisturbed, which tells how long it takes, and then with a kill at a moment of that time. What was killed is
started again at once, as a service manager would. Then: another instance has run on, the action has ended, well or with an error, the
instance can be brought back with its disk by who owns it, the same action does what it should, and when it is deleted nothing of it is on
a host or claimed in Placement.

Nova acknowledges a request before it works on it, so that some are lost with nova-compute. Path B asks for them again or sets them back
(lost_requests.py tries that for each action at the worst moment). On path A an operator's `openstack server set --state active` and a hard
reboot are the way back, and are done; where the instance has no disk yet it is a rebuild of its shelved image. The line of the trial says
so, for path B as well where it should come to that.
"""
import contextlib
import dataclasses
import time

import kill_trials
import path_a
import rest
import suite
import libvirt
from kill_trials import TRIES, Trials
from matrix import BY_HAND
from rest import Refused, WentWrong
from stage import Server, Stage, check, equal

STOP, START = ("os-stop", "SHUTOFF", None), ("os-start", "ACTIVE", None)
PAUSE, UNPAUSE = ("pause", "PAUSED", None), ("unpause", "ACTIVE", None)
SUSPEND, RESUME = ("suspend", "SUSPENDED", None), ("resume", "ACTIVE", None)
RESCUE, UNRESCUE = ("rescue", "RESCUE", None), ("unrescue", "ACTIVE", None)
SHELVE, UNSHELVE = ("shelve", "SHELVED_OFFLOADED", None), ("unshelve", "ACTIVE", None)
CONFIRM, REVERT = ("confirmResize", "ACTIVE", None), ("revertResize", "ACTIVE", None)
MIGRATE = ("migrate", "VERIFY_RESIZE", None)
RESIZE = ("resize", "VERIFY_RESIZE", {"flavorRef": None})  # to the one of two flavors that it has not
HARD, SOFT = ("reboot", "ACTIVE", {"type": "HARD"}), ("reboot", "ACTIVE", {"type": "SOFT"})
BACK = {"SHUTOFF": START, "PAUSED": UNPAUSE, "SUSPENDED": RESUME, "RESCUE": UNRESCUE, "VERIFY_RESIZE": REVERT,
        "SHELVED_OFFLOADED": UNSHELVE, "SHELVED": UNSHELVE}


@dataclasses.dataclass
class Operation:
    """An action, and the status after it. `before` brings an active server to where it begins, `after` from its end to ACTIVE."""
    step: tuple
    before: tuple = ()
    after: tuple = ()
    keeps_disk: bool = True


def operations(stage: Stage) -> dict[str, Operation]:
    return {
        "stop": Operation(STOP, after=(START,)),
        "start": Operation(START, before=(STOP,)),
        "reboot-soft": Operation(SOFT),
        "reboot-hard": Operation(HARD),
        "pause": Operation(PAUSE, after=(UNPAUSE,)),
        "unpause": Operation(UNPAUSE, before=(PAUSE,)),
        "suspend": Operation(SUSPEND, after=(RESUME,)),
        "resume": Operation(RESUME, before=(SUSPEND,)),
        "rescue": Operation(RESCUE, after=(UNRESCUE,)),
        "unrescue": Operation(UNRESCUE, before=(RESCUE,)),
        "password": Operation(("changePassword", "ACTIVE", {"adminPass": "Correct-Horse-1"})),
        "snapshot": Operation(("createImage", "ACTIVE", {"name": "killed"})),
        "rebuild": Operation(("rebuild", "ACTIVE", {"imageRef": stage.image}), keeps_disk=False),
        "resize": Operation(RESIZE, after=(CONFIRM,)),
        "confirm": Operation(CONFIRM, before=(RESIZE,)),
        "revert": Operation(REVERT, before=(RESIZE,)),
        "migrate": Operation(MIGRATE, after=(REVERT,)),
        "revert-of-a-migration": Operation(REVERT, before=(MIGRATE,)),
        "shelve": Operation(SHELVE, after=(UNSHELVE,)),
        "unshelve": Operation(UNSHELVE, before=(SHELVE,)),
    }


class Kills(Trials):
    def __init__(self, stage: Stage):
        self.flavors = {name: stage.admin.make_flavor(name, memory, 1, 1) for name, memory in ((f"plain-{stage.path}", 192),
                                                                                               (f"wide-{stage.path}", 256))}
        super().__init__(stage)
        self.operations = operations(stage)
        self.names = ("boot", "delete", *self.operations)

    def boot_bystander(self) -> Server:
        return self.stage.boot(flavor=next(iter(self.flavors.values())))

    def act(self, name: str, victim: str) -> str:
        if name == "boot":
            return self._boot(victim)
        return self._delete(victim) if name == "delete" else self._operate(name, victim)

    # ---- what is tried ----

    def _operate(self, name: str, victim: str) -> str:
        operation = self.operations[name]
        if name not in self.seconds:
            self.seconds[name] = self._undisturbed(operation)
        server = self._prepared(operation)
        host = self._host_of(server, name)
        action, _, body = operation.step
        server.act(action, self._filled_in(server, body))
        moment = self.kill_during(name, host, victim)
        found = self.settled(server)
        self.await_hosts()
        notes = self._bring_back(server, found, operation.step)
        self._judge_disk(server, operation)
        notes += self._repeat(server, (*operation.before, operation.step, *operation.after))
        self._judge_disk(server, operation)
        self.delete(server)
        return f"at {moment:.2f} s: {found}{notes}"

    def _boot(self, victim: str) -> str:
        if "boot" not in self.seconds:
            begin = time.monotonic()
            server = self.stage.boot()
            self.seconds["boot"] = time.monotonic() - begin
            self.delete(server)
        server = self.stage.begin_boot(host=self.bystander.host.name)
        moment = self.kill_during("boot", self.bystander.host, victim)
        found = self.settled(server)
        check(found in ("ACTIVE", "ERROR", "BUILD"), f"it is {found}")
        self.delete(server)
        self.await_hosts()
        self.delete(self.stage.boot())
        return f"at {moment:.2f} s: {found}"

    def _delete(self, victim: str) -> str:
        server = self.stage.boot()
        if "delete" not in self.seconds:
            begin = time.monotonic()
            server.delete()
            self.seconds["delete"] = time.monotonic() - begin
            server = self.stage.boot()
        host = server.host
        self.stage.admin.delete(server.id)
        moment = self.kill_during("delete", host, victim)
        found = self.settled(server)
        self.delete(server)
        return f"at {moment:.2f} s: {found}"

    # ---- its parts ----

    def _undisturbed(self, operation: Operation) -> float:
        server = self._prepared(operation)
        begin = time.monotonic()
        self._walk(server, (operation.step,))
        seconds = time.monotonic() - begin
        self._walk(server, operation.after)
        self.delete(server)
        return seconds

    def _prepared(self, operation: Operation) -> Server:
        server = self.stage.boot(flavor=next(iter(self.flavors.values())))
        server.write("marker", "mine")
        self._walk(server, operation.before)
        return server

    def _walk(self, server: Server, steps) -> None:
        for action, status, body in steps:
            server.act_until(action, status, self._filled_in(server, body))

    def _filled_in(self, server: Server, body):
        if body != RESIZE[2]:
            return body
        now = self.stage.admin.server(server.id)["flavor"]["original_name"]
        return {"flavorRef": next(flavor for name, flavor in self.flavors.items() if name != now)}

    def _host_of(self, server: Server, name: str):
        """One that takes part."""
        hosts = list(self.stage.cloud.hosts.values())
        if name.startswith(("migrate", "resize", "confirm", "revert", "unshelve")):
            return self.random.choice(hosts)
        return server.host

    def _repeat(self, server: Server, steps) -> str:
        """A request that waited in the queue while nova-compute was away may come to it now, and cross ours."""
        notes = ""
        for attempt in range(TRIES):
            try:
                self._walk(server, steps)
                return notes
            except (WentWrong, Refused) as wrong:
                if attempt + 1 == TRIES:
                    raise
                notes += f", once more because of: {str(wrong)[:100]}"
                notes += self._bring_back(server, self.settled(server))
        return notes

    def _bring_back(self, server: Server, found: str, tried: tuple = HARD) -> str:
        """It runs, whatever came of the action `tried`. What an operator had to do."""
        notes, is_stuck = "", False
        # What its owner may ask of one that is in ERROR, the last first.
        of_an_error = [tried, HARD] if tried[0] == "rebuild" else [HARD]
        for _ in range(TRIES + 1):
            if found == "ACTIVE" and self._runs(server):
                return notes
            step = BACK.get(found, HARD)
            if found == "ERROR" and of_an_error:
                step = of_an_error.pop()
            elif found == "ERROR" or "," in found or is_stuck:
                notes, step = f", {BY_HAND}", HARD
                server.act("os-resetState", {"state": "active"})
                if is_stuck and (image := self._shelved_image(server)):  # it has no disk: it had not been made of the image again
                    notes, step = f", {BY_HAND}, rebuilt", ("rebuild", "ACTIVE", {"imageRef": image})
            is_stuck = False
            try:
                self._walk(server, (step,))
            except (WentWrong, Refused):
                is_stuck = True
            found = self.settled(server)
        raise WentWrong(f"{found}, after {TRIES + 1} tries to bring it back: {server.reason()}")

    def _shelved_image(self, server: Server) -> str | None:
        """Nova deletes it when the instance runs again."""
        name = f"{self.stage.admin.server(server.id)['name']}-shelved"
        return next((each["id"] for each in self.stage.admin.images() if each["name"] == name), None)

    @staticmethod
    def _runs(server: Server) -> bool:
        with contextlib.suppress(libvirt.libvirtError):
            return server.domain_state() == libvirt.VIR_DOMAIN_RUNNING
        return False

    @staticmethod
    def _judge_disk(server: Server, operation: Operation) -> None:
        if operation.keeps_disk:
            equal(server.read("marker"), "mine", "a file from before")


def start_hosts(cloud):
    for name in ("host1", "host2"):
        kill_trials.start_host(cloud, name)


def start_host_of_a(cloud):
    """In place of the others."""
    # While they live: Nova tells them, and waits a minute for one that it does not know to be gone.
    session = rest.Session.admin()
    for service in session.nova("GET", "/os-services?binary=nova-compute")["services"]:
        session.nova("PUT", f"/os-services/{service['id']}", {"status": "disabled"})
    for host in cloud.hosts.values():
        for program in (host.compute, *host.beside):
            program.stop()
    cloud.start_compute("host3", path_a.CONF + kill_trials.REAP)


# What Nova's driver does with containers on one host.
TRIED_ON_A = ("boot", "delete", "stop", "start", "reboot-soft", "reboot-hard", "pause", "unpause", "snapshot", "rebuild", "shelve", "unshelve")

if __name__ == "__main__":
    suite.main(suite.Path("B", start_hosts, {}), suite.Path("A", start_host_of_a, {}, TRIED_ON_A, in_short=False),
               subject=suite.Subject(run=kill_trials.runner(Kills)))
