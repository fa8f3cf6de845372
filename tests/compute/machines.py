"""Instances that are machines: the adapter with Debian's libvirtd and qemu behind it, which emulates. The guest is a disk that boots by itself
(syslinux, Debian's kernel, busybox) and has a shell on its serial line."""
import contextlib
import gzip
import io
import pathlib
import re
import shutil
import sys

from lab import MIB, SOURCE, Lab, instance, run
from api import Client, file, refused
from harness import Skip, check, contains, daemon_module, equal, eventually, main, matches, test

sys.path.insert(0, str(SOURCE / "tests/convert"))
import live_guest  # noqa: E402

DRIVERS = ("test",)  # of the daemon that the harness brings, which is not asked anything here
BOOT_S = 120
WIRING = {"network": [], "volumes": []}
IMAGE = {"key": "guest", "format": "qcow2"}
# Says that it is up, obeys the power button, and does what it is told.
INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
while read -r name; do $b insmod "/modules/$name"; done </modules/order
$b --install -s /bin; export PATH=/bin
for event in /dev/input/event*; do (dd if=$event bs=24 count=1 of=/dev/null 2>/dev/null && poweroff -f) & done
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo
n=0
echo "up $(dd if=/dev/vda bs=16 skip=4194304 count=1 2>/dev/null | tr -d '\\0')"
while read -r line; do eval "$line"; printf '\\ndone %s\\n' $?; done
"""


def archive(files):
    """A cpio of these files, compressed: what stands in it lies over an initial RAM disk that comes before."""
    out = io.BytesIO()
    for number, (name, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")], 1):
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0")
        out.write(b"\0" * (-out.tell() % 4) + content)
        out.write(b"\0" * (-out.tell() % 4))
    return gzip.compress(out.getvalue(), 1)


def make_image(folder):
    for program, package in (("syslinux", "syslinux"), ("mcopy", "mtools"), ("mkfs.vfat", "dosfstools")):
        if not shutil.which(program, path="/usr/sbin:/usr/bin"):
            raise Skip(f"{program} is not installed (package {package})")
    kernel = live_guest.kernel()
    raw, initrd, config = folder / "guest.raw", folder / "initrd", folder / "syslinux.cfg"
    initrd.write_bytes((kernel / "initrd").read_bytes() + archive([("init", 0o100755, INIT.encode())]))
    config.write_text("default l\nlabel l\nkernel kernel\ninitrd initrd\nappend console=ttyS0 no_timer_check panic=-1 mitigations=off loglevel=3 "
                      "random.trust_cpu=on\n")
    size = (kernel / "kernel").stat().st_size + initrd.stat().st_size + 8 * MIB
    with raw.open("wb") as disk:
        disk.truncate(-(-size // MIB) * MIB)
    run("mkfs.vfat", raw)
    run("syslinux", "--install", raw)
    run("mcopy", "-i", raw, kernel / "kernel", initrd, config, "::/")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, folder / "guest.qcow2")
    raw.unlink()
    return folder / "guest.qcow2"


class Place:
    """What live_guest wants of its lab."""

    def __init__(self, env, folder):
        self.env, self.folder = env, folder

    def path(self, name):
        return self.folder / name


class MachineLab(Lab):
    def __init__(self, env, uri, **settings):
        super().__init__(env, connect=uri, **settings)

    def add_image(self):
        path = make_image(self.adapter.folder)
        self.call("image.add", **IMAGE, path=str(path))
        return path

    def nothing_left(self):
        equal(self.adapter.instances(), [], "folders of instances")
        equal(self.adapter.holds(), [], "holds of images")
        equal(self.virsh("list", "--all", "--name").split(), [], "domains")

    def virsh(self, *words):
        return run("virsh", "-c", self.adapter.settings["connect"], *words)

    def spawn(self, spec=None, client=None, **more):
        return super().spawn(spec, client, **{"image": IMAGE, **more})

    def until_up(self, spec, times=1):
        eventually(lambda: len(re.findall(rb"^up ", self.client.output(spec["uuid"]), re.MULTILINE)) >= times,
                   f"the machine has booted {times} times", BOOT_S)


class Shell:
    """The guest's, by the interactive console."""

    def __init__(self, lab, spec):
        self.socket = lab.console(spec)
        self.socket.settimeout(60 * daemon_module.TIME_FACTOR)

    def __call__(self, command):
        self.socket.sendall(command.encode() + b"\n")
        said = b""
        while not (end := re.search(rb"^done (\d+)\r?$", said, re.MULTILINE)):
            part = self.socket.recv(4096)
            check(part, f"the console closed after {said!r}")
            said += part
        equal(end[1], b"0", f"status of {command!r}, which said {said!r}")
        return said[:end.start()].decode(errors="replace").replace("\r", "")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


