"""Images of a cloud become directories: of every kind, with all that their files have, by one of many at once, or not at all.

    VIRTUSERNS_BUILD=build tests/image/unpack.py --driver userns [-k EXPRESSION]
"""
import os
import pathlib
import shutil
import signal
import struct
import subprocess

from image_lab import ImageLab, guests, lost, trees
from harness import check, contains, daemon_module, equal, eventually, main, test
from image_files import define, directory as filesystem, sh

NET_BIND_SERVICE = 1 << 10


def tar(lab, tree, name, *options):
    path = lab.path(name)
    words = ["--acls", "--xattrs", "--xattrs-include=*", "--sparse", "--numeric-owner"]
    guests.run("tar", "--create", "--file", path, *words, *options, "--directory", tree, ".")
    return path


@test(("userns",))
def archives_keep_all_that_files_have(env):
    lab = ImageLab(env, "zstd", "xz", "bzip2")
    tree = guests.busybox_tree(lab.path("tree"))
    (tree / "var" / "umläut").write_text("utf-8")
    (tree / "var" / b"lat\xe9in".decode("utf-8", "surrogateescape")).write_text("latin-1")
    (tree / "var" / ("long" * 60)).write_text("a name that ustar has no room for")
    os.chown(tree / "var/twin", 65535, 65535)
    for name, options in (("a.tar", ["--format=gnu"]), ("b.tar", ["--format=posix"]), ("c.tar.gz", ["--gzip"]), ("d.tar.xz", ["--xz"]),
                          ("e.tar.zst", ["--zstd"]), ("f.tar.bz2", ["--bzip2"])):
        # Only PAX has room for attributes.
        is_pax = name != "a.tar"
        if is_pax:
            image = tar(lab, tree, name, *dict.fromkeys(["--format=posix", *options]))
        else:
            image = lab.path(name)
            guests.run("tar", "--create", "--file", image, "--sparse", *options, "--directory", tree, ".")
        found, said = lab.unpack(image)
        # Sockets are in no archive.
        different = {path: both for path, both in lost(tree, found).items() if path != "var/socket"}
        equal({path: both for path, both in different.items() if is_pax or is_another(both)}, {}, name)
        equal(said["format"], "root-tar")
        check(said["entries"] > 30, said)
        contains(str(said["findings"]), "var/sda")
        lab.remove(found)


def is_another(both):
    """Of owner, size and content, which every kind of tar has."""
    def essence(text):
        words = text.split()
        return words[1:4] if words[0].startswith("10") and len(words[0]) == 6 else words[1:2]
    return not all(both) or essence(both[0]) != essence(both[1])


@test(("userns",))
def names_in_lists_are_those_of_the_archive(env):
    """GNU tar writes the names of the machine that it runs on."""
    lab = ImageLab(env)
    tree = guests.busybox_tree(lab.path("tree"))
    guests.run("setfacl", "-m", "g:daemon:rwx", tree / "var/acl")
    image = tar(lab, tree, "named.tar")
    contains(lab.refuse(image), "'daemon'")
    (tree / "etc/group").write_text("root:x:0:\ndaemon:x:777:\n")
    found, _ = lab.unpack(tar(lab, tree, "named2.tar"))
    contains(guests.run("getfacl", "-n", found / "var/acl"), "group:777:rwx")


@test(("userns",))
def disks_of_every_kind(env):
    lab = ImageLab(env, "mksquashfs")
    tree = guests.busybox_tree(lab.path("tree"))
    ext4 = guests.filesystem(lab.path("ext4.fs"), "ext4", tree, 32)
    gpt = guests.partitioned(lab.path("gpt.raw"), "gpt", ext4)
    images = {"raw": [ext4, gpt, guests.partitioned(lab.path("mbr.raw"), "dos", ext4),
                      guests.filesystem(lab.path("xfs.fs"), "xfs", tree, 320), guests.filesystem(lab.path("btrfs.fs"), "btrfs", tree, 128),
                      guests.logical(lab.path("lvm.raw"), "vg", root=ext4)],
              "qcow2": [guests.to_format(gpt, lab.path("disk.qcow2"), "qcow2")],
              "vmdk": [guests.to_format(gpt, lab.path("disk.vmdk"), "vmdk")],
              "vhd": [guests.to_format(gpt, lab.path("disk.vhd"), "vpc")]}
    squashed = lab.path("squashfs.fs")
    # It has no access control lists.
    plain = guests.busybox_tree(lab.path("plain"))
    guests.run("setfacl", "-R", "-b", plain)
    guests.run("mksquashfs", plain, squashed, "-quiet", "-no-progress")
    images["raw"].append(squashed)
    for form, files in images.items():
        for image in files:
            # What a disk's own tools write is compared with what the kernel shows of it (guests.filesystem).
            found, said = lab.unpack(image, "--format", form)
            different = lost(plain if image == squashed else tree, found)
            equal({path: both for path, both in different.items() if not is_granular(both)}, {}, image.name)
            equal(said["format"], {"vhd": "vpc"}.get(form, form))
            equal(said["root"], {ext4: "vda", gpt: "vda2"}.get(image, said["root"]), image.name)
            contains(str(said["findings"]), "/var/sda")
            if form != "vhd":
                lab.remove(found)
                found, _ = lab.unpack(image)
                equal((found / "etc/os-release").exists(), True, "by its content")
            lab.remove(found)


