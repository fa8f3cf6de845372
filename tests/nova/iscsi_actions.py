"""Volumes over iSCSI with CHAP, on a host with an initiator: what is there while one is attached, and what is there afterwards."""
import contextlib

import iscsi_service
from actions import Action, eventually, marker
from stage import check, equal
from volume_actions import attached, still_there
from volume_stage import DEVICE

ISCSI, CHAP = "storage.block.backend.iscsi", "storage.block.backend.iscsi.auth.chap"
ISCSI_ACTIONS: list[Action] = []
action = marker(ISCSI_ACTIONS)
WRONG = "wrong-horse-1234"


def nothing_of(stage, volume) -> None:
    """On the host and at the target, when nobody has it."""
    volume.await_status("available")
    equal(stage.devices_of(volume), [], "sessions of the host")
    equal(iscsi_service.target_of(volume.id), None, "targets of it")
    left = [each for each in stage.left_on_host() if each.startswith(("session", "disk", "record"))]
    equal(left, [], "what is left of it on the host")


@action(ISCSI, CHAP)
def volume_over_iscsi(stage):
    with attached(stage) as (server, volume):
        equal(volume.text(), stage.doing, "what is at the target")
        check(server.has_node(), f"{DEVICE} is a block device")
        equal(len(stage.devices_of(volume)), 1, "sessions of the host")
        target = iscsi_service.target_of(volume.id)
        own, = stage.on_host("sed -n s/^InitiatorName=//p /etc/iscsi/initiatorname.iscsi")
        equal(target.initiators, [own], "who is logged in at the target")
        account, = target.accounts
        session = " ".join(stage.on_host("iscsiadm -m session -P 3 --show"))
        check(f"CHAP: ***** username: {account} password: {iscsi_service.password_of(volume.id)}" in session,
              f"the session has Cinder's account and password: {session}")


@action(ISCSI)
def detach_over_iscsi(stage):
    with attached(stage) as (server, volume):
        server.detach(volume)
        check(not server.has_node(), f"{DEVICE} is gone inside")
        nothing_of(stage, volume)


@action(CHAP)
def wrong_password_of_chap(stage):
    """The target has another one than Cinder: the initiator's daemon waits until that is so."""
    server, volume = stage.active(), stage.volume()
    with _initiator_waits(stage):
        server.nova.ask_for_volume(server.id, volume.id)
        account, = eventually(lambda: getattr(iscsi_service.target_of(volume.id), "accounts", []), "Cinder has it exported")
        right = iscsi_service.password_of(volume.id)
        iscsi_service.set_password(volume.id, WRONG)
    reason = eventually(server.reason, "the attach failed", 120)
    check(volume.id in reason and "by iscsi" in reason, f"it is said which volume it is and by what: {reason}")
    check("Traceback" not in reason and right not in reason, f"and no more: {reason}")
    check(not server.has_node(), f"there is no {DEVICE} inside")
    nothing_of(stage, volume)
    iscsi_service.remove_account(account)  # Cinder has it made again
    server.attach(volume)
    server.write_to(DEVICE, "with-the-right-one")
    equal(volume.text(), "with-the-right-one", "what is at the target, with the right password")
    server.detach(volume)
    nothing_of(stage, volume)
    volume.delete()


@contextlib.contextmanager
def _initiator_waits(stage):
    stage.on_host("systemctl kill --signal=STOP iscsid.service")
    try:
        yield
    finally:
        stage.on_host("systemctl kill --signal=CONT iscsid.service")


@action(ISCSI)
def iscsi_over_stop_and_start(stage):
    with attached(stage) as (server, volume):
        server.act_until("os-stop", "SHUTOFF")
        equal(volume.text(), stage.doing, "what is at the target")
        server.act_until("os-start", "ACTIVE")
        still_there(stage, server, volume)


@action(ISCSI)
def iscsi_over_reboot(stage):
    with attached(stage) as (server, volume):
        server.act_until("reboot", "ACTIVE", {"type": "HARD"})
        still_there(stage, server, volume)
        equal(len(stage.devices_of(volume)), 1, "sessions of the host")


@action(ISCSI)
def delete_with_a_volume_over_iscsi(stage):
    """Two of them, with a target each."""
    volumes = [stage.volume(), stage.volume()]
    server = stage.active()
    for volume in volumes:
        server.attach(volume)
    equal(sum(len(stage.devices_of(volume)) for volume in volumes), 2, "sessions of the host")
    server.delete()
    for volume in volumes:
        nothing_of(stage, volume)
        volume.delete()
