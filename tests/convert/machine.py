"""virt-userns-convert on a machine as users have it: grub, a kernel, cloud-init, ssh and nginx, which has run as a machine.

It is build-check/guest.qcow2 of the source, which tools/check --full makes (tests/support/make-guest build-check/guest.qcow2).
How long it took is printed, and measured by tests/bench/convert.
"""
import contextlib
import json
import os
import pathlib
import shutil
import sys
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(SOURCE / "tests/conformance"), str(SOURCE / "tests/support")]
import guest_machine  # noqa: E402
import guests  # noqa: E402
import harness  # noqa: E402
import trees  # noqa: E402
from harness import check, contains, equal, eventually, main, test  # noqa: E402
from lab import Lab, checksum, in_container  # noqa: E402

GUEST = pathlib.Path(os.environ.get("VIRTUSERNS_GUEST") or SOURCE / "build-check/guest.qcow2")
ROOT_PARTITION = 3
DEFINITION = """<domain type='kvm'><name>guest</name><uuid>0d2f7a52-6d0c-4a38-8a0e-6a5f0f1f0b01</uuid>
<memory unit='MiB'>768</memory><vcpu>2</vcpu><os><type arch='x86_64'>hvm</type></os><features><acpi/></features>
<devices><disk type='file' device='disk'><driver name='qemu' type='{form}'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
<interface type='bridge'><mac address='{mac}'/><source bridge='br0'/><model type='virtio'/>
<address type='pci' domain='0x0000' bus='0x00' slot='0x03' function='0x0'/></interface>
<serial type='pty'><target port='0'/></serial><console type='pty'><target type='serial' port='0'/></console>
<graphics type='vnc'/><memballoon model='virtio'/></devices></domain>"""


class Guest:
    """A copy of the disk, its definition, and the network that it is used to, in the namespace of this process."""

    def __init__(self, env):
        self.env, self.lab = env, Lab(env)
        self.told = json.loads(pathlib.Path(f"{GUEST}.json").read_text())
        self.take(shutil.copyfile(GUEST, self.lab.path("disk.qcow2")))

    def take(self, disk, form="qcow2"):
        """The machine has this disk from now on."""
        self.disk = disk
        self.lab.path("vm.xml").write_text(DEFINITION.format(disk=disk, mac=guest_machine.MAC, form=form))

    def __enter__(self):
        for words in (("link", "add", "br0", "type", "bridge"), ("address", "add", "10.0.2.2/24", "dev", "br0"), ("link", "set", "br0", "up")):
            guests.run("ip", *words)
        return self

    def __exit__(self, *_):
        guests.run("ip", "link", "del", "br0")

    def convert(self, *how):
        """Seconds until the command had ended."""
        started = time.monotonic()
        self.report = self.lab.ok("convert", "--xml", self.lab.path("vm.xml"), *how).stdout
        return time.monotonic() - started

    def seconds_to_answer(self):
        started = time.monotonic()
        self.page = eventually(lambda: guest_machine.page("10.0.2.15"), "the web server answers", 60)
        return time.monotonic() - started

    def expect_itself(self, text):
        """Its page, its keys, its systemd, and that cloud-init has let it be."""
        equal(self.page, text)
        equal(eventually(lambda: guest_machine.host_key("10.0.2.15"), "sshd answers", 30), self.told["host_key"], "the key of sshd")
        state = eventually(lambda: guest_machine.page("10.0.2.15", path="state"), "systemd has started everything", 60)
        equal(state, "running\n", "what systemd says, and its failed units")
        equal(in_container(self.env, "guest", "cat /srv/data/by-cloud-init"), "once")
        contains(in_container(self.env, "guest", "ip -o link show ens3"), guest_machine.MAC)

    def boot_id(self):
        """When its init was started: another one after a reboot."""
        return in_container(self.env, "guest", "cut -d ' ' -f 22 /proc/1/stat").strip()

    @contextlib.contextmanager
    def volume(self):
        """The root volume of the disk, mounted."""
        raw = self.lab.path("look.raw")
        guests.run("qemu-img", "convert", "-O", "raw", self.disk, raw)
        first = json.loads(guests.run("sfdisk", "-J", raw))["partitiontable"]["partitions"][ROOT_PARTITION - 1]["start"]
        with guests.mounted(raw, self.lab.path("look"), "-o", f"ro,noload,loop,offset={first * 512}") as place:
            yield place
        raw.unlink()


def goes_back(guest, before):
    """Rolled back, and the disk is the one of `before`."""
    guest.env.virsh("destroy", "guest").ok()
    guest.lab.ok("rollback", "guest")
    guest.lab.expect_nothing()
    equal(checksum(guest.disk), before, "the disk of the machine")


def reboots(guest):
    before = guest.boot_id()
    in_container(guest.env, "guest", "systemctl reboot")
    eventually(lambda: guest.boot_id() not in ("", before), "it has rebooted itself", 60)
    guest.seconds_to_answer()
    guest.expect_itself(guest.told["page"])


