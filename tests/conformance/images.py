"""File systems in images: raw and qcow2, whole and partitioned, as root and beside it; what they do when something dies; and
images that somebody made to do harm."""
import contextlib
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import host_state  # noqa: E402
from harness import Failure, Skip, check, contains, daemon_module, equal, eventually, main, test  # noqa: E402

USERNS = ("userns",)
MIB = 1 << 20
STORAGE_DAEMON = "/usr/bin/qemu-storage-daemon"


# ---- making images ----

def run(*argv, **how):
    result = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, **how)
    if result.returncode != 0:
        raise Failure(f"{' '.join(map(str, argv))}: {result.stdout}{result.stderr}")
    return result.stdout


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(f"{program} is not installed")
    if not os.path.exists("/dev/loop-control"):
        raise Skip("this machine has no loop devices")


def need_qemu():
    need("qemu-img", STORAGE_DAEMON)
    if not os.path.exists("/dev/fuse"):
        raise Skip("this machine has no /dev/fuse")


def blank(env, name, size):
    path = os.path.join(env.folder, name)
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def tree(env):
    root = pathlib.Path(env.root_tree())
    for name in ("df", "mount", "touch", "sync", "dd", "grep", "stat", "cmp", "mkdir", "wc"):
        (root / "bin" / name).symlink_to("busybox")
    return str(root)


def ext4(env, name="root.img", size=24 * MIB, root=None, options=()):
    need("mkfs.ext4")
    path = blank(env, name, size)
    run("mkfs.ext4", "-q", "-d", root or tree(env), *options, path)
    return path


def partitioned(env, part, name="disk.img", label="gpt", number=3):
    """A disk whose partition `number` holds what is in the file `part`, at 4 MiB."""
    need("sfdisk")
    size = os.path.getsize(part)
    path = blank(env, name, size + 8 * MIB)
    script = f"label: {label}\n{number} : start={4 * MIB // 512}, size={size // 512}\n"
    run("sfdisk", "-q", path, input=script)
    with open(part, "rb") as source, open(path, "r+b") as disk:
        disk.seek(4 * MIB)
        shutil.copyfileobj(source, disk)
    return path


def qcow2(path, backing=None):
    to = path.removesuffix(".img") + (".overlay" if backing else "") + ".qcow2"
    if backing:
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing[0], "-F", backing[1], to)
    else:
        run("qemu-img", "convert", "-O", "qcow2", path, to)
    return to


# ---- domains ----

def filesystem(path, target="/", driver="<driver type='loop'/>", more="", kind="file"):
    word = "dev" if kind == "block" else "file"
    return f"<filesystem type='{kind}'>{driver}<source {word}='{path}'/><target dir='{target}'/>{more}</filesystem>"


NBD = "<driver type='nbd' format='qcow2'/>"


def define(env, name, *filesystems, parts=""):
    metadata = f"<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'>{parts}</userns:domain></metadata>"
    xml = (f"<domain type='lxc'><name>{name}</name>{metadata if parts else ''}<memory unit='MiB'>256</memory><vcpu>1</vcpu>"
           f"<os><type>exe</type><init>/sbin/init</init></os><devices>{''.join(filesystems)}"
           f"<console type='pty'/></devices></domain>")
    env.virsh("undefine", name)  # what an earlier case has left
    env.virsh("define", env.write_xml(xml)).ok()
    return name


def start(env, name, *filesystems, parts=""):
    define(env, name, *filesystems, parts=parts)
    env.virsh("start", name).ok()
    return name


def refused(env, *parts_of_error, name="bad"):
    """The start fails by a reason that says all of this; and nobody is left who serves the image."""
    before = servers(env)
    result = env.virsh("start", name).fails()
    for part in parts_of_error:
        contains(result.err, part)
    equal(env.virsh("domstate", name).ok().out.strip(), "shut off")
    equal(servers(env), before, "storage daemons after a failed start")
    return result.err


@contextlib.contextmanager
def naming(what):
    try:
        yield
    except Failure as failure:
        raise Failure(f"{what}: {failure}") from failure


def sh(env, name, script, fails=False):
    program = os.path.join(env.daemon.build, "driver", "exec", "virt-userns-exec")
    result = subprocess.run([program, "-c", env.uri, name, "--", "sh", "-c", script], capture_output=True, text=True,
                            timeout=60 * daemon_module.TIME_FACTOR, check=False)
    if not fails:
        equal(result.returncode, 0, f"{script}: {result.stdout}{result.stderr}")
    return result.stdout


