"""virt-userns-convert on real guests: converted, started, rolled back; the disk of the machine is never written.

    VIRTUSERNS_BUILD=build tests/convert/convert.py --driver userns [-k EXPRESSION]
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
import guests  # noqa: E402
import trees  # noqa: E402
from harness import Skip, check, contains, equal, eventually, main, matches, test  # noqa: E402
from lab import Lab, checksum, expect_unused, in_container, lost, original, small_disk, told  # noqa: E402

DEBIAN = pathlib.Path(os.environ.get("VIRTUSERNS_DEBIAN_TREE") or guests.SOURCE / "build-check/debian.tar")

TELL = """[Unit]
Description=says how far the start has got
After=multi-user.target
[Service]
Type=exec
ExecStart=/bin/sh -c 'systemctl is-system-running --wait > /told.new; systemctl --failed --plain --no-legend >> /told.new; \
  mv /told.new /told; exec sleep infinity'
"""


@test(("userns",))
def a_copied_tree_is_the_same_and_boots(env):
    lab = Lab(env)
    disk = small_disk(lab)
    before = checksum(disk)
    done = lab.ok("convert", "--name", "web1", "--copy", "tree", disk)
    contains(done.stdout, "device nodes")
    root = lab.jobs / "web1/root"
    # A device node is left out, and what the rules changed is kept as it was elsewhere.
    equal(lost(original(lab), root), {"var/sda"}, "what is not as it was")
    env.virsh("start", "web1").ok()
    equal(told(lab, "web1", root), "up: guest \n")
    contains(lab.refused("rollback", "web1"), "shut it off")
    env.virsh("destroy", "web1").ok()
    lab.ok("rollback", "web1")
    lab.expect_nothing()
    equal(checksum(disk), before, "the disk of the machine")


@test(("userns",))
def in_place_it_runs_on_top_of_the_disk(env):
    lab = Lab(env)
    disk = small_disk(lab)
    before = checksum(disk)
    lab.ok("convert", "--name", "web1", "--start", disk)
    greets = lambda: "up: guest" in in_container(env, "web1", "cat /told")  # noqa: E731
    eventually(greets, "the guest is up")
    equal(checksum(disk), before, "the disk of the machine, while the container runs")
    env.virsh("destroy", "web1").ok()
    env.virsh("start", "web1").ok()
    eventually(greets, "the guest is up again")
    env.virsh("destroy", "web1").ok()
    lab.ok("rollback", "web1")
    lab.expect_nothing()
    equal(checksum(disk), before, "the disk of the machine")


@test(("userns",))
def an_image_has_all_of_it(env):
    lab = Lab(env)
    disk = small_disk(lab)
    lab.ok("convert", "--name", "web1", "--copy", "image", "--size", "64M", "--start", disk)
    eventually(lambda: "up: guest" in in_container(env, "web1", "cat /told"), "the guest is up")
    env.virsh("destroy", "web1").ok()
    with guests.mounted(lab.jobs / "web1/root.img", lab.path("look2"), "-o", "ro,loop") as root:
        equal(lost(original(lab), root), {"var/sda", "told"}, "what is not as it was")
    lab.ok("rollback", "web1")
    lab.expect_nothing()


def volume_of(lab, disk, name):
    """What is on the second partition of a qcow2, to the last attribute, and the bytes in front of it."""
    raw = guests.run("qemu-img", "convert", "-O", "raw", disk, lab.path(f"{name}.raw")) or lab.path(f"{name}.raw")
    start = int(matches(guests.run("sfdisk", "-d", raw), r"raw2 : start= *(\d+)").group(1)) * 512
    with guests.mounted(raw, lab.path(name), "-o", f"ro,loop,offset={start}") as place:
        found = trees.manifest(place)
    with open(raw, "rb") as bytes_of_it:
        return found, bytes_of_it.read(start)


def way_back(env, *how, commits):
    """Converted, run, committed or not, and made a machine again."""
    lab = Lab(env)
    disk = small_disk(lab)
    checksum_before, before = checksum(disk), volume_of(lab, disk, "before")
    lab.ok("convert", "--name", "web1", "--start", *how, disk)
    eventually(lambda: "up: guest" in in_container(env, "web1", "cat /told"), "the guest is up")
    in_container(env, "web1", "echo more > /var/new; busybox rm /var/acl; echo 127.0.0.1 x > /etc/hosts")
    contains(lab.refused("back", "--output", lab.path("vm"), "web1"), "shut it off")
    env.virsh("destroy", "web1").ok()
    if commits:
        lab.ok("commit", "web1")
        contains(lab.refused("commit", "web1"), "already")
        contains(lab.refused("rollback", "web1"), "nothing to go back to")
        os.rename(disk, lab.path("away"))
        env.virsh("start", "web1").ok()
        eventually(lambda: "up: guest" in in_container(env, "web1", "cat /told"), "the guest is up without the disk")
        env.virsh("destroy", "web1").ok()
        contains(lab.refused("back", "--output", lab.path("vm"), "web1"), "No such file")
        os.rename(lab.path("away"), disk)
    lab.ok("back", "--output", lab.path("vm"), "web1")
    equal(sorted(os.listdir(lab.path("vm"))), ["vda.qcow2", "web1.xml"])
    contains((lab.path("vm") / "web1.xml").read_text(), f"{lab.path('vm')}/vda.qcow2")
    after = volume_of(lab, lab.path("vm") / "vda.qcow2", "after")
    changed = trees.differences(before[0], after[0])
    equal(changed.keys() - {"etc", "var", "."}, {"told", "var/new", "var/acl", "var/acl-again", "etc/hosts"},
          "what the container changed")
    equal(after[1], before[1], "what is in front of the volume")
    equal(checksum(disk), checksum_before, "the disk of the machine")
    return lab


@test(("userns",))
def a_container_in_place_becomes_a_machine_again(env):
    lab = way_back(env, commits=False)
    lab.ok("rollback", "web1")
    lab.expect_nothing()


@test(("userns",))
def a_tree_becomes_a_machine_again(env):
    lab = way_back(env, "--copy", "tree", commits=True)
    env.virsh("undefine", "web1").ok()
    expect_unused(lab.folder)


@test(("userns",))
def a_committed_container_needs_the_disk_no_more(env):
    lab = way_back(env, commits=True)
    env.virsh("undefine", "web1").ok()
    expect_unused(lab.folder)


DISKS = {
    "mbr-raw": lambda lab: small_disk(lab, table="dos", form="raw"),
    "xfs-vmdk": lambda lab: small_disk(lab, kind="xfs", form="vmdk", mib=320),
    "ext3-vdi": lambda lab: small_disk(lab, kind="ext3", form="vdi"),
    "btrfs-subvolumes": lambda lab: btrfs_disk(lab),
    "whole-disk": lambda lab: guests.to_format(
        guests.filesystem(lab.path("root.fs"), "ext4", guests.busybox_tree(lab.path("tree")), 48), lab.path("disk.qcow2"), "qcow2"),
    "lvm": lambda lab: lvm_disk(lab),
}


def btrfs_disk(lab):
    tree = guests.busybox_tree(lab.path("tree"))
    (tree / "etc/fstab").write_text(f"UUID={guests.ROOT_UUID} / btrfs subvol=@,compress=zstd 0 0\n"
                                    f"UUID={guests.ROOT_UUID} /home btrfs subvol=/@home 0 0\n")
    root = guests.filesystem(lab.path("root.fs"), "btrfs", tree, 160, subvolumes=("@", "@home"))
    with guests.mounted(root, lab.path("fill"), "-o", "loop,subvol=@home") as place:
        (place / "joe").mkdir()
        (place / "joe/note").write_text("of joe")
    return guests.to_format(guests.partitioned(lab.path("disk.raw"), "gpt", root), lab.path("disk.qcow2"), "qcow2")


def lvm_disk(lab):
    tree = guests.busybox_tree(lab.path("tree"))
    (tree / "etc/fstab").write_text("/dev/mapper/my--vg-root / ext4 defaults 0 1\n/dev/my-vg/home /home ext4 defaults 0 2\n")
    root = guests.filesystem(lab.path("root.fs"), "ext4", tree, 48)
    (lab.path("home") / "joe").mkdir(parents=True)
    (lab.path("home") / "joe/note").write_text("of joe")
    home = guests.filesystem(lab.path("home.fs"), "ext4", lab.path("home"), 12, uuid="random")
    physical = guests.logical(lab.path("pv"), "my-vg", home=home, root=root)
    return guests.to_format(guests.partitioned(lab.path("disk.raw"), "gpt", physical), lab.path("disk.qcow2"), "qcow2")


def every_disk(env, name):
    lab = Lab(env)
    disk = DISKS[name](lab)
    before = checksum(disk)
    lab.ok("convert", "--name", "web1", "--copy", "tree", "--start", disk)
    root = lab.jobs / "web1/root"
    text = told(lab, "web1", root)
    equal(text, "up: guest of joe\n" if name in ("lvm", "btrfs-subvolumes") else "up: guest \n")
    env.virsh("destroy", "web1").ok()
    options = ("-o", "ro,loop" + (",subvol=@" if name.startswith("btrfs") else ""))
    with guests.mounted(lab.path("root.fs"), lab.path("look"), *options) as place:
        found = lost(trees.manifest(place), root)
    equal(found - {"home", "home/lost+found", "home/joe", "home/joe/note"}, {"var/sda", "told"}, "what is not as it was")
    lab.ok("rollback", "web1")
    if name == "btrfs-subvolumes":
        done = lab.convert("convert", "--name", "web1", disk)
        equal(done.returncode, 3, done.stderr)
        contains(done.stdout, "several subvolumes")
    else:
        lab.ok("convert", "--name", "web1", "--start", disk)
        eventually(lambda: in_container(env, "web1", "cat /told") == text, "the guest is up in place")
        env.virsh("destroy", "web1").ok()
        lab.ok("rollback", "web1")
    lab.expect_nothing()
    equal(checksum(disk), before, "the disk of the machine")


@test(("userns",))
def a_raw_disk_with_an_mbr(env):
    every_disk(env, "mbr-raw")


@test(("userns",))
def a_vmdk_with_xfs(env):
    every_disk(env, "xfs-vmdk")


@test(("userns",))
def a_vdi_with_ext3(env):
    every_disk(env, "ext3-vdi")


@test(("userns",))
def a_btrfs_with_subvolumes(env):
    every_disk(env, "btrfs-subvolumes")


@test(("userns",))
def a_disk_without_a_table(env):
    every_disk(env, "whole-disk")


@test(("userns",))
def logical_volumes(env):
    every_disk(env, "lvm")


@test(("userns",))
def a_plan_writes_nothing(env):
    lab = Lab(env)
    disk = small_disk(lab)
    locked = lab.path("luks.raw")
    locked.write_bytes(b"LUKS\xba\xbe\x00\x01" + bytes(4 << 20))
    before = trees.manifest(lab.folder)
    done = lab.convert("plan", "--json", disk)
    equal(done.returncode, 2, f"a guest whose init no rule knows: {done.stderr}")
    report = json.loads(done.stdout)
    equal([(entry["domain"], entry["verdict"]) for entry in report], [("disk", "with losses")])
    check(any("device node" in finding["text"] for finding in report[0]["findings"]), f"device nodes in {report}")
    done = lab.convert("plan", disk, locked)
    equal(done.returncode, 3, f"{done.stdout} {done.stderr}")
    rows = done.stdout.strip().splitlines()[1:]
    check(len(rows) == 2 and rows[0].startswith("disk") and " blocked " in rows[1], done.stdout)
    contains(lab.refused("plan", locked), "no volume has the root")
    contains(lab.refused("plan", lab.path("missing")), "No such file")
    equal(trees.differences(before, trees.manifest(lab.folder)), {}, "what a plan has changed")
    lab.expect_nothing()


@test(("userns",))
def a_machine_that_runs_is_left_alone(env):
    lab = Lab(env)
    disk = small_disk(lab)
    # What a running machine does to its disk: qemu, with the disk open for writing.
    machine = subprocess.Popen(["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=f,filename={disk}", "--blockdev",
                                "driver=qcow2,node-name=d,file=f", "--export", "type=vhost-user-blk,id=e,node-name=d,writable=on,"
                                f"addr.type=unix,addr.path={lab.path('sock')}"])
    try:
        eventually(lambda: lab.path("sock").exists(), "qemu has the disk open")
        for words in (("plan",), ("convert", "--name", "web1"), ("convert", "--name", "web1", "--copy", "tree")):
            contains(lab.refused(*words, disk), "in use by a running VM")
    finally:
        machine.kill()
        machine.wait()
    lab.expect_nothing()
    # And the other way round: while a container runs on top of it, the machine does not start.
    lab.ok("convert", "--name", "web1", "--start", disk)
    done = subprocess.run(["qemu-img", "resize", "-q", disk, "+1M"], capture_output=True, text=True)
    check(done.returncode != 0, "the disk below a running container could be written")
    contains(done.stderr, "lock")
    env.virsh("destroy", "web1").ok()
    lab.ok("rollback", "web1")


DEFINITION = """<domain type='{kind}'{space}><name>vm1</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
<memory unit='MiB'>128</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os>
<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk><graphics type='vnc'/></devices>{state}</domain>"""


def libvirt_host(lab, disk, state):
    """A connection of libvirt's own that has this machine: its test driver, with what it has in a file."""
    space = " xmlns:test='http://libvirt.org/schemas/domain/test/1.0'"
    machine = DEFINITION.format(kind="test", space=space, disk=disk, state=f"<test:runstate>{state}</test:runstate>")
    lab.path("host.xml").write_text(f"<node>{machine}</node>")
    return f"test://{lab.path('host.xml')}"


