"""File systems in images: raw and qcow2, whole and partitioned, as root and beside it; and what becomes of them when something
dies."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

from harness import check, contains, daemon_module, equal, eventually, main, test
from image_files import (MIB, NBD, STORAGE_DAEMON, USERNS, blank, controller, define, ext4, filesystem, is_clean,
                         load_modules, loops, need, need_qemu, partitioned, qcow2, reboot, refused, run, servers, sh, start)


@test(drivers=USERNS)
def a_raw_image_is_the_root(env):
    image = ext4(env)
    before = os.path.getsize(image)
    start(env, "web", filesystem(image))
    blocks = int(sh(env, "web", "df -k / | tail -n1").split()[1])
    check(16 * 1024 < blocks < 24 * 1024, f"df says {blocks} KiB of an image of 24 MiB")
    contains(sh(env, "web", "grep ' / ' /proc/mounts"), "nodev")
    contains(sh(env, "web", "grep ' / ' /proc/mounts"), "errors=remount-ro")
    sh(env, "web", "echo kept > /kept; stat -c %u:%g /kept | grep -q 0:0")
    contains(env.virsh("dumpxml", "web").ok().out, f"<source file='{image}'/>")
    equal(len(loops(image)), 1, "loop devices of a running domain")
    reboot(env, "web")
    contains(sh(env, "web", "cat /kept"), "kept")
    env.virsh("destroy", "web").ok()
    equal(loops(image), [], "loop devices after the end")
    is_clean(image)
    equal(run("debugfs", "-R", "cat /kept", image), "kept\n")
    equal(os.path.getsize(image), before)


@test(drivers=USERNS)
def two_domains_do_not_write_one_image(env):
    image = ext4(env)
    start(env, "web", filesystem(image))
    define(env, "bad", filesystem(image))
    refused(env, image, "in use by another domain")
    define(env, "bad", filesystem(image, more="<readonly/>"))
    refused(env, image, "in use by another domain")
    # The lock is the kernel's, for as long as there is the loop device; no process is needed for it.
    os.kill(controller(env, "web"), signal.SIGKILL)
    eventually(lambda: env.state("web")[0] == "shut off", "the domain is gone")
    eventually(lambda: not loops(image), "the loop device is gone")
    env.virsh("undefine", "web").ok()
    define(env, "one", filesystem(image, more="<readonly/>"))
    define(env, "two", filesystem(image, more="<readonly/>"))
    for name in ("one", "two"):
        env.virsh("start", name).ok()
    define(env, "bad", filesystem(image))
    refused(env, image, "in use by another domain")


@test(drivers=USERNS)
def a_running_virtual_machine_has_its_image_for_itself(env):
    need_qemu()
    image = ext4(env)
    socket = os.path.join(env.folder, "nbd")
    qemu = subprocess.Popen([STORAGE_DAEMON, "--blockdev", f"driver=file,filename={image},node-name=f", "--blockdev",
                             "driver=raw,file=f,node-name=d", "--nbd-server", f"addr.type=unix,addr.path={socket}", "--export",
                             "type=nbd,id=e,node-name=d,writable=on"], stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: os.path.exists(socket), "qemu has the image open")
        for more in ("", "<readonly/>"):
            define(env, "bad", filesystem(image, more=more))
            refused(env, image, "virtual machine")
    finally:
        qemu.kill()
        qemu.wait()
    start(env, "web", filesystem(image))
    other = subprocess.run(["qemu-io", "-c", "write 0 512", "-f", "raw", image], capture_output=True, text=True, check=False)
    check(other.returncode != 0 and "lock" in other.stderr, f"qemu wrote it: {other.stderr}")


@test(drivers=USERNS)
def a_partition_of_a_qcow2_image_is_the_root(env):
    need_qemu()
    image = qcow2(partitioned(env, ext4(env)))
    start(env, "web", filesystem(image, driver=NBD), parts="<userns:image target='/' partition='3'/>")
    blocks = int(sh(env, "web", "df -k / | tail -n1").split()[1])
    check(16 * 1024 < blocks < 24 * 1024, f"df says {blocks} KiB")
    # Many at a time, past the page cache too: qemu's export must never have two writes at once (driver/kernel/device.cpp).
    sh(env, "web", "mkdir /w; for i in 1 2 3 4 5 6 7 8; do (for j in 1 2 3 4; do dd if=/bin/busybox of=/w/$i.$j bs=32k count=8 "
       "oflag=direct conv=fsync 2>/dev/null || exit 1; done) & done; wait; echo kept > /kept; "
       "dd if=/bin/busybox of=/first bs=32k count=8 2>/dev/null; for f in /w/*; do cmp $f /first || exit 1; done; ls /w | wc -l")
    server = servers(env)
    equal(len(server), 1, "storage daemons")
    looks_jailed(server[0])
    for who in ("self", controller(env, "web"), server[0]):
        check("virtuserns-image" not in pathlib.Path(f"/proc/{who}/mountinfo").read_text(), f"{who} shows the mount of the disk")
    reboot(env, "web")
    contains(sh(env, "web", "cat /kept"), "kept")
    equal(servers(env), server, "the storage daemon outlives a boot")
    env.virsh("destroy", "web").ok()
    eventually(lambda: not servers(env), "the storage daemon is gone", 5)
    contains(run("qemu-img", "check", image), "No errors")
    raw = os.path.join(env.folder, "back.img")
    run("qemu-img", "convert", "-O", "raw", image, raw)
    with open(raw, "rb") as disk, open(raw + ".part", "wb") as part:
        disk.seek(4 * MIB)
        part.write(disk.read(24 * MIB))
    is_clean(raw + ".part")
    equal(run("debugfs", "-R", "cat /kept", raw + ".part"), "kept\n")


def looks_jailed(pid):
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    equal(status["Uid"].split(), ["65535"] * 4)
    equal(status["Groups"].strip(), "")
    for name in ("CapPrm", "CapEff", "CapBnd"):
        equal(int(status[name], 16), 2, name)  # CAP_DAC_OVERRIDE
    equal((status["NoNewPrivs"].strip(), status["Seccomp"].strip()), ("1", "2"))
    for name in ("mnt", "pid", "net", "ipc", "uts"):
        check(os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"), f"{name} is the host's")
    equal(sorted({*os.listdir(f"/proc/{pid}/root")} - {"lib64"}), ["dev", "images", "lib", "usr"])
    equal(pathlib.Path(f"/proc/{pid}/environ").read_bytes(), b"")


@test(drivers=USERNS)
def whoever_dies(env):
    """The daemon: nothing happens. The storage daemon or the controller: the domain has crashed, and all of it is gone."""
    need_qemu()
    image = qcow2(ext4(env))
    start(env, "web", filesystem(image, driver=NBD))
    sh(env, "web", "echo synced > /synced; sync")
    env.daemon.kill()
    env.daemon.start()
    eventually(lambda: env.state("web")[0] == "running", "the next daemon finds it")
    contains(sh(env, "web", "cat /synced"), "synced")
    server = servers(env)[0]
    os.kill(server, signal.SIGTERM)  # as systemd ends a scope: it is not the daemon's to hear
    time.sleep(0.2)
    contains(sh(env, "web", "echo still > /still; sync; cat /still"), "still")
    equal(servers(env), [server])
    errors = os.open(f"/proc/{server}/fd/2", os.O_WRONLY)
    with contextlib.suppress(BrokenPipeError):  # the controller listens no longer
        for number in range(500):
            os.write(errors, f"word {number}\x1b\n".encode())
            time.sleep(0.001)
    os.close(errors)
    for victim in (lambda: servers(env)[0], lambda: controller(env, "web")):
        pid = victim()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: env.state("web") == ("shut off", "crashed"), "the domain has crashed")
        eventually(lambda: not servers(env), "no storage daemon is left")
        contains(run("qemu-img", "info", image), "file format: qcow2")  # no lock is left
        env.virsh("start", "web").ok()
        contains(sh(env, "web", "cat /synced"), "synced")
    os.kill(servers(env)[0], signal.SIGSTOP)  # nothing that is asked of the image is ever answered
    began = time.monotonic()
    env.virsh("destroy", "web").ok()
    check(time.monotonic() - began < 15 * daemon_module.TIME_FACTOR, "the end waits for a storage daemon that does not answer")
    eventually(lambda: not servers(env), "no storage daemon is left")
    log = pathlib.Path("/var/log/libvirt/userns/web.log").read_text()
    contains(log, f"the storage daemon of image '{image}' says: word 0")
    check("\x1b" not in log and log.count(" says: ") <= 64, "what it says is printable and has a bound")
    contains(log, f"the storage daemon of image '{image}' of domain 'web' is gone")


@test(drivers=USERNS)
def an_overlay_lies_on_what_the_definition_names(env):
    need_qemu()
    base = qcow2(partitioned(env, ext4(env), label="dos", number=2))
    overlay = qcow2(base, backing=(base, "qcow2"))
    digest = run("sha256sum", base)
    define(env, "bad", filesystem(overlay, driver=NBD), parts="<userns:image target='/' partition='2'/>")
    contains(refused(env, "overlay on", "<userns:backing"), base)
    backing = f"<userns:backing file='{base}' format='qcow2'/>"
    define(env, "bad", filesystem(base, driver=NBD), parts=f"<userns:image target='/' partition='2'>{backing}</userns:image>")
    refused(env, "is no overlay")
    start(env, "web", filesystem(overlay, driver=NBD),
          parts=f"<userns:image target='/' partition='2'>{backing}</userns:image>")
    contains(env.virsh("dumpxml", "web").ok().out, "<userns:backing file=")
    sh(env, "web", "echo written > /written")
    env.virsh("destroy", "web").ok()
    equal(run("sha256sum", base), digest, "what lies below is not written")
    env.virsh("start", "web").ok()
    contains(sh(env, "web", "cat /written"), "written")


@test(drivers=USERNS)
def other_kinds_beside_the_root(env):
    """Two xfs with the same UUID, a subvolume of a btrfs, ext2, and a region by its bytes."""
    need("mkfs.xfs", "mkfs.btrfs", "mke2fs")
    one = blank(env, "one.xfs", 300 * MIB)
    run("mkfs.xfs", "-q", one)
    two = os.path.join(env.folder, "two.xfs")
    run("cp", "--sparse=always", one, two)
    tree_of = pathlib.Path(env.folder, "sub")
    tree_of.mkdir()
    (tree_of / "top").write_text("top")
    btrfs = blank(env, "pool.btrfs", 120 * MIB)
    run("mkfs.btrfs", "-q", "-r", tree_of, btrfs)
    ext2 = blank(env, "old.ext2", 4 * MIB)
    run("mke2fs", "-q", "-t", "ext2", ext2)
    region = partitioned(env, ext4(env, "part.img"), "region.img")
    start(env, "web", filesystem(ext4(env)), filesystem(one, "/one"), filesystem(two, "/two"), filesystem(btrfs, "/pool"),
          filesystem(ext2, "/old"), filesystem(region, "/region"),
          parts=f"<userns:image target='/region' offset='{4 * MIB}' size='{24 * MIB}'/>")
    mounts = sh(env, "web", "cat /proc/mounts")
    for target, kind in (("one", "xfs"), ("two", "xfs"), ("pool", "btrfs"), ("old", "ext4"), ("region", "ext4")):
        contains(mounts, f" /{target} {kind} rw,nodev")
        sh(env, "web", f"touch /{target}/file && stat -c %u /{target}/file | grep -q '^0$'")
    contains(sh(env, "web", "cat /pool/top"), "top")
    env.virsh("destroy", "web").ok()
    make_subvolume(env, btrfs, "@home")
    start(env, "sub", filesystem(ext4(env, "other.img")), filesystem(btrfs, "/home"),
          parts="<userns:image target='/home' subvolume='@home'/>")
    equal(sh(env, "sub", "ls /home"), "inner\n")
    define(env, "bad", filesystem(ext4(env, "third.img")), filesystem(one, "/one"),
           parts="<userns:image target='/one' subvolume='@'/>")
    refused(env, "has no subvolumes")


def make_subvolume(env, image, name):
    place = os.path.join(env.folder, "mnt")
    os.mkdir(place)
    run("mount", "-o", "loop", image, place)
    try:
        run("btrfs", "subvolume", "create", f"{place}/{name}")
        pathlib.Path(place, name, "inner").write_text("")
    finally:
        run("umount", place)


@test(drivers=USERNS)
def a_dirty_journal(env):
    """Replayed by whoever may write; <readonly/> sees what was there before and writes nothing."""
    image = ext4(env)
    dirty = os.path.join(env.folder, "dirty.img")
    start(env, "web", filesystem(image))
    sh(env, "web", "echo late > /late; sync")
    shutil.copy(image, dirty)  # as after a loss of power
    env.virsh("destroy", "web").ok()
    contains(run("dumpe2fs", "-h", dirty), "needs_recovery")
    digest = run("sha256sum", dirty)
    start(env, "look", filesystem(image), filesystem(dirty, "/dirty", more="<readonly/>"))
    contains(sh(env, "look", "grep ' /dirty ' /proc/mounts"), " ro,")
    check("Read-only" in sh(env, "look", "touch /dirty/x 2>&1 || true"), "a read-only image was written")
    env.virsh("destroy", "look").ok()
    equal(run("sha256sum", dirty), digest, "a read-only image was written")
    start(env, "take", filesystem(image), filesystem(dirty, "/dirty"))
    contains(sh(env, "take", "cat /dirty/late"), "late")
    env.virsh("destroy", "take").ok()
    is_clean(dirty)


@test(drivers=USERNS)
def a_block_device(env):
    image = ext4(env)
    device = run("losetup", "-f", "--show", image).strip()
    try:
        define(env, "web", filesystem(device, driver="", kind="block"))
        env.virsh("start", "web").ok()
        # By what was opened and looked at, not by its name once more.
        equal(len(loops(device)), 1, "loop devices on the device")
        define(env, "bad", filesystem(device, driver="", kind="block"))
        refused(env, device, "in use")
        define(env, "bad", filesystem(device, driver="", kind="block"), parts=f"<userns:image target='/' offset='0' size='{MIB}'/>")
        refused(env, device, "in use")
        env.virsh("destroy", "web").ok()
        define(env, "part", filesystem(device, driver="", kind="block"),
               parts=f"<userns:image target='/' offset='0' size='{24 * MIB}'/>")
        env.virsh("start", "part").ok()
        define(env, "bad", filesystem(device, driver="", kind="block"))
        refused(env, device, "in use")
        env.virsh("destroy", "part").ok()
    finally:
        run("losetup", "-d", device)
    is_clean(image)


@test(drivers=USERNS)
def what_a_definition_may_say(env):
    good = "<userns:image target='/' {}/>"
    for words, said in (("partition='0'", "between 1 and"), ("partition='1' offset='512'", "leave out"),
                        ("offset='100'", "multiple of 512"), ("size='0'", "must not be 0"), ("subvolume='../x'", "without '..'"),
                        ("sector='1'", "unknown attribute")):
        xml = (f"<domain type='lxc'><name>bad</name><metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'>"
               f"{good.format(words)}</userns:domain></metadata><memory>1024</memory><os><type>exe</type></os><devices>"
               f"{filesystem('/nowhere')}</devices></domain>")
        contains(env.virsh("define", env.write_xml(xml)).fails().err, said)
    define(env, "odd", filesystem("/nowhere"), parts="<userns:image target='/data' partition='1'/>")
    contains(env.virsh("dominfo", "odd").ok().out, "<userns:image> '/data' has no effect")


if __name__ == "__main__":
    load_modules()
    main()
