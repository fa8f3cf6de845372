"""Instances that stand still for a snapshot: what they write waits, and nothing that dies leaves them so."""
import contextlib
import os
import pathlib
import subprocess

from lab import USERNS, Lab, StuckPacks, instance, run
from api import refused
from harness import check, contains, daemon_module, equal, eventually, main, test


class Writer:
    """A process inside that writes one file and has it on the disk."""

    def __init__(self, lab, spec, path="/root/late"):
        self.lab, self.spec, self.path = lab, spec, path
        program = os.path.join(lab.env.daemon.build, "driver", "exec", "virt-userns-exec")
        self.process = subprocess.Popen([program, "-c", lab.env.uri, spec["name"], "--", "/bin/sh", "-c", f"echo ready; echo late > {path}; sync"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        equal(self.process.stdout.readline(), b"ready\n", "it begins")

    def waits(self):
        """In the kernel, for the disk."""
        if self.process.poll() is not None:
            return False
        for task in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.path.encode() in (task / "cmdline").read_bytes() and (task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "D":
                    return True
        return False

    def ends(self):
        equal(self.process.wait(60 * daemon_module.TIME_FACTOR), 0, "its exit code")
        equal(self.lab.sh(self.spec, f"cat {self.path}").strip(), "late")


@contextlib.contextmanager
def frozen(env, **settings):
    with Lab(env, **settings) as lab:
        spec = instance()
        lab.spawn(spec)
        lab.sh(spec, "echo early > /root/early")
        for _ in range(2):
            equal(lab.call("instance.quiesce", uuid=spec["uuid"]), {})
        writer = Writer(lab, spec)
        eventually(writer.waits, "a write waits")
        yield lab, spec, writer


@test(drivers=USERNS)
def a_write_waits_until_it_is_thawed(env):
    with frozen(env) as (lab, spec, writer):
        # What was written before is on the disk, for whoever looks at it from outside now.
        (disk,) = lab.adapter.state.glob("instances/*/disk.img")
        contains(run("debugfs", "-R", "cat root/upper/root/early", disk), "early")
        check(writer.waits(), "the write was done")
        equal(lab.sh(spec, "cat /root/early").strip(), "early", "what it reads")
        for _ in range(2):
            equal(lab.call("instance.unquiesce", uuid=spec["uuid"]), {})
        writer.ends()


@test(drivers=USERNS)
def one_that_does_not_run_is_refused(env):
    with Lab(env) as lab:
        spec = instance()
        lab.spawn(spec, power=False)
        with refused("invalid-state", "does not run"):
            lab.call("instance.quiesce", uuid=spec["uuid"])
        equal(lab.call("instance.unquiesce", uuid=spec["uuid"]), {})
        with refused("instance-not-found"):
            lab.call("instance.quiesce", uuid=instance()["uuid"])


@test(drivers=USERNS)
def the_next_adapter_thaws_what_a_killed_one_left(env):
    with frozen(env) as (lab, _, writer):
        lab.adapter.kill()
        check(writer.waits(), "the disk was thawed by a death")
        lab.adapter.start()
        lab.client = lab.adapter.client()
        writer.ends()


@test(drivers=USERNS)
def who_froze_it_and_went_away_holds_it_up_for_a_while_only(env):
    with frozen(env, quiesce_limit_s=int(6 * daemon_module.TIME_FACTOR)) as (lab, spec, writer):
        lab.client.close()
        lab.client = lab.adapter.client()
        writer.ends()
        contains(lab.adapter.text(), "stood still for too long")
        equal(lab.call("instance.unquiesce", uuid=spec["uuid"]), {})


@test(drivers=USERNS)
def one_that_is_busy_holds_up_no_other(env):
    """Its thaw waits for what is done with it, and no other's waits for that."""
    stuck = StuckPacks(env)
    with Lab(env, quiesce_limit_s=int(6 * daemon_module.TIME_FACTOR), image_program=str(stuck.program)) as lab, \
            lab.adapter.client() as packing:
        busy, other = instance("busy"), instance("other")
        path = lab.adapter.folder / "snapshot.tar"
        path.touch()
        for spec in (busy, other):
            lab.spawn(spec)
        lab.call("instance.quiesce", uuid=busy["uuid"])
        packing.begin("instance.snapshot", uuid=busy["uuid"], path=str(path))
        try:
            eventually(lambda: path.read_text() == "half", "it is packed")
            lab.call("instance.quiesce", uuid=other["uuid"])
            writer = Writer(lab, other)
            eventually(writer.waits, "a write waits")
            writer.ends()
        finally:
            stuck.end()
        with refused("internal", "pack the instance's files"):
            packing.end()
        Writer(lab, busy).ends()


@test(drivers=USERNS)
def a_frozen_one_becomes_an_image(env):
    with Lab(env) as lab:
        spec = instance()
        lab.spawn(spec)
        path = lab.adapter.folder / "snapshot.tar"
        path.touch()
        lab.call("instance.quiesce", uuid=spec["uuid"])
        # Who waits for a disk that stands still cannot be stopped.
        writer = Writer(lab, spec)
        eventually(writer.waits, "a write waits")
        try:
            with lab.adapter.client(timeout_s=20 * daemon_module.TIME_FACTOR) as client:
                equal(client.call("instance.snapshot", uuid=spec["uuid"], path=str(path))["format"], "root-tar")
        except OSError:
            # Who waits for a frozen file system hears no signal.
            run("fsfreeze", "--unfreeze", *lab.adapter.state.glob("instances/*/disk"))
            raise
        check(writer.waits(), "the write waits after a snapshot")
        lab.call("instance.unquiesce", uuid=spec["uuid"])
        writer.ends()


@test(drivers=USERNS)
def a_root_that_is_a_volume_stands_still_too(env):
    with Lab(env, root_volumes=True) as lab:
        image = lab.adapter.folder / "root.img"
        with image.open("wb") as file:
            file.truncate(64 << 20)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-d", lab.tree, image)
        node = run("losetup", "-f", "--show", image).strip()
        root = {"device": "/dev/vda", "path": node, "readonly": False, "boot_index": 0, "serial": "s"}
        spec = instance()

        def freeze():
            for _ in range(2):
                lab.call("instance.quiesce", uuid=spec["uuid"])
            writer = Writer(lab, spec)
            eventually(writer.waits, "a write waits")
            return writer
        try:
            lab.spawn(spec, image=None, volumes=[root])
            lab.sh(spec, "echo early > /root/early")
            writer = freeze()
            contains(run("debugfs", "-R", "cat root/early", image), "early")
            for _ in range(2):
                lab.call("instance.unquiesce", uuid=spec["uuid"])
            writer.ends()
            writer = freeze()
            lab.adapter.kill()
            check(writer.waits(), "the disk was thawed by a death")
            lab.adapter.start()
            lab.client = lab.adapter.client()
            writer.ends()
            for method, params in (("reboot", {"type": "hard", "network": [], "volumes": [root]}), ("destroy", {"disks": True})):
                writer = freeze()
                lab.call(f"instance.{method}", uuid=spec["uuid"], **params)
                writer.process.wait(60 * daemon_module.TIME_FACTOR)
        finally:
            run("losetup", "-d", node)


@test(drivers=USERNS)
def a_write_that_does_not_end_holds_nobody(env):
    """A frozen file system has no write under way: whoever waits for one in the kernel cannot even be killed."""
    with Lab(env) as lab:
        build = lab.env.daemon.build
        spec = instance()
        lab.spawn(spec)
        lab.sh(spec, "echo early > /root/early")
        probe = pathlib.Path(build, "tests/root/probe").read_bytes()
        program = [os.path.join(build, "driver/exec/virt-userns-exec"), "-c", env.uri, spec["name"], "--"]
        subprocess.run([*program, "/bin/sh", "-c", "cat > /probe; chmod 755 /probe"], input=probe, check=True)
        endless = subprocess.Popen([*program, "/probe", "write", "/root/endless"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            equal(endless.stdout.readline(), b"ready\n", "it begins")
            with lab.adapter.client(timeout_s=30) as client:
                equal(client.call("instance.quiesce", uuid=spec["uuid"]), {})
            equal(lab.call("instance.info", uuid=spec["uuid"])["state"], "running")
            writer = Writer(lab, spec)
            eventually(writer.waits, "a write waits")
            equal(lab.call("instance.quiesce", uuid=spec["uuid"]), {}, "asked once more")
            equal(lab.call("instance.unquiesce", uuid=spec["uuid"]), {})
            writer.ends()
            check(endless.poll() is None, "the endless write has ended")
            # After a start nothing is frozen, whoever has not thawed it.
            lab.call("instance.quiesce", uuid=spec["uuid"])
            lab.call("instance.reboot", uuid=spec["uuid"], type="hard", network=[], volumes=[])
            lab.call("instance.quiesce", uuid=spec["uuid"])
            writer = Writer(lab, spec)
            eventually(writer.waits, "a write waits after a start")
            lab.call("instance.unquiesce", uuid=spec["uuid"])
            writer.ends()
        finally:
            endless.kill()


@test(drivers=USERNS)
def a_frozen_one_can_be_ended(env):
    for method, params in (("power_off", {"timeout": 0}), ("destroy", {"disks": True}), ("reboot", {"type": "hard", "network": [], "volumes": []})):
        with frozen(env) as (lab, spec, writer):
            lab.call(f"instance.{method}", uuid=spec["uuid"], **params)
            check(writer.process.wait(60 * daemon_module.TIME_FACTOR) is not None)


if __name__ == "__main__":
    main()
