#!/usr/bin/env python3
"""The probes of virtuserns-drill in one default container of each manager that is installed, and a table of what failed.

    tests/isolation/peers.py --build BUILD [--only NAME] [--verbose] [--markdown docs/security.md]

Every container has a user namespace, as its manager's documentation recommends it, and the same small busybox root. The
probes run as its init, and the host's side by virt-userns-drill --process. Each manager gets a mount namespace, a cgroup
namespace and a sub-tree of groups of its own; what it starts ends with it. A manager that cannot run here is named with its
reason. Not a test: it judges others.
"""
import argparse
import contextlib
import ctypes
import json
import os
import pathlib
import platform
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / part) for part in ("conformance", "support")]
import daemon as daemon_module  # noqa: E402
import harness  # noqa: E402
import host_state  # noqa: E402
import owned  # noqa: E402

FIRST_ID = 3_400_000_000
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWCGROUP = 0x20000, 0x02000000
PATIENCE_S = 60 * daemon_module.TIME_FACTOR
SECCOMP = pathlib.Path("/usr/share/containers/seccomp.json")
LXC_CONFIG = pathlib.Path("/usr/share/lxc/config")
BEGIN, END = "<!-- peers -->\n", "<!-- end of peers -->\n"


class Unavailable(Exception):
    """Why a manager cannot run here."""


def run(*command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S, **options)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{pathlib.Path(command[0]).name}: {lines[-1] if lines else done.returncode}")
    return done.stdout


def need(program, package):
    if not shutil.which(program):
        raise Unavailable(f"not installed (package {package})")


def first_line(*command):
    return run(*command).splitlines()[0].strip()


# ---- a place of its own -----------------------------------------------------------------------------------------------

class Groups:
    """A sub-tree of every hierarchy, which whoever enters sees as all there is."""

    def __init__(self):
        self.name = owned.name("peers")
        top = pathlib.Path("/sys/fs/cgroup")
        self.tops = [path for path in ([top] if (top / "cgroup.procs").exists() else sorted(top.iterdir()))
                     if path.is_mount() and (path / "cgroup.procs").exists() and not path.is_symlink()]

    def make(self):
        for top in self.tops:
            (top / self.name).mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group of version 1, which then takes nobody
                if (top / name).exists() and not (top / "cgroup.controllers").exists():
                    (top / self.name / name).write_text((top / name).read_text())
            if (top / "cgroup.controllers").exists() and len(self.tops) == 1:
                controllers = " ".join("+" + one for one in (top / "cgroup.controllers").read_text().split())
                (top / "cgroup.subtree_control").write_text(controllers)

    def enter(self):
        """The calling process; in a mount namespace of its own. Version 2 beside version 1 is not shown: crun, lxc and
        libvirt's driver refuse or mishandle that mixture."""
        kinds = {}
        for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            words = line.split()
            kinds[words[4]] = (words[words.index("-") + 1], words[words.index("-") + 3])
        for top in self.tops:
            (top / self.name / "cgroup.procs").write_text("0")
        if LIBC.unshare(CLONE_NEWCGROUP) != 0:
            raise Unavailable("no cgroup namespace can be made")
        for top in self.tops:
            if kinds[str(top)][0] == "cgroup2" and len(self.tops) == 1:
                (top / self.name / "self").mkdir()
                (top / self.name / "self/cgroup.procs").write_text("0")
        for top in self.tops:
            kind, options = kinds[str(top)]
            LIBC.umount2(os.fsencode(top), 2)
            if kind == "cgroup2" and len(self.tops) > 1:
                continue
            words = [] if kind == "cgroup2" else ["-o", ",".join(word for word in options.split(",") if word != "rw")]
            run("mount", "-t", kind, *words, "cgroup", top)

    def remove(self):
        for top in self.tops:
            for folder, _, _ in os.walk(top / self.name, topdown=False):
                for _ in range(50):  # a group stays busy for a moment after its last process
                    try:
                        os.rmdir(folder)
                        break
                    except FileNotFoundError:
                        break
                    except OSError:
                        time.sleep(0.05)


