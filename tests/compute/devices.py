"""What an instance is given beside its root: links, a console; and what is told of it: events, snapshots, figures."""
import os
import pathlib
import re
import signal
import socket
import tarfile
import time

from lab import BRIDGE, MIB, USERNS, Lab, StuckPacks, instance, run, vif
from api import Client, refused
from harness import MANY_PROCESSES, check, contains, daemon_module, equal, eventually, main, state_of, test
from world import bridge


def links(lab, spec):
    """MAC address to name, inside."""
    text = lab.sh(spec, "for n in /sys/class/net/*; do echo $(cat $n/address) ${n##*/}; done")
    return dict(line.split() for line in text.splitlines())


@test(drivers=USERNS)
def links_at_the_start_and_later(env):
    with bridge(BRIDGE, "10.9.0.1/24"), Lab(env) as lab:
        spec = instance()
        uuid, first, second = spec["uuid"], vif(1), vif(2)
        lab.spawn(spec, network=[first])
        inside = links(lab, spec)
        check(first["mac"] in inside, f"{first['mac']} is not in {inside}")
        name = inside[first["mac"]]
        contains(lab.sh(spec, f"ip -4 addr show dev {name}"), "inet 10.9.0.2/24")
        contains(lab.sh(spec, "ip route"), "default via 10.9.0.1")
        equal(lab.sh(spec, f"cat /sys/class/net/{name}/mtu").strip(), "1400")
        lab.sh(spec, "ping -c 1 -W 5 10.9.0.1")
        contains(run("ip", "link", "show", "master", BRIDGE), "tapc1")
        for _ in range(2):
            lab.call("instance.attach_interface", uuid=uuid, vif=second)
            check(second["mac"] in links(lab, spec), "the second link is not there")
        contains(lab.sh(spec, "ip -4 addr"), "inet 10.9.0.3/24")
        lab.call("instance.reboot", uuid=uuid, type="hard", network=[first, second], volumes=[])
        check({first["mac"], second["mac"]} <= set(links(lab, spec)), "a link is not there after a reboot")
        lab.call("instance.detach_interface", uuid=uuid, vif=second)
        check(second["mac"] not in links(lab, spec), "the second link is there still")
        with refused("device-not-found"):
            lab.call("instance.detach_interface", uuid=uuid, vif=second)
        counters = lab.call("instance.diagnostics", uuid=uuid)["nics"]
        equal([nic["mac"] for nic in counters], [first["mac"]])
        check(counters[0]["rx_packets"] > 0 or counters[0]["tx_packets"] > 0, f"nothing was counted: {counters}")
        lab.destroy(spec)
        check("tapc1" not in run("ip", "link"), "the link is left")


@test(drivers=USERNS)
def links_of_open_vswitch_have_their_names_and_no_bridge(env):
    """The switch, which is not here, takes them by their names."""
    with Lab(env) as lab:
        spec = instance()
        first, second = vif(1, type="ovs", bridge="br-int"), vif(2, type="ovs", bridge="br-int")
        lab.spawn(spec, network=[first])
        lab.call("instance.attach_interface", uuid=spec["uuid"], vif=second)
        shown = run("ip", "link", "show")
        for name in ("tapc1", "tapc2"):
            check(name in shown and " master " not in run("ip", "link", "show", name), f"{name} is there, in no bridge: {shown}")
        equal(set(links(lab, spec)) & {first["mac"], second["mac"]}, {first["mac"], second["mac"]})
        contains(lab.sh(spec, "ip -4 addr"), "inet 10.9.0.2/24")
        contains(lab.sh(spec, "ip -4 addr"), "inet 10.9.0.3/24")
        lab.call("instance.detach_interface", uuid=spec["uuid"], vif=second)
        check("tapc2" not in run("ip", "link"), "the second link is left")
        lab.destroy(spec)
        # With its namespace, which the kernel takes apart after its last process has ended.
        eventually(lambda: "tapc1" not in run("ip", "link"), "the first link is gone")


@test(drivers=USERNS)
def a_link_without_its_bridge_undoes_the_spawn(env):
    with Lab(env) as lab:
        spec = instance()
        try:
            lab.spawn(spec, network=[vif(1, bridge="brq-missing")])
            check(False, "spawned without a bridge")
        except Exception as error:  # noqa: BLE001
            contains(str(error), "brq-missing")
        lab.nothing_left()
        lab.spawn(spec)


def until_echo(console):
    console.sendall(b"who is there\r")
    seen = b""
    while seen.count(b"who is there") < 2:  # its terminal's echo, and what cat says
        part = console.recv(4096)
        check(part, f"the console closed after {seen!r}")
        seen += part


