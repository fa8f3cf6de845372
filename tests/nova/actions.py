"""Every action on a server that Nova's interface has, tried once, and what came of it looked at from the host's side.

An action is a function that gets a Stage. It ends well, or raises: Refused, where Nova says no; WentWrong, where Nova tried and says
that it failed; Mismatch, where Nova says that it went well, and it did not. `rows` are the names of the support matrix
(nova's doc/source/user/support-matrix.ini).
"""
import base64
import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import tarfile
import tempfile
import time
from collections.abc import Callable

import daemon as daemon_module
import libvirt
from rest import Refused, WentWrong
from stage import LARGE_MB, SMALL_MB, Mismatch, check, equal
from websocket import WebSocket

PASSWORD = "Correct-Horse-1"


@dataclasses.dataclass
class Action:
    name: str
    rows: tuple[str, ...]
    function: Callable
    in_short: bool  # whether it is tried in a short run too: one that nothing else shows, or that takes no time


def marker(actions: list[Action]):
    """A decorator for the functions of this list, which are tried in its order."""
    def action(*rows: str, in_short: bool = True):
        def mark(function):
            actions.append(Action(function.__name__.replace("_", "-"), rows, function, in_short))
            return function
        return mark
    return action


ACTIONS: list[Action] = []
action = marker(ACTIONS)


def eventually(condition, what: str, timeout_s: float = 30.0):
    deadline = time.monotonic() + timeout_s * daemon_module.TIME_FACTOR
    while not (value := condition()):
        check(time.monotonic() < deadline, f"did not happen within {timeout_s:g} s: {what}")
        time.sleep(0.05)
    return value


# ---- life -------------------------------------------------------------------------------------------------------------

@action("operation.launch", "storage.image")
def boot(stage):
    server = stage.active()
    equal(server.domain_state(), libvirt.VIR_DOMAIN_RUNNING, "state of the domain")
    check(server.first_uid() >= server.host.first_id, "its root is nobody of the host")
    check("VCPU" in str(stage.admin.allocations(server.id)), "placement knows of it")


@action("operation.get-guest-info")
def guest_info(stage):
    details = stage.admin.server(stage.active().id)
    equal(details["OS-EXT-STS:power_state"], 1, "power state")


@action("console.serial.log")
def console_output(stage):
    server = stage.active()
    eventually(lambda: "BusyBox" in server.act("os-getConsoleOutput", {})["output"], "what init wrote is in the console's output")
    lines = server.act("os-getConsoleOutput", {"length": 1})["output"]
    check(len(lines.splitlines()) <= 1, f"one line was asked for: {lines!r}")


@action()
def diagnostics(stage):
    server = stage.active()
    found = stage.admin.nova("GET", f"/servers/{server.id}/diagnostics")
    equal(found["state"], "running", "state")
    # Not the memory: nova divides kibibytes by the bytes of a mebibyte.
    check(found["num_cpus"] == 1 and found["cpu_details"][0]["time"] is not None, f"time of processors is known: {found}")


@action("operation.reboot")
def reboot_soft(stage):
    server = stage.active()
    server.write("marker", "soft")
    before = server.init()
    server.act_until("reboot", "ACTIVE", {"type": "SOFT"})
    check(server.init() != before, "init is another process")
    equal(server.read("marker"), "soft", "a file from before")


@action("operation.reboot")
def reboot_hard(stage):
    server = stage.active()
    server.write("marker", "hard")
    before, ids = server.init(), server.first_uid()
    server.act_until("reboot", "ACTIVE", {"type": "HARD"})
    check(server.init() != before, "init is another process")
    equal(server.first_uid(), ids, "its ids")
    equal(server.read("marker"), "hard", "a file from before")


@action()
def stop(stage):
    server = stage.active()
    server.write("marker", "stop")
    server.act_until("os-stop", "SHUTOFF")
    with server.domain() as domain:
        check(not domain.isActive(), "nothing runs")


@action()
def start(stage):
    server = stage.active()
    server.write("marker", "start")
    server.act_until("os-stop", "SHUTOFF")
    server.act_until("os-start", "ACTIVE")
    equal(server.domain_state(), libvirt.VIR_DOMAIN_RUNNING, "state of the domain")
    equal(server.read("marker"), "start", "a file from before")