@contextlib.contextmanager
def machines(env, **settings):
    folder = pathlib.Path(env.folder, "host")
    folder.mkdir()
    try:
        # As Debian has it: qemu is a user of its own, who comes to what is his and to nothing else.
        with live_guest.libvirt_host(Place(env, folder), "libvirt-qemu") as uri, MachineLab(env, uri, **settings) as lab:
            lab.add_image()
            yield lab
    finally:
        shutil.rmtree(folder)


def machine(name="vm", **more):
    return instance(name, **{"flavor": {"memory_mb": 128, "root_gb": 1}, **more})


@test(drivers=DRIVERS)
def a_life(env):
    with machines(env) as lab:
        spec = machine(display_name="Web <1>")
        uuid = spec["uuid"]
        with refused("image-missing"):
            lab.spawn(spec, image={"key": "another", "format": "qcow2"})
        equal(lab.spawn(spec, config_drive=[file("openstack/latest/meta_data.json", b'{"name": "vm"}')]), {"ids": None})
        info = lab.client.info(uuid)
        equal((info["state"], info["vcpus"], info["max_memory_kb"], info["ids"]), ("running", 1, 128 * 1024, None))
        lab.until_up(spec)
        with Shell(lab, spec) as shell:
            contains(shell("cat /proc/cpuinfo"), "QEMU")
            equal(shell("cat /sys/block/vda/size").strip(), str((1 << 30) // 512))
            shell("echo kept | dd of=/dev/vda bs=16 seek=4194304 conv=fsync 2>/dev/null")
            contains(shell("dd if=/dev/vdb bs=2048 skip=16 count=1 2>/dev/null | tr -cd 'a-zA-Z0-9-'"), "CD001")
            contains(shell("dd if=/dev/vdb bs=2048 skip=16 count=1 2>/dev/null | tr -cd 'a-z0-9-'"), "config-2")
        def base():
            state = (lab.adapter.state / "images/bases/guest/disk").stat()
            return state.st_uid, state.st_mode & 0o777, state.st_nlink
        # Who runs the machine may read what it started from, and not write it.
        equal(base(), (0, 0o440, 2))
        for method, state in (("pause", "paused"), ("unpause", "running"), ("suspend", "suspended")):
            lab.call(f"instance.{method}", uuid=uuid)
            equal(lab.client.state(uuid), state, method)
        lab.again()
        equal(lab.client.state(uuid), "suspended", "after a restart of the adapter")
        listener = Client(lab.adapter.socket, timeout_s=BOOT_S)
        listener.call("events.subscribe")
        lab.call("instance.resume", uuid=uuid, **WIRING)
        # By the power button, and what it wrote is there.
        lab.call("instance.reboot", uuid=uuid, type="soft", **WIRING)
        lab.until_up(spec, 2)
        contains(lab.client.output(uuid).decode(), "up kept")
        figures = lab.call("instance.diagnostics", uuid=uuid)
        check(figures["disks"][0]["read_bytes"] > MIB and figures["hypervisor"] == "QEMU", f"{figures}")
        check(lab.client.info(uuid)["cpu_time_ns"] > 0, "no time was used")
        lab.call("instance.power_off", uuid=uuid, timeout=100, retry_interval=1)
        equal(lab.client.state(uuid), "shutdown")
        larger = {**spec["flavor"], "memory_mb": 160, "vcpus": 2, "root_gb": 2}
        lab.call("instance.resize", uuid=uuid, flavor=larger)
        with refused("unsupported", "smaller"):
            lab.call("instance.resize", uuid=uuid, flavor=spec["flavor"])
        lab.call("instance.power_on", uuid=uuid, **WIRING)
        lab.until_up(spec, 3)
        with Shell(lab, spec) as shell:
            equal(shell("cat /sys/block/vda/size; nproc").split(), [str((2 << 30) // 512), "2"])
        told = set()
        while not {"resumed", "rebooted", "stopped", "started"} <= told:
            told.add(listener.receive()["params"]["event"])
        listener.close()
        for _ in range(2):
            lab.destroy(spec)
        lab.nothing_left()
        equal(base(), (0, 0o440, 1))


@test(drivers=DRIVERS)
def snapshot_rescue_dump_and_volume(env):
    with machines(env) as lab:
        spec, clone = machine(), machine("clone")
        uuid = spec["uuid"]
        lab.spawn(spec)
        lab.until_up(spec)
        with Shell(lab, spec) as shell:
            shell("echo kept | dd of=/dev/vda bs=16 seek=4194304 conv=fsync 2>/dev/null")
        # A dump, and it runs on.
        dump = pathlib.Path(lab.call("instance.crash_dump", uuid=uuid)["path"])
        equal((dump.read_bytes()[:4], dump.stat().st_mode & 0o077), (b"\x7fELF", 0))
        dump.unlink()
        # Not where there is less room than it has memory: nothing is begun.
        memory = int(matches(lab.virsh("dominfo", spec["name"]), r"^Max memory: +(\d+) KiB$")[1]) // 1024
        run("mount", "-t", "tmpfs", "-o", f"size={memory - 1}m,mode=700", "none", dump.parent)
        try:
            with refused("no-space", f"needs {memory} MiB", f"has {memory - 1} MiB"):
                lab.call("instance.crash_dump", uuid=uuid)
            equal(list(dump.parent.iterdir()), [])
        finally:
            run("umount", dump.parent)
        equal(lab.client.state(uuid), "running")
        snapshot = lab.adapter.folder / "snapshot.qcow2"
        snapshot.touch()
        equal(lab.call("instance.snapshot", uuid=uuid, path=str(snapshot)), {"format": "qcow2", "bytes": snapshot.stat().st_size})
        equal(lab.client.state(uuid), "running")
        volume = lab.adapter.folder / "volume.img"
        volume.write_bytes(b"volume" + bytes(MIB))
        node = run("losetup", "-f", "--show", volume).strip()
        try:
            one = {"device": "/dev/vdc", "path": node, "readonly": False, "boot_index": None, "serial": "s-1"}
            lab.call("instance.attach_volume", uuid=uuid, volume=one)
            with Shell(lab, spec) as shell:
                shell("until [ -b /dev/vdb ]; do sleep 0.1; done")
                equal(shell("head -c 6 /dev/vdb").strip(), "volume")
            lab.call("instance.detach_volume", uuid=uuid, volume=one)
            with refused("device-not-found"):
                lab.call("instance.detach_volume", uuid=uuid, volume=one)
            check(node not in lab.virsh("dumpxml", spec["name"]), "the machine has it still")
        finally:
            run("losetup", "-d", node)
        lab.call("instance.rescue", uuid=uuid, image=IMAGE, files=[], config_drive=[], password=None, **WIRING)
        lab.until_up(spec, 2)
        with Shell(lab, spec) as shell:
            equal(shell("dd if=/dev/vda bs=16 skip=4194304 count=1 2>/dev/null | tr -d '\\0'").strip(), "", "a disk of its own")
            equal(shell("dd if=/dev/vdb bs=16 skip=4194304 count=1 2>/dev/null | tr -d '\\0'").strip(), "kept")
        lab.call("instance.unrescue", uuid=uuid)
        lab.until_up(spec, 3)
        equal(list((lab.adapter.state / "instances" / uuid).glob("rescue*")), [])
        lab.destroy(spec)
        lab.call("image.add", key="snap", format="qcow2", path=str(snapshot))
        lab.spawn(clone, image={"key": "snap", "format": "qcow2"})
        lab.until_up(clone)
        contains(lab.client.output(clone["uuid"]).decode(), "up kept")


@test(drivers=DRIVERS)
def what_is_refused(env):
    with machines(env) as lab:
        described = lab.call("host.describe")
        equal((described["kind"], described["hypervisor_type"]), ("machine", "QEMU"))
        check(["x86_64", "qemu", "hvm"] in described["guest_types"], f"{described['guest_types']}")
        equal({name for name, offered in described["features"].items() if not offered}, set(described["refused"]))
        equal(sorted(lab.call("host.inventory")["inventory"]), ["DISK_GB", "MEMORY_MB", "VCPU"])
        for feature, method, params in (("quiesce", "instance.quiesce", {}), ("migrate", "instance.migrate_out", {"destination": "b"}),
                                        ("set_password", "instance.set_password", {"user": "root", "password": "x"}),
                                        ("extend_volume", "instance.extend_volume", {"volume": {}}),
                                        ("swap_volume", "instance.swap_volume", {"volume": {}, "next": {}}),
                                        ("files", "instance.spawn", {})):
            if method == "instance.spawn":
                with refused("unsupported", described["refused"][feature]):
                    lab.spawn(machine(), files=[file("/etc/motd", b"x")])
                continue
            with refused("unsupported", described["refused"][feature]):
                lab.call(method, uuid=machine()["uuid"], **params)
        tree = lab.adapter.folder / "tree.tar"
        run("tar", "-C", SOURCE, "-cf", tree, "README.md")
        with refused("image-refused", "no disk"):
            lab.call("image.add", key="tree", format="root-tar", path=str(tree))
        # An image that names a file of the host's.
        outside = lab.adapter.folder / "outside.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", outside, "1M")
        with refused("image-refused"):
            lab.call("image.add", key="outside", format="qcow2", path=str(outside))
        # One that is larger than the flavor's disk.
        large = lab.adapter.folder / "large.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", large, "3G")
        lab.call("image.add", key="large", format="qcow2", path=str(large))
        with refused("image-too-large", "choose a flavor with a larger disk"):
            lab.spawn(machine(), image={"key": "large", "format": "qcow2"})
        lab.nothing_left()


if __name__ == "__main__":
    main()
