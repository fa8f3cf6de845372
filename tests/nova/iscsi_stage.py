"""The stage of volumes, with a host that is a machine of its own: what is looked at there."""
import contextlib

import libvirt

from compute import STATE
from volume_stage import Volume, VolumeStage

HOST = "host1"


class IscsiStage(VolumeStage):
    def on_host(self, script: str) -> list[str]:
        """Words that this says there."""
        return self.cloud.hosts[HOST].output("sh", "-c", script).split()

    def devices_of(self, volume: Volume) -> list[str]:
        """Sessions with its target, as the kernel has them."""
        return [name for name in self.on_host("cat /sys/class/iscsi_session/*/targetname 2>/dev/null || true") if volume.id in name]

    def left_on_host(self) -> list[str]:
        """Of all volumes and servers: nothing else makes any of these in that machine. A record of a node is what the initiator logs in
        to at its next start."""
        left = [f"{what} {name}" for what, script in [
            ("session", "cd /sys/class/iscsi_session && ls"),
            ("disk", "for disk in /sys/block/sd*; do test ! -e $disk || echo $disk; done"),
            ("record of node", "ls /etc/iscsi/nodes 2>/dev/null || true"),
            ("instance", f"ls {STATE}/adapter/instances 2>/dev/null || true"),
            ("controller", "pidof virtuserns-controller || true")] for name in self.on_host(script)]
        with contextlib.closing(libvirt.open(self.cloud.hosts[HOST].uri)) as connection:
            return left + [f"domain {domain.name()}" for domain in connection.listAllDomains()]