def memory_of(process):
    return int(re.search(r"RssAnon:\s*(\d+) kB", (process / "status").read_text())[1]) * 1024


def connections_of(pid, path="/run/libvirt/virtusernsd-sock"):
    """How many a daemon has that came by this socket."""
    fields = [line.split() for line in pathlib.Path(f"/proc/{pid}/net/unix").read_text().splitlines()]
    connected = {f"socket:[{line[6]}]" for line in fields if line[7:] == [path] and line[5] == "03"}
    return sum(1 for number in os.listdir(f"/proc/{pid}/fd") if os.readlink(f"/proc/{pid}/fd/{number}") in connected)


@test(drivers=USERNS)
def what_it_says_on_its_console(env):
    with Lab(env) as lab:
        spec = instance()
        uuid = spec["uuid"]
        lab.spawn(spec)
        lab.until_up(spec)
        lab.sh(spec, "printf 'raw \\377\\001 end' > /dev/console")
        eventually(lambda: lab.client.output(uuid).endswith(b"raw \xff\x01 end"), "the console's last words")
        equal(lab.client.output(uuid, 3), b"end")
        for number in (0, 9 * MIB):
            with refused("invalid"):
                lab.client.output(uuid, number)
        found = lab.call("instance.serial_console", uuid=uuid)
        # nova-serialproxy asks whether it is still that, before it connects.
        equal(lab.call("instance.serial_console", uuid=uuid), found, "asked once more")
        with socket.create_connection((found["host"], found["port"]), 30) as console:
            until_echo(console)
            check(lab.call("instance.serial_console", uuid=uuid)["port"] != found["port"], "the next one gets one of his own")
            # As of a_dump_has_a_connection_of_its_own: what the visitor types would wait.
            for _ in range(20):
                equal(lab.call("instance.info", uuid=uuid)["state"], "running")
            check(connections_of(env.daemon.process.pid) >= 2, "they use the connection that the console uses")
        lab.call("instance.power_off", uuid=uuid, timeout=0, retry_interval=1)
        with refused("invalid-state"):
            lab.call("instance.serial_console", uuid=uuid)
        check(lab.client.output(uuid), "the log is gone with the power")


@test(drivers=USERNS)
def a_console_whose_visitor_does_not_read(env):
    """The instance goes on talking, and libvirt's library keeps for the adapter whatever that does not take."""
    with Lab(env) as lab:
        spec = instance()
        lab.spawn(spec)
        lab.until_up(spec)
        process = pathlib.Path("/proc", str(lab.adapter.process.pid))
        with lab.console(spec) as deaf:
            until_echo(deaf)
            before, threads = memory_of(process), len(list((process / "task").iterdir()))
            lab.sh(spec, f"yes {'0123456789' * 6} | head -c {48 * MIB} > /dev/console")
            check(memory_of(process) < before + 16 * MIB, f"the adapter has grown from {before} to {memory_of(process)} bytes")
            # Whoever comes next has the console, and the first one's place is free: there are 128 for all instances.
            with lab.console(spec) as reader:
                until_echo(reader)
                eventually(lambda: len(list((process / "task").iterdir())) <= threads, "the visitor who did not read is gone")
            with lab.console(spec):
                lab.again()  # nobody who does not read keeps it from ending


@test(drivers=USERNS)
def a_log_that_the_instance_would_fill_the_host_with(env):
    with Lab(env) as lab:
        spec = instance()
        lab.spawn(spec)
        lab.until_up(spec)
        lab.sh(spec, "yes 0123456789012345678901234567890123456789012345678901234567890 | head -c 12582912 > /dev/console")
        log = lab.adapter.state / "instances" / spec["uuid"]
        size = sum(path.stat().st_size for path in log.glob("console.log*"))
        check(size <= 8 * MIB, f"{size} bytes of console log on the host's disk")