@test(("userns",))
def a_domain_of_a_connection(env):
    lab = Lab(env)
    disk = small_disk(lab)
    contains(lab.refused("plan", "--connect", libvirt_host(lab, disk, 1), "vm1"), "shut it off first")
    host = libvirt_host(lab, disk, 5)
    contains(lab.refused("plan", "--connect", host, "vm2"), "has no domain 'vm2'")
    done = lab.ok("convert", "--connect", host, "vm1")
    contains(done.stdout, "graphics")
    equal(env.uuid("vm1"), "6695eb01-f6a4-8304-79aa-97f2502e193f")
    contains(lab.refused("convert", "--connect", host, "vm1"), "converted already")
    contains(lab.refused("convert", "--connect", host, "--name", "other", "vm1"), "already; a second one needs --clone")
    lab.ok("convert", "--connect", host, "--clone", "--name", "other", "vm1")
    check(env.uuid("other") != env.uuid("vm1"), "a clone is the same machine")
    lab.ok("rollback", "other")
    lab.ok("rollback", "vm1")
    lab.path("vm.xml").write_text(DEFINITION.format(kind="kvm", space="", disk=disk, state=""))
    lab.ok("convert", "--xml", lab.path("vm.xml"), "--name", "web2", "--copy", "tree")
    lab.ok("rollback", "web2")
    lab.expect_nothing()