def is_granular(both):
    """A time that the file system has in seconds only, or holes that it has not."""
    if not all(both):
        return False
    before, after = (text.replace(" holes", "").split() for text in both)
    return len(before) == len(after) and all(a == b or (a.isdigit() and b.isdigit() and int(a) // 10**9 == int(b) // 10**9)
                                             for a, b in zip(before, after))


@test(("userns",))
def a_disk_may_stay_one(env):
    lab = ImageLab(env)
    raw = lab.path("disk.raw")
    with raw.open("wb") as disk:
        disk.write(b"at the start")
        disk.seek(40 << 20)
        disk.write(b"at the end")
    raw_bytes = raw.read_bytes()
    for name, form in (("qcow2", "qcow2"), ("vmdk", "vmdk"), ("vhd", "vpc"), ("raw", None)):
        image = guests.to_format(raw, lab.path(f"disk.{name}"), form) if form else raw
        found, said = lab.unpack(image, "--whole", "--format", name)
        equal((os.listdir(found), said["entries"]), (["disk"], 1))
        # One of vhd is a whole number of cylinders.
        content = (found / "disk").read_bytes()
        check(content.startswith(raw_bytes) and not content[len(raw_bytes):].strip(b"\0"), f"the disk of {name}")
        equal((found / "disk").stat().st_mode & 0o7777, 0o600)
        check((found / "disk").stat().st_blocks * 512 < 1 << 20, f"{name}: zeroes were written")
        lab.remove(found)
    tree = guests.busybox_tree(lab.path("tree"))
    contains(lab.refuse(tar(lab, tree, "tree.tar"), "--whole"), "no disk")
    contains(lab.refuse(raw, "--whole", "--format", "raw", "--limit", "50K", status=3), "51200 bytes that it may have")
    outside = lab.path("outside.qcow2")
    guests.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", outside, "1M")
    lab.refuse(outside, "--whole")
    guests.run("qemu-img", "create", "-q", "-f", "qcow2", lab.path("huge.qcow2"), "2T")
    contains(lab.refuse(lab.path("huge.qcow2"), "--whole"), "more than 1 TiB")
    equal(lab.run("unpack", "--whole", "--fit", raw, lab.bases / "x").returncode, 2)
    equal(lab.run("pack", "--whole", tree, lab.path("x.tar")).returncode, 2)


@test(("userns",))
def set_user_id_and_capabilities_hold_in_containers_with_ids_of_their_own(env):
    """What ends on the disk has to be what the kernel honours through an idmapped layer, by whichever way it came there."""
    lab = ImageLab(env)
    tree = pathlib.Path(env.root_tree()).rename(lab.path("tree"))
    (tree / "bin/grep").symlink_to("busybox")
    (tree / "special").mkdir()
    shutil.copy(os.path.join(env.daemon.build, "tests/session/euid"), tree / "special/euid")
    (tree / "special/euid").chmod(0o4755)
    shutil.copy(tree / "bin/busybox", tree / "special/grep")
    os.setxattr(tree / "special/grep", "security.capability", struct.pack("<IIIII", 0x02000001, NET_BIND_SERVICE, 0, 0, 0))
    for number, image in enumerate((tar(lab, tree, "root.tar"), guests.filesystem(lab.path("root.fs"), "ext4", tree, 32))):
        base, _ = lab.unpack(image)
        name, own = f"instance{number}", lab.path(f"own{number}")
        own.mkdir()
        define(env, name, filesystem(own), parts=f"<userns:overlay target='/'><userns:lower dir='{base}'/></userns:overlay>")
        env.virsh("start", name).ok()
        program = os.path.join(env.daemon.build, "driver", "exec", "virt-userns-exec")

        def as_user(*words):
            return guests.run(program, "-c", env.uri, name, "-u", "+1000:+1000", "--", *words).strip()
        equal(as_user("/special/euid"), "1000 0", f"set-user-id by {image.name}")
        equal(int(as_user("/special/grep", "CapEff", "/proc/self/status").split()[1], 16), NET_BIND_SERVICE, f"capability by {image.name}")
        sh(env, name, "echo new >/special/new && rm /special/euid")
        env.virsh("destroy", name).ok()
        check((base / "special/euid").exists() and not (base / "special/new").exists(), "the base is written")
        lab.remove(base)


@test(("userns",))
def a_parent_that_others_may_enter_is_refused(env):
    lab = ImageLab(env)
    image = tar(lab, guests.busybox_tree(lab.path("tree")), "root.tar")
    lab.bases.chmod(0o711)
    contains(lab.refuse(image), "0700")
    lab.bases.chmod(0o700)
    os.chown(lab.bases, 1000, 0)
    contains(lab.refuse(image), "chown root:")
    os.chown(lab.bases, 0, 0)
    equal(lab.run("remove", lab.outside / "secret").returncode, 1, "remove where others may enter")
    check((lab.outside / "secret").exists(), "the secret")


@test(("userns",))
def what_is_there_stays(env):
    lab = ImageLab(env)
    image = tar(lab, guests.busybox_tree(lab.path("tree")), "root.tar")
    found, _ = lab.unpack(image)
    before = trees.manifest(found)
    done = lab.run("unpack", image, found)
    equal(done.returncode, 1)
    contains(done.stderr, "it is there already")
    equal(trees.differences(before, trees.manifest(found)), {})
    for words in (["unpack", image], ["unpack"], [], ["frob", "x"], ["unpack", "--limit", "x", image, found], ["clean", "--fit", lab.bases],
                  ["unpack", "--entries", "0", image, found], ["unpack", "--reserve", "91", image, found], ["unpack", image, lab.bases / ".hidden"]):
        equal(lab.run(*words).returncode, 2, words)


@test(("userns",))
def many_at_once_and_killed_ones(env):
    """One makes it, the others say so; and whoever comes after one that was killed removes what is left."""
    lab = ImageLab(env)
    tree = guests.busybox_tree(lab.path("tree"))
    (tree / "large").write_bytes(os.urandom(1 << 20) * 192)
    images = [tar(lab, tree, "root.tar"), guests.filesystem(lab.path("root.fs"), "ext4", tree, 256)]
    for image in images:
        started = [subprocess.Popen(lab.argv("unpack", "--quiet", image, lab.bases / "one"), stdout=subprocess.DEVNULL,
                                    stderr=subprocess.PIPE, text=True)
                   for _ in range(3)]
        said = [process.communicate(timeout=60 * daemon_module.TIME_FACTOR)[1] for process in started]
        equal(sorted(process.returncode for process in started), [0, 1, 1], said)
        lab.remove(lab.bases / "one")
        for wait in (lambda: any(lab.bases.glob(".two.unpack/root/*")), lambda: any(lab.bases.glob(".two.unpack/root/large"))):
            process = subprocess.Popen(lab.argv("unpack", "--quiet", image, lab.bases / "two"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            eventually(lambda: wait() or process.poll() is not None, "something is unpacked")
            process.send_signal(signal.SIGKILL)
            process.wait()
            check(set(os.listdir(lab.bases)) <= {"two", ".two.unpack"}, os.listdir(lab.bases))
            # Its children die a moment later, and have its lock until then.
            eventually(lambda: lab.run("clean", lab.bases).returncode == 0 and not (lab.bases / ".two.unpack").exists(), "cleaned")
            if (lab.bases / "two").exists():
                equal(lost(tree, lab.bases / "two"), {}, "one that is there is whole")
                lab.remove(lab.bases / "two")
            lab.expect_only()
    # Also the next command for something else.
    (lab.bases / ".gone.unpack" / "root" / "deep").mkdir(parents=True)
    (lab.bases / ".gone.remove").mkdir()
    lab.unpack(images[0])


def active(text):
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


@test(("userns",))
def a_machine_is_fitted(env):
    """--fit: what the rules of a conversion change, in the tree."""
    lab = ImageLab(env)
    tree = guests.busybox_tree(lab.path("tree"))
    (tree / "etc/fstab").write_text(f"UUID={guests.ROOT_UUID} / ext4 defaults 0 1\n/dev/vda2 none swap sw 0 0\n")
    image = tar(lab, tree, "root.tar")
    plain, _ = lab.unpack(image)
    equal((plain / "etc/fstab").read_text(), (tree / "etc/fstab").read_text(), "without --fit nothing is edited")
    lab.remove(plain)
    fitted, said = lab.unpack(image, "--fit")
    check((fitted / "etc/fstab").read_text() != (tree / "etc/fstab").read_text(), "fstab was left")
    check(any(finding["rule"] == "fstab" for finding in said["findings"]), said)
    lab.remove(fitted)
    # What fstab mounts from the same disk is in the tree, and no mount any more.
    (tree / "etc/fstab").write_text(f"UUID={guests.ROOT_UUID} / ext4 defaults 0 1\nLABEL=home /home ext4 defaults 0 2\n")
    home = lab.path("home")
    (home / "anna").mkdir(parents=True)
    disk = guests.partitioned(lab.path("two.raw"), "gpt", guests.filesystem(lab.path("one.fs"), "ext4", tree, 32),
                              guests.filesystem(lab.path("home.fs"), "ext4", home, 16, label="home", uuid="5b4c4b9e-0000-4000-8000-000000000001"))
    for options in ([], ["--fit"]):
        found, _ = lab.unpack(disk, *options)
        check((found / "home/anna").is_dir(), "the second volume")
        equal("LABEL=home" in active((found / "etc/fstab").read_text()), not options)
        lab.remove(found)


main()
