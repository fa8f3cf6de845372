"""Images that lie: each is refused with its cause, or bounded; nothing outside is read or written, and nothing is left behind.

    VIRTUSERNS_BUILD=build tests/image/hostile.py --driver userns [-k EXPRESSION]
"""
import gzip
import io
import os
import random
import shutil
import struct
import subprocess
import tarfile
import zlib

from image_lab import ImageLab, guests, trees
from harness import check, contains, equal, main, test
from hostile_disks import DISKS, SECRET, Maker
from lab import checksum

MIB = 1 << 20


class Tar:
    """Entries as they are asked for, whatever they say."""

    def __init__(self):
        self.bytes = io.BytesIO()

    def add(self, name, kind=tarfile.REGTYPE, content=b"", target="", mode=0o644, uid=0, gid=0, pax=None, size=None, device=(0, 0)):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid, info.linkname = kind, mode, uid, gid, target
        info.size = len(content) if size is None else size
        info.devmajor, info.devminor = device
        info.pax_headers = pax or {}
        self.bytes.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        self.bytes.write(content + bytes(-len(content) % 512))
        return self

    def folder(self, name, **how):
        return self.add(name, tarfile.DIRTYPE, mode=0o755, **how)

    def link(self, name, target):
        return self.add(name, tarfile.SYMTYPE, target=target)

    def hard(self, name, target):
        return self.add(name, tarfile.LNKTYPE, target=target)

    def end(self):
        return self.bytes.getvalue() + bytes(1024)


def xattr(name, value):
    return {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")}


def base():
    return Tar().folder("./").folder("etc").add("etc/file", content=b"good")


def absolute(outside):
    return base().add(f"{outside}/made", content=b"x").end(), "is absolute"


def dot_dot(outside):
    return base().add("etc/../../../outside/made", content=b"x").end(), "by '..'"


def hard_link_dot_dot(outside):
    return base().hard("etc/hard", "../../outside/secret").end(), "by '..'"


def hard_link_absolute(outside):
    return base().hard("etc/hard", f"{outside}/secret").end(), "is absolute"


def hard_link_through_a_link(outside):
    return base().link("way", str(outside)).hard("etc/hard", "way/secret").end(), "etc/hard"


def through_a_link(outside):
    return base().link("way", str(outside)).add("way/made", content=b"x").end(), "way"


def through_a_link_upwards(outside):
    return base().link("way", "../../outside").add("way/made", content=b"x").end(), "way"


def a_folder_that_is_a_link_later(outside):
    return base().folder("way").link("way", str(outside)).add("way/made", content=b"x").end(), "way"


def a_full_folder_that_is_a_link_later(outside):
    return base().folder("way").add("way/file").link("way", str(outside)).add("way/made", content=b"x").end(), "way"


def a_link_that_is_a_file_later(outside):
    return base().link("way", f"{outside}/secret").add("way", content=b"mine").end(), None


def a_link_that_is_a_folder_later(outside):
    return base().link("way", str(outside)).folder("way", uid=1000).add("way/made", content=b"x").end(), None


def a_list_for_a_link(outside):
    """Set when everything is there, by a name that leads elsewhere then."""
    acl = {"SCHILY.acl.access": "user::rwx,user:1000:rwx:1000,group::r-x,mask::rwx,other::r-x"}
    return base().add("way", pax=acl).link("way", f"{outside}/secret").end(), "access control list"


def a_list_of_a_stranger(outside):
    acl = {"SCHILY.acl.access": "user::rwx,user:who:rwx:70000,group::r-x,mask::rwx,other::r-x"}
    return base().add("etc/file", pax=acl).end(), "70000"


def device_nodes(outside):
    made = base().folder("dev").add("dev/sda", tarfile.BLKTYPE, mode=0o666, device=(8, 0)).add("dev/mem", tarfile.CHRTYPE, device=(1, 1))
    return made.hard("dev/again", "dev/sda").end(), None


def a_whiteout(outside):
    return base().add("etc/gone", tarfile.CHRTYPE, device=(0, 0)).end(), None


def labels(outside):
    made = base().add("etc/opaque", pax=xattr("trusted.overlay.opaque", b"y")).add("etc/label", pax=xattr("security.selinux", b"x"))
    foreign = struct.pack("<IIIIII", 0x03000001, 1 << 10, 0, 0, 0, 2_000_000)
    return made.add("etc/capable", pax=xattr("security.capability", foreign)).end(), None


def a_petabyte_of_holes(outside):
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "etc/huge", "GNU.sparse.realsize": str(1 << 50)}
    return base().add("etc/huge", content=b"1\n1125899906842112\n512\n".ljust(512, b"\0") + bytes(512), pax=pax).end(), "16 TiB"