def apart(action):
    """Runs it in a child with namespaces and groups of its own; everything that the child left running is ended."""
    groups = Groups()
    groups.make()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if LIBC.unshare(CLONE_NEWNS) != 0:
                raise Unavailable("no mount namespace can be made")
            groups.enter()
            answer = action()
        except (Unavailable, subprocess.TimeoutExpired) as error:
            answer = {"why": str(error)}
        except BaseException as error:  # noqa: BLE001 - it is the reason, whatever it is
            answer = {"why": f"{type(error).__name__}: {error}"}
        with os.fdopen(writer, "w") as output:
            json.dump(answer, output)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as source:
        text = source.read()
    os.waitpid(child, 0)
    for _ in range(50):
        left = host_state.descendants(os.getpid())
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        host_state.reap()
        if not left:
            break
        time.sleep(0.05)
    groups.remove()
    return json.loads(text) if text else {"why": "it died"}


# ---- the containers ---------------------------------------------------------------------------------------------------

def make_root(folder, name, build, owner):
    """Busybox, the probes as init, and device nodes as an image may bring them."""
    root = pathlib.Path(folder, f"{name}-root")
    for part in ("bin", "sbin", "proc", "sys", "dev", "tmp", "run", "etc", "var", "mnt", "drill-nodes"):
        (root / part).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    for applet in ("sh", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    shutil.copy(f"{build}/tools/drill/virtuserns-drill", root / "bin/drill")
    for node, kind, major, minor in (("mem", stat.S_IFCHR, 1, 1), ("kmsg", stat.S_IFCHR, 1, 11), ("zero", stat.S_IFCHR, 1, 5),
                                     ("disk", stat.S_IFBLK, 254, 0), ("loop", stat.S_IFBLK, 7, 0)):
        os.mknod(root / "drill-nodes" / node, kind | 0o666, os.makedev(major, minor))
    (root / "sbin/init").write_text("#!/bin/sh\n/bin/drill --all > /drill.out 2> /drill.err\n: > /drill.done\n"
                                    "trap 'exit 0' TERM\nwhile :; do sleep 1000 & wait $!; done\n")
    (root / "sbin/init").chmod(0o755)
    run("chown", "-hR", f"{owner}:{owner}", root)
    return root


def judge(root, pid, build, version):
    """Waits for the probes; then the host's side of the same container."""
    deadline = time.monotonic() + PATIENCE_S
    while not (root / "drill.done").exists():
        if time.monotonic() > deadline or not pathlib.Path(f"/proc/{pid}").exists():
            raise Unavailable(f"the probes did not end: {(root / 'drill.err').read_text() if (root / 'drill.err').exists() else 'no init'}")
        time.sleep(0.05)
    checks = []
    for line in (root / "drill.out").read_text().splitlines():
        group, name, outcome, *detail = line.split(" ", 3)
        checks.append({"class": group, "name": name, "outcome": outcome, "detail": detail[0] if detail else ""})
    tool = [f"{build}/tools/drill/virt-userns-drill", "--json", "--process", str(pid)]
    done = subprocess.run(tool, capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode not in (0, 1):
        raise Unavailable(done.stderr.strip())
    return {"version": version, "checks": checks + json.loads(done.stdout)["checks"]}


def ours(folder, build):
    """A default domain; outside of `apart`, because the daemon makes groups for itself."""
    daemon = daemon_module.Daemon("userns", build)
    daemon.configure()
    env = harness.Env(daemon, folder)
    root = make_root(folder, "virtuserns", build, 0)
    daemon.start()
    try:
        xml = (f"<domain type='lxc'><name>peer</name><memory unit='MiB'>256</memory><os><type>exe</type><init>/sbin/init</init></os>"
               f"<devices><filesystem type='mount'><source dir='{root}'/><target dir='/'/></filesystem><console type='pty'/></devices></domain>")
        env.virsh("create", env.write_xml(xml)).ok()
        init = host_state.init_of(int(env.virsh("domid", "peer").ok().out))
        return judge(root, init, build, first_line(f"{build}/driver/virtusernsd", "--version").split()[-1])
    finally:
        env.cleanup()
        daemon.stop()
        daemon.remove_cgroups()


def default_profile(capabilities):
    """The profile of podman (and, but for details, docker) as an OCI runtime wants it: only what holds for this machine and
    these capabilities."""
    if not SECCOMP.exists():
        raise Unavailable(f"no {SECCOMP} (package golang-github-containers-common)")
    profile, calls = json.loads(SECCOMP.read_text()), []
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    for rule in profile["syscalls"]:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        if not set(wanted.get("caps", [])) <= set(capabilities) or set(unwanted.get("caps", [])) & set(capabilities):
            continue
        if wanted.get("arches", [machine]).count(machine) == 0 or machine in unwanted.get("arches", []):
            continue
        calls.append({key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)})
    architectures = [one["architecture"] for one in profile["archMap"] if one["architecture"].endswith(platform.machine().upper())]
    subs = [sub for one in profile["archMap"] if one["architecture"] in architectures for sub in one.get("subArchitectures") or []]
    return {"defaultAction": profile["defaultAction"], "defaultErrnoRet": profile.get("defaultErrnoRet", 1),
            "architectures": architectures + subs, "syscalls": calls}


def oci(program, has_profile, folder, build):
    """`PROGRAM spec` and a user namespace; with the profile that container engines add, or without."""
    need(program, program)
    name = f"{program}{'-profile' if has_profile else ''}"
    root, bundle = make_root(folder, name, build, FIRST_ID), pathlib.Path(folder, f"{name}-bundle")
    bundle.mkdir()
    run(program, "spec", cwd=bundle)
    config = json.loads((bundle / "config.json").read_text())
    ids = [{"containerID": 0, "hostID": FIRST_ID, "size": 65536}]
    config["root"] = {"path": str(root), "readonly": False}
    config["process"].update(terminal=False, args=["/sbin/init"])
    linux = config["linux"]
    linux["namespaces"] = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")]
    linux.update(uidMappings=ids, gidMappings=ids)
    if has_profile:  # and the limits that an engine sets
        linux["seccomp"] = default_profile(config["process"]["capabilities"]["bounding"])
        linux.setdefault("resources", {}).update(pids={"limit": 2048}, memory={"limit": 256 << 20})
    (bundle / "config.json").write_text(json.dumps(config))
    command = [program, "--root", f"{folder}/{name}-state"]
    if program == "crun":
        command += ["--cgroup-manager", "cgroupfs"]
    # They hand their own stdio on, and crun changes its owner: pipes, as an engine gives them, and never the host's /dev/null.
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    started = subprocess.run([*command, "run", "--detach", "--bundle", str(bundle), name], stdin=subprocess.PIPE, stdout=writer,
                             stderr=writer, timeout=PATIENCE_S)
    try:
        if started.returncode != 0:
            raise Unavailable(os.read(reader, 65536).decode().strip().splitlines()[-1])
        return judge(root, json.loads(run(*command, "state", name))["pid"], build, first_line(program, "--version").split()[-1])
    finally:
        subprocess.run([*command, "delete", "--force", name], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S)


def lxc(folder, build):
    """common.conf and userns.conf, which lxc-create's template writes into every unprivileged container's configuration."""
    need("lxc-start", "lxc")
    root, home = make_root(folder, "lxc", build, FIRST_ID), pathlib.Path(folder, "lxc")
    (home / "peer").mkdir(parents=True)
    (home / "peer/config").write_text(f"""lxc.include = {LXC_CONFIG}/common.conf
lxc.include = {LXC_CONFIG}/userns.conf
lxc.uts.name = peer
lxc.rootfs.path = dir:{root}
lxc.idmap = u 0 {FIRST_ID} 65536
lxc.idmap = g 0 {FIRST_ID} 65536
lxc.net.0.type = empty
lxc.cgroup.relative = 1
lxc.init.cmd = /sbin/init
""")
    # It maps with newuidmap, which goes by these files even for root.
    for name in ("subuid", "subgid"):
        (home / name).write_text(f"root:{FIRST_ID}:65536\n")
        run("mount", "--bind", home / name, f"/etc/{name}")
    common = ["-P", str(home), "-n", "peer"]
    log = home / "log"
    try:
        try:
            run("lxc-start", *common, "-d", "-o", str(log))
        except Unavailable as reason:
            errors = [line for line in log.read_text().splitlines() if " ERROR " in line] if log.exists() else []
            raise Unavailable(errors[0].split(" - ", 1)[-1] if errors else str(reason))
        return judge(root, int(run("lxc-info", *common, "-p", "-H")), build, first_line("lxc-start", "--version"))
    finally:
        subprocess.run(["lxc-stop", *common, "-k"], capture_output=True, timeout=PATIENCE_S)


def libvirt_lxc(folder, build):
    """libvirt's own driver with <idmap> and <privnet/>, without which it shares the host's network."""
    modules = list(pathlib.Path("/usr/lib").glob("*/libvirt/connection-driver/libvirt_driver_lxc.so"))
    need("libvirtd", "libvirt-daemon")
    if not modules:
        raise Unavailable("not installed (package libvirt-daemon-driver-lxc)")
    root, drivers = make_root(folder, "libvirt", build, FIRST_ID), pathlib.Path(folder, "libvirt-drivers")
    drivers.mkdir()
    (drivers / modules[0].name).symlink_to(modules[0])  # only this one: others need users, D-Bus or devices
    config = pathlib.Path(folder, "libvirtd.conf")
    config.write_text('auth_unix_ro = "none"\nauth_unix_rw = "none"\n')
    xml = pathlib.Path(folder, "libvirt.xml")
    xml.write_text(f"<domain type='lxc'><name>peer</name><memory unit='MiB'>256</memory><os><type>exe</type><init>/sbin/init</init></os>"
                   f"<idmap><uid start='0' target='{FIRST_ID}' count='65536'/><gid start='0' target='{FIRST_ID}' count='65536'/></idmap>"
                   f"<features><privnet/></features><devices><filesystem type='mount'><source dir='{root}'/><target dir='/'/></filesystem>"
                   "<console type='pty'/></devices></domain>")
    daemon = subprocess.Popen(["libvirtd", "--config", config, "--pid-file", f"{folder}/libvirtd.pid"], stdin=subprocess.DEVNULL,
                              stdout=open(f"{folder}/libvirtd.log", "wb"), stderr=subprocess.STDOUT,
                              env={**os.environ, "LIBVIRT_DRIVER_DIR": str(drivers)})
    virsh = ["virsh", "-c", "lxc:///system"]
    try:
        deadline = time.monotonic() + PATIENCE_S
        while subprocess.run([*virsh, "list"], capture_output=True, timeout=PATIENCE_S).returncode != 0:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise Unavailable("libvirtd does not serve: " + pathlib.Path(f"{folder}/libvirtd.log").read_text().strip()[-300:])
            time.sleep(0.1)
        run(*virsh, "create", str(xml))
        return judge(root, host_state.init_of(int(run(*virsh, "domid", "peer"))), build, first_line("libvirtd", "--version").split()[-1])
    finally:
        subprocess.run([*virsh, "destroy", "peer"], capture_output=True, timeout=PATIENCE_S)
        daemon.terminate()
        daemon.wait(PATIENCE_S)


SUBJECTS = {
    "virtuserns": ours,
    "runc, engine's profile": lambda *where: apart(lambda: oci("runc", True, *where)),
    "crun, engine's profile": lambda *where: apart(lambda: oci("crun", True, *where)),
    "runc spec": lambda *where: apart(lambda: oci("runc", False, *where)),
    "crun spec": lambda *where: apart(lambda: oci("crun", False, *where)),
    "lxc": lambda *where: apart(lambda: lxc(*where)),
    "libvirt lxc": lambda *where: apart(lambda: libvirt_lxc(*where)),
}


# ---- what is printed --------------------------------------------------------------------------------------------------

def failed(answer, group=None):
    return sorted(check["name"] for check in answer["checks"] if check["outcome"] == "failed" and group in (None, check["class"]))


def tried(answer, group=None):
    return sum(check["outcome"] in ("held", "failed") and group in (None, check["class"]) for check in answer["checks"])


def table(answers):
    rows = ["| failed of tried | " + " | ".join("ABCDEF") + " | all |", "|---|" + "---:|" * 7]
    for name, answer in answers.items():
        if "why" in answer:
            continue
        cells = [f"{len(failed(answer, group))} of {tried(answer, group)}" for group in [*"ABCDEF", None]]
        rows.append(f"| {name} {answer['version']} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def worse_places(answers):
    """What ours fails and some peer holds."""
    mine = {check["name"]: check["outcome"] for check in answers["virtuserns"]["checks"]}
    places = []
    for name, answer in answers.items():
        for check in answer.get("checks", []):
            if check["outcome"] == "held" and mine.get(check["name"]) == "failed":
                places.append(f"{check['name']} holds in {name}")
    return places


def section(answers):
    lines = [BEGIN + f"Printed by `tests/isolation/peers.py --build BUILD --markdown docs/security.md` on "
             f"{time.strftime('%Y-%m-%d', time.gmtime())}, kernel {platform.release()}"
             f"{'' if pathlib.Path('/sys/kernel/security/apparmor').exists() else ', without AppArmor'}: one default container of "
             "each, with a user namespace. A check that does not apply counts for nobody.\n", table(answers), ""]
    for name, answer in answers.items():
        if "why" in answer:
            lines.append(f"* {name} cannot run here: {answer['why']}.")
    others = [name for name, answer in answers.items() if "checks" in answer and name != "virtuserns"]
    if others:
        best = min(others, key=lambda name: len(failed(answers[name])))
        lists = [f"{group}: {', '.join(names)}" for group in "ABCDEF" if (names := failed(answers[best], group))]
        lines.append(f"* What {best}, the best of the others, fails. {'. '.join(lists)}.")
    if "checks" in answers["virtuserns"]:
        places = worse_places(answers)
        lines.append("\n" + ("No check that a peer holds fails in a default domain." if not places else
                             "Where a peer is better: " + "; ".join(places) + "."))
    return "\n".join(lines) + "\n" + END


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.environ.get("VIRTUSERNS_BUILD", "build"))
    parser.add_argument("--only", action="append", choices=SUBJECTS)
    parser.add_argument("--verbose", action="store_true", help="every check that failed, with what it found")
    parser.add_argument("--markdown", type=pathlib.Path, help="the page whose table is written anew")
    options = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("busybox"):
        print("skipped: needs root and busybox")
        return 77
    host_state.become_subreaper()
    daemon_module.enter_private_namespaces()
    answers = {}
    with tempfile.TemporaryDirectory(prefix=owned.name("peers") + "-") as folder:
        os.chmod(folder, 0o755)
        for name, action in SUBJECTS.items():
            if options.only and name not in options.only and name != "virtuserns":
                continue
            answers[name] = action(folder, os.path.abspath(options.build))
            print(f"{name}: {answers[name].get('why', 'done')}", file=sys.stderr, flush=True)
            for check in answers[name].get("checks", []) if options.verbose else []:
                if check["outcome"] == "failed":
                    print(f"  {name}: {check['class']} {check['name']}: {check['detail']}")
    text = section(answers)
    print(text)
    if options.markdown:
        page = options.markdown.read_text()
        options.markdown.write_text(page[:page.index(BEGIN)] + text + page[page.index(END) + len(END):])
    return 1 if "why" in answers["virtuserns"] or worse_places(answers) else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
