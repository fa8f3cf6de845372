"""Disks that lie, made of good ones: for whatever opens disks of strangers."""
import os
import pathlib
import random
import shutil
import struct
import subprocess
import zlib

import guests

SECRET = b"SECRET-OF-THE-HOST"
DISKS = {"table": [], "image": [], "filesystem": [], "guest": []}


def disk(group, may_convert):
    """Marks a maker of a disk. `may_convert`: True it must, False it must not, None either."""
    def mark(function):
        DISKS[group].append((function.__name__, function, may_convert))
        return function
    return mark


class Maker:
    """What the disks of one test are made of: a good guest, to be spoilt, and a secret beside it."""

    def __init__(self, lab):
        self.lab, self.count = lab, 0
        self.outside = lab.path("outside")
        self.outside.mkdir(exist_ok=True)
        (self.outside / "secret").write_bytes(SECRET)
        (self.outside / "fstab").write_bytes(SECRET)
        self.good = {}

    def folder(self):
        self.count += 1
        path = self.lab.path(f"disk{self.count}")
        path.mkdir()
        return path

    def guest(self, change=None, mib=24):
        """A GPT disk, raw; `change` gets the tree before it is packed."""
        if change is None and "gpt" in self.good:
            return pathlib.Path(shutil.copy(self.good["gpt"], self.folder() / "disk.raw"))
        folder = self.folder()
        tree = guests.busybox_tree(folder / "tree")
        if change:
            change(tree)
        raw = guests.partitioned(folder / "disk.raw", "gpt", guests.filesystem(folder / "fs", "ext4", tree, mib))
        subprocess.run(["rm", "-rf", folder / "tree", folder / "fs"], check=True)
        if change is None:
            self.good["gpt"] = pathlib.Path(shutil.copy(raw, self.lab.path("good.raw")))
        return raw

    def qcow2(self):
        raw = self.guest()
        return guests.to_format(raw, raw.with_suffix(".qcow2"), "qcow2")


def patch(path, *changes):
    """Each change is (place, bytes)."""
    with open(path, "r+b") as file:
        for place, data in changes:
            file.seek(place)
            file.write(data)
    return path


def lying_gpt(path, change):
    """Both copies of the table, with their checksums right, after `change(header, entries)`."""
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        for at in (512, size - 512):
            file.seek(at)
            header = bytearray(file.read(512))
            first = struct.unpack_from("<Q", header, 72)[0]
            file.seek(first * 512)
            entries = bytearray(file.read(128 * 128))
            change(header, entries)
            struct.pack_into("<I", header, 88, zlib.crc32(entries))
            struct.pack_into("<I", header, 16, 0)
            struct.pack_into("<I", header, 16, zlib.crc32(header[:92]))
            file.seek(first * 512)
            file.write(entries)
            file.seek(at)
            file.write(header)
    return path


def gpt_with(maker, place, value, in_header=False):
    def change(header, entries):
        struct.pack_into("<Q" if value > 0xffffffff else "<I", header if in_header else entries, place, value)
    return lying_gpt(maker.guest(), change)


@disk("table", False)
def a_partition_behind_the_end(maker):
    return gpt_with(maker, 128 + 40, 1 << 40)


@disk("table", False)
def a_partition_that_ends_first(maker):
    return gpt_with(maker, 128 + 40, 3)


@disk("table", False)
def partitions_that_overlap(maker):
    return gpt_with(maker, 40, 9000)


@disk("table", False)
def entries_outside(maker):
    return gpt_with(maker, 72, 1 << 50, in_header=True)


@disk("table", False)
def four_billion_entries(maker):
    return gpt_with(maker, 80, 0xffffffff, in_header=True)


@disk("table", False)
def entries_of_no_size(maker):
    return gpt_with(maker, 84, 0, in_header=True)


@disk("table", False)
def a_wrong_checksum(maker):
    return patch(maker.guest(), (1024 + 40, b"\x07"))


@disk("table", False)
def a_promise_of_a_gpt(maker):
    path = maker.guest()
    return patch(path, (512, b"x"), (os.path.getsize(path) - 512, b"x"))


def mbr(maker, *entries, then=()):
    """A DOS table of (type, first, count), and patches."""
    path = maker.guest()
    table = b"".join(struct.pack("<BBBBBBBBII", 0, 0, 0, 0, kind, 0, 0, 0, first, count) for kind, first, count in entries)
    size = os.path.getsize(path)
    return patch(path, (446, table.ljust(64, b"\0") + b"\x55\xaa"), (512, bytes(512)), (size - 512, bytes(512)), *then)


@disk("table", False)
def an_mbr_beyond_the_end(maker):
    return mbr(maker, (0x83, 6144, 0xffffffff))


@disk("table", False)
def an_mbr_that_overlaps(maker):
    return mbr(maker, (0x83, 6144, 20000), (0x83, 7000, 100))