@test(("userns",))
def in_place(env):
    with Guest(env) as guest:
        before = checksum(guest.disk)
        took = guest.convert("--start"), guest.seconds_to_answer()
        guest.expect_itself(guest.told["page"])
        reboots(guest)
        equal(checksum(guest.disk), before, "the disk of the machine, while the container runs")
        env.virsh("shutdown", "guest").ok()
        eventually(lambda: env.state("guest")[0] == "shut off", "systemd powers off", 60)
        env.virsh("start", "guest").ok()
        print(f"     in place, and started, after {took[0]:.2f} s; answered after {took[1]:.2f} s more; a start of the container, to its "
              f"answer: {guest.seconds_to_answer():.2f} s; as a machine: {guest.told['boot_s']} s")
        goes_back(guest, before)


@test(("userns",))
def as_a_tree(env):
    with Guest(env) as guest:
        checksum_before = checksum(guest.disk)
        with guest.volume() as place:
            before = trees.manifest(place)
        guest.convert("--copy", "tree")
        changed = trees.differences(before, trees.manifest(guest.lab.jobs / "guest/root"))
        # Every other file of its services, kernel and boot loader is as it was: what a rule edits is in /etc, and said.
        nodes = {path for path, text in before.items() if text.startswith(("2", "6")) and len(text.split()[0]) == 5}
        check("srv/data/sda" in nodes, f"{nodes}")
        equal({path for path in changed if path != "etc" and not path.startswith("etc/")}, nodes, "what is not as it was")
        env.virsh("start", "guest").ok()
        guest.seconds_to_answer()
        guest.expect_itself(guest.told["page"])
        goes_back(guest, checksum_before)


ROOT_MIB = 1400
VARIANTS = {
    "mbr": ("ext4", "raw", f"UUID={guests.ROOT_UUID} / ext4 errors=remount-ro 0 1\n"),
    "lvm": ("ext4", "qcow2", "/dev/mapper/my--vg-root / ext4 errors=remount-ro 0 1\n/dev/my-vg/srv /srv ext4 defaults 0 2\n"),
    "xfs": ("xfs", "qcow2", f"UUID={guests.ROOT_UUID} / xfs defaults 0 1\n"),
    "btrfs": ("btrfs", "qcow2", f"UUID={guests.ROOT_UUID} / btrfs subvol=@ 0 0\nUUID={guests.ROOT_UUID} /home btrfs subvol=@home 0 0\n"),
}


def repack(guest, name):
    """The same system on a disk of another kind."""
    kind, form, fstab = VARIANTS[name]
    lab, tree = guest.lab, guest.lab.path("tree")
    with guest.volume() as place:
        guests.run("cp", "-a", place, tree)
    guest.disk.unlink()
    (tree / "etc/fstab").write_text(fstab)
    if name == "lvm":  # some of it on a volume of its own
        os.rename(tree / "srv", lab.path("srv"))
        (tree / "srv").mkdir()
    root = guests.filesystem(lab.path("root.fs"), kind, tree, ROOT_MIB, subvolumes=("@", "@home") if kind == "btrfs" else ())
    shutil.rmtree(tree)
    if name == "lvm":
        srv = guests.filesystem(lab.path("srv.fs"), "ext4", lab.path("srv"), 64, uuid="random")
        physical = guests.logical(lab.path("pv"), "my-vg", root=root, srv=srv)
        root.unlink()
        root = physical
    raw = guests.partitioned(lab.path("disk.raw"), "dos" if name == "mbr" else "gpt", root)
    root.unlink()
    guest.take(raw if form == "raw" else guests.to_format(raw, lab.path("again.qcow2"), form), form)


def a_variant(env, name):
    with Guest(env) as guest:
        repack(guest, name)
        before = checksum(guest.disk)
        guest.convert("--start", *(("--copy", "tree") if name == "btrfs" else ()))  # in place one subvolume is possible
        guest.seconds_to_answer()
        guest.expect_itself(guest.told["page"])
        reboots(guest)
        goes_back(guest, before)


@test(("userns",))
def on_a_raw_disk_with_an_mbr(env):
    a_variant(env, "mbr")


@test(("userns",))
def on_logical_volumes(env):
    a_variant(env, "lvm")


@test(("userns",))
def on_xfs(env):
    a_variant(env, "xfs")


@test(("userns",))
def on_subvolumes_of_btrfs(env):
    a_variant(env, "btrfs")


@test(("userns",))
def back_it_boots_as_a_machine(env):
    with Guest(env) as guest:
        guest.convert("--start")
        guest.seconds_to_answer()
        in_container(env, "guest", "echo written by the container >/var/www/html/index.html")
        env.virsh("shutdown", "guest").ok()
        eventually(lambda: env.state("guest")[0] == "shut off", "systemd powers off", 60)
        guest.lab.ok("back", "--output", guest.lab.path("vm"), "guest")
        with guest_machine.Machine(guest.lab.path("vm") / "vda.qcow2") as machine:
            equal(machine.wait_for_page(), "written by the container\n")
            equal(machine.wait_for_host_key(), guest.told["host_key"])
        guest.lab.ok("rollback", "guest")
        guest.lab.expect_nothing()


if __name__ == "__main__":
    if not GUEST.exists():
        print(f"skipped: there is no {GUEST}: tools/check --full makes it")
        sys.exit(77)
    harness.TEST_TIMEOUT_S = guest_machine.BOOT_S + 120
    main()
