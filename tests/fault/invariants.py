"""What must hold after every fault, whatever was killed or failed and when. Each check returns violations as text.

    G1  no acknowledged domain lost, no undefined one back         known()
    G2  running <=> one controller with its stem, one init, groups, one lease    disagreements()
    G3  nothing left after destroy and undefine                    Leftovers
    G4  a good client is answered                                  answer_limit_s()
    G5  a neighbour never notices                                  Neighbour
"""
import contextlib
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import daemon as daemon_module  # noqa: E402
import host_state  # noqa: E402
from harness import IGNORED_FILES, Failure, eventually  # noqa: E402

SETTLE_S = 2.0
ANSWER_S = 1.0
DEFINITIONS, LEASES, RUN = "/etc/libvirt/userns", "/var/lib/libvirt/userns/leases", "/run/libvirt/userns"


def busy_factor():
    """The limits are those of a machine that has a processor for us."""
    return daemon_module.TIME_FACTOR * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def answer_limit_s():
    return ANSWER_S * busy_factor()


# ---- what the kernel knows -------------------------------------------------------------------------------------------

def stat_fields(pid):
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2:].split()


def start_time(pid):
    fields = stat_fields(pid)
    return fields[19] if len(fields) > 19 else ""


def is_alive(pid):
    fields = stat_fields(pid)
    return bool(fields) and fields[0] not in "ZX"


def living_children(pid):
    """Of a process with one thread, as controllers are: the kernel has the list, nobody has to look at every process."""
    with contextlib.suppress(OSError):
        return [child for child in map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
                if is_alive(child)]
    return []