@action(in_short=False)
def powered_off_from_inside(stage):
    """Nobody asked for it: the hypervisor has to tell."""
    server = stage.active()
    server.run("/sbin/poweroff", codes=(0, 128 + signal.SIGTERM))  # init, which it tells, ends all processes: it may be one of them still
    server.await_status("SHUTOFF")
    server.act_until("os-start", "ACTIVE")


@action("operation.pause")
def pause(stage):
    server = stage.active()
    server.act_until("pause", "PAUSED")
    equal(server.domain_state(), libvirt.VIR_DOMAIN_PAUSED, "state of the domain")
    server.act_until("unpause", "ACTIVE")


@action("operation.unpause")
def unpause(stage):
    server = stage.active()
    before = server.init()
    server.act_until("pause", "PAUSED")
    server.act_until("unpause", "ACTIVE")
    equal(server.init(), before, "init")
    equal(server.run("/bin/echo", "again"), "again", "a command inside")


@action("operation.suspend")
def suspend(stage):
    server = stage.active()
    server.act_until("suspend", "SUSPENDED")
    server.act_until("resume", "ACTIVE")


@action("operation.resume")
def resume(stage):
    server = stage.active()
    server.write("marker", "suspended")
    server.act_until("suspend", "SUSPENDED")
    server.act_until("resume", "ACTIVE")
    equal(server.read("marker"), "suspended", "a file from before")


# ---- disks and images -------------------------------------------------------------------------------------------------

@action("operation.rescue")
def rescue(stage):
    server = stage.active()
    server.write("marker", "rescued")
    server.act_until("rescue", "RESCUE", {"adminPass": PASSWORD})
    equal(server.read("marker"), "missing", "the file of its own disk, while another one is its root")
    server.act_until("unrescue", "ACTIVE")
    equal(server.read("marker"), "rescued", "the file of its own disk")


def _snapshot(stage, server, name: str) -> str:
    image = server.act("createImage", {"name": name})["image_id"]
    try:
        stage.admin.await_image(image)
    finally:
        server.await_status("ACTIVE", "SHUTOFF")
    return image


@action("operation.snapshot")
def snapshot(stage):
    """Of one that runs, and another instance of it."""
    server = stage.active()
    server.write("marker", "in-the-snapshot")
    image = _snapshot(stage, server, "snapshot")
    server.await_status("ACTIVE")
    equal(server.read("marker"), "in-the-snapshot", "the file, where it was")
    copy = stage.boot(image=image)
    equal(copy.read("marker"), "in-the-snapshot", "the file, in an instance of the snapshot")
    check(copy.first_uid() != server.first_uid(), "both have ids of their own")
    copy.delete()
    stage.admin.delete_image(image)


@action("operation.snapshot", in_short=False)
def snapshot_of_a_stopped_one(stage):
    server = stage.active()
    server.write("marker", "at-rest")
    server.act_until("os-stop", "SHUTOFF")
    image = _snapshot(stage, server, "at-rest")
    copy = stage.boot(image=image)
    equal(copy.read("marker"), "at-rest", "the file, in an instance of the snapshot")
    copy.delete()
    stage.admin.delete_image(image)
    server.act_until("os-start", "ACTIVE")


@action(in_short=False)
def backup(stage):
    server = stage.active()
    for _ in range(2):
        server.act("createBackup", {"name": "daily", "backup_type": "daily", "rotation": 1})
        server.await_status("ACTIVE")

    def backups():
        return [image for image in stage.admin.images() if image["name"] == "daily" and image["status"] == "active"]
    eventually(lambda: len(backups()) == 1, "one backup is kept")
    stage.admin.delete_image(backups()[0]["id"])


@action("operation.rebuild")
def rebuild(stage):
    server = stage.active()
    server.write("marker", "before")
    server.act_until("rebuild", "ACTIVE", {"imageRef": stage.image})
    equal(server.read("marker"), "missing", "a file from before")


