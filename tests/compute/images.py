"""The bases of instances: added once, held, swept; and images that lie, of which nothing outside is read or written."""
import os
import pathlib
import shutil
import subprocess
import threading
import time

from lab import MIB, USERNS, Lab, instance, pack, run
from api import file, refused
from harness import check, contains, equal, main, test

CANARY = b"root:canary:1:0:99999:7:::\n"


def variant(lab, name, change):
    """The busybox tree, changed, as image `name`."""
    tree = lab.adapter.folder / f"tree-{name}"
    shutil.copytree(lab.tree, tree, symlinks=True)
    change(tree)
    lab.call("image.add", key=name, format="root-tar", path=pack(tree, lab.adapter.folder / f"{name}.tar"))
    shutil.rmtree(tree)
    return {"key": name, "format": "root-tar"}


class Canary:
    """A folder of the host that looks like /etc, and whether somebody was there."""

    def __init__(self, lab):
        self.folder = lab.adapter.folder / "outside"
        self.folder.mkdir()
        self.shadow = self.folder / "shadow"
        self.shadow.write_bytes(CANARY)
        os.utime(self.shadow, (1, 1))
        self.before = self._look()

    def _look(self):
        state = os.stat(self.shadow)
        return sorted(os.listdir(self.folder)), state.st_atime, state.st_mtime, state.st_mode, state.st_uid, state.st_ino

    def is_untouched(self):
        equal(self._look(), self.before, "what is outside of the image")


@test(drivers=USERNS)
def added_once_held_and_swept(env):
    with Lab(env) as lab:
        equal(lab.call("image.has", key="busybox"), {"present": True})
        equal(lab.call("image.has", key="other"), {"present": False})
        size = lab.call("image.add", key="busybox", format="root-tar", path="/etc/hostname")["bytes"]
        check(size > 100000, f"{size} bytes")
        with refused("image-missing"):
            lab.spawn(instance(), image={"key": "other", "format": "raw"})
        equal(lab.adapter.instances(), [])
        spec = instance()
        lab.spawn(spec)
        (base,) = lab.call("image.list")
        equal((base["key"], base["bytes"], base["holders"]), ("busybox", size, [spec["uuid"]]))
        lab.call("image.add", key="second", format="root-tar", path=lab.tar)
        equal(lab.call("image.sweep"), {"removed": []})
        equal(lab.call("image.sweep", max_mb=0, keep_unused_for_s=1000), {"removed": []})
        equal(lab.call("image.sweep", max_mb=0), {"removed": ["second"]})
        lab.sh(spec, "ls /")
        lab.destroy(spec)
        equal(lab.call("image.list")[0]["holders"], [])
        equal(lab.call("image.sweep", max_mb=0), {"removed": ["busybox"]})
        equal(lab.call("image.list"), [])
        for key in ("", "..", "a/b", "x" * 201, "a b", "\u00e4", "a.b"):
            with refused("invalid"):
                lab.call("image.has", key=key)


@test(drivers=USERNS)
def a_disk_is_an_image(env):
    with Lab(env) as lab:
        image = lab.adapter.folder / "disk.img"
        with image.open("wb") as disk:
            disk.truncate(32 * MIB)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-d", lab.tree, image)
        lab.call("image.add", key="raw", format="raw", path=str(image))
        image.unlink()  # it is the caller's, and not needed any more
        one, two = instance("one"), instance("two")
        for spec in (one, two):
            lab.spawn(spec, image={"key": "raw", "format": "raw"})
            lab.until_up(spec)
        lab.sh(one, "echo mine > /root/mine; rm /etc/shadow; echo x >> /etc/passwd")
        lab.sh(two, "ls /etc/shadow; ! ls /root/mine; ! grep ^x /etc/passwd")


@test(drivers=USERNS)
def what_is_no_image_is_refused(env):
    with Lab(env) as lab:
        def refuse(name, content, form):
            path = lab.adapter.folder / name
            path.write_bytes(content)
            with refused("image-refused"):
                lab.call("image.add", key=name, format=form, path=str(path))
            equal(lab.call("image.has", key=name), {"present": False})
        refuse("noise", os.urandom(MIB), "raw")
        refuse("empty", b"", "root-tar")
        refuse("cut", pathlib.Path(lab.tar).read_bytes()[:100000], "root-tar")
        refuse("qcow", b"QFI\xfb" + b"\xff" * 1000, "qcow2")
        with refused("image-refused"):
            lab.call("image.add", key="iso", format="iso", path=lab.tar)
        equal([base["key"] for base in lab.call("image.list")], ["busybox"])


@test(drivers=USERNS)
def many_ask_for_one_image(env):
    with Lab(env) as lab:
        said = []

        def add():
            with lab.adapter.client() as client:
                said.append(client.call("image.add", key="same", format="root-tar", path=lab.tar)["bytes"])
        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        equal(len(said), 4)
        equal(len(set(said)), 1)


