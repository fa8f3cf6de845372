"""What one does with volumes of Cinder's and servers, tried once each, and looked at from inside, and from outside: on the file behind."""
import contextlib
import json

import libvirt

from actions import Action, eventually, lost_host_of, marker
from stage import check, equal
from volume_stage import DEVICE, GIB

VOLUME_ACTIONS: list[Action] = []
action = marker(VOLUME_ACTIONS)


@contextlib.contextmanager
def attached(stage, **more):
    """A server that runs, and a volume that it has, with a word on it."""
    server, volume = stage.active(), stage.volume(**more)
    try:
        equal(server.attach(volume), DEVICE, "the device that Nova says")
        server.write_to(DEVICE, stage.doing)
        yield server, volume
    finally:
        stage.give_up(volume)


def still_there(stage, server, volume) -> None:
    """What was written is read inside, and what is written now arrives."""
    equal(server.read_from(DEVICE), stage.doing, "what is on the volume, from inside")
    server.write_to(DEVICE, f"{stage.doing}-again")
    equal(volume.text(), f"{stage.doing}-again", "what is on the volume, from outside")


# ---- one volume, one server -------------------------------------------------------------------------------------------

@action("operation.attach-volume")
def attach_volume(stage):
    with attached(stage) as (server, volume):
        equal(volume.text(), stage.doing, "what is on the volume, from outside")
        check(server.has_node(), f"{DEVICE} is a block device")


@action("operation.detach-volume")
def detach_volume(stage):
    with attached(stage) as (server, volume):
        server.run("/bin/sh", "-c", f"touch /root/hold; (exec 3<>{DEVICE}; while test -e /root/hold; do sleep 0.1; done) "
                                    ">/dev/null 2>&1 </dev/null &")
        server.nova.detach_volume(server.id, volume.id)
        said = eventually(server.reason, "the detach is refused")
        check("is in use in the instance, by process" in said and "try again" in said, f"cause and remedy: {said}")
        volume.await_status("in-use")
        still_there(stage, server, volume)
        server.run("/bin/sh", "-c", "rm /root/hold; sleep 0.5")
        server.detach(volume)
        check(not server.has_node(), f"{DEVICE} is gone inside")
        volume.await_status("available")
        equal(stage.devices_of(volume), [], "devices over it")


@action("operation.extend-volume")
def extend_volume(stage):
    with attached(stage) as (server, volume):
        volume.cinder.act(volume.id, "os-extend", {"new_size": 2})
        eventually(lambda: server.size_of(DEVICE) == 2 * GIB, "the instance sees its new size")
        volume.await_status("in-use")
        still_there(stage, server, volume)


@action("operation.swap-volume")
def swap_volume(stage):
    """Nova's own: another volume in the place of this one."""
    with attached(stage) as (server, volume):
        other, init = stage.volume(size=2), server.init()
        server.nova.nova("PUT", f"/servers/{server.id}/os-volume_attachments/{volume.id}", {"volumeAttachment": {"volumeId": other.id}})
        volume.await_status("available")
        other.await_status("in-use")
        equal(server.init(), init, "init")
        equal(server.domain_state(), libvirt.VIR_DOMAIN_RUNNING, "state of the domain")
        still_there(stage, server, other)
        equal(volume.text(), stage.doing, "what is on the one that it had")
        equal(server.size_of(DEVICE), 2 * GIB, "the size inside")
        stage.give_up(other)


@action("operation.swap-volume", in_short=False)
def move_a_volume_in_use(stage):
    """Cinder's: to another of its back ends."""
    with attached(stage) as (server, volume):
        before = volume.path
        volume.cinder.act(volume.id, "os-retype", {"new_type": "second", "migration_policy": "on-demand"})
        eventually(lambda: volume.show()["volume_type"] == "second" and volume.show()["status"] == "in-use", "it is of the other type", 60)
        check(not before.exists(), "its old file is gone")
        still_there(stage, server, volume)


@action("operation.multiattach-volume")
def multiattach_volume(stage):
    """Two instances of one project; and nobody of another one."""
    with attached(stage, volume_type="shared") as (server, volume):
        other = stage.boot()
        other.attach(volume)
        equal(other.read_from(DEVICE), stage.doing, "what the one has written, in the other")
        other.write_to(DEVICE, "from-the-other")
        equal(server.read_from(DEVICE), "from-the-other", "what the other has written, in the one")
        check(other.first_uid() != server.first_uid(), "both have ids of their own")
        stranger = stage.boot(stage.admin.make_project(f"stranger-{stage.next_number()}"), flavor=stage.large)
        with stage.refused("could not be found"):
            stranger.attach(volume)
        stranger.delete()
        server.detach(volume)
        equal(other.read_from(DEVICE), "from-the-other", "what the other still reads")
        other.delete()
        volume.await_status("available")