def command_of(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def is_stem(pid):
    """The privileged half of a controller, and a child of it (driver/controller/stem.h)."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "virtuserns-stem"
    return False


def inits(controller):
    return [child for child in living_children(controller) if not is_stem(child) and not is_storage_daemon(child)]


def is_storage_daemon(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as name:
        return name.read().startswith("qemu-storage")
    return False


def stems(controller):
    return [child for child in living_children(controller) if is_stem(child)]


def controllers(prefix):
    """Name of domain -> pids of living controllers. The machine is shared: only names that begin so are looked at."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or not is_alive(entry):
            continue
        try:
            argv = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if argv[0].endswith(b"virtuserns-controller") and len(argv) > 1 and argv[1].startswith(prefix.encode()):
            found.setdefault(argv[1].decode(), []).append(int(entry))
    # A stem that was born this moment has not yet changed its name.
    for pids in found.values():
        pids[:] = [pid for pid in pids if not any(pid in living_children(other) for other in pids if other != pid)]
    return found


def cgroup_parents(cgroup):
    root = pathlib.Path("/sys/fs/cgroup")
    return [folder for folder in (root / cgroup, *root.glob(f"*/{cgroup}")) if folder.is_dir()]


def groups_below(cgroup):
    """All groups of this run, deepest too."""
    found, waiting = set(), [str(folder / "machine") for folder in cgroup_parents(cgroup)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            waiting += folders
            found |= set(folders)
    return found


def groups_of(pid):
    """Directories of the groups a process is in, one for each hierarchy."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return []


def is_frozen(pid):
    for line in groups_of(pid):
        _, names, path = line.split(":", 2)
        if names == "freezer":
            state = pathlib.Path(f"/sys/fs/cgroup/freezer{path}/freezer.state")
            with contextlib.suppress(OSError):
                if state.read_text().strip() != "THAWED":
                    return True
        if names == "":
            for root in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
                with contextlib.suppress(OSError):
                    if "frozen 1" in pathlib.Path(f"{root}{path}/cgroup.events").read_text():
                        return True
    return False


def zombies_of(pid):
    return [child for child in host_state.children(pid) if not is_alive(child) and stat_fields(child)]


def descriptors(pid):
    """What the descriptors of a process are, without the numbers that differ each time."""
    found = []
    with contextlib.suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                link = os.readlink(f"/proc/{pid}/fd/{entry}")
                found.append(re.sub(r":\[\d+\]$", "", re.sub(r"^/proc/\d+", "/proc/PID", link)))
    return sorted(found)


# ---- G1, G2 --------------------------------------------------------------------------------------------------------------

def known(connection):
    """name -> (state, id, uuid, persistent), as the daemon says."""
    return {domain.name(): (domain.state()[0], domain.ID(), domain.UUIDString(), bool(domain.isPersistent()))
            for domain in connection.listAllDomains()}


def picture(connection, name):
    """All that a client can see of a domain."""
    import libvirt
    try:
        domain = connection.lookupByName(name)
        return (domain.state()[0], domain.autostart() if domain.isPersistent() else 0,
                domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) if domain.isPersistent() else "")
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def disagreements(said, prefix, cgroup, must=(), may=()):
    """What the daemon says against what the kernel says. `must` and `may`: the names of domains there have to be and can be."""
    import libvirt
    wrong = [f"domain {name} is lost" for name in must if name not in said]
    wrong += [f"domain {name} is back" for name in said if name not in must and name not in may]
    live = controllers(prefix)
    groups = groups_below(cgroup)
    for name, (state, domain_id, uuid, _) in said.items():
        pids = live.get(name, [])
        mine = [group for group in groups if uuid in group.split("/machine/")[1].split("/")[0]]
        if state not in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED):
            if pids:
                wrong.append(f"{name} is said to be off (state {state}), controllers are {pids}")
            if mine:
                wrong.append(f"{name} is said to be off (state {state}), there are groups: {sorted(mine)[:3]}")
            continue
        if pids != [domain_id]:
            wrong.append(f"{name} is said to run as {domain_id}, controllers are {pids}")
            continue
        born, beside = inits(pids[0]), stems(pids[0])
        if len(beside) != 1 or groups_of(beside[0]) != groups_of(pids[0]):
            wrong.append(f"{name} has {len(beside)} stems: {beside}, or it is not in the controller's groups")
        if len(born) != 1:
            wrong.append(f"{name} has {len(born)} inits: {born}")
            continue
        if is_frozen(born[0]) != (state == libvirt.VIR_DOMAIN_PAUSED):
            wrong.append(f"{name} is said to be in state {state}, frozen is {is_frozen(born[0])}")
        tops = [group for group in mine if "/" not in group.split("/machine/")[1]]
        if len(tops) != len(cgroup_parents(cgroup)):
            wrong.append(f"{name} has {len(tops)} groups in {len(cgroup_parents(cgroup))} hierarchies")
        outside = [line for line in groups_of(born[0]) if cgroup in line and uuid not in line]
        if outside:
            wrong.append(f"init of {name} is in foreign groups: {outside[:2]}")
        if not os.path.exists(f"{LEASES}/{uuid}") and not os.path.exists(f"{LEASES}/group-{name}"):
            wrong.append(f"{name} runs without a lease")
    wrong += [f"a controller of unknown {name}: {pids}" for name, pids in live.items() if name not in said]
    with contextlib.suppress(FileNotFoundError):
        holders = {uuid for _, _, uuid, _ in said.values()} | {f"group-{name}" for name in said}
        wrong += [f"a lease of unknown {lease}" for lease in os.listdir(LEASES)
                  if not lease.startswith(".") and lease not in holders]
    return wrong


def settled(look, seconds=SETTLE_S):
    """What `look` still finds after the time in which everything may settle."""
    deadline = time.monotonic() + seconds * busy_factor()
    while (wrong := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return wrong


# ---- G3 ------------------------------------------------------------------------------------------------------------------

class Leftovers:
    """Compares the host with how it was when nothing but the neighbour was there."""

    # The neighbour's status is written again by each daemon that finds it.
    IGNORED = IGNORED_FILES + r"|/run/libvirt/userns/[0-9a-f-]{36}\.status$"

    def __init__(self, env):
        self.env = env
        self.take()

    def take(self):
        # The kernel takes the link of a domain that ended down in its own time, and its neighbour has none: what is on
        # its way out is no part of the host.
        with contextlib.suppress(Failure):
            eventually(lambda: not any(name.startswith("vnet") for _, name in socket.if_nameindex()), "links go")
        self.before, self.fds, self.status = self._look(), descriptors(self._daemon()), self._statuses()

    def _daemon(self):
        return self.env.daemon.process.pid

    @staticmethod
    def _statuses():
        return sorted(path.name for path in pathlib.Path("/run/libvirt/userns").glob("*.status"))

    def _look(self):
        state = host_state.snapshot(daemon_module.PRIVATE_FOLDERS, r"(?!)", [self.env.folder], cgroups=False)
        state.processes.pop(self._daemon(), None)
        state.cgroups = groups_below(self.env.daemon.cgroup)
        return state

    def find(self):
        lines = host_state.differences(self.before, self._look(), ignore_files=self.IGNORED)
        lines += [f"zombie left: {pid}" for pid in zombies_of(self._daemon())]
        lines += [f"status left: {name}" for name in self._statuses() if name not in self.status]
        extra = list(descriptors(self._daemon()))
        for link in self.fds:
            if link in extra:
                extra.remove(link)
        return lines + [f"descriptor of the daemon left: {link}" for link in extra]


# ---- G5 ------------------------------------------------------------------------------------------------------------------

class Neighbour:
    """A domain that runs all the time and must not notice anything."""

    def __init__(self, env, prefix):
        self.env, self.name = env, f"{prefix}neighbour"
        env.define(self.name)
        self.start()

    def start(self):
        if self.env.virsh("domstate", self.name).ok().out.strip() != "running":
            self.env.virsh("start", self.name).ok()
        eventually(self.is_up, "the neighbour has a controller, a stem and an init that waits")
        self.was = self.look()

    def is_up(self):
        """Its init is done with what it starts: what came later would look like something that was left."""
        look = self.look()
        return len(look) == 3 and any(command_of(child).startswith(b"sleep\x001000") for child in living_children(look[2][0]))

    def look(self):
        """(controller, its start time, init, its start time): another boot has another init."""
        pids = controllers(self.name).get(self.name, [])
        of_it = stems(pids[0]) + inits(pids[0]) if len(pids) == 1 else []
        return [(pid, start_time(pid)) for pid in pids + of_it]

    def noticed(self):
        now = self.look()
        return [] if now == self.was and len(now) == 3 else [f"the neighbour noticed: was {self.was}, is {now}"]


# ---- a domain with something of everything ---------------------------------------------------------------------------------

BRIDGE = "faultbr0"


def remove_rich_devices():
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)


def rich_devices(folder, is_served):
    """XML of devices whose remains are seen: a link in a bridge and a file system in a file (so a loop device, and what serves
    the file, if that is wanted). Says what this machine lacks for it, and what each domain needs a copy of: nobody shares it."""
    devices, lacking = "", []
    bridge = subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], capture_output=True, check=False)
    if bridge.returncode == 0:
        devices += "<interface type='bridge'><source bridge='" + BRIDGE + "'/></interface>"
    else:
        lacking.append("bridges (nothing is said about links)")
    image = f"{folder}/disk.img"
    with open(image, "wb") as file:
        file.truncate(4 << 20)
    is_node = os.path.exists("/dev/loop-control") and stat.S_ISCHR(os.stat("/dev/loop-control").st_mode)
    if not is_node or subprocess.run(["mkfs.ext4", "-q", image], capture_output=True, check=False).returncode != 0:
        return devices, lacking + ["loop devices or mkfs.ext4 (nothing is said about loop devices)"], None
    driver = "<driver type='loop'/>"
    if is_served and shutil.which("qemu-img") and os.path.exists("/usr/bin/qemu-storage-daemon") and os.path.exists("/dev/fuse"):
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", image, f"{folder}/disk.qcow2"], check=True)
        image, driver = f"{folder}/disk.qcow2", "<driver type='nbd' format='qcow2'/>"
    elif is_served:
        lacking.append("qemu-img or qemu-storage-daemon (nothing is said about storage daemons)")
    devices += f"<filesystem type='file'>{driver}<source file='{image}.@NAME@'/><target dir='/disk'/></filesystem>"
    return devices, lacking, image
