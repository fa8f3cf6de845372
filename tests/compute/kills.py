"""kill -9 of the adapter at each system call of each operation that changes something; and of it, of the daemon and of both at
random moments of what several clients do.

    VIRTUSERNS_STRIDE=1 VIRTUSERNS_KILLS=100 VIRTUSERNS_SEED=1 tests/compute/kills.py --driver userns

After each kill the next adapter says that the instance is as it was or as was asked, the same request again succeeds, another
instance runs on, and when all are destroyed nothing is left. Without VIRTUSERNS_STRIDE some of the calls are taken, others each day.
A violation names operation and call: "spawn: killed at call 17 of 61 (mount): ...".
"""
import contextlib
import os
import random
import threading
import time

from lab import BRIDGE, MIB, USERNS, Lab, instance, run, vif
from api import ApiError, Gone, file
from harness import Failure, check, equal, eventually, main, test
from world import bridge
from tracer import Plan, Tracer, can_inject_errors

STRIDE = int(os.environ.get("VIRTUSERNS_STRIDE", "0"))
KILLS = int(os.environ.get("VIRTUSERNS_KILLS", "6"))
SEED = int(os.environ.get("VIRTUSERNS_SEED", str(int(time.time()) // 86400)))
TRIES = 5  # of each operation in a normal run
# What changes something outside of the process; its threads wait and look all the time.
CHANGES = {"openat", "rename", "renameat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "mount", "umount2", "write", "pwrite64",
           "sendto", "sendmsg", "ftruncate", "fdatasync", "fsync", "ioctl", "fchown", "fchmod", "fchownat", "fchmodat", "chmod",
           "fsmount", "fsconfig", "vfork", "clone", "clone3", "kill"}
IMAGE = {"key": "busybox", "format": "root-tar"}
NO_WIRES = {"network": [], "volumes": []}


class Operation:
    """`before` brings an instance to where it starts; the state after it, and those that a kill may leave."""

    def __init__(self, method, before=(), state="running", between=("running", "shutdown"), ends_with="", **params):
        self.method, self.before, self.state, self.between, self.params = method, before, state, {*between, state}, params
        self.ends_with = ends_with  # what must be true inside

    def send(self, lab, client, spec):
        if self.method == "spawn":
            return lab.spawn(spec, client=client, files=[file("/etc/motd", b"x")], config_drive=[file("a/b", b"y")], password="p")
        return client.call(f"instance.{self.method}", uuid=spec["uuid"], **lab.here(self.params))

    def repeat(self, lab, spec):
        """What was taken away by the first request is not there for the second one, which says so."""
        try:
            self.send(lab, lab.client, spec)
        except ApiError as error:
            if not (self.method.startswith("detach_") and error.kind == "device-not-found"):
                raise Failure(str(error)) from error


POWER_OFF = ("power_off", {"timeout": 0, "retry_interval": 1})
RESCUE = ("rescue", {"image": IMAGE, **NO_WIRES, "files": [], "config_drive": [], "password": None})
VOLUME = {"device": "/dev/vdb", "path": "@volume", "readonly": False, "boot_index": None, "serial": "s"}
VOLUMES = ("@volume", "@other")
VIF = vif(1)
LARGER = {"vcpus": 1, "memory_mb": 96, "root_gb": 2}
OPERATIONS = {
    "spawn": Operation("spawn", before=None, between=("gone",)),
    "destroy": Operation("destroy", state="gone", between=("running", "shutdown"), disks=True),
    "power_off": Operation(POWER_OFF[0], state="shutdown", **POWER_OFF[1]),
    "power_on": Operation("power_on", before=[POWER_OFF], **NO_WIRES),
    "reboot": Operation("reboot", type="hard", **NO_WIRES),
    "suspend": Operation("suspend", state="suspended"),
    "resume": Operation("resume", before=[("suspend", {})], between=("suspended",), **NO_WIRES),
    "rescue": Operation(RESCUE[0], **RESCUE[1]),
    "unrescue": Operation("unrescue", before=[RESCUE]),
    "resize": Operation("resize", before=[POWER_OFF], state="shutdown", between=(), flavor=LARGER),
    "attach_volume": Operation("attach_volume", ends_with="test -e /dev/vdb", volume=VOLUME),
    "detach_volume": Operation("detach_volume", before=[("attach_volume", {"volume": VOLUME})], ends_with="! test -e /dev/vdb",
                               volume=VOLUME),
    "swap_volume": Operation("swap_volume", before=[("attach_volume", {"volume": VOLUME})],
                             ends_with="test -e /dev/vdb", volume=VOLUME, next={**VOLUME, "path": "@other", "serial": "t"}),
    "attach_interface": Operation("attach_interface", ends_with="ip addr | grep -q 'inet 10.9.0.2/24'", vif=VIF),
    "detach_interface": Operation("detach_interface", before=[("attach_interface", {"vif": VIF})],
                                  ends_with="! ip addr | grep -q 'inet 10.9.0.2/24'", vif=VIF),
    "snapshot": Operation("snapshot", between=("running",), path="@snapshot"),
}


def state_of(client, spec):
    try:
        return client.state(spec["uuid"])
    except ApiError as error:
        equal(error.kind, "instance-not-found", error.message)
        return "gone"


class Places(Lab):
    """What parameters name as "@volume" or "@other" is a block device, and "@snapshot" a file."""

    def __enter__(self):
        self.places = {"@snapshot": str(self.adapter.folder / "snapshot")}
        for name in VOLUMES:
            image = self.adapter.folder / f"{name}.img"
            with image.open("wb") as volume:
                volume.truncate(MIB)
            self.places[name] = run("losetup", "-f", "--show", image).strip()
        (self.adapter.folder / "snapshot").touch()
        return super().__enter__()

    def __exit__(self, *error):
        try:
            self.remove_all()
        finally:
            for name in VOLUMES:
                run("losetup", "-d", self.places[name])
            super().__exit__(*error)

    def here(self, params):
        if isinstance(params, dict):
            return {key: self.here(value) for key, value in params.items()}
        return self.places.get(params, params) if isinstance(params, str) else params


class Bench:
    def __init__(self, env):
        self.lab = Places(env)
        self.bystander = instance("bystander")
        self.lab.spawn(self.bystander)
        self.init = self.lab.init(self.bystander)

    def prepared(self, operation):
        spec = instance()
        if operation.before is not None:
            self.lab.spawn(spec)
            for method, params in operation.before:
                self.lab.call(f"instance.{method}", uuid=spec["uuid"], **self.lab.here(params))
        return spec

    def traced(self, operation, number):
        """What was called, of a run that is killed at call `number`; and the instance."""
        spec = self.prepared(operation)
        adapter = self.lab.adapter
        with adapter.client() as client:
            client.call("api.version")
            tracer = Tracer(Plan({"adapter"}, number, {"adapter"} if number else set(), names=CHANGES), adapter=adapter.process.pid)
            with tracer:
                with contextlib.suppress(Gone, ConnectionError):
                    operation.send(self.lab, client, spec)
        return tracer.report, spec

    def point(self, operation, number):
        """The report, and what is wrong."""
        report, spec = self.traced(operation, number)
        lab, wrong = self.lab, []
        lab.client.close()
        if report.fired:
            lab.adapter.process.wait()
            lab.adapter.start()
        lab.client = lab.adapter.client()
        try:
            state = state_of(lab.client, spec)
            check(state in operation.between, f"afterwards it is {state}, wanted one of {sorted(operation.between)}")
            operation.repeat(lab, spec)
            equal(state_of(lab.client, spec), operation.state, "after the same request again")
            if operation.method == "resize":
                lab.call("instance.power_on", uuid=spec["uuid"], **NO_WIRES)
                check(int(lab.sh(spec, "df -k / | tail -n1").split()[1]) > 1900 * 1024, "its disk is not larger")
            if operation.state == "running":
                lab.sh(spec, "test -x /sbin/init")
            if operation.ends_with:
                lab.sh(spec, operation.ends_with)
            equal(lab.init(self.bystander), self.init, "init of the bystander")
            lab.destroy(spec)
            equal(lab.adapter.instances(), [self.bystander["uuid"]], "folders of instances")
            equal(len(lab.adapter.mounts()), 1, "mounts")
            eventually(lambda: len(lab.adapter.loops()) == 1 + len(VOLUMES), "only the bystander's loop device and the volumes are left")
            equal([hold for hold in lab.adapter.holds() if spec["uuid"] in hold], [], "holds")
            equal(lab.env.virsh("list", "--all", "--name").ok().out.split(), ["bystander"], "domains")
        except Failure as failure:
            wrong.append(str(failure))
            lab.destroy(spec)
        return report, wrong


def numbers(total, rng):
    if STRIDE:
        return range(1, total + 1, STRIDE)
    return sorted(rng.sample(range(1, total + 1), min(TRIES, total)))


@test(drivers=USERNS)
def the_adapter_killed_at_each_call(env):
    if not can_inject_errors():
        raise Failure("this machine cannot trace")
    rng, violations = random.Random(SEED), []
    bench = Bench(env)
    with bridge(BRIDGE, "10.9.0.1/24"), bench.lab:
        for name, operation in OPERATIONS.items():
            report, spec = bench.traced(operation, 0)
            total = len(report.calls)
            check(total > 3, f"{name}: {total} calls")
            bench.lab.destroy(spec)
            for number in numbers(total, rng):
                report, wrong = bench.point(operation, number)
                for line in wrong:
                    violations.append(f"{name}: killed at call {number} of {total} ({report.name_of(number)}): {line}")
                    print(f"     {violations[-1]}", flush=True)
    check(not violations, "; ".join(violations))


def act(lab, rng, specs, stop):
    """What a client does until it is told to stop; that its requests fail is expected."""
    requests = [("power_off", POWER_OFF[1]), ("power_on", NO_WIRES), ("reboot", {"type": "hard", **NO_WIRES}), ("suspend", {}),
                ("resume", NO_WIRES), ("pause", {}), ("unpause", {}), ("destroy", {"disks": True}), ("rescue", RESCUE[1]), ("unrescue", {})]
    while not stop.is_set():
        try:
            with lab.adapter.client() as client:
                while not stop.is_set():
                    spec = rng.choice(specs)
                    with contextlib.suppress(ApiError):
                        if rng.random() < 0.3:
                            lab.spawn(spec, client=client)
                        else:
                            method, params = rng.choice(requests)
                            client.call(f"instance.{method}", uuid=spec["uuid"], **params)
        except (Gone, OSError):
            time.sleep(0.05)


@test(drivers=USERNS)
def killed_at_random_moments(env):
    rng = random.Random(SEED)
    print(f"     seed {SEED}", flush=True)
    bench = Bench(env)
    with bench.lab as lab:
        specs = [instance(f"web{number}") for number in range(3)]
        for number in range(KILLS):
            stop = threading.Event()
            clients = [threading.Thread(target=act, args=[lab, random.Random(rng.random()), specs, stop]) for _ in range(3)]
            for client in clients:
                client.start()
            time.sleep(rng.uniform(0.1, 1.2))
            victims = rng.choice([["adapter"], ["daemon"], ["adapter", "daemon"]])
            if "daemon" in victims:
                env.daemon.kill()
            if "adapter" in victims:
                lab.adapter.kill()
            stop.set()
            if "daemon" in victims:
                env.daemon.start()
            if "adapter" in victims:
                lab.adapter.start()
            for client in clients:
                client.join()
            lab.client.close()
            lab.client = lab.adapter.client()
            what = f"round {number}, killed: {' and '.join(victims)}: "
            equal(lab.init(bench.bystander), bench.init, what + "init of the bystander")
            known = {each["uuid"]: each["state"] for each in lab.call("instance.list")}
            equal(set(known), set(lab.adapter.instances()), what + "instances that are listed")
            for spec in specs:
                state = state_of(lab.client, spec)
                equal(known.get(spec["uuid"], "gone"), state, what + "state of " + spec["name"])
                check(state != "nostate", what + spec["name"] + " has no state")
            # Whatever was under way, each comes to where it is wanted.
            wanted = rng.choice(specs)
            lab.destroy(wanted)
            lab.spawn(wanted)
            equal(lab.client.state(wanted["uuid"]), "running", what + "of one that was spawned anew")


if __name__ == "__main__":
    main()