def debian_disk(lab):
    """A Debian with its root on one partition of a GPT and /home on another, as a qcow2 with a snapshot below it."""
    if not DEBIAN.exists():
        raise Skip(f"there is no {DEBIAN}: tests/support/make-debian-tree makes it, as root")
    tree = guests.debian_tree(lab.path("tree"), DEBIAN)
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants.parent / "tell.service").write_text(TELL)
    (wants / "tell.service").symlink_to("../tell.service")
    home = lab.path("home")
    home.mkdir()
    (home / "note").write_text("of joe")
    os.chown(home / "note", 1000, 1000)
    root = guests.filesystem(lab.path("root.fs"), "ext4", tree, 400)
    raw = guests.partitioned(lab.path("disk.raw"), "gpt", root,
                             guests.filesystem(lab.path("home.fs"), "ext4", home, 16, label="home", uuid="random"))
    guests.to_format(raw, lab.path("base.qcow2"), "qcow2")
    guests.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", lab.path("disk.qcow2"))
    shutil.rmtree(tree)
    raw.unlink()
    return lab.path("disk.qcow2")


def wait_for_systemd(read):
    """`read()` is what tell.service has written, or None."""
    equal(eventually(read, "systemd says how far it has got", 60), "running\n", "what systemd says, and its failed units")


@test(("userns",))
def a_debian_boots_and_the_disk_stays(env):
    lab = Lab(env)
    disk = debian_disk(lab)
    before = checksum(disk), checksum(lab.path("base.qcow2"))
    lab.ok("convert", "--name", "web1", "--copy", "tree", "--start", disk)
    root = lab.jobs / "web1/root"
    text = lambda: (root / "told").read_text() if (root / "told").exists() else None  # noqa: E731
    wait_for_systemd(text)
    equal((root / "home/note").read_text(), "of joe")
    equal((root / "home/note").stat().st_uid, 1000)
    (root / "told").unlink()
    env.virsh("reboot", "web1").ok()
    wait_for_systemd(text)
    env.virsh("shutdown", "web1").ok()
    eventually(lambda: env.state("web1")[0] == "shut off", "systemd powers off", 30)
    lab.ok("rollback", "web1")
    lab.expect_nothing()
    equal((checksum(disk), checksum(lab.path("base.qcow2"))), before, "the disks of the machine")


main()
