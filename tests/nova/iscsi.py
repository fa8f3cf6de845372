#!/usr/bin/python3
"""Volumes over iSCSI with CHAP, on path B. The control plane and the target are here; the host is a virtual machine (tests/vm), whose
kernel has an initiator, as this machine's may not."""
import os
import sys

# Before anything reads it: on an emulated processor all takes as much longer.
os.environ["VIRTUSERNS_TIME_FACTOR"] = str(max(8.0, float(os.environ.get("VIRTUSERNS_TIME_FACTOR", "1"))))

import suite  # noqa: E402
import daemon as daemon_module  # noqa: E402
import iscsi_service  # noqa: E402
import path_b  # noqa: E402
import virtual_host  # noqa: E402
from compute import STATE  # noqa: E402
from iscsi_actions import ISCSI_ACTIONS  # noqa: E402
from iscsi_stage import HOST, IscsiStage  # noqa: E402
from processes import DidNotStart  # noqa: E402
from stage import Mismatch  # noqa: E402

CONF = f"""[DEFAULT]
compute_driver = userns.UsernsDriver
[userns]
socket = {path_b.SOCKET}
request_timeout = 600
reconnect_timeout = 3
"""


def start_host(cloud):
    host = cloud.hosts[HOST] = virtual_host.VirtualHost(HOST, cloud.build)
    host.boot()
    host.start_adapter(path_b.ADAPTER.format(name=HOST, ip=host.ip, state=STATE, uri="userns:///system", build=host.build))
    cloud.start_compute(HOST, CONF, binary=str(path_b.SOURCE / "driver/compute/nova/nova-compute-userns"), has_daemon=False)


def nothing_is_left(stage) -> None:
    stage.delete_all()
    left = stage.eventually_empty(lambda: [
        *stage.left_on_host(), *(f"target {target.name}" for target in iscsi_service.targets()),
        *(f"volume {volume['name']} is {volume['status']}" for volume in stage.volumes.list(all_projects=True)),
        *(f"file {path.name}" for folder in (*iscsi_service.FOLDER.iterdir(), iscsi_service.EXPORTS) for path in folder.iterdir()),
        *(f"claim of {consumer}" for provider in stage.admin.placement("/resource_providers")["resource_providers"]
          for consumer in stage.admin.placement(f"/resource_providers/{provider['uuid']}/allocations")["allocations"])])
    if left:
        raise Mismatch("; ".join(left[:20]))


def main() -> None:
    if os.environ.get("VIRTUSERNS_NOVA") != "long" and "--short" in sys.argv:
        print("skipped: it takes minutes on an emulated processor; tools/check --nova has it, or VIRTUSERNS_NOVA=long")
        sys.exit(77)
    try:
        virtual_host.build_machine()
    except (daemon_module.NotPossible, DidNotStart) as reason:
        print(f"skipped: {reason}" if isinstance(reason, daemon_module.NotPossible) else reason)
        sys.exit(77 if isinstance(reason, daemon_module.NotPossible) else 1)
    suite.main(suite.Path("B", start_host, {}), subject=suite.Subject(
        ISCSI_ACTIONS, [("nothing-is-left-of-volumes-over-iscsi", nothing_is_left)], IscsiStage, iscsi_service.IscsiCinder()))


if __name__ == "__main__":
    main()