@test(drivers=USERNS)
def an_image_is_no_larger_than_the_flavors_disk(env):
    with Lab(env) as lab:
        tar = lab.adapter.folder / "large.tar"
        bases, facts = lab.adapter.state / "images/bases", lab.adapter.state / "images/facts"
        tree = lab.adapter.folder / "tree-large"
        shutil.copytree(lab.tree, tree, symlinks=True)
        (tree / "large").write_bytes(bytes(20 * MIB))
        large = {"key": "large", "format": "root-tar"}

        def add(**more):
            return lab.call("image.add", **large, path=pack(tree, tar), **more)["bytes"]
        # While it is unpacked: nothing is left of it. By its bytes, and by its entries.
        with refused("image-too-large", "16777216 bytes that it may have", "16 MiB that it may have: choose a flavor with a larger disk"):
            add(max_mb=16)
        (tree / "many").mkdir()
        for number in range(400):
            (tree / "many" / str(number)).touch()
        with refused("image-too-large", "256 entries that it may have"):
            lab.call("image.add", **large, path=pack(tree / "many", tar), max_mb=1)
        equal(lab.call("image.has", key="large"), {"present": False})
        equal((os.listdir(bases), os.listdir(facts)), (["busybox"], ["busybox"]))
        for most in (-1, "1", 1.5, (1 << 40) + 1):
            with refused("invalid", "max_mb"):
                add(max_mb=most)
        size = add(max_mb=64)
        check(20 * MIB < size < 64 * MIB, f"{size} bytes")
        # One that is there is held to it as well.
        with refused("image-too-large", f"has {size} bytes"):
            add(max_mb=16)
        equal(add(), size)

        # Of an instance its disk is the limit, and nothing is made.
        (facts / "large").write_text(f"{(1 << 30) + 1}\n")
        spec = instance()
        with refused("image-too-large", "into the 1024 MiB", "has 1073741825 bytes"):
            lab.spawn(spec, image=large)
        equal((lab.adapter.instances(), lab.adapter.holds()), ([], []))
        for flavor, more in (({"root_gb": 2}, {}), ({"root_gb": 0}, {}), ({"root_gb": 1}, {"max_mb": 0})):
            other = instance("other", flavor=flavor)
            lab.spawn(other, image=large, power=False, **more)
            lab.destroy(other)
        with refused("image-too-large"):
            lab.spawn(instance(flavor={"root_gb": 2}), image=large, max_mb=1)
        # One that has it keeps it over a rebuild, whatever is said of it by then.
        other = instance("other", flavor={"root_gb": 1})
        lab.spawn(other, image=large, power=False, max_mb=0)
        lab.destroy(other, rebuild=True)
        lab.spawn(other, image=large, power=False)
        lab.destroy(other)

        # Nor is it rescued by one that is larger, but always by its own.
        def rescue(uuid):
            lab.call("instance.rescue", uuid=uuid, image=large, network=[], volumes=[], files=[], config_drive=[], password=None)
        lab.spawn(spec)
        with refused("image-too-large"):
            rescue(spec["uuid"])
        equal((lab.client.state(spec["uuid"]), lab.adapter.holds()), ("running", [f"busybox/{spec['uuid']}"]))
        own = instance("own")
        lab.spawn(own, image=large, max_mb=0)
        rescue(own["uuid"])
        lab.call("instance.unrescue", uuid=own["uuid"])


@test(drivers=USERNS)
def an_image_that_no_flavor_bounds(env):
    with Lab(env, image_limit_gb=1) as lab:
        (lab.adapter.state / "images/facts/busybox").write_text(f"{2 << 30}\n")
        spec = instance(flavor={"root_gb": 0})
        with refused("image-too-large", "image_limit_gb"):
            lab.spawn(spec)
        lab.spawn(instance("large", flavor={"root_gb": 2}), power=False)
        lab.adapter.settings["image_limit_gb"] = 0
        lab.again()
        lab.spawn(spec, power=False)


@test(drivers=USERNS)
def room_is_made_of_bases_that_nobody_needs(env):
    """On a file system that has room for three."""
    disk, state = pathlib.Path(env.folder, "state.fs"), pathlib.Path(env.folder, "state")
    state.mkdir()
    run("mke2fs", "-q", "-t", "ext4", "-m", "0", disk, "320M")
    run("mount", "-o", "loop", disk, state)
    try:
        with Lab(env, state=str(state)) as lab:
            tree, tar = lab.adapter.folder / "tree-large", lab.adapter.folder / "large.tar"
            tree.mkdir()
            (tree / "large").write_bytes(bytes(60 * MIB))
            pack(tree, tar)

            def add(key):
                lab.call("image.add", key=key, format="root-tar", path=str(tar), max_mb=64)

            def used(key, ago_s):
                then = time.time() - ago_s
                os.utime(state / "images/facts" / key, (then, then))

            def keys():
                return [base["key"] for base in lab.call("image.list")]
            for key in ("held", "fresh", "old"):
                add(key)
            (state / "images/holds/held").mkdir()
            (state / "images/holds/held" / instance()["uuid"]).touch()
            used("held", 9000), used("old", 800)
            add("next")
            equal(keys(), ["busybox", "fresh", "held", "next"])
            # What has just come may be for an instance that is on its way.
            with refused("no-space", "that its file system can spare"):
                add("another")
            equal(keys(), ["busybox", "fresh", "held", "next"])
            equal(sorted(os.listdir(state / "images/bases")), keys())
            used("fresh", 700)
            add("another")
            equal(keys(), ["another", "busybox", "held", "next"])
    finally:
        run("umount", state)
        disk.unlink()