@test(drivers=USERNS)
def events_are_told(env):
    with Lab(env) as lab, Client(lab.adapter.socket) as listener:
        equal(listener.call("events.subscribe"), {})

        def next_of(uuid):
            while True:
                told = listener.receive()
                equal((told["jsonrpc"], told["method"]), ("2.0", "event"))
                if told["params"]["uuid"] == uuid:
                    return told["params"]["event"]
        spec = instance()
        uuid = spec["uuid"]
        lab.spawn(spec, power=False)
        for method, params, event in (("power_on", {"network": [], "volumes": []}, "started"), ("pause", {}, "paused"),
                                      ("unpause", {}, "resumed"), ("power_off", {"timeout": 0}, "stopped")):
            lab.call(f"instance.{method}", uuid=uuid, **params)
            equal(next_of(uuid), event)
        env.daemon.kill()
        env.daemon.start()
        equal(next_of(""), "lost")
        equal(lab.client.state(uuid), "shutdown")
        lab.call("instance.power_on", uuid=uuid, network=[], volumes=[])
        equal(next_of(uuid), "started")
        # Somebody else's domain is nobody's business.
        env.define("stranger")
        env.virsh("start", "stranger").ok()
        lab.call("instance.pause", uuid=uuid)
        equal(listener.receive()["params"]["uuid"], uuid)
        env.virsh("destroy", "stranger").ok()
        env.virsh("undefine", "stranger").ok()


@test(drivers=USERNS)
def a_snapshot_becomes_an_image(env):
    with Lab(env) as lab:
        spec, clone = instance("web"), instance("clone")
        uuid = spec["uuid"]
        lab.spawn(spec)
        lab.sh(spec, "echo kept > /root/kept; rm /etc/shadow; chown 5:6 /root/kept")
        path = lab.adapter.folder / "snapshot.tar"
        path.touch()
        for _ in range(2):
            result = lab.call("instance.snapshot", uuid=uuid, path=str(path))
            equal(result, {"format": "root-tar", "bytes": path.stat().st_size})
            with tarfile.open(path) as tar:
                names = {name.removeprefix("./") for name in tar.getnames()}
            check("root/kept" in names and "etc/shadow" not in names, "the snapshot is not of the instance")
        equal(lab.client.state(uuid), "running")
        lab.call("instance.pause", uuid=uuid)
        lab.call("instance.snapshot", uuid=uuid, path=str(path))
        equal(lab.client.state(uuid), "paused")
        lab.call("image.add", key="snap", format="root-tar", path=str(path))
        lab.spawn(clone, image={"key": "snap", "format": "root-tar"})
        equal(lab.sh(clone, "cat /root/kept; stat -c '%u %g' /root/kept; ls /etc/shadow 2>&1 | grep -c shadow:").split(),
              ["kept", "5", "6", "1"])


@test(drivers=USERNS)
def a_snapshot_holds_up_no_destroy(env):
    stuck = StuckPacks(env)
    with Lab(env, image_program=str(stuck.program)) as lab, lab.adapter.client() as packing, lab.adapter.client() as waiting:
        spec = instance()
        lab.spawn(spec)
        paths = [lab.adapter.folder / name for name in ("first.tar", "second.tar")]
        for path in paths:
            path.touch()
        packing.begin("instance.snapshot", uuid=spec["uuid"], path=str(paths[0]))
        try:
            eventually(lambda: paths[0].read_text() == "half", "it is packed")
            waiting.begin("instance.snapshot", uuid=spec["uuid"], path=str(paths[1]))
            begin = time.monotonic()
            with lab.adapter.client(timeout_s=20) as client:
                client.call("instance.destroy", uuid=spec["uuid"], disks=True)
            check(time.monotonic() - begin < 10 * daemon_module.TIME_FACTOR, "it waited for the snapshot")
        finally:
            stuck.end()
        with refused("instance-not-found", "pack the instance's files", "is being destroyed"):
            packing.end()
        with refused("instance-not-found"):
            waiting.end()
        equal([path.stat().st_size for path in paths], [0, 0], "what was packed of it")
        lab.nothing_left()


@test(drivers=USERNS)
def dumps_of_one_that_runs(env):
    with Lab(env, dumps_kept=3) as lab:
        spec = instance()
        uuid, folder = spec["uuid"], lab.adapter.folder / "dumps"
        lab.spawn(spec)
        lab.until_up(spec)
        before = lab.init(spec)
        path = pathlib.Path(lab.call("instance.crash_dump", uuid=uuid)["path"])
        equal((path.parent, folder.stat().st_mode & 0o777, path.stat().st_mode & 0o777), (folder, 0o700, 0o600))
        with tarfile.open(path) as tar:
            names = tar.getnames()
            contains(tar.extractfile("console.log").read().decode(), f"up {spec['name']}")
        check({f"processes/{before}/{name}" for name in ("status", "maps", "limits")} <= set(names), f"init is not in {names}")
        equal((lab.client.state(uuid), lab.init(spec)), ("running", before), "it runs on")
        (folder / "notes").write_text("an operator's")
        made = [path.name] + [lab.call("instance.crash_dump", uuid=uuid)["path"].split("/")[-1] for _ in range(4)]
        equal(sorted(item.name for item in folder.iterdir()), sorted([*made[-3:], "notes"]), "those that are kept")
        lab.call("instance.pause", uuid=uuid)
        lab.call("instance.crash_dump", uuid=uuid)
        equal(lab.client.state(uuid), "paused")
        folder.chmod(0o755)
        with refused("internal", "of root's alone"):
            lab.call("instance.crash_dump", uuid=uuid)
        lab.call("instance.power_off", uuid=uuid, timeout=0, retry_interval=1)
        with refused("invalid-state", "does not run"):
            lab.call("instance.crash_dump", uuid=uuid)