@action("operation.multiattach-volume", in_short=False)
def a_volume_that_is_not_for_several(stage):
    with attached(stage) as (_, volume):
        other = stage.boot()
        with stage.refused("Invalid volume|status"):
            other.attach(volume)
        other.delete()


# ---- tags, and what comes with a boot ---------------------------------------------------------------------------------

def _devices_in_config_drive(server) -> list[dict]:
    return json.loads(server.run("/bin/cat", "/config-2/openstack/latest/meta_data.json"))["devices"]


@action("operation.device-tags", "storage.block")
def boot_with_a_tagged_volume(stage):
    volume = stage.volume()
    server = stage.boot(config_drive=True, block_device_mapping_v2=[
        {"uuid": stage.image, "source_type": "image", "destination_type": "local", "boot_index": 0, "delete_on_termination": True},
        {"uuid": volume.id, "source_type": "volume", "destination_type": "volume", "boot_index": None, "tag": "data"}])
    disk = next(each for each in _devices_in_config_drive(server) if each["type"] == "disk")
    equal((disk["tags"], disk["serial"], disk["path"]), (["data"], volume.id, DEVICE), "what its metadata say of the volume")
    server.write_to(disk["path"], stage.doing)
    equal(volume.text(), stage.doing, "what is on the volume, from outside")
    server.delete()
    volume.await_status("available")
    volume.delete()


@action("operation.attach-tagged-volume")
def attach_tagged_volume(stage):
    server, volume = stage.boot(config_drive=True), stage.volume()
    server.attach(volume, tag="later")
    # The drive is written at a boot of a new root.
    server.act_until("rebuild", "ACTIVE", {"imageRef": stage.image})
    equal([each["tags"] for each in _devices_in_config_drive(server)], [["later"]], "tags in its metadata")
    server.delete()
    volume.delete()


@action()
def delete_with_its_volume(stage):
    """One that goes with the server, and one that stays."""
    stays, goes = stage.volume(), stage.volume()
    server = stage.boot()
    server.attach(stays)
    equal(server.attach(goes, delete_on_termination=True), "/dev/sdc", "the second device")
    server.delete()
    stays.await_status("available")
    goes.await_gone()
    equal(stage.devices_of(stays), [], "devices over it")
    stays.delete()


# ---- what else happens to the server ----------------------------------------------------------------------------------

@action()
def volume_over_stop_and_start(stage):
    with attached(stage) as (server, volume):
        server.act_until("os-stop", "SHUTOFF")
        equal(volume.text(), stage.doing, "what is on the volume, from outside")
        server.act_until("os-start", "ACTIVE")
        still_there(stage, server, volume)
        # What came with a start is as good a volume as one that was plugged in.
        server.detach(volume)
        check(not server.has_node(), f"{DEVICE} is gone inside")


@action(in_short=False)
def volume_over_reboot(stage):
    with attached(stage) as (server, volume):
        server.act_until("reboot", "ACTIVE", {"type": "HARD"})
        still_there(stage, server, volume)


@action(in_short=False)
def volume_over_rescue(stage):
    with attached(stage) as (server, volume):
        server.act_until("rescue", "RESCUE", {})
        equal(server.read_from(DEVICE), stage.doing, "what is on the volume, in the rescue")
        server.act_until("unrescue", "ACTIVE")
        still_there(stage, server, volume)


@action(in_short=False)
def volume_over_rebuild(stage):
    with attached(stage) as (server, volume):
        server.act_until("rebuild", "ACTIVE", {"imageRef": stage.image})
        still_there(stage, server, volume)


@action(in_short=False)
def volume_over_resize(stage):
    with attached(stage) as (server, volume):
        server.act_until("resize", "VERIFY_RESIZE", {"flavorRef": stage.large})
        still_there(stage, server, volume)
        server.act_until("confirmResize", "ACTIVE")
        equal(server.read_from(DEVICE), f"{stage.doing}-again", "what is on the volume, then")
        server.delete()
        volume.await_status("available")


