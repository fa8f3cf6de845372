"""Images, and domains with them, for the suites images and images_hostile."""
import contextlib
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import uuid
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import host_state  # noqa: E402
from harness import Failure, Skip, check, contains, daemon_module, equal, eventually  # noqa: E402

USERNS = ("userns",)
MIB = 1 << 20
STORAGE_DAEMON = "/usr/bin/qemu-storage-daemon"


def load_modules():
    """Before the host is looked at for the first time: where they come late, so do their nodes in /dev, and udev's owners."""
    for words in (["modprobe", "-qa", "loop", "fuse", "ext4", "xfs", "btrfs"], ["udevadm", "settle"]):
        if program := shutil.which(words[0], path="/usr/sbin:/usr/bin:/sbin:/bin"):
            subprocess.run([program, *words[1:]], capture_output=True, check=False)


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
    """A disk whose partition `number` holds what is in the file `part`, at 4 MiB. Written by hand: sfdisk(8) waits until all
    of the machine's disks are synced."""
    size = os.path.getsize(part)
    path = blank(env, name, size + 8 * MIB)
    first, last = 4 * MIB // 512, (4 * MIB + size) // 512 - 1
    with open(part, "rb") as source, open(path, "r+b") as disk:
        disk.seek(4 * MIB)
        shutil.copyfileobj(source, disk)
        if label == "dos":
            write_dos_table(disk, number, first, last)
        else:
            write_gpt(disk, number, first, last)
    return path


def write_dos_table(disk, number, first, last, kind=0x83):
    disk.seek(446 + 16 * (number - 1))
    disk.write(struct.pack("<B3sB3sII", 0, b"\xff" * 3, kind, b"\xff" * 3, first, last - first + 1))
    disk.seek(510)
    disk.write(b"\x55\xaa")


def write_gpt(disk, number, first, last):
    """UEFI's table: a header of 92 bytes and 128 entries of 128, at the begin and, mirrored, at the end."""
    end = disk.seek(0, os.SEEK_END) // 512 - 1
    linux = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le
    entry = struct.pack("<16s16sQQQ72s", linux, uuid.uuid4().bytes_le, first, last, 0, b"")
    entries = bytes(128 * (number - 1)) + entry + bytes(128 * (128 - number))
    identity = uuid.uuid4().bytes_le
    for here, other, table in ((1, end, 2), (end, 1, end - 32)):
        def header(crc, here=here, other=other, table=table):
            return struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, crc, 0, here, other, 34, end - 33, identity,
                               table, 128, 128, zlib.crc32(entries))
        disk.seek(here * 512)
        disk.write(header(zlib.crc32(header(0))))
        disk.seek(table * 512)
        disk.write(entries)
    write_dos_table(disk, 1, 1, end, kind=0xee)  # which keeps others away


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


def directory(path, target="/", more=""):
    return f"<filesystem type='mount'><source dir='{path}'/><target dir='{target}'/>{more}</filesystem>"


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


def exec_argv(env, name, script):
    return [os.path.join(env.daemon.build, "driver", "exec", "virt-userns-exec"), "-c", env.uri, name, "--", "sh", "-c", script]


def sh(env, name, script, fails=False):
    result = subprocess.run(exec_argv(env, name, script), capture_output=True, text=True, timeout=60 * daemon_module.TIME_FACTOR,
                            check=False)
    if not fails:
        equal(result.returncode, 0, f"{script}: {result.stdout}{result.stderr}")
    return result.stdout


def reboot(env, name):
    sh(env, name, "touch /dev/last-boot")
    env.virsh("reboot", name).ok()
    eventually(lambda: "no" in sh(env, name, "ls /dev/last-boot >/dev/null 2>&1 || echo no", fails=True), "it has booted again")


def controller(env, name):
    return int(env.virsh("domid", name).ok().out)


def init_of(env, name):
    return host_state.init_of(controller(env, name))


def servers(env):
    """Storage daemons of this run: by the process that made them."""
    mine = host_state.descendants(os.getpid())
    return sorted(pid for pid in mine if host_state._stat_fields(pid) and _is_server(pid))


def _is_server(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text().startswith("qemu-storage") and host_state._state(pid) != "Z"
    return False


def loops(path):
    """Loop devices on that file. Its mount is in no table of mounts any more (the controller has left it), so that the kernel
    shows the path from the root of its file system."""
    found = []
    for backing in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if str(path).endswith(backing.read_text().strip()):
                found.append(backing.parts[3])
    return found


def is_clean(path):
    """Whoever wrote it last has unmounted it."""
    state = run("dumpe2fs", "-h", path)
    check("needs_recovery" not in state and "Filesystem state:         clean" in state, f"not unmounted in order: {state}")
    run("e2fsck", "-f", "-n", path)