def reboot(env, name):
    sh(env, name, "touch /dev/last-boot")
    env.virsh("reboot", name).ok()
    eventually(lambda: "no" in sh(env, name, "ls /dev/last-boot >/dev/null 2>&1 || echo no", fails=True), "it has booted again")


def controller(env, name):
    return int(env.virsh("domid", name).ok().out)


def servers(env):
    """Storage daemons of this run: by the process that made them."""
    mine = host_state.descendants(os.getpid())
    return sorted(pid for pid in mine if host_state._stat_fields(pid) and _is_server(pid))


def _is_server(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text().startswith("qemu-storage") and host_state._state(pid) != "Z"
    return False


def loops(path):
    """Loop devices on that file."""
    found = []
    for backing in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().strip() == str(path):
                found.append(backing.parts[3])
    return found


def is_clean(path):
    """Whoever wrote it last has unmounted it."""
    state = run("dumpe2fs", "-h", path)
    check("needs_recovery" not in state and "Filesystem state:         clean" in state, f"not unmounted in order: {state}")
    run("e2fsck", "-f", "-n", path)


# ---- tests ----

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
    check("fuse" not in pathlib.Path("/proc/self/mountinfo").read_text().replace("fusectl", ""), "a mount shows on the host")
    check("virtuserns-image" not in pathlib.Path(f"/proc/{controller(env, 'web')}/mountinfo").read_text(), "a mount shows")
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
    equal(sorted(os.listdir(f"/proc/{pid}/root")), ["dev", "images", "lib", "lib64", "usr"])
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
        contains(sh(env, "web", "grep ' / ' /proc/mounts"), f"{device} / ext4")
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


# ---- images that were made to do harm ----

def patched(env, image, name, at, data):
    path = os.path.join(env.folder, name)
    shutil.copy(image, path)
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)
    return path


@test(drivers=USERNS)
def hostile_raw_images(env):
    good = ext4(env)
    cases = [("zeroes", blank(env, "zero.img", 4 * MIB), ["no file system was recognised"]),
             ("empty", blank(env, "empty.img", 0), ["it ends before byte 0"]),
             # struct ext4_super_block at 1024: s_journal_inum and s_journal_dev, s_mount_opts
             ("journal elsewhere", patched(env, good, "jdev.img", 1024 + 0xe0, struct.pack("<II", 0, 0x0800)),
              ["journal on another device"]),
             ("journal of another", patched(env, good, "journal.img", 1024 + 0x60, struct.pack("<I", 0x8)), []),
             ("options", patched(env, good, "opts.img", 1024 + 0x200, b"journal_path=/dev/vda\0"), ["options of mount"]),
             ("truncated", truncated(env, good, "short.img", 9 * MIB), ["make ext4"]),
             ("swap", swap(env), ["'swap'"]),
             ("partition beyond the end", truncated(env, partitioned(env, good), "cut.img", 12 * MIB),
              ["partition"], "<userns:image target='/' partition='3'/>"),
             ("no such partition", partitioned(env, good, "gpt.img"), ["no partition 7, only 3"],
              "<userns:image target='/' partition='7'/>"),
             ("no table", good, ["no partition"], "<userns:image target='/' partition='1'/>"),
             ("a table only", partitioned(env, good, "whole.img"), ["partition='N'"]),
             ("region beyond the end", good, ["has not"], f"<userns:image target='/' offset='0' size='{1 << 50}'/>"),
             ("offset beyond the end", good, ["it ends before"], f"<userns:image target='/' offset='{1 << 50}'/>")]
    for what, image, said, *parts in cases:
        define(env, "bad", filesystem(image), parts=parts[0] if parts else "")
        with naming(what):
            error = refused(env, image, *said)
        equal(loops(image), [], f"{what}: loop devices")
        check("internal error" not in error, f"{what}: {error}")


def truncated(env, image, name, size):
    path = os.path.join(env.folder, name)
    shutil.copy(image, path)
    os.truncate(path, size)
    return path


def swap(env):
    path = blank(env, "swap.img", 4 * MIB)
    run("mkswap", path)
    return path