@action()
def volume_over_cold_migration(stage):
    """To the second host, and back by a revert."""
    with attached(stage) as (server, volume):
        before = server.host
        server.act_until("migrate", "VERIFY_RESIZE", None)
        check(server.host is not before, "it is on the other host")
        still_there(stage, server, volume)
        server.act_until("revertResize", "ACTIVE")
        equal(server.read_from(DEVICE), f"{stage.doing}-again", "what is on the volume, back again")


@action(in_short=False)
def volume_over_shelve(stage):
    with attached(stage) as (server, volume):
        server.act_until("shelve", "SHELVED_OFFLOADED")
        equal(stage.devices_of(volume), [], "devices over it, while nobody runs")
        server.act_until("unshelve", "ACTIVE")
        still_there(stage, server, volume)


@action(in_short=False)
def volume_over_evacuation(stage):
    with attached(stage) as (server, volume):
        with lost_host_of(stage, server) as lost:
            server.act_until("evacuate", "ACTIVE", {})
            check(server.host is not lost, "it is on the other host")
            still_there(stage, server, volume)
        equal(server.read_from(DEVICE), f"{stage.doing}-again", "what is on the volume, when the lost host is back")


@action()
def adapter_that_dies_before_an_attach(stage):
    """Cinder has given the volume to the host by then, and nobody has it."""
    server, volume = stage.active(), stage.volume()
    adapter = stage.adapter_of(server)
    adapter.pause()
    server.nova.ask_for_volume(server.id, volume.id)
    eventually(lambda: stage.devices_of(volume), "the volume is a device of the host")
    adapter.kill()
    try:
        check("virtuserns-compute" in eventually(server.reason, "the attach failed"), f"the adapter is named: {server.reason()}")
        volume.await_status("available")
        equal(stage.devices_of(volume), [], "devices over it")
    finally:
        adapter.start()
    eventually(lambda: server.attach(volume), "the next attach")
    check(server.has_node(), f"{DEVICE} is a block device")
    stage.give_up(volume)


# ---- a volume as the root ---------------------------------------------------------------------------------------------

@action("storage.block")
def boot_from_volume(stage):
    server = stage.boot_from_volume()
    server.write("marker", "on-the-volume")
    check(server.run("/bin/df", "/").splitlines()[-1].startswith("/dev/"), "its root is a device")
    ids = server.first_uid()
    server.act_until("reboot", "ACTIVE", {"type": "HARD"})
    equal((server.read("marker"), server.first_uid()), ("on-the-volume", ids), "a file from before, and its ids")
    server.delete()
    equal(stage.volumes.list(), [], "volumes that are left")


@action("operation.rebuild-volume-backed", in_short=False)
def rebuild_of_a_volume_root(stage):
    server = stage.boot_from_volume()
    server.write("marker", "before")
    server.rebuild_volume_backed(stage.image)
    equal(server.read("marker"), "missing", "a file from before")
    server.delete()


@action("operation.snapshot", "operation.quiesce", "operation.unquiesce", in_short=False)
def snapshot_of_a_volume_root(stage):
    """Nova has the instance stand still, and Cinder makes a snapshot: what was written and not yet on the disk is in it."""
    quiet = stage.admin.upload_image("quiet", stage.image_path, os_require_quiesce="yes")
    server = stage.boot_from_volume(quiet)
    server.run("/bin/sh", "-c", "echo in-the-snapshot > /root/marker")
    image = server.act("createImage", {"name": "of-a-volume"})["image_id"]
    stage.admin.await_image(image)
    server.await_status("ACTIVE")
    server.write("marker", "later")
    copy = stage.boot(image=image)
    equal(copy.read("marker"), "in-the-snapshot", "the file, in an instance of the snapshot")
    equal(server.read("marker"), "later", "the file, where it was")
    copy.delete()
    for each in (image, quiet):
        stage.admin.delete_image(each)
    # A volume goes after its snapshots.
    snapshots = stage.admin.cinder("GET", "/snapshots")["snapshots"]
    for volume in stage.volumes.list():
        if volume["snapshot_id"] in [each["id"] for each in snapshots]:
            stage.volumes.delete(volume["id"])
    for each in snapshots:
        stage.admin.cinder("DELETE", f"/snapshots/{each['id']}")
    eventually(lambda: not stage.admin.cinder("GET", "/snapshots")["snapshots"], "the snapshots are gone")
    server.delete()
    eventually(lambda: not stage.volumes.list(), "the volumes are gone")
