#!/usr/bin/python3
"""kill -9 of nova-compute, of virtuserns-compute or of virtusernsd in the middle of each action, on path B.

    VIRTUSERNS_SEED=1 tests/nova/kills.py --build build-check/gcc [-k 'resize|nova-compute'] [--short]

Each action is tried undisturbed, which tells how long it takes, and then with a kill at a moment of that time. What was killed is
started again at once, as a service manager would. Then: another instance has run on, the action has ended, well or with an error, the
instance can be brought back with its disk, the same action does what it should, and when it is deleted nothing of it is on a host or
claimed in Placement. Where the request was lost with the process (Nova acknowledges a request before it works on it), an operator's
`openstack server set --state active` and a hard reboot are the way back, and are done; the line of the trial says so. What a migration
whose end was lost still claims is found by `nova-manage placement audit`.
"""
import contextlib
import dataclasses
import functools
import os
import pathlib
import random
import subprocess
import time

import path_b
import suite
import daemon as daemon_module
import libvirt
from database import nova_manage
from invariants import left_of
from matrix import BY_HAND
from processes import program_environment
from rest import Refused, WentWrong
from stage import Server, Stage, check, equal

SEED = int(os.environ.get("VIRTUSERNS_SEED", str(int(time.time()) // 86400)))
MOMENTS = int(os.environ.get("VIRTUSERNS_KILLS", "1"))  # of each action and victim, in a long run
SHORT_TRIALS = 6
VICTIMS = ("nova-compute", "adapter", "virtusernsd")
SETTLE_S = 15.0  # without a change; nova-compute is up again after 4
TRIES = 5        # of bringing an instance back

STOP, START = ("os-stop", "SHUTOFF", None), ("os-start", "ACTIVE", None)
PAUSE, UNPAUSE = ("pause", "PAUSED", None), ("unpause", "ACTIVE", None)
SUSPEND, RESUME = ("suspend", "SUSPENDED", None), ("resume", "ACTIVE", None)
RESCUE, UNRESCUE = ("rescue", "RESCUE", None), ("unrescue", "ACTIVE", None)
SHELVE, UNSHELVE = ("shelve", "SHELVED_OFFLOADED", None), ("unshelve", "ACTIVE", None)
CONFIRM, REVERT = ("confirmResize", "ACTIVE", None), ("revertResize", "ACTIVE", None)
MIGRATE = ("migrate", "VERIFY_RESIZE", None)
RESIZE = ("resize", "VERIFY_RESIZE", {"flavorRef": None})  # to the one of FLAVORS that it has not
FLAVORS = ("plain", "wide")
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


class Kills:
    """What all trials have in common."""

    def __init__(self, stage: Stage):
        self.stage, self.random = stage, random.Random(SEED)
        stage.doing = "bystander"
        self.flavors = {name: stage.admin.make_flavor(name, memory, 1, 1) for name, memory in zip(FLAVORS, (192, 256), strict=True)}
        self.bystander = stage.boot(flavor=self.flavors["plain"])
        self.init = self.bystander.init()
        self.operations = operations(stage)
        self.seconds: dict[str, float] = {}  # that an action takes undisturbed

    def trial(self, name: str, victim: str):
        """A function of a stage: one kill, and what has to be said of it."""
        function = {"boot": self.boot, "delete": self.delete}.get(name) or functools.partial(self.act, name)

        def run(_: Stage) -> str:
            try:
                return function(victim)
            except BaseException:
                self._clear()
                raise
            finally:
                self._await_hosts()
        return run

    # ---- what is tried ----

    def act(self, name: str, victim: str) -> str:
        operation = self.operations[name]
        if name not in self.seconds:
            self.seconds[name] = self._undisturbed(operation)
        server = self._prepared(operation)
        host = self._host_of(server, name)
        action, _, body = operation.step
        server.act(action, self._filled_in(server, body))
        moment = self._kill_during(name, host, victim)
        found = self._settled(server)
        self._await_hosts()
        notes = self._bring_back(server, found)
        self._judge_disk(server, operation)
        notes += self._repeat(server, (*operation.before, operation.step, *operation.after))
        self._judge_disk(server, operation)
        self._delete(server)
        return f"at {moment:.2f} s: {found}{notes}"

    def boot(self, victim: str) -> str:
        if "boot" not in self.seconds:
            begin = time.monotonic()
            server = self.stage.boot()
            self.seconds["boot"] = time.monotonic() - begin
            self._delete(server)
        server = self.stage.begin_boot(host=self.bystander.host.name)
        moment = self._kill_during("boot", self.bystander.host, victim)
        found = self._settled(server)
        check(found in ("ACTIVE", "ERROR", "BUILD"), f"it is {found}")
        self._delete(server)
        self._delete(self.stage.boot())
        return f"at {moment:.2f} s: {found}"

    def delete(self, victim: str) -> str:
        server = self.stage.boot()
        if "delete" not in self.seconds:
            begin = time.monotonic()
            server.delete()
            self.seconds["delete"] = time.monotonic() - begin
            server = self.stage.boot()
        host = server.host
        self.stage.admin.delete(server.id)
        moment = self._kill_during("delete", host, victim)
        found = self._settled(server)
        self._delete(server)
        return f"at {moment:.2f} s: {found}"

    def _await_hosts(self) -> None:
        """Until each nova-compute answers: what it finds under way when it begins it takes for what it was killed in."""
        deadline = time.monotonic() + 90 * daemon_module.TIME_FACTOR
        while not all(each["uptime"] for each in self.stage.admin.nova("GET", "/os-hypervisors/detail")["hypervisors"]):
            check(time.monotonic() < deadline, "every nova-compute answers again")
            time.sleep(0.2)

    def _clear(self) -> None:
        """What a trial that failed has left is not the next one's."""
        for server in self.stage.admin.servers(all_projects=True):
            if server["id"] != self.bystander.id:
                with contextlib.suppress(Refused, WentWrong):
                    self.stage.admin.act(server["id"], "os-resetState", {"state": "error"})
                    self.stage.admin.delete(server["id"])
                    self.stage.admin.await_gone(server["id"], timeout_s=SETTLE_S)

    # ---- its parts ----

    def _undisturbed(self, operation: Operation) -> float:
        server = self._prepared(operation)
        begin = time.monotonic()
        self._walk(server, (operation.step,))
        seconds = time.monotonic() - begin
        self._walk(server, operation.after)
        self._delete(server)
        return seconds

    def _prepared(self, operation: Operation) -> Server:
        server = self.stage.boot(flavor=self.flavors["plain"])
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

    def _kill_during(self, name: str, host, victim: str) -> float:
        moment = self.random.random() * self.seconds[name]
        time.sleep(moment)
        program = {"nova-compute": host.compute, "virtusernsd": host.daemon, "adapter": host.program_beside("adapter")}[victim]
        program.kill()
        check(pathlib.Path(f"/proc/{self.init}").exists(), "the other instance runs on")
        program.start()
        if victim == "virtusernsd":
            host.await_daemon()
        return moment

    def _settled(self, server: Server) -> str:
        """Its status, when nothing is under way or nothing has happened for long; "gone" when it is deleted."""
        last, deadline = None, 0.0
        while True:
            try:
                found = self.stage.admin.server(server.id)
            except Refused as refused:
                equal(refused.code, 404, "the answer to who asks for it")
                return "gone"
            now = (found["status"], found["OS-EXT-STS:task_state"])
            if now[1] is None and now[0] != "BUILD":
                return now[0]
            if now != last:
                last, deadline = now, time.monotonic() + SETTLE_S * daemon_module.TIME_FACTOR
            if time.monotonic() > deadline:
                return f"{now[0]}, {now[1]}"
            time.sleep(0.2)

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
                notes += self._bring_back(server, self._settled(server))
        return notes

    def _bring_back(self, server: Server, found: str) -> str:
        """It runs, whatever came of the action. What an operator had to do."""
        notes, is_stuck = "", False
        for _ in range(TRIES):
            if found == "ACTIVE" and self._runs(server):
                return notes
            step = BACK.get(found, HARD)
            if found == "ERROR" or "," in found or is_stuck:
                notes, step = f", {BY_HAND}", HARD
                server.act("os-resetState", {"state": "active"})
            is_stuck = False
            try:
                self._walk(server, (step,))
            except (WentWrong, Refused):
                is_stuck = True
            found = self._settled(server)
        raise WentWrong(f"{found}, after {TRIES} tries to bring it back: {server.reason()}")

    @staticmethod
    def _runs(server: Server) -> bool:
        with contextlib.suppress(libvirt.libvirtError):
            return server.domain_state() == libvirt.VIR_DOMAIN_RUNNING
        return False

    @staticmethod
    def _judge_disk(server: Server, operation: Operation) -> None:
        if operation.keeps_disk:
            equal(server.read("marker"), "mine", "a file from before")

    def _delete(self, server: Server) -> None:
        """Gone, and nothing is left of it."""
        for _ in range(TRIES):
            with contextlib.suppress(Refused, WentWrong):
                self.stage.admin.delete(server.id)
                self.stage.admin.await_gone(server.id, timeout_s=SETTLE_S)
            if self._settled(server) == "gone":
                break
        equal(self._settled(server), "gone", "after it was deleted")
        equal(self.bystander.init(), self.init, "init of the other instance")
        left = self.stage.eventually_empty(lambda: left_of(self.stage, [self.bystander]))
        if left and all(each.startswith("claim ") for each in left):
            # Of a migration whose end was lost with nova-compute: Nova has a command that finds them.
            subprocess.run([*nova_manage(), "placement", "audit", "--delete"], env=program_environment({}), stdin=subprocess.DEVNULL,
                           capture_output=True, check=False)
            left = left_of(self.stage, [self.bystander])
        check(not left, "left: " + "; ".join(left[:20]))


def run_all(path: suite.Path, stage: Stage, arguments, results) -> suite.Suite:
    kills, trials = Kills(stage), []
    names = ["boot", "delete", *kills.operations]
    if arguments.short:
        chosen = kills.random.sample(names, SHORT_TRIALS)
        trials = [(name, VICTIMS[number % len(VICTIMS)]) for number, name in enumerate(chosen)]
    else:
        trials = [(name, victim) for name in names for victim in VICTIMS for _ in range(MOMENTS)]
    print(f"seed {SEED}", flush=True)
    done = suite.Suite(path, stage, results)
    for name, victim in trials:
        title = f"{name}-when-{victim}-is-killed"
        if arguments.matches(title):
            done.run("kill", title, (), kills.trial(name, victim))
    return done


# Nova looks twice an hour for what was deleted and is still there; who sets states by hand leaves such things.
REAP = "[DEFAULT]\nrunning_deleted_instance_poll_interval = 5\n"


def start_hosts(cloud):
    for name in ("host1", "host2"):
        path_b.start_host(cloud, name, conf=path_b.CONF + REAP)


if __name__ == "__main__":
    suite.main(suite.Path("B", start_hosts, {}), subject=suite.Subject(run=run_all))