def chain(maker, link):
    sector = struct.pack("<BBBBBBBBII", 0, 0, 0, 0, 0x83, 0, 0, 0, 1, 10) + struct.pack("<BBBBBBBBII", 0, 0, 0, 0, 5, 0, 0, 0, link, 10)
    return mbr(maker, (0x05, 100, 4000), then=[(100 * 512 + 446, sector.ljust(64, b"\0") + b"\x55\xaa")])


@disk("table", False)
def a_chain_that_is_a_ring(maker):
    return chain(maker, 0)


@disk("table", False)
def a_chain_that_leaves(maker):
    return chain(maker, 0xfffffff0)


def crc_of_lvm(data):
    return zlib.crc32(data, 0xf597a6cf ^ 0xffffffff) ^ 0xffffffff


def lvm(maker, change, in_label=False):
    """A physical volume whose metadata, or the header of it, `change` has rewritten; checksums are right."""
    folder = maker.folder()
    tree = guests.busybox_tree(folder / "tree")
    path = guests.logical(folder / "pv", "vg", root=guests.filesystem(folder / "fs", "ext4", tree, 24))
    with open(path, "r+b") as file:
        file.seek(4096)
        header = bytearray(file.read(512))
        offset, size = struct.unpack_from("<QQ", header, 40)
        file.seek(4096 + offset)
        text = file.read(size)
        if not in_label:
            text = change(text)
            struct.pack_into("<QQI", header, 40, 512, len(text), crc_of_lvm(text))
            file.seek(4096 + 512)
            file.write(text)
        else:
            change(header)
        struct.pack_into("<I", header, 0, crc_of_lvm(header[4:]))
        file.seek(4096)
        file.write(header)
    return path


@disk("table", False)
def lvm_metadata_outside(maker):
    return lvm(maker, lambda header: struct.pack_into("<Q", header, 40, 1 << 45), in_label=True)


@disk("table", False)
def an_lvm_segment_outside(maker):
    return lvm(maker, lambda text: text.replace(b'"pv0", 0', b'"pv0", 99999'))


@disk("table", False)
def lvm_metadata_without_an_end(maker):
    return lvm(maker, lambda text: b"vg { " * 2000)


@disk("table", False)
def lvm_that_is_striped(maker):
    return lvm(maker, lambda text: text.replace(b"stripe_count = 1", b"stripe_count = 2"))