@test(drivers=USERNS)
def an_image_that_asks_for_a_panic(env):
    """The super block says what the machine is to do when it finds an error. Only looked at: nothing here goes wrong."""
    image = ext4(env)
    run("tune2fs", "-e", "panic", image)
    start(env, "web", filesystem(image))
    check("errors=panic" not in sh(env, "web", "cat /proc/mounts"), "the image decides what the machine does at an error")


@test(drivers=USERNS)
def a_btrfs_of_several_devices(env):
    need("mkfs.btrfs")
    good = ext4(env)
    pool = blank(env, "two.btrfs", 120 * MIB)
    run("mkfs.btrfs", "-q", pool)
    path = patched(env, pool, "spread.btrfs", 65536 + 0x88, struct.pack("<Q", 2))
    fix_btrfs_checksum(path)
    define(env, "bad", filesystem(good), filesystem(path, "/pool"))
    refused(env, "several devices")


def fix_btrfs_checksum(path):
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
        table.append(n)
    with open(path, "r+b") as file:
        file.seek(65536)
        block = file.read(4096)
        crc = 0xffffffff
        for byte in block[32:]:
            crc = table[(crc ^ byte) & 0xff] ^ crc >> 8
        file.seek(65536)
        file.write(struct.pack("<I", crc ^ 0xffffffff))


@test(drivers=USERNS)
def hostile_qcow2_images(env):
    need_qemu()
    good = qcow2(ext4(env))
    secret = os.path.join(env.folder, "secret")
    pathlib.Path(secret).write_bytes(b"s" * 4 * MIB)

    def overlay_on(name, of="raw"):
        path = os.path.join(env.folder, f"evil{len(os.listdir(env.folder))}.qcow2")
        run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", of, path, "24M")
        return path
    with_data = os.path.join(env.folder, "data.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={secret},data_file_raw=on", with_data, "4M")
    vmdk = os.path.join(env.folder, "evil.vmdk")
    pathlib.Path(vmdk).write_text('# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
                                  f'RW 8192 FLAT "{secret}" 0\nddb.adapterType = "ide"\n')
    cases = [("/etc/shadow below", overlay_on("/etc/shadow"), ["overlay on '/etc/shadow'"]),
             ("a json below", overlay_on("json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}"), ["overlay on"]),
             ("a server below", overlay_on("nbd://127.0.0.1:1/x"), ["overlay on"]),
             ("data elsewhere", with_data, ["its data is in another file"]),
             ("no qcow2", ext4(env, "plain.img"), ["no qcow2 image"]),
             ("truncated", truncated(env, good, "short.qcow2", 200), ["no file system"]),
             ("version 9", patched(env, good, "v9.qcow2", 4, struct.pack(">I", 9)), ["unknown version 9"]),
             ("name of a gigabyte", patched(env, good, "long.qcow2", 8, struct.pack(">QI", 4096, 1 << 30)), ["damaged"]),
             ("name beyond the end", patched(env, good, "far.qcow2", 8, struct.pack(">QI", 1 << 31, 100)), ["damaged"]),
             ("clusters of 2^63", patched(env, good, "cluster.qcow2", 20, struct.pack(">I", 63)), ["qemu-storage-daemon"]),
             ("table beyond the end", patched(env, good, "l1.qcow2", 40, struct.pack(">Q", 1 << 60)), []),
             ("extents of others", vmdk, ["qemu-storage-daemon"], "<driver type='nbd' format='vmdk'/>")]
    for what, image, said, *driver in cases:
        define(env, "bad", filesystem(image, driver=driver[0] if driver else NBD))
        with naming(what):
            error = refused(env, image, *said)
        check("internal error" not in error, f"{what}: {error}")
        check("root:" not in error and "ssss" not in error, f"{what} shows what is in the file: {error}")


@test(drivers=USERNS)
def sources_that_are_no_image(env):
    good = ext4(env)
    pipe = os.path.join(env.folder, "pipe.img")
    os.mkfifo(pipe)
    for path, said in ((pipe, "regular file"), (env.folder, "regular file"), ("/dev/null", "regular file"),
                       (os.path.join(env.folder, "none"), "No such file")):
        define(env, "bad", filesystem(good), filesystem(path, "/data"))
        began = time.monotonic()
        refused(env, path, said)
        check(time.monotonic() - began < 10 * daemon_module.TIME_FACTOR, "it was waited for")
    define(env, "bad", filesystem(good), filesystem(good, "/data", driver="", kind="block"))
    refused(env, "block device")


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
    main()
