"""What programs that are killed in the middle of an action are tried with: kills.py and device_kills.py say what the actions are.

What was killed is started again at once, as a service manager would.
"""
import contextlib
import os
import pathlib
import random
import re
import subprocess
import time

import path_b
import suite
import daemon as daemon_module
from database import nova_manage
from invariants import left_of
from matrix import BY_HAND
from processes import program_environment
from rest import Refused, WentWrong
from stage import Server, Stage, check, equal

SEED = int(os.environ.get("VIRTUSERNS_SEED", str(int(time.time()) // 86400)))
MOMENTS = int(os.environ.get("VIRTUSERNS_KILLS", "1"))  # of each action and victim, in a long run
VICTIMS = {"A": ("nova-compute", "virtusernsd"), "B": ("nova-compute", "adapter", "virtusernsd")}
SETTLE_S = 30.0  # without a change; nova-compute is up again after 10, says so after 15, and looks for lost requests then
TRIES = 5        # of bringing an instance back
NOVA_INSTANCES = pathlib.Path("/var/lib/nova/compute/instances")  # of Nova's own driver
# It deletes the folder of a container whose start failed while the root is mounted in it, and cannot.
OF_A_FAILED_START = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}_del")

# Nova looks twice an hour for what was deleted and is still there; who sets states by hand leaves such things.
REAP = "[DEFAULT]\nrunning_deleted_instance_poll_interval = 5\n"
# What waits in a queue is taken out at once here.
LOST_REQUESTS = f"[userns]\nlost_requests_delay = {int(2 * daemon_module.TIME_FACTOR)}\n"


def start_host(cloud, name: str, more: str = "") -> None:
    path_b.start_host(cloud, name, conf=path_b.CONF + REAP + LOST_REQUESTS + more)


class Trials:
    """What all trials have in common: another instance, which runs on, and what has to be so after each. `names`: of the actions."""

    names: tuple[str, ...] = ()
    victims = VICTIMS  # of each path
    done_to_them = "killed"
    in_short = 6  # trials

    def __init__(self, stage: Stage):
        self.stage, self.random = stage, random.Random(SEED)
        stage.doing = "bystander"
        self.bystander = self.boot_bystander()
        self.init = self.bystander.init()
        self.seconds: dict[str, float] = {}  # that an action takes undisturbed
        self.put_right = ""                  # what was left, and removed by hand

    def boot_bystander(self) -> Server:
        return self.stage.boot()

    def act(self, name: str, victim: str) -> str:
        """One action of this name, with one kill, and what has to be said of it."""
        raise NotImplementedError

    def clear(self) -> None:
        """What a trial that failed has left is not the next one's."""
        for server in self.stage.admin.servers(all_projects=True):
            if server["id"] != self.bystander.id:
                with contextlib.suppress(Refused, WentWrong):
                    self.stage.admin.act(server["id"], "os-resetState", {"state": "error"})
                    self.stage.admin.delete(server["id"])
                    self.stage.admin.await_gone(server["id"], timeout_s=SETTLE_S)

    def trial(self, name: str, victim: str):
        """A function of a stage, for a suite."""
        def run(_: Stage) -> str:
            self.put_right = ""
            try:
                return self.act(name, victim) + self.put_right
            except BaseException:
                self.clear()
                raise
            finally:
                self.await_hosts()
        return run

    def await_hosts(self) -> None:
        """Until each nova-compute answers: what it finds under way when it begins it takes for what it was killed in."""
        deadline = time.monotonic() + 90 * daemon_module.TIME_FACTOR
        while not self._have_all_hosts_answered():
            check(time.monotonic() < deadline, "every nova-compute answers again")
            time.sleep(0.2)

    def _have_all_hosts_answered(self) -> bool:
        try:
            found = self.stage.admin.nova("GET", "/os-hypervisors/detail")["hypervisors"]
        except Refused as refused:
            equal(refused.code, 500, "the answer while Nova waits for one that has died")
            return False
        # Nova's libvirt driver takes a host out of use while libvirt does not answer. Those that a suite has taken out give no reason.
        return all(each["uptime"] if each["status"] == "enabled" else not each["service"]["disabled_reason"] for each in found)

    def kill_during(self, name: str, host, victim: str) -> float:
        """At a moment of the time that the action takes, which is returned."""
        moment = self.random.random() * self.seconds[name]
        time.sleep(moment)
        program = host.program_beside("adapter") if victim == "adapter" else {"nova-compute": host.compute, "virtusernsd": host.daemon}[victim]
        program.kill()
        check(pathlib.Path(f"/proc/{self.init}").exists(), "the other instance runs on")
        program.start()
        if victim == "virtusernsd":
            host.await_daemon()
        return moment

    @staticmethod
    def still(look, is_over) -> object:
        """What `look` sees, when that is over or nothing has changed for long."""
        last, deadline = None, 0.0
        while True:
            now = look()
            if is_over(now):
                return now
            if now != last:
                last, deadline = now, time.monotonic() + SETTLE_S * daemon_module.TIME_FACTOR
            if time.monotonic() > deadline:
                return now
            time.sleep(0.2)

    def settled(self, server: Server) -> str:
        """Its status, when nothing is under way or nothing has happened for long; "gone" when it is deleted."""
        def look():
            try:
                found = self.stage.admin.server(server.id)
            except Refused as refused:
                equal(refused.code, 404, "the answer to who asks for it")
                return "gone", None
            task = found["OS-EXT-STS:task_state"]
            if found["status"] == "VERIFY_RESIZE" and not task:  # Nova shows a confirmation here only
                task = self._confirming(server)
            return found["status"], task
        status, task = self.still(look, lambda now: now[1] is None and now[0] != "BUILD")
        return status if task is None and status != "BUILD" else f"{status}, {task}"

    def _confirming(self, server: Server) -> str | None:
        migrations = self.stage.admin.nova("GET", f"/os-migrations?instance_uuid={server.id}")["migrations"]
        status = max(migrations, key=lambda each: each["id"])["status"]
        return status if status in ("confirming", "confirmed") else None

    def delete(self, server: Server) -> None:
        """Gone, and nothing is left of it."""
        for _ in range(TRIES):
            with contextlib.suppress(Refused, WentWrong):
                self.stage.admin.delete(server.id)
                self.stage.admin.await_gone(server.id, timeout_s=SETTLE_S)
            if self.settled(server) == "gone":
                break
        equal(self.settled(server), "gone", "after it was deleted")
        equal(self.bystander.init(), self.init, "init of the other instance")
        left = self.stage.eventually_empty(lambda: left_of(self.stage, [self.bystander]))
        if left and all(each.startswith("claim ") for each in left):
            # Of a migration whose end was lost with nova-compute: Nova has a command that finds them.
            subprocess.run([*nova_manage(), "placement", "audit", "--delete"], env=program_environment({}), stdin=subprocess.DEVNULL,
                           capture_output=True, check=False)
            self.put_right = f", {BY_HAND}: claims"
            left = left_of(self.stage, [self.bystander])
        if left and self.stage.path == "A" and all(OF_A_FAILED_START.search(each) for each in left):
            self._put_away(set(OF_A_FAILED_START.search(each).group() for each in left))
            left = left_of(self.stage, [self.bystander])
        check(not left, "left: " + "; ".join(left[:20]))

    def _put_away(self, names: set[str]) -> None:
        """docs/openstack.md, "Path A"."""
        for name in names:
            for host in self.stage.cloud.hosts.values():
                host.command("sh", "-c", 'if [ -d "$0" ]; then umount "$0/rootfs"; losetup -j "$0/disk" | cut -d: -f1 | xargs -r losetup -d; '
                             'rm -r --one-file-system "$0"; fi', str(NOVA_INSTANCES / name))
        self.put_right = ", what Nova's driver left removed by hand"


def runner(trials: type[Trials]):
    """For suite.Subject: all of them, or a sample in a short run."""
    def run_all(path: suite.Path, stage: Stage, arguments, results) -> suite.Suite:
        kills, victims = trials(stage), trials.victims[path.name]
        names = [name for name in kills.names if not path.tried or name in path.tried]
        chosen = [(name, victim) for name in names for victim in victims for _ in range(MOMENTS)]
        if arguments.short:
            sample = kills.random.sample(names, min(kills.in_short, len(names)))
            chosen = [(name, victims[number % len(victims)]) for number, name in enumerate(sample)]
        print(f"seed {SEED}", flush=True)
        done = suite.Suite(path, stage, results)
        for name, victim in chosen:
            title = f"{name}-when-{victim}-is-{kills.done_to_them}"
            if arguments.matches(title):
                done.run("kill", title, (), kills.trial(name, victim))
        return done
    return run_all