def a_terabyte_of_holes(outside):
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "etc/large", "GNU.sparse.realsize": str(1 << 40)}
    return base().add("etc/large", content=b"1\n1099511627264\n512\n".ljust(512, b"\0") + bytes(512), pax=pax).end(), None


def many_entries(outside):
    """Ten millions, in members of gzip that are all alike."""
    made = Tar()
    for _ in range(10_000):
        made.add("etc/x")
    return gzip.compress(base().bytes.getvalue()) + gzip.compress(made.bytes.getvalue()) * 1000, "2000 entries"


def a_bomb(outside):
    pack = zlib.compressobj(1, wbits=31)
    parts = [pack.compress(base().add("etc/zeros", size=1 << 40).bytes.getvalue())]
    parts += [pack.compress(bytes(8 * MIB)) for _ in range(16)]
    return b"".join(parts) + pack.flush(), "bytes that it may have"


def twice_compressed(outside):
    return gzip.compress(gzip.compress(base().end())), "archive"


def attributes_without_end(outside):
    made = base()
    for number in range(300):
        made.add(f"etc/{number}", pax=xattr("user.x", b"y" * 60_000))
    # Its fields are within what a file may have, and its files together are not.
    return made.end(), ""


def cut_in_a_file(outside):
    whole = base().add("etc/large", content=b"x" * 100_000).end()
    return whole[:-50_000], "runcated"


def cut_between_files(outside):
    whole = base().add("etc/last", content=b"x" * 1000)
    return whole.bytes.getvalue(), "no end mark"