@disk("image", False)
def a_truncated_qcow2(maker):
    path = maker.qcow2()
    os.truncate(path, os.path.getsize(path) // 2 // 512 * 512)
    return path


def overlay_on(maker, backing, form="raw"):
    path = maker.folder() / "overlay.qcow2"
    guests.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", form, path, "64M")
    return path


@disk("image", False)
def on_top_of_a_secret(maker):
    return overlay_on(maker, maker.outside / "secret")


@disk("image", False)
def on_top_of_shadow(maker):
    return overlay_on(maker, "/etc/shadow")


@disk("image", False)
def on_top_of_another_host(maker):
    return overlay_on(maker, "nbd://127.0.0.1:10809/x")


@disk("image", False)
def on_top_of_json(maker):
    return overlay_on(maker, 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}')


@disk("image", False)
def on_top_of_a_link(maker):
    path = overlay_on(maker, "base")
    (path.parent / "base").symlink_to("../outside/secret")
    return path


@disk("image", False)
def on_top_of_itself(maker):
    return overlay_on(maker, "overlay.qcow2", "qcow2")


@disk("image", False)
def with_its_data_elsewhere(maker):
    path = maker.folder() / "disk.qcow2"
    guests.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={maker.folder() / 'data'},data_file_raw=on", path, "64M")
    return path


@disk("image", False)
def a_table_outside_the_file(maker):
    return patch(maker.qcow2(), (40, struct.pack(">Q", 1 << 55)))


@disk("image", None)
def tables_of_chance(maker):
    chance = random.Random(4)
    path = maker.qcow2()
    place = struct.unpack(">Q", open(path, "rb").read(48)[40:48])[0]
    return patch(path, (place, chance.randbytes(16)))


@disk("image", None)
def an_exbibyte(maker):
    return patch(maker.qcow2(), (24, struct.pack(">Q", 1 << 60)))


@disk("image", False)
def a_vmdk_of_shadow(maker):
    path = maker.folder() / "disk.vmdk"
    path.write_text('# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
                    'RW 8 FLAT "/etc/shadow" 0\n')
    return path


@disk("image", False)
def a_vmdk_without_a_capacity(maker):
    raw = maker.guest()
    return patch(guests.to_format(raw, raw.with_suffix(".vmdk"), "vmdk"), (12, bytes(8)))


@disk("image", False)
def a_fifo_for_a_disk(maker):
    path = maker.folder() / "disk"
    os.mkfifo(path)
    return path


@disk("image", False)
def a_device_for_a_disk(maker):
    path = maker.folder() / "disk"
    os.mknod(path, 0o020600, os.makedev(1, 5))  # /dev/zero
    return path


@disk("image", False)
def an_empty_disk(maker):
    path = maker.folder() / "disk"
    path.write_bytes(b"")
    return path


def volume_start(path):
    return [int(line.split("start=")[1].split(",")[0]) for line in guests.run("sfdisk", "-d", path).splitlines() if "start=" in line][1] * 512


@disk("filesystem", False)
def a_journal_on_a_device_of_the_host(maker):
    path = maker.guest()
    start = volume_start(path) + 1024
    return patch(path, (start + 0xe0, bytes(4)), (start + 0xe4, struct.pack("<I", 0x700)))


@disk("filesystem", False)
def errors_that_panic(maker):
    """An inode that is none, and a superblock that wants a panic then: a host that did as it is told would be gone."""
    path = maker.guest()
    volume = f"{path}?offset={volume_start(path)}"
    guests.run("tune2fs", "-e", "panic", volume)
    guests.run("debugfs", "-w", "-R", "set_inode_field /var/setuid mode 0170000", volume)
    return path


def damaged(maker, seed):
    chance = random.Random(seed)
    path = maker.guest()
    start, size = volume_start(path), 24 << 20
    return patch(path, *[(start + chance.randrange(4096, size), chance.randbytes(64)) for _ in range(400)])


@disk("filesystem", None)
def an_ext4_of_chance(maker):
    return damaged(maker, 1)


@disk("filesystem", None)
def another_ext4_of_chance(maker):
    return damaged(maker, 2)


@disk("filesystem", False)
def a_superblock_alone(maker):
    path = maker.guest()
    start = volume_start(path)
    return patch(path, (start + 4096, bytes((24 << 20) - 4096)))


@disk("filesystem", True)
def a_journal_to_replay(maker):
    """As a machine leaves it that was switched off: copied while it was mounted and written to."""
    path = maker.guest()
    copy = path.with_name("dirty.raw")
    with guests.mounted(path, path.with_name("mnt"), "-o", f"loop,offset={volume_start(path)}") as place:
        (place / "var/late").write_text("late")
        os.sync()
        (place / "var/later").write_text("later")
        shutil.copy(path, copy)
    return copy


@disk("guest", True)
def fstab_is_a_fifo(maker):
    def change(tree):
        (tree / "etc/fstab").unlink()
        os.mkfifo(tree / "etc/fstab")
    return maker.guest(change)


@disk("guest", True)
def fstab_is_a_device(maker):
    def change(tree):
        (tree / "etc/fstab").unlink()
        os.mknod(tree / "etc/fstab", 0o020666, os.makedev(1, 5))
    return maker.guest(change)


@disk("guest", None)
def fstab_is_endless(maker):
    return maker.guest(lambda tree: (tree / "etc/fstab").write_text("LABEL=x /x ext4 defaults 0 0\n" * 200_000), mib=48)


@disk("guest", True)
def fstab_is_a_link_outside(maker):
    def change(tree):
        (tree / "etc/fstab").unlink()
        (tree / "etc/fstab").symlink_to(maker.outside / "fstab")
    return maker.guest(change)


@disk("guest", None)
def mounts_outside(maker):
    def change(tree):
        (tree / "escape").symlink_to(maker.outside)
        lines = "".join(f"UUID={guests.ROOT_UUID} {target} ext4 defaults 0 0\n"
                        for target in ("/../../outside", f"/../..{maker.outside}", "/escape", "/proc/self/root", "//x/../.."))
        (tree / "etc/fstab").write_text(lines)
    return maker.guest(change)


@disk("guest", None)
def etc_is_a_link_outside(maker):
    def change(tree):
        (maker.outside / "etc").mkdir(exist_ok=True)
        shutil.rmtree(tree / "etc")
        (tree / "etc").symlink_to(maker.outside / "etc")
    return maker.guest(change)


@disk("guest", None)
def folders_of_edits_are_links(maker):
    def change(tree):
        for name in ("systemd", "udev", "network", "apt", "cloud"):
            (tree / "etc" / name).symlink_to("../" * 8 + str(maker.outside)[1:])
    return maker.guest(change)


@disk("guest", None)
def names_that_speak_to_a_terminal(maker):
    def change(tree):
        for name in ("\x1b]0;owned\x07", "a\nb", "\x9b31m", "x" * 255, "\xff".encode("latin-1").decode("utf-8", "surrogateescape")):
            os.mknod(tree / "var" / name, 0o020666, os.makedev(1, 5))
    return maker.guest(change)


@disk("guest", True)
def six_thousand_entries(maker):
    def change(tree):
        (tree / "var/many").mkdir()
        for number in range(6_000):
            os.close(os.open(tree / "var/many" / str(number), os.O_CREAT | os.O_WRONLY))
    return maker.guest(change, mib=80)


@disk("guest", False)
def a_deep_folder(maker):
    path = maker.guest()
    with guests.mounted(path, path.with_name("mnt"), "-o", f"loop,offset={volume_start(path)}") as place:
        subprocess.run(["sh", "-c", "i=0; while [ $i -lt 1500 ]; do mkdir d && cd d || exit 1; i=$((i + 1)); done"],
                       cwd=place / "var", check=True)
    return path
