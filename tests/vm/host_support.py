"""What the programs of tests/vm/host share: the daemon installed as an administrator has it, one domain, and what the
machine says of it. Only for tests/vm: it installs units and changes settings of the machine's service manager."""
import os
import pathlib
import re
import shutil
import subprocess
import time

SOURCE = pathlib.Path(os.environ["VIRTUSERNS_SOURCE"])
BUILD = pathlib.Path(os.environ["VIRTUSERNS_BUILD"])
FACTOR = float(os.environ.get("VIRTUSERNS_TIME_FACTOR", "1"))
URI = "userns:///system"
MEMORY_BYTES = 128 * 1024 * 1024
CGROUPS = pathlib.Path("/sys/fs/cgroup")
# Where this build looks for modules: that depends on what the machine that made it had installed.
MODULES = re.search(r'VIRTUSERNS_MODULE_DIR "(.*)"', (BUILD / "virtuserns_build.h").read_text()).group(1)
FAILED = []
SCOPE = re.compile(r"virtuserns-[0-9a-f-]{36}-\d+\.scope")


def check(is_so, what, detail=""):
    print(f"{'ok  ' if is_so else 'FAIL'} {what}" + (f": {detail}" if detail and not is_so else ""), flush=True)
    if not is_so:
        FAILED.append(what)
    return is_so


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=60 * FACTOR)


def did(what, *argv):
    result = run(*argv)
    return check(result.returncode == 0, what, (result.stderr + result.stdout).strip())


def virsh(*words):
    return run("virsh", "-c", URI, *words)


def finish(name):
    """The exit status; after a failure also what the daemon and systemd said."""
    if FAILED:
        print(run("journalctl", "-b", "-q", "-u", "virtusernsd.service", "-u", "systemd-machined", "--lines", "30").stdout)
        print(run("systemctl", "--failed", "--no-legend").stdout)
        print("\n".join(cgroup_mounts()))
    print(f"host {name}: {len(FAILED)} failed")
    return 1 if FAILED else 0


def eventually(condition):
    deadline = time.monotonic() + 10 * FACTOR
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


# ---- what the machine says -------------------------------------------------------------------------------------------

def init_pid():
    found = re.search(r"^\s*(\d+)\s+web\s", virsh("list").stdout, re.MULTILINE)
    if not found:
        return None
    for child in pathlib.Path(f"/proc/{found[1]}/task/{found[1]}/children").read_text().split():
        # The controller has other children; init is the one with a number of its own pid namespace, in a user namespace too.
        try:
            status = pathlib.Path(f"/proc/{child}/status").read_text()
            is_hosts = os.readlink(f"/proc/{child}/ns/user") == os.readlink("/proc/self/ns/user")
        except OSError:
            continue
        if not is_hosts and re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE):
            return int(child)
    return None


def groups_of(pid):
    """controllers ("" is v2) -> group"""
    lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}


def scope_of(pid):
    found = SCOPE.search(" ".join(groups_of(pid).values())) if pid else None
    return found[0] if found else None


def show(unit, name):
    return run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()


def limit_of(pid):
    """The memory limit that holds for the process, wherever it has got to."""
    groups = groups_of(pid)
    if "memory" in groups:
        file = CGROUPS / "memory" / groups["memory"].lstrip("/") / "memory.limit_in_bytes"
    else:
        file = CGROUPS / groups[""].lstrip("/") / "memory.max"
    return file.read_text().strip() if file.exists() else f"no {file}"


def is_held(pid, what):
    """In its own group of every controller that limits it, with its limits."""
    wanted = {"memory", "pids", "cpu,cpuacct", "cpuset", "devices", "freezer", "blkio", "name=systemd"}
    groups = groups_of(pid)
    limited = {name: path for name, path in groups.items() if name in wanted or (name == "" and path != "/")}
    strayed = {name: path for name, path in limited.items() if "/virtuserns-" not in path}
    check(limited and not strayed, f"{what}: in its own groups", str(strayed))
    check(limit_of(pid) == str(MEMORY_BYTES), f"{what}: memory is limited", limit_of(pid))


def mounts():
    return sorted(line.split(" ", 4)[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines())


def cgroup_mounts():
    return [line for line in mounts() if " - cgroup" in line]


# ---- set-up ------------------------------------------------------------------------------------------------------------

def install():
    """Once; a program that comes later finds it."""
    if pathlib.Path("/usr/sbin/virtusernsd").exists():
        return
    units = pathlib.Path("/etc/systemd/system")
    for name in ("virtusernsd.socket", "virtusernsd-ro.socket"):
        (units / name).write_text((SOURCE / "tools/data" / name).read_text())
    (units / "virtusernsd.service").write_text((BUILD / "tools/virtusernsd.service").read_text())
    # Where an installation has them: AppArmor knows programs by their paths.
    for source, target in {"driver/virtusernsd": "/usr/sbin/virtusernsd",
                           "driver/controller/virtuserns-controller": "/usr/libexec/virtuserns/virtuserns-controller",
                           "driver/controller/virtuserns-image": "/usr/libexec/virtuserns/virtuserns-image",
                           "driver/userns/virtuserns-driver-userns.so": f"{MODULES}/virtuserns-driver-userns.so",
                           "tools/virtuserns.apparmor": "/etc/apparmor.d/virtuserns"}.items():
        pathlib.Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(BUILD / source, target)
    pathlib.Path("/etc/libvirt").mkdir(exist_ok=True)
    pathlib.Path("/etc/libvirt/virtusernsd.conf").write_text("")
    did("reload systemd", "systemctl", "daemon-reload")


def start_service():
    did("start the sockets", "systemctl", "start", "virtusernsd.socket", "virtusernsd-ro.socket")
    did("the first call starts the daemon", "virsh", "-c", URI, "list", "--all")


def groups_left():
    """Groups of any domain. What systemd removes goes in its own time."""
    roots = [CGROUPS]
    if " - cgroup2 " not in "".join(cgroup_mounts()):
        # Of v1 alone: cgroup2 is there all the same, and mounted nowhere.
        roots.append(pathlib.Path("/run/cgroup2"))
        roots[1].mkdir(exist_ok=True)
        run("mount", "-t", "cgroup2", "-o", "nsdelegate", "none", str(roots[1]))

    def left():
        return [str(path) for root in roots for path in root.rglob("virtuserns-????????-*")]
    eventually(lambda: not left())
    if len(roots) > 1:
        check(bool(list(roots[1].glob("machine"))), "cgroup2 was used, mounted nowhere")
    found = left()
    if len(roots) > 1:
        run("umount", str(roots[1]))
    return found


def make_domain():
    root = pathlib.Path("/var/lib/web")
    if root.exists():
        return
    for part in ("bin", "sbin", "proc", "sys", "dev", "tmp", "etc"):
        (root / part).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(pathlib.Path("/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for name in ("sh", "sleep", "poweroff"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "sbin/init").write_text("#!/bin/sh\ntrap 'exit 0' TERM INT PWR USR2\nwhile :; do sleep 1000 & wait $!; done\n")
    (root / "sbin/init").chmod(0o755)
    xml = pathlib.Path("/run/web.xml")
    xml.write_text(f"<domain type='lxc'><name>web</name><memory unit='b'>{MEMORY_BYTES}</memory><os><type>exe</type>"
                   f"<init>/sbin/init</init></os><devices><filesystem type='mount'><source dir='{root}'/>"
                   f"<target dir='/'/></filesystem><console type='pty'/></devices></domain>")
    did("define a domain", "virsh", "-c", URI, "define", str(xml))
