"""Instances that are data, of a test driver: ours, and libvirt's own, which judges the test. What a scheduler can try without a privilege."""

from lab import Lab, instance
from api import Client, file, refused
from harness import check, contains, equal, main, test

DATA = ("test", "reference")
VIF = {"id": "port", "mac": "fa:16:3e:00:00:01", "type": "bridge", "bridge": "brq-data", "device": "tapd1", "mtu": None, "active": True,
       "ips": [], "routes": [], "dns": []}
VOLUME = {"device": "/dev/vdb", "path": "/dev/null", "readonly": False, "boot_index": None, "serial": "s"}


def devices(env, spec):
    text = env.virsh("dumpxml", spec["name"]).ok().out
    return text.count("<interface "), text.count("<disk ")


@test(drivers=DATA)
def a_life(env):
    # libvirt's own test driver tells nobody that a guest has rebooted: the adapter goes on to a hard one then.
    with Lab(env, soft_reboot_timeout_s=2) as lab:
        spec = instance(flavor={"vcpus": 2})
        uuid = spec["uuid"]
        equal(lab.spawn(spec, password="ignored"), {"ids": None})
        equal(lab.spawn(spec, password="ignored"), {"ids": None}, "the same request again")
        with refused("instance-exists"):
            lab.spawn({**spec, "hostname": "another"})
        info = lab.client.info(uuid)
        equal((info["state"], info["vcpus"], info["max_memory_kb"], info["ids"]), ("running", 2, 64 * 1024, None))
        equal(lab.call("instance.list"), [{"uuid": spec["uuid"], "name": "web", "state": "running"}])
        equal(env.state("web")[0], "running")
        for method, state in (("pause", "paused"), ("unpause", "running"), ("suspend", "suspended"), ("suspend", "suspended")):
            lab.call(f"instance.{method}", uuid=uuid)
            equal(lab.client.state(uuid), state, method)
        equal(env.state("web")[0], "paused")
        lab.again()
        equal(lab.client.state(uuid), "suspended", "after a restart of the adapter")
        lab.call("instance.resume", uuid=uuid, network=[], volumes=[])
        for how in ("soft", "hard"):
            lab.call("instance.reboot", uuid=uuid, type=how, network=[], volumes=[])
            equal(lab.client.state(uuid), "running", how)
        for timeout in (30, 0):
            lab.call("instance.power_off", uuid=uuid, timeout=timeout, retry_interval=1)
            equal((lab.client.state(uuid), env.state("web")[0]), ("shutdown", "shut off"))
            with refused("invalid-state"):
                lab.call("instance.suspend", uuid=uuid)
            lab.call("instance.power_on", uuid=uuid, network=[], volumes=[])
            equal(lab.client.state(uuid), "running")
        lab.call("instance.power_off", uuid=uuid, timeout=0)
        lab.call("instance.resize", uuid=uuid, flavor={**spec["flavor"], "memory_mb": 128, "root_gb": 9})
        lab.call("instance.power_on", uuid=uuid, network=[], volumes=[])
        equal(lab.client.info(uuid)["max_memory_kb"], 128 * 1024)
        for _ in range(2):
            equal(lab.destroy(spec), {})
        with refused("instance-not-found"):
            lab.client.info(uuid)
        lab.nothing_left()


@test(drivers=DATA)
def devices_at_the_start(env):
    with Lab(env) as lab:
        spec = instance()
        lab.spawn(spec, network=[VIF], volumes=[VOLUME])
        equal(devices(env, spec), (1, 1))
        nics = lab.call("instance.diagnostics", uuid=spec["uuid"])["nics"]
        equal([nic["mac"] for nic in nics], [VIF["mac"]])
        lab.call("instance.reboot", uuid=spec["uuid"], type="hard", network=[], volumes=[])
        equal(devices(env, spec), (0, 0))


@test(drivers=("test",))  # libvirt's own has no interfaces that come, and no consoles
def devices_later_and_a_console(env):
    with Lab(env) as lab:
        spec = instance()
        lab.spawn(spec)
        for name, device, counts in (("interface", {"vif": VIF}, (1, 0)), ("volume", {"volume": VOLUME}, (1, 1))):
            for _ in range(2):
                lab.call(f"instance.attach_{name}", uuid=spec["uuid"], **device)
                equal(devices(env, spec), counts)
        lab.call("instance.detach_interface", uuid=spec["uuid"], vif=VIF)
        lab.call("instance.detach_volume", uuid=spec["uuid"], volume=VOLUME)
        equal(devices(env, spec), (0, 0))
        with lab.console(spec) as console:
            greeting = console.recv(100)
            contains(greeting.decode(), "Connected to web")
            console.sendall(b"who is there\n")
            contains(console.recv(100).decode(), "who is there")


@test(drivers=DATA)
def events_are_told(env):
    with Lab(env) as lab, Client(lab.adapter.socket) as listener:
        listener.call("events.subscribe")
        spec = instance()
        uuid = spec["uuid"]
        lab.spawn(spec)
        lab.call("instance.pause", uuid=uuid)
        lab.call("instance.unpause", uuid=uuid)
        lab.call("instance.power_off", uuid=uuid, timeout=0)
        told = []
        while told[-1:] != ["stopped"]:
            event = listener.receive()["params"]
            equal(event["uuid"], uuid)
            told.append(event["event"])
        # That of the start may have been told before the instance was known.
        equal([event for event in told if event != "started"], ["paused", "resumed", "stopped"])