@action("operation.resize")
def resize_and_confirm(stage):
    server = stage.active()
    server.write("marker", "resized")
    server.act_until("resize", "VERIFY_RESIZE", {"flavorRef": stage.large})
    with server.domain() as domain:
        equal(domain.maxMemory(), LARGE_MB * 1024, "memory")
    equal(server.read("marker"), "resized", "a file from before")
    server.act_until("confirmResize", "ACTIVE")
    equal(server.read("marker"), "resized", "a file from before, then")
    server.delete()


@action("operation.resize")
def resize_and_revert(stage):
    server = stage.active()
    server.write("marker", "reverted")
    with server.domain() as domain:
        memory = domain.maxMemory()
    server.act_until("resize", "VERIFY_RESIZE", {"flavorRef": stage.large})
    server.act_until("revertResize", "ACTIVE")
    with server.domain() as domain:
        equal(domain.maxMemory(), memory, "memory")
    equal(server.read("marker"), "reverted", "a file from before")


@action("guest.disk.autoconfig")
def disk_of_the_flavors_size(stage):
    server = stage.boot(flavor=stage.large)
    kilobytes = int(server.run("/bin/df", "-k", "/").splitlines()[-1].split()[1])
    check(kilobytes > 900_000, f"its root has the gigabyte of its flavor, not {kilobytes} kB")
    server.delete()


@action("operation.migrate")
def cold_migrate(stage):
    server = stage.active()
    server.write("marker", "moved")
    before = server.host
    server.act_until("migrate", "VERIFY_RESIZE", None)
    check(server.host is not before, "it is on the other host")
    equal(server.read("marker"), "moved", "a file from before")
    server.act_until("confirmResize", "ACTIVE")
    equal(server.read("marker"), "moved", "a file from before, then")


@action("operation.live-migrate")
def live_migrate(stage):
    server = stage.active()
    before, init = server.host, server.init()
    server.act_until("os-migrateLive", "ACTIVE", {"host": None, "block_migration": "auto"})
    if server.host is before:
        migrations = stage.admin.nova("GET", f"/os-migrations?instance_uuid={server.id}&migration_type=live-migration")["migrations"]
        raise WentWrong(f"the migration's status is '{migrations[0]['status']}'")
    check(not pathlib.Path(f"/proc/{init}").exists(), "its processes are not here any more")


@action()
def shelve(stage):
    server = stage.active()
    server.write("marker", "shelved")
    server.act_until("shelve", "SHELVED_OFFLOADED")
    equal(stage.admin.allocations(server.id), {}, "what is claimed for it")
    server.act_until("unshelve", "ACTIVE")
    equal(server.read("marker"), "shelved", "a file from before")


@contextlib.contextmanager
def lost_host_of(stage, server):
    """Its nova-compute is gone meanwhile, and known to be."""
    lost = server.host
    lost.compute.stop()
    try:
        stage.admin.nova("PUT", f"/os-services/{_service(stage, lost.name)['id']}", {"forced_down": True})
        yield lost
    finally:
        lost.compute.start()
        eventually(lambda: _is_up_again(stage, lost.name), f"{lost.name} is up again", 90)


@action("operation.evacuate", in_short=False)
def evacuate(stage):
    """Of a host that is gone. There is no storage that both share: it begins again from its image."""
    server = stage.active()
    with lost_host_of(stage, server) as lost:
        server.act_until("evacuate", "ACTIVE", {})
        check(server.host is not lost, "it is on the other host")
    with libvirt.open(lost.uri) as connection:
        eventually(lambda: not connection.listAllDomains(), f"{lost.name} has removed what it had of it")
    deleted = {loop for loop in stage.cloud.loops()
               if pathlib.Path(f"/sys/block/{loop}/loop/backing_file").read_text().strip().endswith("(deleted)")}
    stage.lost_loops |= deleted
    return "Nova's driver leaves the loop device of the lost host" if deleted else ""


def _service(stage, host: str) -> dict:
    services = stage.admin.nova("GET", "/os-services?binary=nova-compute")["services"]
    return next(service for service in services if service["host"] == host)


def _is_up_again(stage, host: str) -> bool:
    """Nova refuses to take it back before the service has dealt with what was evacuated."""
    try:
        stage.admin.nova("PUT", f"/os-services/{_service(stage, host)['id']}", {"forced_down": False})
    except Refused:
        return False
    return _service(stage, host)["state"] == "up"