def cut_and_compressed(outside):
    whole = gzip.compress(base().add("etc/large", content=os.urandom(MIB)).end())
    return whole[:MIB // 2], "runcated"


def nothing(outside):
    return bytes(10_240), "no volume"


def no_entries(outside):
    return gzip.compress(bytes(10_240)), "no entries"


def garbage(outside):
    return b"\x1f\x8b" + random.Random(1).randbytes(10_000), ""


def a_stranger(outside):
    return base().add("etc/his", uid=100_000, gid=5).end(), "100000:5"


def an_owner_below_zero(outside):
    return base().add("etc/his", uid=-2).end(), ""


def a_long_name(outside):
    return base().add("/".join(["n" * 200] * 40)).end(), "4095"


def a_long_part(outside):
    return base().add("etc/" + "n" * 300).end(), "nnn"


def no_name(outside):
    return base().add("x", pax={"path": ""}).end(), None


def a_name_for_a_terminal(outside):
    return base().add("etc/\x1b]0;owned\x07\n../x", uid=70_000).end(), "\\x1b"


def a_header_without_end(outside):
    made = Tar()
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 1 << 40
    made.bytes.write(info.tobuf(tarfile.GNU_FORMAT))
    return made.end(), ""


def a_folder_where_a_file_is(outside):
    return base().folder("etc/file").add("etc/file/below").end(), None


def a_deep_one(outside):
    made, name = base(), ""
    for _ in range(1500):
        name += "d/"
        made.folder(name)
    return made.end(), None


ARCHIVES = [absolute, dot_dot, hard_link_dot_dot, hard_link_absolute, hard_link_through_a_link, through_a_link, through_a_link_upwards,
            a_folder_that_is_a_link_later, a_full_folder_that_is_a_link_later, a_link_that_is_a_file_later,
            a_link_that_is_a_folder_later, a_list_for_a_link, a_list_of_a_stranger, device_nodes, a_whiteout, labels,
            a_petabyte_of_holes, a_terabyte_of_holes, many_entries, a_bomb, twice_compressed, attributes_without_end, cut_in_a_file,
            cut_between_files, cut_and_compressed, nothing, no_entries, garbage, a_stranger, an_owner_below_zero, a_long_name,
            a_long_part, no_name, a_name_for_a_terminal, a_header_without_end, a_folder_where_a_file_is, a_deep_one]
LARGE = [many_entries, a_bomb]  # what may be another's good image
BOUNDS = ["--limit", "16M", "--entries", "2000"]


def expect_confined(lab, directory):
    """No node, no label, no file of the host."""
    equal(guests.run("find", directory, "-type", "b", "-o", "-type", "c"), "", "device nodes")
    equal(guests.run("getfattr", "-R", "-P", "-h", "-m", "^(trusted|security)", directory), "", "labels")
    check(int(guests.run("du", "-s", directory).split()[0]) < 17 * 1024, "more than it may have")
    found = subprocess.run(["grep", "-rlaF", "--devices=skip", "--exclude=large", SECRET.decode(), directory], capture_output=True, text=True, check=False)
    equal(found.stdout, "", "files of the host in it")


@test(("userns",))
def archives_that_lie(env):
    lab = ImageLab(env)
    for make in ARCHIVES:
        image = lab.path(make.__name__)
        content, why = make(lab.outside)
        image.write_bytes(content)
        with lab.nothing_outside():
            if why is None:
                found, _ = lab.unpack(image, *BOUNDS)
                expect_confined(lab, found)
                lab.remove(found)
            else:
                said = lab.refuse(image, *BOUNDS, status=3 if make in LARGE else 1)
                contains(said, why)
                print(f"     {make.__name__}: {said.split(': ', 3)[-1].strip()[:150]}")
        image.unlink()


@test(("userns",))
def archives_of_chance(env):
    """A good one with bytes changed: it ends, and whatever came of it is inside."""
    lab = ImageLab(env)
    tree = guests.busybox_tree(lab.path("tree"))
    shutil.rmtree(tree / "bin")
    image = lab.path("good.tar")
    guests.run("tar", "--create", "--format=posix", "--acls", "--xattrs", "--xattrs-include=*", "--sparse", "--file", image, "-C", tree, ".")
    good, chance = image.read_bytes(), random.Random(5)
    counts = [0, 0]
    for number in range(60):
        bad = bytearray(good)
        for _ in range(chance.choice((1, 4, 40))):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        image.write_bytes(gzip.compress(bytes(bad), 1) if number % 2 else bad)
        with lab.nothing_outside():
            done = lab.run("unpack", "--quiet", "--format", "root-tar", *BOUNDS, image, lab.bases / "chance")
            check(done.returncode in (0, 1, 3), f"{number}: {done.returncode} {done.stderr}")
            counts[min(done.returncode, 1)] += 1
            if done.returncode == 0:
                check(not [path for path, text in trees.manifest(lab.bases / "chance").items() if text[:2] in ("20", "60")], "a node")
                lab.remove(lab.bases / "chance")
            lab.expect_only()
    check(min(counts) > 0, f"{counts[0]} were unpacked and {counts[1]} refused")


@test(("userns",))
def what_is_said_has_to_be_so(env):
    lab = ImageLab(env)
    ext4 = guests.filesystem(lab.path("root.fs"), "ext4", guests.busybox_tree(lab.path("tree")), 32)
    qcow2 = guests.to_format(ext4, lab.path("root.qcow2"), "qcow2")
    archive = lab.path("root.tar")
    archive.write_bytes(base().end())
    for image, form in ((qcow2, "raw"), (archive, "raw"), (ext4, "qcow2"), (ext4, "root-tar"), (qcow2, "root-tar"), (archive, "qcow2"),
                        (ext4, "vmdk"), (archive, "vhd"), (qcow2, "vdi")):
        contains(lab.refuse(image, "--format", form), "begins as")
    contains(lab.refuse(ext4, "--format", "iso"), "'iso'")


@test(("userns",))
def what_has_no_data_is_counted_as_well(env):
    """Else an image of a megabyte fills the disks of everybody on the host with directories, and takes the last inode."""
    lab = ImageLab(env)
    tree = guests.busybox_tree(lab.path("tree"))
    for number in range(2000):
        (tree / "many" / str(number)).mkdir(parents=True)
    disk = guests.filesystem(lab.path("many.fs"), "ext4", tree, 64)
    contains(lab.refuse(disk, "--limit", "8M", status=3), "8388608 bytes that it may have")
    found, _ = lab.unpack(disk, "--limit", "32M")
    lab.remove(found)
    archive = lab.path("many.tar")
    for kind in ("folders", "lists", "links"):
        made = Tar().folder("./")
        for number in range(2000):
            if kind == "folders":
                made.folder(str(number))
            elif kind == "lists":
                made.add(str(number), pax=xattr("user.x", b"y" * 1000))
            else:
                made.link(str(number), "x" * 90)
        archive.write_bytes(made.end())
        contains(lab.refuse(archive, "--limit", "4M", status=3), "bytes that it may have")
        found, _ = lab.unpack(archive, "--limit", "16M")
        lab.remove(found)
    small = lab.path("small.fs")
    guests.run("mke2fs", "-q", "-t", "ext4", "-N", "6000", small, "256M")
    guests.run("mount", "-o", "loop", small, lab.bases)
    try:
        lab.bases.chmod(0o700)
        (lab.bases / "lost+found").rmdir()
        made = Tar().folder("./")
        for number in range(3000):
            made.add(str(number))
        archive.write_bytes(made.end())
        done = lab.run("unpack", "--quiet", archive, lab.bases / "b")
        equal(done.returncode, 4, "an image that takes the last inodes")
        contains(done.stderr, "entries that its file system can spare")
        equal(os.listdir(lab.bases), [])
    finally:
        guests.run("umount", lab.bases)


@test(("userns",))
def some_of_the_file_system_is_left(env):
    """A share of it, so that the disks of instances can grow there; and 64 MiB in any case."""
    lab = ImageLab(env)
    tree = guests.busybox_tree(lab.path("tree"))
    archive, disk, place = lab.path("root.tar"), guests.filesystem(lab.path("root.fs"), "ext4", tree, 32), lab.path("place.fs")
    archive.write_bytes(Tar().folder("./").add("file", content=bytes(2 * MIB)).end())
    guests.run("mke2fs", "-q", "-t", "ext4", "-m", "0", "-E", "nodiscard", place, "2500M")
    guests.run("mount", "-o", "loop", place, lab.bases)
    try:
        lab.bases.chmod(0o700)
        (lab.bases / "lost+found").rmdir()
        space = os.statvfs(lab.bases)
        # 5 % of it are more than what is left.
        guests.run("fallocate", "-l", str(space.f_bavail * space.f_frsize - 100 * MIB), lab.bases / "disk.img")
        for image in (archive, disk):
            for options, status in (([], 4), (["--reserve", "3"], 0), (["--reserve", "0", "--limit", "1K"], 3)):
                done = lab.run("unpack", "--quiet", *options, image, lab.bases / "b")
                equal(done.returncode, status, f"{image.name} {options}: {done.stderr}")
                if status == 4:
                    contains(done.stderr, "that its file system can spare: make room there")
                if status == 0:
                    guests.run(lab.program, "remove", lab.bases / "b")
                equal(os.listdir(lab.bases), ["disk.img"])
        guests.run("fallocate", "-l", str(40 * MIB), lab.bases / "another.img")
        equal(lab.run("unpack", "--quiet", "--reserve", "0", archive, lab.bases / "b").returncode, 4, "the last 64 MiB")
    finally:
        guests.run("umount", lab.bases)


@test(("userns",))
def disks_beyond_their_bounds(env):
    lab = ImageLab(env)
    tree = guests.busybox_tree(lab.path("tree"))
    image = guests.filesystem(lab.path("root.fs"), "ext4", tree, 32)
    contains(lab.refuse(image, "--limit", "1K", status=3), "bytes")
    contains(lab.refuse(image, "--entries", "10", status=3), "10 entries")
    contains(lab.refuse(image, "--root", "vdb1"), "vdb1")
    (tree / "etc/his").write_text("x")
    os.chown(tree / "etc/his", 0, 70_000)
    contains(lab.refuse(guests.filesystem(lab.path("strange.fs"), "ext4", tree, 32)), "/etc/his")


def try_disks(env, group):
    lab = ImageLab(env)
    maker = Maker(lab)
    for name, make, must in DISKS[group]:
        image = make(maker)
        before = checksum(image) if image.is_file() else None
        with lab.nothing_outside():
            done = lab.run("unpack", "--quiet", "--limit", "64M", image, lab.bases / "disk")
            check(done.returncode in (0, 1, 3), f"{name}: {done.returncode}: {done.stderr}")
            if must is not None:
                equal(done.returncode == 0, must, f"{name}: {done.stderr}")
            equal(checksum(image) if image.is_file() else None, before, f"{name}: the image")
            if done.returncode == 0:
                found = subprocess.run(["grep", "-rlaF", "--devices=skip", SECRET.decode(), lab.bases], capture_output=True, text=True, check=False)
                equal(found.stdout, "", f"{name}: files of the host in it")
                lab.remove(lab.bases / "disk")
            lab.expect_only()
        subprocess.run(["rm", "-rf", image.parent], check=True)
        print(f"     {name}: {(done.stderr.strip().splitlines() or ['unpacked'])[-1].split(': ', 3)[-1][:150]}")


@test(("userns",))
def tables_that_lie(env):
    try_disks(env, "table")


@test(("userns",))
def disk_images_that_lie(env):
    try_disks(env, "image")


@test(("userns",))
def filesystems_that_lie(env):
    try_disks(env, "filesystem")


main()
