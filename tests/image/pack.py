"""Directories become images that give the same directory again: alone, and as what an instance wrote over its base.

    VIRTUSERNS_BUILD=build tests/image/pack.py --driver userns [-k EXPRESSION]
"""
import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import threading

from image_lab import LIMIT_S, ImageLab, guests, lost, trees
from harness import check, contains, daemon_module, equal, eventually, main, test
from image_files import define, directory as filesystem, init_of, sh

NET_BIND_SERVICE = 1 << 10


def pack(lab, tree, name, *options):
    image = lab.path(name)
    done = lab.run("pack", "--json", "--quiet", *options, tree, image)
    equal(done.returncode, 0, f"exit status of pack {tree}: {done.stdout}{done.stderr}")
    equal(os.stat(image).st_mode & 0o777, 0o600, "not for others")
    return image, json.loads(done.stdout)


def a_tree(lab):
    tree = guests.busybox_tree(lab.path("tree"))
    (tree / "var" / b"lat\xe9in".decode("utf-8", "surrogateescape")).write_text("latin-1")
    (tree / "var" / ("long" * 60)).symlink_to("x" * 3000)
    return tree


@test(("userns",))
def what_is_packed_is_unpacked(env):
    lab = ImageLab(env)
    tree = a_tree(lab)
    archive, said = pack(lab, tree, "one.tar")
    equal(said["format"], "root-tar")
    contains(str(said["findings"]), "socket")
    found, _ = lab.unpack(archive)
    equal({path: both for path, both in lost(tree, found).items() if path != "var/socket"}, {}, "by an archive")
    check(os.stat(archive).st_size < 8 << 20, "holes are packed as holes")
    again, _ = pack(lab, found, "two.tar")
    both, _ = lab.unpack_beside(again, found)
    equal(trees.differences(trees.manifest(found), trees.manifest(both)), {}, "by an archive of that")
    lab.run("remove", both)
    disk, said = pack(lab, found, "three.raw", "--format", "raw")
    equal(said["format"], "raw")
    guests.run("fsck.ext4", "-f", "-n", disk)
    both, _ = lab.unpack_beside(disk, found)
    equal(trees.differences(trees.manifest(found), trees.manifest(both)), {}, "by a disk")
    stream = subprocess.run(lab.argv("pack", "--quiet", found, "-"), capture_output=True, timeout=LIMIT_S * daemon_module.TIME_FACTOR, check=True)
    check(stream.stdout == again.read_bytes(), "the standard output is another archive")


@test(("userns",))
def what_an_instance_wrote_over_its_base(env):
    lab = ImageLab(env)
    tree = pathlib.Path(env.root_tree()).rename(lab.path("tree"))
    for applet in ("rm", "mkdir", "chmod", "chown", "ln", "touch"):
        (tree / "bin" / applet).symlink_to("busybox")
    for name in ("gone", "kept", "changed", "replaced/below"):
        (tree / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / "data" / name).write_text(f"{name} of the base\n")
    first, _ = pack(lab, tree, "base.tar")
    base, _ = lab.unpack(first)
    before = trees.manifest(base)
    own = lab.path("own")
    own.mkdir()
    define(env, "instance", filesystem(own), parts=f"<userns:overlay target='/'><userns:lower dir='{base}'/></userns:overlay>")
    env.virsh("start", "instance").ok()
    sh(env, "instance", "set -e; cd /data; rm gone; echo changed >changed; rm -r replaced; mkdir replaced; echo new >replaced/new; "
       "chown 1000:1001 changed; touch suid && chmod 4755 suid; ln suid twin; ln -s /etc/shadow link; touch capable")
    # As setcap(8) inside does it, of the domain's own root.
    init = init_of(env, "instance")
    first_id = int(pathlib.Path(f"/proc/{init}/uid_map").read_text().split()[1])
    os.setxattr(f"/proc/{init}/root/data/capable", "security.capability",
                struct.pack("<IIIIII", 0x03000001, NET_BIND_SERVICE, 0, 0, 0, first_id))
    env.virsh("destroy", "instance").ok()
    snapshot, said = pack(lab, own / "upper", "snapshot.tar", "--lower", base)
    check("device" not in str(said["findings"]), f"a mark is no device: {said}")
    found, _ = lab.unpack_beside(snapshot, base)
    equal(sorted(os.listdir(found / "data")), ["capable", "changed", "kept", "link", "replaced", "suid", "twin"])
    equal(os.listdir(found / "data/replaced"), ["new"])
    equal((found / "data/kept").read_text(), "kept of the base\n")
    facts = os.lstat(found / "data/changed")
    equal((facts.st_uid, facts.st_gid, (found / "data/changed").read_text()), (1000, 1001, "changed\n"))
    facts = os.lstat(found / "data/suid")
    equal((oct(facts.st_mode), facts.st_uid, facts.st_nlink), ("0o104755", 0, 2))
    equal(os.readlink(found / "data/link"), "/etc/shadow")
    contains(guests.run("getcap", found / "data/capable"), "cap_net_bind_service=ep")
    disk, _ = pack(lab, own / "upper", "snapshot.raw", "--lower", base, "--format", "raw")
    equal(trees.differences(before, trees.manifest(base)), {}, "the base")
    env.virsh("undefine", "instance").ok()
    lab.run("remove", base)
    again, _ = lab.unpack_beside(disk, found)
    equal(trees.differences(trees.manifest(found), trees.manifest(again)), {}, "by a disk")


