#!/usr/bin/python3
"""Volumes of a real Cinder, on path B."""
import pathlib

import suite
import cinder_service
import path_a
import path_b
import rest
from invariants import nothing_is_left_of_deleted_servers
from stage import Mismatch
from volume_actions import VOLUME_ACTIONS
from volume_stage import VolumeStage

# What has a volume open refuses to give it up; that is not waited for as long.
CONF = path_b.CONF.replace("[userns]\n", "[userns]\nreconnect_timeout = 3\n")


def start_hosts(cloud):
    for name in ("host1", "host2"):
        path_b.start_host(cloud, name, CONF, path_b.ADAPTER + "root_volumes = true\n")


# What is tried on path A, and what Nova's driver says there.
NO_NAME = ("AttributeError", "Nova's driver has no names for devices of containers, and fails at the missing one")
REFUSALS_OF_A = dict.fromkeys(["attach-volume", "detach-volume", "extend-volume", "swap-volume", "multiattach-volume", "attach-tagged-volume",
                               "volume-over-stop-and-start"], NO_NAME) | {"boot-with-a-tagged-volume": ("Exhausted all hosts", NO_NAME[1])}
TRIED_ON_A = ("attach-volume", "detach-volume", "extend-volume", "swap-volume", "multiattach-volume", "boot-with-a-tagged-volume",
              "attach-tagged-volume", "volume-over-stop-and-start", "boot-from-volume")


def start_host_of_a(cloud):
    """Beside the others, which get nothing more to do."""
    session = rest.Session.admin()
    for service in session.nova("GET", "/os-services?binary=nova-compute")["services"]:
        session.nova("PUT", f"/os-services/{service['id']}", {"status": "disabled"})
    cloud.start_compute("host3", path_a.CONF)


def nothing_is_left(stage) -> None:
    nothing_is_left_of_deleted_servers(stage)
    left = [f"volume {volume['name']} is {volume['status']}" for volume in stage.volumes.list(all_projects=True)]
    left += [f"file {path.name}" for path in cinder_service.FOLDER.glob("*/*")]
    backing = {entry.parts[3]: entry.read_text() for entry in pathlib.Path("/sys/block").glob("loop*/loop/backing_file")}
    left += [f"device {loop} over {file.strip()}" for loop, file in backing.items() if "/volume-" in file and str(cinder_service.FOLDER) in file]
    if left:
        raise Mismatch("; ".join(left[:20]))


if __name__ == "__main__":
    suite.main(suite.Path("B", start_hosts, {}), suite.Path("A", start_host_of_a, REFUSALS_OF_A, TRIED_ON_A, in_short=False),
               subject=suite.Subject(VOLUME_ACTIONS, [("nothing-is-left-of-volumes", nothing_is_left)], VolumeStage, cinder_service.Cinder()))