# ---- what is put into it ----------------------------------------------------------------------------------------------

@action("operation.set-admin-password")
def change_password(stage):
    server = stage.active()
    server.act_until("changePassword", "ACTIVE", {"adminPass": PASSWORD})
    check(server.run("/bin/cat", "/etc/shadow").startswith("root:$"), "root has a password inside")


@action("guest.setup.configdrive")
def config_drive(stage):
    server = stage.boot(config_drive=True, metadata={"colour": "green"},
                        user_data=base64.b64encode(b"#!/bin/sh\necho hello\n").decode())
    try:
        found = server.run("/bin/sh", "-c", "find / -path /proc -prune -o -path /sys -prune -o -name meta_data.json -print 2>/dev/null")
        check(found, "the files of the config drive are somewhere inside")
        check('"colour": "green"' in server.run("/bin/cat", found.split()[0]), "the metadata that was given")
    finally:
        server.delete()


@action("guest.setup.inject.file", in_short=False)
def inject_a_file(stage):
    """As old clients do: newer versions of the interface have no personalities."""
    body = {"name": f"{stage.doing}-{stage.next_number()}", "imageRef": stage.image, "flavorRef": stage.small, "networks": "none",
            "personality": [{"path": "/etc/injected", "contents": base64.b64encode(b"by-nova\n").decode()}]}
    server = stage.known(stage.admin.nova("POST", "/servers", {"server": body}, version="2.56")["server"]["id"], body["name"])
    server.await_status("ACTIVE")
    try:
        equal(server.run("/bin/sh", "-c", "cat /etc/injected 2>/dev/null || echo missing"), "by-nova", "the file inside")
    finally:
        server.delete()


@action("guest.disk.rate-limit", in_short=False)
def disk_rate_limit(stage):
    server = stage.boot(flavor=stage.admin.make_flavor("slow", SMALL_MB, 1, 1, quota__disk_write_bytes_sec="1048576"))
    try:
        with server.domain() as domain:
            limits = domain.blkioParameters().get("device_write_bytes_sec", "")
        check(limits.endswith(",1048576"), f"a limit for its disk, of its flavor: {limits!r}")
        server.write("some", "text")
    finally:
        server.delete()


