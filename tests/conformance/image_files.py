"""Images, and domains with them, for the suites images and images_hostile."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import host_state  # noqa: E402
from harness import Failure, Skip, check, contains, daemon_module, equal, eventually  # noqa: E402

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
