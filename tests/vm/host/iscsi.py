#!/usr/bin/env python3
"""A volume over iSCSI, with CHAP, in a container: the target is tgt, the initiator the kernel's, os-brick connects it as
nova-compute would, and virtuserns-compute gives it to an instance. One line for each check."""
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from host_support import (BUILD, SOURCE, URI, check, did, eventually, finish, install, make_domain, run,  # noqa: E402
                          start_service)
sys.path[:0] = [str(SOURCE / "tests" / folder) for folder in ("compute", "conformance", "support")]
from api import ApiError, Client  # noqa: E402

IQN, USER, PASSWORD = "iqn.2026-11.example:volume", "cinder", "correct-horse-12"
IMAGE, SOCKET = pathlib.Path("/var/lib/volume.img"), "/run/compute.sock"
UUID, NAME = "6f1c1d5e-0000-4000-8000-000000000001", "instance-00000001"
INSTANCE = {"uuid": UUID, "name": NAME, "hostname": "web", "project": "p", "user": "u", "display_name": "web", "image_properties": {},
            "ids": None, "flavor": {"vcpus": 1, "memory_mb": 64, "root_gb": 1, "ephemeral_gb": 0, "swap_mb": 0, "extra_specs": {}}}


def start_target():
    with IMAGE.open("wb") as file:
        file.truncate(32 << 20)
    did("start the initiator's daemon", "systemctl", "start", "iscsid.service")
    did("start the target's daemon", "systemctl", "start", "tgt.service")
    tgt = ["tgtadm", "--lld", "iscsi"]
    for words in (["--op", "new", "--mode", "target", "--tid", "1", "-T", IQN],
                  ["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(IMAGE)],
                  ["--op", "new", "--mode", "account", "--user", USER, "--password", PASSWORD],
                  ["--op", "bind", "--mode", "account", "--tid", "1", "--user", USER],
                  ["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"]):
        did(f"tgtadm {' '.join(words[1:4])}", *tgt, *words)


def connector():
    """As privileged as this process is, which is what sudo and rootwrap are for elsewhere."""
    import os_brick
    from os_brick import privileged
    from os_brick.initiator import connector as brick
    from oslo_concurrency import lockutils
    from oslo_config import cfg
    cfg.CONF([], project="iscsi")
    lockutils.set_defaults("/run/lock")
    os_brick.setup(cfg.CONF)
    privileged.default.set_client_mode(False)
    return brick.InitiatorConnector.factory("iscsi", "", use_multipath=False, device_scan_attempts=5)


def properties(password):
    return {"target_discovered": False, "target_portal": "127.0.0.1:3260", "target_iqn": IQN, "target_lun": 1, "volume_id": "s-1",
            "auth_method": "CHAP", "auth_username": USER, "auth_password": password, "access_mode": "rw"}


def start_adapter():
    config = pathlib.Path("/run/compute.conf")
    config.write_text(f'connect = "{URI}"\nsocket = "{SOCKET}"\nstate = "/var/lib/compute"\n'
                      f'image_program = "{BUILD}/tools/image/virt-userns-image"\n')
    process = subprocess.Popen([str(BUILD / "driver/compute/virtuserns-compute"), "--config", str(config)])
    check(eventually(lambda: pathlib.Path(SOCKET).exists()), "the adapter listens")
    return process


def spawn(client):
    tar = pathlib.Path("/var/lib/web.tar")
    did("pack an image", "tar", "-C", "/var/lib/web", "-cf", str(tar), ".")
    client.call("image.add", key="web", format="root-tar", path=str(tar))
    client.call("instance.spawn", instance=INSTANCE, image={"key": "web", "format": "root-tar"}, network=[], volumes=[], files=[],
                config_drive=[], password=None, power=True)


def inside(*words):
    return run(str(BUILD / "driver/exec/virt-userns-exec"), "-c", URI, NAME, "--", "/bin/busybox", *words)


def try_volume(client, brick):
    try:
        brick.connect_volume(properties("wrong-horse-1234"))
        check(False, "a wrong password is refused")
    except Exception as refused:  # noqa: BLE001 - whatever os-brick calls it
        check(not list(pathlib.Path("/sys/class/iscsi_session").glob("session*")), "a wrong password is refused", str(refused))
    path = brick.connect_volume(properties(PASSWORD))["path"]
    path = path.decode() if isinstance(path, bytes) else path
    volume = {"device": "/dev/sdb", "path": path, "readonly": False, "boot_index": None, "serial": "s-1"}
    client.call("instance.attach_volume", uuid=UUID, volume=volume)
    result = inside("sh", "-c", "echo by-iscsi | busybox dd of=/dev/sdb bs=512 conv=sync,fsync 2>/dev/null")
    check(result.returncode == 0, "a program inside writes through it", result.stderr)
    check(IMAGE.read_bytes()[:8] == b"by-iscsi", "and the bytes are at the target")
    check("by-iscsi" in inside("dd", "if=/dev/sdb", "bs=512", "count=1").stdout, "and are read inside")
    client.call("instance.detach_volume", uuid=UUID, volume=volume)
    check(inside("dd", "if=/dev/sdb", "bs=512", "count=1").returncode != 0, "after the detach it is gone inside")
    brick.disconnect_volume(properties(PASSWORD), None)
    check(eventually(lambda: not pathlib.Path(path).exists()), "and its device is gone on the host", path)


def main():
    install()
    start_service()
    make_domain()
    start_target()
    adapter = start_adapter()
    try:
        with Client(SOCKET) as client:
            spawn(client)
            try_volume(client, connector())
            client.call("instance.destroy", uuid=UUID, disks=True)
    except ApiError as error:
        check(False, "the adapter does it", error.message)
    finally:
        adapter.terminate()
        check(adapter.wait() == 0, "the adapter ends in order")
        run("systemctl", "stop", "tgt.service", "iscsid.service", "iscsid.socket")
        IMAGE.unlink(missing_ok=True)
    return finish("iscsi")


if __name__ == "__main__":
    sys.exit(main())