def replaced(path, make):
    def change(tree):
        place = tree / path
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink(missing_ok=True)
        make(place)
    return change


@test(drivers=USERNS)
def links_of_an_image_stay_inside(env):
    with Lab(env) as lab:
        canary = Canary(lab)
        outside = str(canary.folder)
        up = "/".join([".."] * 30) + outside
        hostile = {
            "etc": replaced("etc", lambda place: place.symlink_to(outside)),
            "etc-up": replaced("etc", lambda place: place.symlink_to(up)),
            "shadow": replaced("etc/shadow", lambda place: place.symlink_to(outside + "/shadow")),
            "shadow-up": replaced("etc/shadow", lambda place: place.symlink_to(up + "/shadow")),
            "loop": replaced("etc/shadow", lambda place: place.symlink_to("shadow")),
            "fifo": replaced("etc/shadow", os.mkfifo),
            "folder": replaced("etc/shadow", os.mkdir),
            "magic": replaced("etc", lambda place: place.symlink_to("/proc/self/root" + outside)),
        }
        for name, change in hostile.items():
            image, spec = variant(lab, name, change), instance()
            # Whether that can be is the image's affair; where it is written is not.
            try:
                lab.spawn(spec, image=image, password="secret", power=False,
                          files=[file("/etc/shadow.d/x", b"x"), file("/etc/motd", b"x")])
            except Exception as error:  # noqa: BLE001
                contains(str(error), "of the instance")
            canary.is_untouched()
            lab.destroy(spec)
        for path, kind in (("etc/../../x", "invalid"), ("/../x", "invalid"), ("", "invalid"), ("/etc/a\nb", "invalid")):
            with refused(kind):
                lab.spawn(instance(), files=[file(path, b"x")])
        for path in ("/x", "../x", "a/../../x", "a\0b"):
            with refused("invalid"):
                lab.spawn(instance(), config_drive=[file(path, b"x")])
        lab.nothing_left()


@test(drivers=USERNS)
def what_an_instance_left_is_not_followed_either(env):
    with Lab(env) as lab:
        canary = Canary(lab)
        outside = str(canary.folder)
        spec = instance()
        for number, script in enumerate((f"rm /etc/shadow; ln -s {outside}/shadow /etc/shadow",
                                         "rm /etc/shadow; mkfifo /etc/shadow",
                                         f"rm -r /etc; ln -s {outside} /etc",
                                         f"rm -r /etc; ln -s /proc/1/root{outside} /etc")):
            lab.spawn(spec)
            lab.sh(spec, script)
            lab.call("instance.power_off", uuid=spec["uuid"], timeout=0, retry_interval=1)
            with refused("unsupported"):
                lab.call("instance.set_password", uuid=spec["uuid"], user="root", password="secret")
            canary.is_untouched()
            path = lab.adapter.folder / f"snapshot-{number}"
            path.touch()
            lab.call("instance.snapshot", uuid=spec["uuid"], path=str(path))
            check(b"canary" not in path.read_bytes(), "the snapshot has what is outside in it")
            canary.is_untouched()
            lab.destroy(spec)


@test(drivers=USERNS)
def the_password_of_one_that_is_off(env):
    with Lab(env) as lab:
        spec = instance()
        uuid = spec["uuid"]
        lab.spawn(spec, power=False)
        lab.call("instance.set_password", uuid=uuid, user="user", password="secret")
        with refused("unsupported", "nobody"):
            lab.call("instance.set_password", uuid=uuid, user="nobody", password="secret")
        for user in ("", "a:b", "a\nb", "../x"):
            with refused("invalid"):
                lab.call("instance.set_password", uuid=uuid, user=user, password="secret")
        lab.call("instance.power_on", uuid=uuid, network=[], volumes=[])
        shadow = lab.sh(spec, "cat /etc/shadow").splitlines()
        check(shadow[0] == "root:*:19000:0:99999:7:::" and shadow[1].startswith("user:$6$"), f"{shadow}")
        hashed = shadow[1].split(":")[1]
        salt = hashed.rsplit("$", 1)[0]
        equal(subprocess.run(["openssl", "passwd", "-6", "-salt", salt.split("$")[2], "secret"], capture_output=True, text=True,
                             check=True).stdout.strip(), hashed)


if __name__ == "__main__":
    main()