@test(drivers=DATA)
def what_there_is_not_is_said_before_it_is_asked_for(env):
    """Every feature that is refused has its reason in host.describe, and each of its methods gives that very reason."""
    with Lab(env) as lab:
        spec = instance()
        uuid = spec["uuid"]
        lab.spawn(spec)
        described = lab.call("host.describe")
        equal((described["kind"], described["image_formats"]), ("data", []))
        equal({name for name, offered in described["features"].items() if not offered}, set(described["refused"]))
        wiring = {"network": [], "volumes": []}
        methods = {"console_output": [("instance.console_output", {"uuid": uuid})],
                   "crash_dump": [("instance.crash_dump", {"uuid": uuid})],
                   "extend_volume": [("instance.extend_volume", {"uuid": uuid, "volume": VOLUME})],
                   "images": [("image.add", {"key": "k", "format": "raw", "path": "/dev/null"})],
                   "migrate": [("instance.migrate_out", {"uuid": uuid, "destination": "x"}), ("instance.migrate_confirm", {"uuid": uuid}),
                               ("instance.migrate_revert", {"uuid": uuid, **wiring}), ("instance.migrate_open", {"uuid": uuid})],
                   "quiesce": [("instance.quiesce", {"uuid": uuid}), ("instance.unquiesce", {"uuid": uuid})],
                   "rescue": [("instance.rescue", {"uuid": uuid}), ("instance.unrescue", {"uuid": uuid})],
                   "set_password": [("instance.set_password", {"uuid": uuid, "user": "root", "password": "x"})],
                   "snapshot": [("instance.snapshot", {"uuid": uuid, "path": "/dev/null"})]}
        methods["swap_volume"] = [("instance.swap_volume", {"uuid": uuid, "volume": VOLUME, "next": VOLUME})]
        other = {"instance": instance("other"), "image": None, "network": [], "volumes": [], "files": [], "config_drive": [],
                 "password": None}
        root = {"key": "k", "format": "raw"}
        methods["files"] = [("instance.spawn", {**other, "image": root, "files": [file("/etc/motd")]})]
        methods["config_drive"] = [("instance.spawn", {**other, "image": root, "config_drive": [file("user_data")]})]
        for feature, reason in described["refused"].items():
            for method, params in methods[feature]:
                with refused("unsupported", reason):
                    lab.call(method, **params)
        equal([each["name"] for each in lab.call("instance.list")], ["web"])
        equal(lab.call("image.has", key="any"), {"present": True}, "no image is needed")
        equal(lab.call("image.list"), [])


@test(drivers=DATA)
def the_host(env):
    with Lab(env) as lab:
        described = lab.call("host.describe")
        info = env.open().getInfo()
        equal((described["hypervisor_type"].upper(), described["uri"]), ("TEST", lab.adapter.settings["connect"]))
        check(described["guest_types"], "no guests")
        check(all(len(entry) == 3 and all(entry) for entry in described["guest_types"]), f"{described['guest_types']}")
        inventory = lab.call("host.inventory")
        equal(sorted(inventory["inventory"]), ["DISK_GB", "MEMORY_MB", "VCPU"])
        equal((inventory["inventory"]["VCPU"]["total"], inventory["inventory"]["MEMORY_MB"]["total"]), (info[2], info[1]))
        equal(inventory["traits"], [])
        lab.spawn(instance(flavor={"vcpus": 3}))
        resources = lab.call("host.resources")
        equal((resources["vcpus"], resources["vcpus_used"], resources["running"]), (info[2], 3, 1))


@test(drivers=DATA)
def instances_outlive_the_adapter_but_not_their_driver(env):
    with Lab(env) as lab:
        spec = instance()
        lab.spawn(spec)
        lab.adapter.kill()
        lab.adapter.start()
        lab.client = lab.adapter.client()
        equal(lab.client.state(spec["uuid"]), "running")
        if env.driver == "reference":
            return
        env.daemon.kill()
        env.daemon.start()
        with refused("instance-not-found"):
            lab.client.info(spec["uuid"])
        # Who asks for it to run has it made again: the journal says what it is.
        lab.call("instance.reboot", uuid=spec["uuid"], type="hard", network=[], volumes=[])
        equal(lab.client.state(spec["uuid"]), "running")


@test(drivers=("test",))
def a_hypervisor_of_no_known_kind(env):
    lab = Lab(env)
    with lab:
        for uri in ("vbox:///session", "lxc:///system", "", "x"):
            lab.adapter.stop()
            lab.adapter.settings["connect"] = uri
            try:
                lab.adapter.start()
                check(False, f"{uri!r} was taken")
            except AssertionError as failure:
                contains(str(failure), "instances can be made by")
        lab.adapter.settings["connect"] = "test+unix:///default?socket=/run/libvirt/virtusernsd-sock"
        lab.adapter.start()
        lab.client = lab.adapter.client()


if __name__ == "__main__":
    main()
