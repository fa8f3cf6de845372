"""A back end of Cinder's for a machine that has neither device mapper nor iSCSI: a volume is a sparse file, and one that is attached
a loop device over it. Everything above it is Cinder's own.

What is made here is a device of the machine, so every host of the cloud sees it: as os-brick's connector "local" expects.
"""
import os
import pathlib
import subprocess
import time

from cinder import interface
from cinder.image import image_utils
from cinder.volume import driver
from oslo_config import cfg

OPTIONS = [cfg.StrOpt("loop_folder", help="Where the files are.")]
GIB = 1 << 30


def _losetup(*words: str) -> str:
    return subprocess.run(["losetup", *words], capture_output=True, text=True, check=True).stdout.strip()


@interface.volumedriver
class LoopDriver(driver.VolumeDriver):
    VERSION = "1.0"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)
        self.folder = pathlib.Path(self.configuration.loop_folder)

    def path(self, volume) -> pathlib.Path:
        return self.folder / volume.name

    def devices(self, volume) -> list[str]:
        return _losetup("--noheadings", "--output", "NAME", "--associated", str(self.path(volume))).split()

    def check_for_setup_error(self):
        self.folder.mkdir(parents=True, exist_ok=True)

    # ---- files ----

    def create_volume(self, volume):
        with open(self.path(volume), "xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(volume.size * GIB)

    def delete_volume(self, volume):
        self.path(volume).unlink(missing_ok=True)

    def extend_volume(self, volume, new_size):
        """The device is left as it is: that the size is another one has to be noticed by whoever uses it."""
        os.truncate(self.path(volume), new_size * GIB)

    def copy_image_to_volume(self, context, volume, image_service, image_id):
        image_utils.fetch_to_raw(context, image_service, image_id, str(self.path(volume)), "1M", size=volume.size)
        os.truncate(self.path(volume), volume.size * GIB)

    def create_snapshot(self, snapshot):
        """Of one that is attached as well: whoever wants it sound has had the instance stand still."""
        self.copy(snapshot.volume, snapshot)

    def delete_snapshot(self, snapshot):
        self.path(snapshot).unlink(missing_ok=True)

    def create_volume_from_snapshot(self, volume, snapshot):
        self.copy(snapshot, volume)
        os.truncate(self.path(volume), volume.size * GIB)

    def copy(self, source, target):
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", self.path(source), self.path(target)], check=True)

    # ---- devices ----

    def create_export(self, context, volume, connector):
        if not self.devices(volume):
            _losetup("--find", "--direct-io=off", str(self.path(volume)))

    def ensure_export(self, context, volume):
        """At a start of Cinder: what is attached is still there."""

    def remove_export(self, context, volume):
        for device in self.devices(volume):
            _losetup("--detach", device)
        deadline = time.monotonic() + 10
        while self.devices(volume) and time.monotonic() < deadline:  # whoever has just looked at it
            time.sleep(0.05)

    def initialize_connection(self, volume, connector):
        return {"driver_volume_type": "local", "data": {"device_path": self.devices(volume)[0]}}

    def terminate_connection(self, volume, connector, **kwargs):
        """Whether others use the device still: instances that share the volume."""
        return len([each for each in volume.volume_attachment or [] if each.connector]) > 1

    def _update_volume_stats(self):
        self._stats = {"volume_backend_name": self.configuration.volume_backend_name, "vendor_name": "virtuserns",
                       "driver_version": self.VERSION, "storage_protocol": "local", "total_capacity_gb": 1000, "free_capacity_gb": 1000,
                       "thin_provisioning_support": True, "max_over_subscription_ratio": 20.0, "provisioned_capacity_gb": 0,
                       "multiattach": True, "online_extend_support": True}
