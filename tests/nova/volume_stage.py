"""A stage with volumes."""
import contextlib
import pathlib
import re
import subprocess

import cinder_service
from rest import Refused, WentWrong, await_that
from stage import Mismatch, Server, Stage, check

DEVICE = "/dev/sdb"  # of the first volume
GIB = 1 << 30


class Volume:
    def __init__(self, volumes: cinder_service.Volumes, ident: str):
        self.cinder, self.id = volumes, ident

    @property
    def path(self) -> pathlib.Path:
        """The file behind it. After a migration it has the name of the volume that took this one's place."""
        name = self.show()["os-vol-mig-status-attr:name_id"] or self.id
        found = list(cinder_service.FOLDER.glob(f"*/volume-{name}"))
        check(len(found) == 1, f"one file is behind the volume, not {found}")
        return found[0]

    def text(self) -> str:
        """What stands at its beginning, read as whoever has the disk."""
        with open(self.path, "rb") as file:
            return file.read(64).rstrip(b"\0").decode(errors="replace").strip()

    def show(self) -> dict:
        return self.cinder.show(self.id)

    def await_status(self, status: str) -> dict:
        return self.cinder.await_status(self.id, status)

    def await_gone(self) -> None:
        self.cinder.await_gone(self.id)

    def delete(self) -> None:
        self.cinder.delete(self.id)


class VolumeServer(Server):
    def attach(self, volume: Volume, **more) -> str:
        """The device."""
        answer = self.nova.ask_for_volume(self.id, volume.id, **more)
        self.nova.await_volume(self.id, volume.id, give_up=self.reason)
        return answer["device"]

    def rebuild_volume_backed(self, image: str) -> None:
        """Newer than what the others ask for."""
        self.nova.nova("POST", f"/servers/{self.id}/action", {"rebuild": {"imageRef": image}}, version="2.93")
        self.await_status("ACTIVE")
        check(not (reason := self.reason()), reason)

    def detach(self, volume: Volume) -> None:
        self.nova.detach_volume(self.id, volume.id)
        await_that(lambda: all(each["volumeId"] != volume.id for each in self.nova.volumes_of(self.id)),
                   lambda: f"the volume is still attached: {self.reason()}", 60)

    def write_to(self, device: str, text: str) -> None:
        self.run("/bin/sh", "-c", f"printf '%-64s' {text} | dd of={device} bs=64 count=1 conv=notrunc,fsync 2>/dev/null")

    def read_from(self, device: str) -> str:
        return self.run("/bin/sh", "-c", f"dd if={device} bs=64 count=1 2>/dev/null | tr -d '\\0'").strip()

    def has_node(self) -> bool:
        return self.run("/bin/sh", "-c", f"if test -b {DEVICE}; then echo block; else echo none; fi") == "block"

    def size_of(self, device: str) -> int:
        return int(self.run("/bin/sh", "-c", f"blockdev --getsize64 {device}"))


class VolumeStage(Stage):
    server = VolumeServer

    def __init__(self, cloud, image_path: str):
        super().__init__(cloud, image_path)
        self.volumes = cinder_service.Volumes(self.admin)

    def volume(self, **more) -> Volume:
        return Volume(self.volumes, self.volumes.make(f"{self.doing}-{self.next_number()}", **more))

    def boot_from_volume(self, image: str | None = None) -> VolumeServer:
        """Of one that Cinder makes of the image."""
        return self.boot(image="", block_device_mapping_v2=[
            {"uuid": image or self.image, "source_type": "image", "destination_type": "volume", "volume_size": 1, "boot_index": 0,
             "delete_on_termination": True}])

    def adapter_of(self, server: Server):
        """The program of its host; its configuration is as it was, however it ended."""
        return next(program for program in server.host.beside if program.name.startswith("adapter"))

    def give_up(self, volume: Volume) -> None:
        """Detached wherever it still is, and deleted, as far as that is possible; what is left is seen by the invariant."""
        def detached():
            """One after another: Cinder begins with one alone."""
            found = volume.show()
            for attachment in found["attachments"] if found["status"] == "in-use" else []:
                with contextlib.suppress(Refused):
                    self.admin.detach_volume(attachment["server_id"], volume.id)
            return found["status"] == "available"
        with contextlib.suppress(Refused, WentWrong):
            await_that(detached, lambda: "the volume is attached", 20)
            volume.delete()

    @contextlib.contextmanager
    def refused(self, pattern: str):
        """By an answer of Nova's."""
        try:
            yield
        except Refused as refused:
            check(re.search(pattern, refused.text), f"the refusal says {pattern}: {refused}")
            return
        raise Mismatch(f"it was not refused ({pattern})")

    @staticmethod
    def backing_files() -> list[str]:
        """Of all loop devices of the machine, as far as their files are of this mount namespace."""
        found = []
        for entry in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):  # it has just ended
                found.append(entry.read_text().strip())
        return found

    @staticmethod
    def devices_of(volume: Volume) -> list[str]:
        return subprocess.run(["losetup", "--noheadings", "--output", "NAME", "--associated", str(volume.path)], capture_output=True,
                              text=True, check=True).stdout.split()

    def delete_all(self) -> None:
        super().delete_all()
        for volume in self.volumes.list(all_projects=True):
            self.give_up(Volume(self.volumes, volume["id"]))