@test(drivers=USERNS)
def many_dumps_of_one_push_out_no_others(env):
    with Lab(env, dumps_kept=3) as lab:
        quiet, other, greedy = (instance(name) for name in ("quiet", "other", "greedy"))
        for spec in (quiet, other, greedy):
            lab.spawn(spec)
        made = []
        for spec in (quiet, other, *[greedy] * 4):
            made.append(pathlib.Path(lab.call("instance.crash_dump", uuid=spec["uuid"])["path"]).name)
        equal(sorted(path.name for path in (lab.adapter.folder / "dumps").iterdir()), sorted([*made[:2], made[-1]]), "those that are kept")


def begin_dump(env, lab, client):
    """Of one of two instances, which are returned, and the program that makes it and stands still."""
    spec, other = instance(), instance("other")
    for one in (spec, other):
        lab.spawn(one)
        lab.until_up(one)
    lab.sh(spec, f"setsid sh -c '{MANY_PROCESSES}' </dev/null >/dev/null 2>&1")
    client.begin("instance.crash_dump", uuid=spec["uuid"])
    return spec, other, env.stop_dumper()


@test(drivers=USERNS)
def a_dump_holds_up_no_destroy(env):
    with Lab(env) as lab, lab.adapter.client() as dumping, lab.adapter.client() as waiting:
        spec, other, dumper = begin_dump(env, lab, dumping)
        try:
            # Whoever asks again and again does not take all connections.
            with refused("busy", "being made already"):
                lab.call("instance.crash_dump", uuid=spec["uuid"])
            waiting.begin("instance.crash_dump", uuid=other["uuid"])
            begin = time.monotonic()
            lab.destroy(other)
            lab.destroy(spec)
            check(time.monotonic() - begin < 10 * daemon_module.TIME_FACTOR, "they waited for the dump")
        finally:
            if state_of(dumper) == "T":
                os.kill(dumper, signal.SIGKILL)
        with refused("internal", "the domain is being destroyed"):
            dumping.end()
        with refused("instance-not-found"):
            waiting.end()
        equal(list((lab.adapter.folder / "dumps").iterdir()), [])
        lab.nothing_left()


@test(drivers=USERNS)
def a_dump_has_a_connection_of_its_own(env):
    """Two threads that share one of libvirt's can miss each other, until its next sign of life 5 s later."""
    with Lab(env) as lab, lab.adapter.client() as dumping:
        spec, other, dumper = begin_dump(env, lab, dumping)
        try:
            for _ in range(20):
                equal(lab.call("instance.info", uuid=other["uuid"])["state"], "running")
            check(connections_of(env.daemon.process.pid) >= 2, "they use the connection that the dump uses")
        finally:
            os.kill(dumper, signal.SIGCONT)
        dumping.end()
        lab.destroy(spec)
        lab.destroy(other)
        lab.nothing_left()


@test(drivers=USERNS)
def the_host(env):
    with Lab(env) as lab:
        for _ in range(2):
            described = lab.call("host.describe")
        equal((described["kind"], described["uri"]), ("container", env.uri))
        check(re.match(r"1\.\d+$", lab.call("api.version")["version"]), "another version")
        before = lab.call("host.resources")
        spec = instance(flavor={"vcpus": 2})
        lab.spawn(spec)
        after = lab.call("host.resources")
        equal(after["vcpus_used"] - before["vcpus_used"], 2)
        equal(after["running"] - before["running"], 1)
        inventory = lab.call("host.inventory")
        equal(inventory["inventory"]["VCPU"]["total"], os.cpu_count())
        check("CUSTOM_USERNS" in inventory["traits"], "no trait")
        stats = lab.call("host.cpu_stats")
        check(stats["kernel"] > 0 and stats["idle"] > 0, f"{stats}")
        check(lab.call("host.uptime")["seconds"] > 0, "no uptime")
        figures = lab.call("instance.diagnostics", uuid=spec["uuid"])
        equal((figures["state"], figures["memory"]["maximum_mb"], len(figures["disks"])), ("running", 64, 1))


if __name__ == "__main__":
    main()
