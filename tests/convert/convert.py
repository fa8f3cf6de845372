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
import debian_domain  # noqa: E402
import guests  # noqa: E402
import trees  # noqa: E402
from harness import check, contains, equal, eventually, main, matches, test  # noqa: E402
from lab import Lab, checksum, expect_unused, in_container, lost, original, small_disk, told  # noqa: E402


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
    rewritten = set()
    if "tree" in how:  # other contents, and the size and time that it had
        sparse = lab.jobs / "web1/root/var/sparse"
        times = sparse.stat()
        with open(sparse, "r+b") as file:
            file.seek(8 * guests.MIB)
            file.write(b"END")
        os.utime(sparse, ns=(times.st_atime_ns, times.st_mtime_ns))
        rewritten = {"var/sparse"}
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
    equal(changed.keys() - {"etc", "var", "."}, {"told", "var/new", "var/acl", "var/acl-again", "etc/hosts"} | rewritten,
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


@test(("userns",))
def a_commit_that_does_not_succeed_takes_nothing_away(env):
    lab = Lab(env)
    disk = small_disk(lab)
    up = lambda: "up: guest" in in_container(env, "web1", "cat /told")  # noqa: E731
    lab.ok("convert", "--name", "web1", "--start", disk)
    eventually(up, "the guest is up")
    contains(lab.refused("commit", "web1"), "shut it off")
    env.virsh("destroy", "web1").ok()
    contains(lab.ok("rollback", "web1").stdout, "web1: rolled back (")
    lab.ok("convert", "--name", "web1", disk)
    # One that was killed has left a copy, and the container has run since.
    guests.run("qemu-img", "create", "-q", "-f", "qcow2", lab.jobs / "web1/vda2.own.qcow2", "48M")
    env.virsh("start", "web1").ok()
    eventually(up, "the guest is up again")
    in_container(env, "web1", "echo since > /var/new")
    env.virsh("destroy", "web1").ok()
    contains(lab.ok("commit", "web1").stdout, "web1: committed (")
    env.virsh("start", "web1").ok()
    eventually(lambda: "since" in in_container(env, "web1", "cat /var/new"), "it has what was written since")
    env.virsh("destroy", "web1").ok()
    equal(sorted(os.listdir(lab.jobs / "web1")), ["originals", "state.json", "vda2.own.qcow2"])
    env.virsh("undefine", "web1").ok()


def held_guest(lab):
    """Two volumes, and files that chattr holds fast."""
    tree = guests.busybox_tree(lab.path("tree"))
    with open(tree / "etc/fstab", "a") as fstab:
        fstab.write("LABEL=home /home ext4 defaults 0 2\n")
    root = guests.filesystem(lab.path("root.fs"), "ext4", tree, 48)
    with guests.mounted(root, lab.path("hold"), "-o", "loop") as place:
        for name in ("kept", "changed", "gone"):
            (place / "var" / name).write_text("of the machine")
        (place / "var/closed/below").mkdir(parents=True)
        guests.run("chattr", "+i", *(place / "var" / name for name in ("kept", "changed", "gone", "closed/below", "closed")))
        guests.run("chattr", "+a", place / "var/setuid")
        guests.run("chattr", "+i", place / "etc/fstab")  # which a rule edits
    home = guests.filesystem(lab.path("home.fs"), "ext4", None, 16, label="home", uuid="5d1c9a34-7d5a-4f4e-9a53-2f6f1d3f0a02")
    return guests.partitioned(lab.path("disk.raw"), "gpt", root, home)


@test(("userns",))
def what_is_held_fast_or_linked_across_volumes_goes_back(env):
    lab = Lab(env)
    disk = held_guest(lab)
    for how in ((), ("--copy", "tree")):
        lab.ok("convert", "--name", "web1", *how, disk)
        if how:
            root = lab.jobs / "web1/root"
            (root / "var/changed").write_text("of the container")
            os.unlink(root / "var/gone")
            shutil.rmtree(root / "var/closed")
            os.link(root / "etc/hostname", root / "home/again")
        done = lab.ok("back", "--output", lab.path("vm"), "web1")
        raw = guests.run("qemu-img", "convert", "-O", "raw", lab.path("vm/vda.qcow2"), lab.path("vm.raw")) or lab.path("vm.raw")
        starts = [int(line.split("start=")[1].split(",")[0]) * 512
                  for line in guests.run("sfdisk", "-d", raw).splitlines() if "start=" in line]
        with guests.mounted(raw, lab.path("look"), "-o", f"ro,loop,offset={starts[1]}") as place:
            contains((place / "etc/fstab").read_text(), "LABEL=home /home ext4 defaults 0 2\n")
            flags = guests.run("lsattr", "-d", place / "var/kept", place / "var/setuid")
            equal([line.split()[0].strip("-e") for line in flags.splitlines()], ["i", "a"], "flags of what did not change")
            if how:
                equal((place / "var/changed").read_text(), "of the container")
                equal([name for name in ("gone", "closed") if (place / "var" / name).exists()], [])
        if how:
            contains(" ".join(done.stdout.split()), "1 hard links: are files of their own now")
            with guests.mounted(raw, lab.path("look"), "-o", f"ro,loop,offset={starts[2]}") as place:
                equal((place / "again").read_text(), "guest\n")
        shutil.rmtree(lab.path("vm"))
        os.unlink(raw)
        lab.ok("rollback", "web1")
    lab.expect_nothing()


@test(("userns",))
def what_is_not_there_is_said(env):
    lab = Lab(env)
    disk = small_disk(lab)
    contains(lab.refused("plan", "--root", "vda9", disk), "no volume 'vda9'; there are 'vda1', 'vda2'")
    contains(lab.refused("plan", "--connect", "test:///default", "web1.qcow2"), "'web1.qcow2' is no disk here, and as a domain")
    contains(lab.refused("plan", "--connect", "test:///default", "/nowhere/web1.qcow2"), "No such file")


@test(("userns",))
def a_full_disk_can_be_left(env):
    lab = Lab(env)
    disk = small_disk(lab)
    lab.jobs.mkdir()
    guests.run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", lab.jobs)
    try:
        lab.ok("convert", "--name", "web1", disk)
        guests.fill(lab.jobs / "fill")
        contains(lab.refused("convert", "--name", "web2", disk), "No space left")
        equal([name for name in os.listdir(lab.jobs) if "web2" in name], [])
        lab.ok("rollback", "web1")
        equal(os.listdir(lab.jobs), ["fill"])
    finally:
        guests.run("umount", lab.jobs)
    lab.expect_nothing()


@test(("userns",))
def files_that_say_they_are_small_do_not_fill_the_folder(env):
    """How many blocks a file has is what its file system says: the copy counts for itself, and leaves room for others."""
    lab = Lab(env)
    tree = guests.busybox_tree(lab.path("tree"))
    (tree / "var/bomb").write_bytes(os.urandom(100 * guests.MIB))
    root = guests.filesystem(lab.path("root.fs"), "ext4", tree, 160)
    guests.run("debugfs", "-w", "-R", "set_inode_field /var/bomb blocks 0", root)
    disk = guests.partitioned(lab.path("disk.raw"), "gpt", root)
    lab.jobs.mkdir()
    guests.run("mount", "-t", "tmpfs", "-o", "size=130m", "tmpfs", lab.jobs)
    try:
        watched = subprocess.Popen(lab.argv("convert", "--name", "web1", "--copy", "tree", disk), stderr=subprocess.PIPE, text=True)
        free = lambda: os.statvfs(lab.jobs).f_bavail * os.statvfs(lab.jobs).f_frsize  # noqa: E731
        least = free()
        while watched.poll() is None:
            least = min(least, free())
        equal(watched.returncode, 1)
        contains(watched.stderr.read(), "than there is room for")
        check(least > 48 * guests.MIB, f"{least} bytes were left to others")
        equal(os.listdir(lab.jobs), [])
    finally:
        guests.run("umount", lab.jobs)
    lab.expect_nothing()


@test(("userns",))
def a_mount_point_that_is_missing_is_made(env):
    """As systemd makes it at every boot of the machine."""
    lab = Lab(env)
    tree = guests.busybox_tree(lab.path("tree"))
    with open(tree / "etc/fstab", "a") as fstab:
        fstab.write("LABEL=data /srv/deep/data ext4 defaults 0 2\n")
    content = lab.path("content")
    content.mkdir()
    (content / "note").write_text("of the volume")
    disk = guests.partitioned(
        lab.path("disk.raw"), "gpt", guests.filesystem(lab.path("root.fs"), "ext4", tree, 48),
        guests.filesystem(lab.path("data.fs"), "ext4", content, 16, label="data", uuid="5d1c9a34-7d5a-4f4e-9a53-2f6f1d3f0a02"))
    before = checksum(disk)
    contains(" ".join(lab.convert("plan", disk).stdout.split()), "/srv/deep/data': is not there to be mounted on, and will be made")
    for how in ((), ("--copy", "tree")):
        lab.ok("convert", "--name", "web1", "--start", *how, disk)
        eventually(lambda: in_container(env, "web1", "cat /srv/deep/data/note") == "of the volume", "the volume is there")
        env.virsh("destroy", "web1").ok()
        lab.ok("rollback", "web1")
    lab.expect_nothing()
    equal(checksum(disk), before, "the disk of the machine")


@test(("userns",))
def a_report_comes_also_when_the_container_does_not_start(env):
    lab = Lab(env)
    tree = guests.busybox_tree(lab.path("tree"))
    (tree / "sbin/init").write_text("no program\n")
    disk = guests.partitioned(lab.path("disk.raw"), "gpt", guests.filesystem(lab.path("root.fs"), "ext4", tree, 48))
    done = lab.convert("convert", "--name", "web1", "--start", disk)
    equal(done.returncode, 1, done.stderr)
    contains(done.stderr, "'web1' is converted, and does not start: ")
    contains(done.stdout, "device node")
    equal(env.state("web1")[0], "shut off")
    lab.ok("rollback", "web1")
    lab.expect_nothing()


@test(("userns",))
def options_of_other_commands_are_refused(env):
    lab = Lab(env)
    contains(lab.refused("rollback", "--copy", "tree", "web1"), "'rollback' has no use for --copy")
    contains(lab.refused("plan", "--start", "web1"), "'plan' has no use for --start")
    contains(lab.refused("convert", "--output", "/x", "web1"), "'convert' has no use for --output")
    contains(lab.refused("back", "--name", "x", "web1"), "'back' has no use for --name")
    contains(lab.refused("convret", "web1"), "'convret' is no command")


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
    tree = guests.debian_tree(lab.path("tree"), debian_domain.archive())
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants.parent / "tell.service").write_text(debian_domain.TELL)
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
    lab.ok("convert", "--name", "web1", "--format", "qcow2", "--copy", "tree", "--start", disk)
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