@action("operation.cache-images", in_short=False)
def cache_an_image(stage):
    """Before anything is booted of it."""
    host = stage.active().host
    folders = [host.state / "instances/_base", host.state / "adapter/images/bases"]

    def cached() -> set[str]:
        return {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    before = cached()
    with tempfile.NamedTemporaryFile() as another:
        shutil.copy(stage.image_path, another.name)
        os.truncate(another.name, os.stat(another.name).st_size + (1 << 20))
        image = stage.admin.upload_image("cached", another.name)
    aggregate = stage.admin.nova("POST", "/os-aggregates", {"aggregate": {"name": "cached"}})["aggregate"]["id"]
    path = f"/os-aggregates/{aggregate}"
    stage.admin.nova("POST", f"{path}/action", {"add_host": {"host": host.name}})
    try:
        stage.admin.nova("POST", f"{path}/images", {"cache": [{"id": image}]})
        eventually(lambda: cached() - before, "the host has one image more")
    finally:
        stage.admin.nova("POST", f"{path}/action", {"remove_host": {"host": host.name}})
        stage.admin.nova("DELETE", path)
        stage.admin.delete_image(image)


@action("operation.trigger-crash-dump")
def crash_dump(stage):
    server = stage.active()
    server.act_until("trigger_crash_dump", "ACTIVE")
    # Nova has only sent for it.
    (path,) = eventually(lambda: [path for host in stage.cloud.hosts.values()
                                  for path in (host.state / "adapter/dumps").glob(f"{server.id}-*.tar")], "there is a dump")
    with tarfile.open(path) as bundle:
        names = bundle.getnames()
    check("MANIFEST" in names and any(name.endswith("/status") for name in names), f"it is of processes: {names}")


@action("console.serial.interactive")
def serial_console(stage):
    server = stage.active()
    found = stage.admin.nova("POST", f"/servers/{server.id}/remote-consoles",
                             {"remote_console": {"protocol": "serial", "type": "serial"}})
    stage.cloud.start_serial_proxy()
    console = WebSocket(found["remote_console"]["url"], 30 * daemon_module.TIME_FACTOR)
    try:
        console.send(b"echo $((6 * 7))-is-said\n")
        said = b""
        while b"42-is-said" not in said and (piece := console.receive()):
            said += piece
        check(b"42-is-said" in said, f"the shell at the console answers through nova-serialproxy: {said!r}")
    finally:
        console.close()


# ---- the host ---------------------------------------------------------------------------------------------------------

@action("operation.get-host-uptime")
def host_uptime(stage):
    name = stage.active().host.name
    found = stage.admin.nova("GET", "/os-hypervisors/detail")["hypervisors"]
    uptime = next(each["uptime"] for each in found if each["hypervisor_hostname"] == name)
    check(uptime and "load average" in uptime, f"uptime of {name}: {uptime!r}")


@action("operation.get-host-ip")
def host_ip(stage):
    host = stage.active().host
    found = stage.admin.nova("GET", "/os-hypervisors/detail")["hypervisors"]
    equal(next(each["host_ip"] for each in found if each["hypervisor_hostname"] == host.name), host.ip, "address")


@action("operation.report-cpu-traits")
def cpu_traits(stage):
    name = stage.active().host.name
    provider = next(each for each in stage.admin.placement("/resource_providers")["resource_providers"] if each["name"] == name)
    traits = stage.admin.placement(f"/resource_providers/{provider['uuid']}/traits")["traits"]
    if not any(trait.startswith("HW_CPU_X86_SSE") for trait in traits):
        raise Refused(0, "no trait of the processor is reported")


@action()
def disable_and_enable_a_host(stage):
    """Which Nova's scheduler hears from Placement."""
    host = stage.active().host
    provider = next(each for each in stage.admin.placement("/resource_providers")["resource_providers"] if each["name"] == host.name)

    def is_marked() -> bool:
        return "COMPUTE_STATUS_DISABLED" in stage.admin.placement(f"/resource_providers/{provider['uuid']}/traits")["traits"]
    service = f"/os-services/{_service(stage, host.name)['id']}"
    stage.admin.nova("PUT", service, {"status": "disabled", "disabled_reason": "being looked at"})
    try:
        eventually(is_marked, f"Placement knows that {host.name} takes no servers")
        server = stage.begin_boot(host=host.name)
        try:
            server.await_status("ACTIVE")
            raise Mismatch(f"{host.name} has taken a server")
        except WentWrong as wrong:
            check("No valid host" in str(wrong), f"why it takes none: {wrong}")
        finally:
            server.delete()
    finally:
        stage.admin.nova("PUT", service, {"status": "enabled"})
    eventually(lambda: not is_marked(), f"Placement knows that {host.name} takes servers again")
    stage.boot(host=host.name).delete()


@action()
def reboot_a_host(stage):
    """Through the interface that Nova had for it until 2.43."""
    stage.admin.nova("GET", f"/os-hosts/{stage.active().host.name}/reboot", version="2.42")


@action()
def lock(stage):
    server = stage.active()
    server.act("lock")
    server.act_until("unlock", "ACTIVE")


# ---- the end ----------------------------------------------------------------------------------------------------------

@action(in_short=False)
def delete_a_paused_one(stage):
    server = stage.active()
    server.act_until("pause", "PAUSED")
    server.delete()


@action(in_short=False)
def delete_a_stopped_one(stage):
    server = stage.active()
    server.act_until("os-stop", "SHUTOFF")
    server.delete()


@action("operation.terminate")
def delete(stage):
    server = stage.active()
    host, init = server.host, server.init()
    server.delete()
    equal(stage.admin.allocations(server.id), {}, "what is claimed for it")
    with libvirt.open(host.uri) as connection:
        check(server.id not in [domain.UUIDString() for domain in connection.listAllDomains()], "there is no such domain")
    check(not pathlib.Path(f"/proc/{init}").exists(), "its init is gone")