@test(("userns",))
def holes_cost_no_time(env):
    """An instance cannot be deleted while it is packed, and one GiB of its disk has room for sixty thousand such files."""
    lab = ImageLab(env)
    tree = lab.path("tree")
    tree.mkdir()
    count, size = 100, 3 << 40
    for number in range(count):
        with (tree / str(number)).open("wb") as file:
            file.seek(size - 1)
            file.write(b"x")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    image, said = pack(lab, tree, "holes.tar")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    check(spent < 2, f"{spent} s of processor time for {said}")
    found, _ = lab.unpack(image)
    for number in range(count):
        with (found / str(number)).open("rb") as file:
            file.seek(size - 2)
            equal(file.read(), b"\0x", f"the end of {number}")
    lab.remove(found)


@test(("userns",))
def what_has_no_place_in_an_image(env):
    lab = ImageLab(env)
    tree = lab.path("tree")
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/file").write_text("good")
    (tree / "out").symlink_to(lab.outside)
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "white", 0o020000, os.makedev(0, 0))
    os.mknod(tree / "zero", 0o020666, os.makedev(1, 5))
    os.setxattr(tree / "etc/file", "trusted.overlay.origin", b"x")
    image, said = pack(lab, tree, "one.tar")
    contains(str(said["findings"]), "2 left out: ")
    equal(guests.run("tar", "-tf", image).split(), ["./", "./etc/", "./fifo", "./out", "./etc/file"])
    content = image.read_bytes()
    check(b"trusted" not in content and b"SECRET" not in content, "what is not the tree's own")
    done = lab.run("pack", tree, image)
    equal((done.returncode, content == image.read_bytes()), (1, True), "an image that is there")
    contains(done.stderr, "is there already")
    os.chown(tree / "etc/file", 70_000, 0)
    done = lab.run("pack", tree, lab.path("two.tar"))
    equal(done.returncode, 1)
    contains(done.stderr, "/etc/file")
    equal(lab.run("pack", "--format", "raw", tree, "-").returncode, 2)
    equal(lab.run("pack", "--format", "qcow2", tree, lab.path("three")).returncode, 2)
    equal(lab.run("pack", "--lower", lab.path("nowhere"), tree, lab.path("three")).returncode, 1)
    equal(sorted(path.name for path in lab.folder.glob("t*")), ["tree"])


def disturb(tree, outside, stop):
    """What the root of an instance can do while it is read."""
    number = 0
    while not stop.is_set():
        number += 1
        place = tree / "busy"
        (place / "grows").write_bytes(b"x" * (number % 50 * 10_000))
        os.truncate(place / "shrinks", 10 if number % 2 else 5_000_000)
        for name in ("swapped", "swapped/below"):
            if (place / "swapped").is_symlink():
                (place / "swapped").unlink()
            elif name == "swapped":
                shutil.rmtree(place / "swapped", ignore_errors=True)
            else:
                continue
        if number % 2:
            (place / "swapped").symlink_to(outside)
        else:
            (place / "swapped").mkdir()
            (place / "swapped/secret").write_text("mine")


@test(("userns",))
def a_tree_that_changes_while_it_is_read(env):
    lab = ImageLab(env)
    tree = lab.path("tree")
    (tree / "busy").mkdir(parents=True)
    for name in ("grows", "shrinks"):
        (tree / "busy" / name).write_bytes(b"x" * 1000)
    for number in range(200):
        (tree / str(number)).write_bytes(os.urandom(20_000))
    stop = threading.Event()
    thread = threading.Thread(target=disturb, args=(tree, lab.outside, stop))
    thread.start()
    good = 0
    try:
        for number in range(12):
            image = lab.path(f"{number}.tar")
            done = lab.run("pack", "--quiet", tree, image)
            check(done.returncode in (0, 1), f"{done.returncode} {done.stderr}")
            equal(image.exists(), done.returncode == 0, done.stderr)
            if done.returncode == 0:
                check(b"SECRET" not in image.read_bytes(), "a link was followed")
                found, _ = lab.unpack(image)
                lab.remove(found)
                good += 1
    finally:
        stop.set()
        thread.join()
    check(good > 0, "none could be packed")


@test(("userns",))
def one_that_is_killed_leaves_nothing(env):
    lab = ImageLab(env)
    tree = lab.path("tree")
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(1 << 20) * 256)
    for form in ("root-tar", "raw"):
        process = subprocess.Popen(lab.argv("pack", "--format", form, tree, lab.path("image")), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        eventually(lambda: "packing" in process.stderr.readline() or process.poll() is not None, "it packs")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        equal(process.returncode, -signal.SIGKILL, form)
        equal(sorted(os.listdir(lab.folder)), ["bases", "outside", "tree"])
        eventually(lambda: unused(lab), "its mounts and devices are gone")


def unused(lab):
    try:
        lab.expect_only()
        return True
    except AssertionError:
        return False


main()
