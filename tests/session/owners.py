#!/usr/bin/env python3
"""Domains of userns:///system that belong to anna and to elsa: each manages her own, in ids of her own, and nothing else.

    tests/session/owners.py [-k TEST]
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from users import built, id_map, main, test, write_delegations  # noqa: E402
from harness import Virsh, check, contains, daemon_module, equal, eventually, host_state, matches  # noqa: E402

URI = "userns:///system"
CONFIG = pathlib.Path("/etc/libvirt/virtusernsd.conf")


def owner(words):
    return ("<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'>"
            f"<userns:owner {words}/></userns:domain></metadata>")


def with_ours(user, more):
    """Also other elements of our namespace."""
    return owner(f"user='{user.name}'").replace("</userns:domain>", f"{more}</userns:domain>")


class System:
    """A daemon of root's, with anna and elsa as users who own domains."""

    def __init__(self, lines):
        self.daemon = daemon_module.Daemon("userns", os.environ["VIRTUSERNS_BUILD"])
        self.daemon.configure()
        self.lines = lines
        with open(CONFIG, "a") as config:
            config.write('access_drivers = [ "owner" ]\nunix_sock_rw_perms = "0777"\n' + lines)

    def __enter__(self):
        self.daemon.start()
        return self

    def __exit__(self, *_):
        for name in self.virsh("list", "--all", "--name").ok().out.split():
            self.virsh("destroy", name)
            self.virsh("undefine", name)
        self.daemon.stop()
        self.daemon.remove_cgroups()
        for folder in daemon_module.PRIVATE_FOLDERS:
            for path in pathlib.Path(folder).glob("*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def virsh(self, *words, **how):
        argv = ["virsh", "-c", URI, *map(str, words)]
        return Virsh(argv, subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, timeout=60, **how))

    def define(self, user, xml):
        return self.virsh("define", user.write_xml(xml))

    def init(self, name):
        return host_state.init_of(int(self.virsh("domid", name).ok().out))


def system(lines=""):
    return System(lines)


def her(user, *words, **how):
    return user.virsh(*words, uri=URI, **how)


def xml_of(user, name, root, more="", **how):
    return user.xml(name, root, extra=with_ours(user, more), **how)


def define(user, name, root, **how):
    """In place of what has the name."""
    her(user, "undefine", name)
    return her(user, "define", user.write_xml(xml_of(user, name, root, **how)))


def all_three(env, system):
    """anna's web, elsa's shop, and root's own. Running."""
    for user, name in ((env.anna, "web"), (env.elsa, "shop")):
        define(user, name, user.root(name)).ok()
        her(user, "start", name).ok()
    root = env.anna.root("own", "--first", env.anna.first + 65536)
    system.define(env.anna, env.anna.xml("own", root)).ok()


@test
def a_life_of_ones_own(env):
    anna = env.anna
    with system() as daemon:
        root = anna.root("web")
        define(anna, "web", root).ok()
        her(anna, "start", "web").ok()
        equal(id_map(daemon.init("web")), [(0, anna.first, 65536)])
        contains(anna.run(built("driver/exec/virt-userns-exec"), "-c", URI, "web", "--", "id").ok().out, "uid=0")
        inside = [built("driver/exec/virt-userns-exec"), "-c", URI, "web", "--", "sh", "-c"]
        anna.run(*inside, "mkdir -p /etc; echo 'root:*:19000:0:99999:7:::' >/etc/shadow").ok()
        her(anna, "set-user-password", "web", "root", "secret").ok()
        contains(anna.run(*inside, "cat /etc/shadow").ok().out, "root:$6$")
        contains(her(env.elsa, "set-user-password", "web", "root", "secret").fails().err, "failed to get domain 'web'")
        for words, state in ((("suspend",), "paused"), (("resume",), "running"), (("reboot",), "running"),
                             (("destroy",), "shut off"), (("start", "--autodestroy"), "shut off"), (("undefine",), None)):
            her(anna, words[0], "web", *words[1:]).ok()
            if state:
                eventually(lambda state=state: her(anna, "domstate", "web").out.strip() == state, f"{words}: {state}")
        her(anna, "create", anna.write_xml(xml_of(anna, "web", root))).ok()
        contains(her(anna, "dumpxml", "web").ok().out, '<userns:owner user="anna"/>')
        for call, words in (("dominfo", ()), ("domstats", ()), ("setmem", ("32M", "--live")), ("cpu-stats", ()), ("domrename", ("x",))):
            said = her(anna, call, "web", *words)
            equal(said.code, 1 if call == "domrename" else 0, f"{call}: {said.err}")


@test
def others_do_not_exist(env):
    """In lists, by name, id and uuid, in statistics, on the read-only socket; nor do the host's own for elsa."""
    anna, elsa = env.anna, env.elsa
    with system() as daemon:
        all_three(env, daemon)
        for options in ((), ("-r",)):
            said = anna.run("virsh", "-c", URI, *options, "list", "--all", "--name").ok().out.split()
            equal(said, ["web"], f"virsh {options}")
            equal(anna.run("virsh", "-c", URI, *options, "domstats", "--state").ok().out.count("Domain:"), 1)
        equal(sorted(daemon.virsh("list", "--all", "--name").ok().out.split()), ["own", "shop", "web"])
        number, uuid = (daemon.virsh(call, "shop").ok().out.strip() for call in ("domid", "domuuid"))
        for name in ("shop", number, uuid, "own"):
            missing = f"failed to get domain '{name}'"
            for call in ("dominfo", "dumpxml", "domstate", "destroy", "start", "undefine", "reboot", "suspend", "autostart",
                         "domdisplay", "vcpuinfo", "domiflist"):
                contains(her(anna, call, name).fails().err, missing)
        # What is there and what is not are told apart by nothing.
        same = [her(anna, "dominfo", name).fails().err.replace(name, "NAME") for name in ("shop", "ship")]
        equal(same[0], same[1])
        said = anna.run(built("driver/exec/virt-userns-exec"), "-c", URI, "shop", "--", "id")
        check(said.code == 125 and "no domain" in said.err, said.err)
        contains(her(anna, "domstats", "shop").fails().err, "failed to get domain")
        equal(daemon.virsh("domstate", "shop").ok().out.strip(), "running")


# Run by anna, with a domain that was hers when she found it: {call: error code} of what she then asks by its uuid.
CALLS = r"""
import json, libvirt, sys, time
libvirt.registerErrorHandler(lambda *_: None, None)
connection = libvirt.open("userns:///system")
domain = connection.lookupByName("web")
print("found", flush=True)
sys.stdin.readline()
said = {}
def attempt(name, call):
    try:
        call()
        said[name] = "done"
    except libvirt.libvirtError as error:
        said[name] = error.get_error_code()
device = "<filesystem type='ram'><source usage='1024'/><target dir='/x'/></filesystem>"
for name in ("XMLDesc", "info", "state", "OSType", "maxMemory", "maxVcpus", "vcpus", "autostart", "isActive", "isPersistent", "isUpdated",
             "hasManagedSaveImage", "jobInfo", "controlInfo", "schedulerType", "schedulerParameters", "memoryStats", "memoryParameters",
             "blkioParameters", "vcpusFlags", "vcpuPinInfo", "snapshotNum", "messages", "hostname", "securityLabel"):
    attempt(name, lambda: getattr(domain, name)(*([0] if name in ("vcpusFlags",) else [])))
for name, arguments in (("create", ()), ("destroy", ()), ("shutdown", ()), ("reboot", ()), ("reset", ()), ("suspend", ()), ("resume", ()),
                        ("undefine", ()), ("rename", ("x", 0)), ("setAutostart", (1,)), ("setMemory", (1024,)), ("setVcpus", (1,)),
                        ("pinVcpu", (0, (True,))), ("setMaxMemory", (1024,)), ("attachDevice", (device,)), ("detachDevice", (device,)),
                        ("updateDeviceFlags", (device, 0)), ("sendProcessSignal", (1, 9, 0)), ("setMetadata", (1, "x", None, None, 0)),
                        ("metadata", (0, None)), ("setMemoryParameters", ({"hard_limit": 1},)), ("setBlkioParameters", ({"weight": 100}, 0)),
                        ("setSchedulerParameters", ({"cpu_shares": 1},)), ("getCPUStats", (True,)), ("interfaceStats", ("x",)),
                        ("interfaceAddresses", (0,)), ("blockStats", ("x",)), ("getEmulatorPinInfo", (0,))):
    if hasattr(domain, name):
        attempt(name, lambda: getattr(domain, name)(*arguments))
attempt("openConsole", lambda: domain.openConsole(None, connection.newStream(0), 0))
attempt("stats of it", lambda: len(connection.domainListGetStats([domain])) == 0 or (_ for _ in ()).throw(libvirt.libvirtError("seen")))
print(json.dumps(said))
"""


@test
def each_call_by_uuid(env):
    """Root gives the domain to elsa: from then on it is none for anna, whatever she asks of what she has found."""
    import libvirt
    anna = env.anna
    with system() as daemon:
        root = anna.root("web")
        define(anna, "web", root).ok()
        her(anna, "start", "web").ok()
        client = subprocess.Popen(["/usr/bin/python3", "-c", CALLS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **anna.account())
        equal(client.stdout.readline(), "found\n")
        uuid = daemon.virsh("domuuid", "web").ok().out.strip()
        xml = anna.xml("web", root, extra=f"<uuid>{uuid}</uuid>" + owner("user='elsa'"))
        daemon.define(anna, xml).ok()
        said = json.loads(client.communicate("go\n", timeout=60)[0])
        unsupported = {name for name, code in said.items() if code == libvirt.VIR_ERR_NO_SUPPORT}
        equal(unsupported - {"getEmulatorPinInfo"}, set(), "not tried")
        equal({name: code for name, code in said.items() if code != libvirt.VIR_ERR_NO_DOMAIN and name not in unsupported},
              {"stats of it": "done"}, "answers")
        check(len(said) > 50, f"{len(said)} calls")
        equal(daemon.virsh("domstate", "web").ok().out.strip(), "running")
        # Two definitions of it, two owners: nobody's until it has ended.
        for user in env.users:
            equal(her(user, "list", "--all", "--name").ok().out.split(), [])
        daemon.virsh("destroy", "web").ok()
        equal([her(user, "list", "--all", "--name").ok().out.split() for user in env.users], [[], ["web"]])


@test
def what_an_owner_may_not_write(env):
    """Each names the element and what to do instead; nothing of it is defined."""
    anna, elsa = env.anna, env.elsa
    host = "<source dir='/srv'/><target dir='/srv'/>"
    disk = "<disk type='block' device='disk'><source dev='/dev/sda'/><target dev='sda'/></disk>"
    attempts = {
        "root's, without an owner": (dict(extra=""), "name yourself there"),
        "elsa's": (dict(extra=owner("user='elsa'")), "names user 'elsa'"),
        "elsa's, by number": (dict(extra=owner("uid='1002'")), "names uid 1002"),
        "directories of the host": (dict(extra=owner("user='anna' sources='host'")), "sources='host'"),
        "a way back": (dict(devices=f"<filesystem type='mount'>{host.replace('/srv', '/srv/base/..', 1)}</filesystem>"), "has '..' in its source"),
        "an image": (dict(devices=f"<filesystem type='file'>{host.replace('dir=', 'file=', 1)}</filesystem>"), "host's kernel would read"),
        "a device as a tree": (dict(devices=f"<filesystem type='block'>{host.replace('dir=', 'dev=', 1)}</filesystem>"), "host's kernel would read"),
        "a disk": (dict(devices=disk), "<disk>"),
        "a network card": (dict(devices="<hostdev mode='capabilities' type='net'><source><interface>eth0</interface></source></hostdev>"), "<hostdev>"),
        "a character device": (dict(devices="<hostdev mode='capabilities' type='misc'><source><char>/dev/kvm</char></source></hostdev>"), "<hostdev>"),
        "a block device": (dict(devices="<hostdev mode='capabilities' type='storage'><source><block>/dev/sda</block></source></hostdev>"), "<hostdev>"),
        "a bridge": (dict(devices="<interface type='bridge'><source bridge='br0'/></interface>"), "<interface>"),
        "a link of the host's": (dict(devices="<interface type='direct'><source dev='eth0' mode='bridge'/></interface>"), "<interface>"),
        "a pair of links": (dict(devices="<interface type='ethernet'/>"), "<interface>"),
        "a log": (dict(devices="<console type='pty'><log file='/etc/cron.d/x'/></console>"), "<log file>"),
        "all capabilities": (dict(extra2="<features><capabilities policy='allow'/></features>"), "policy='allow'"),
        "one capability": (dict(extra2="<features><capabilities policy='default'><sys_module state='on'/></capabilities></features>"), "'sys_module'"),
        "containers inside": (dict(more="<userns:seccomp nesting='yes'/>"), "<userns:seccomp>"),
        "a system call": (dict(more="<userns:seccomp><userns:allow syscall='io_uring_setup'/></userns:seccomp>"), "<userns:seccomp>"),
        "silence": (dict(more="<userns:seccomp log='no'/>"), "log='no'"),
        "processes without end": (dict(more="<userns:pids limit='4000000'/>"), "pids_limit"),
        "no profile": (dict(after="<seclabel type='none' model='apparmor'/>"), "<seclabel>"),
        "another profile": (dict(after="<seclabel type='static' model='apparmor'><label>unconfined</label></seclabel>"), "<seclabel>"),
        "another's network": (dict(after="<lxc:namespace xmlns:lxc='http://libvirt.org/schemas/domain/lxc/1.0'><lxc:sharenet type='pid' value='1'/></lxc:namespace>"), "<lxc:namespace>"),
        "another program": (dict(devices="<emulator>/bin/sh</emulator>"), "<emulator>"),
        "another group": (dict(extra2="<resource><partition>/system</partition></resource>"), "<partition>"),
        "a device's weight": (dict(extra2="<blkiotune><device><path>/dev/sda</path><weight>500</weight></device></blkiotune>"), "<blkiotune>"),
        "what has no effect yet": (dict(devices="<tpm model='tpm-tis'><backend type='passthrough'/></tpm>"), "<tpm>"),
    }
    with system() as daemon:
        root = anna.root("web")
        for name, (how, part) in attempts.items():
            more, extra2, after = how.pop("more", ""), how.pop("extra2", ""), how.pop("after", "")
            how.setdefault("extra", with_ours(anna, more) + extra2)
            xml = anna.xml("web", root, **how)[:-len("</domain>")] + after + "</domain>"
            for call in ("define", "create"):
                said = her(anna, call, anna.write_xml(xml)).fails().err
                contains(said, part), contains(said, "access denied")
        equal(daemon.virsh("list", "--all", "--name").ok().out.split(), [])
        # Nor afterwards, piece by piece.
        define(anna, "web", root).ok()
        for device in (disk, "<hostdev mode='capabilities' type='misc'><source><char>/dev/kvm</char></source></hostdev>",
                       "<interface type='bridge'><source bridge='br0'/></interface>", "<filesystem type='file'><source file='/x'/><target dir='/y'/></filesystem>"):
            contains(her(anna, "attach-device", "web", anna.write_xml(device), "--config").fails().err, "access denied")
        her(anna, "start", "web").ok()
        for options in ("--config", "--live"):
            contains(her(anna, "blkiotune", "web", options, "--device-weights", "/dev/null,500").fails().err, "access denied")
        element = "<domain><owner user='elsa'/></domain>"
        for caller in (lambda *words: her(anna, *words), daemon.virsh):
            for words in (("--set", element), ("--remove",)):
                contains(caller("metadata", "web", "--uri", "urn:virtuserns:domain:1.0", "--key", "userns", "--config", *words).fails().err,
                         "part of the definition")
        contains(her(anna, "lxc-enter-namespace", "web", "--", "/bin/id").fails().err, "access denied")
        her(anna, "metadata", "web", "--uri", "urn:x", "--key", "x", "--set", "<note/>", "--config").ok()
        equal(daemon.virsh("dumpxml", "--inactive", "web").ok().out.count('<userns:owner user="anna"/>'), 1)


@test
def names_and_uuids_of_others(env):
    anna = env.anna
    with system() as daemon:
        all_three(env, daemon)
        before = daemon.virsh("dumpxml", "--inactive", "shop").ok().out
        uuid = daemon.virsh("domuuid", "shop").ok().out.strip()
        root = env.anna.home / "web"
        for name, extra in (("shop", ""), ("other", f"<uuid>{uuid}</uuid>"), ("shop", f"<uuid>{uuid}</uuid>")):
            xml = anna.xml(name, root, extra=extra + with_ours(anna, ""))
            for call in ("define", "create"):
                said = her(anna, call, anna.write_xml(xml)).fails().err
                contains(said, "access denied")
                check(uuid not in said or extra, f"tells the uuid: {said}")
        # Nor by the ids that are taken.
        taken = int(matches(daemon.virsh("dumpxml", "shop").ok().out, r"target='(\d+)'").group(1))
        lines = "".join(f"<{kind} start='0' target='{taken}' count='65536'/>" for kind in ("uid", "gid"))
        said = her(anna, "define", anna.write_xml(anna.xml("more", root, extra=with_ours(anna, ""), idmap=f"<idmap>{lines}</idmap>"))).fails().err
        contains(said, "is not delegated to user 'anna'"), check("shop" not in said, said)
        equal(daemon.virsh("dumpxml", "--inactive", "shop").ok().out, before)
        contains(her(anna, "domrename", "web", "shop").fails().err, "error")


@test
def sources_are_opened_as_the_owner(env):
    """Decided at the start, by what is there then; an error tells nothing that anna could not find out herself."""
    anna, elsa = env.anna, env.elsa
    with system() as daemon:
        root = anna.root("web")
        shared = elsa.home / "shared"
        anna.run("mkdir", anna.home / "data").ok()
        elsa.run("mkdir", "-m", "777", shared).ok()
        (anna.home / "roots").mkdir()  # root's, in anna's home
        link = anna.home / "link"

        def try_source(source, part):
            devices = f"<filesystem type='mount'><source dir='{source}'/><target dir='/data'/></filesystem>"
            define(anna, "web", root, devices=devices).ok()
            said = her(anna, "start", "web").fails().err
            contains(said, part), contains(said, str(source))
            equal(her(anna, "domstate", "web").ok().out.strip(), "shut off")
        try_source("/etc", "it belongs to 0:0")
        try_source("/root", "it belongs to 0:0")
        try_source(shared, "Permission denied")  # below elsa's home
        try_source(elsa.home / "nothing", "Permission denied")  # as what is there
        try_source(anna.home / "nothing", "No such file")
        try_source(anna.home / "roots", "it belongs to 0:0")
        try_source("/proc/1/root", "Permission denied")
        sleeper = subprocess.Popen(["sleep", "60"], **anna.account())
        try:
            try_source(f"/proc/{sleeper.pid}", "kernel's own")
            try_source(f"/proc/{sleeper.pid}/cwd", "symbolic links")
            try_source(f"/proc/{sleeper.pid}/root/etc", "symbolic links")
        finally:
            sleeper.kill()
            sleeper.wait()
        for target, part in (("/etc", "it belongs to 0:0"), (shared, "Permission denied"), ("/proc/self/root", "symbolic links")):
            link.unlink(missing_ok=True)
            anna.run("ln", "-s", target, link).ok()
            try_source(link, part)
        link.unlink()
        # Elsa's tree as a root, also where she lets everybody in; and what is anna's, but not the domain's.
        os.chmod(elsa.home, 0o755)
        hers = elsa.root("shop")
        for source, part in ((hers, "and not to the domain's root"), (anna.home / "data", "and not to the domain's root")):
            define(anna, "web", source).ok()
            contains(her(anna, "start", "web").fails().err, part)
        try_source(shared, "it belongs to 1002:1002")
        os.chmod(elsa.home, 0o700)
        # Her own works, as nobody's inside; the administrator may say otherwise.
        devices = f"<filesystem type='mount'><source dir='{anna.home}/data'/><target dir='/data'/></filesystem>"
        define(anna, "web", root, devices=devices).ok()
        her(anna, "start", "web").ok()
        equal(os.stat(f"/proc/{daemon.init('web')}/root/data").st_uid, anna.uid)
        her(anna, "destroy", "web").ok()
        uuid = her(anna, "domuuid", "web").ok().out.strip()
        devices = "<filesystem type='mount'><source dir='/etc'/><target dir='/data'/><readonly/></filesystem>"
        daemon.define(anna, anna.xml("web", root, devices=devices, extra=f"<uuid>{uuid}</uuid>" + owner("user='anna' sources='host'"))).ok()
        her(anna, "start", "web").ok()
        contains(her(anna, "setmaxmem", "web", "32M", "--config").fails().err, "access denied")
        her(anna, "destroy", "web").ok()


@test
def ids_of_the_owner(env):
    """Automatic and asked for; outside of the delegation it says which line of which file would do."""
    anna, elsa = env.anna, env.elsa
    with system() as daemon:
        root = anna.root("web")
        contains(define(anna, "web", root, more="<userns:ids group='shop'/>").fails().err, "cannot be combined with <userns:owner>")

        def asked(first, count=65536):
            return f"<idmap><uid start='0' target='{first}' count='{count}'/><gid start='0' target='{first}' count='{count}'/></idmap>"
        for first, parts in ((elsa.first, ("/etc/subuid",)), (anna.first + 999_999, ("/etc/subuid",)), (0, ("root of the host",)),
                             (1001, ("/etc/",)), (3_900_000_000, ("is not delegated to user 'anna' in /etc/subuid", "'anna:3900000000:65536'"))):
            for caller in (lambda xml: her(anna, "define", anna.write_xml(xml)), lambda xml: daemon.define(anna, xml)):
                said = caller(anna.xml("web", root, extra=with_ours(anna, ""), idmap=asked(first))).fails().err
                for part in parts:
                    contains(said, part)
        daemon.define(anna, anna.xml("nobody", root, extra=owner("user='nobody-of-that-name'"))).fails("is no account of this host")
        daemon.define(anna, anna.xml("root", root, extra=owner("user='root'"))).fails("root owns no domain")
        daemon.define(anna, anna.xml("root", root, extra=owner("user='1001'"))).fails("uid='N'")
        define(anna, "web", root).ok()
        # A line that goes, also after a range was chosen; and one that comes.
        her(anna, "start", "web").ok()
        her(anna, "destroy", "web").ok()
        write_delegations(env, anna=[f"{anna.first + 131072}:65536"])
        contains(her(anna, "start", "web").fails().err, f"--first {anna.first + 131072}")
        write_delegations(env, anna=[])
        contains(her(anna, "start", "web").fails().err, "'anna:")
        write_delegations(env)
        her(anna, "start", "web").ok()
        # Two of hers share nothing.
        define(anna, "two", anna.root("two", "--first", anna.first + 65536)).ok()
        her(anna, "start", "two").ok()
        equal(id_map(daemon.init("two")), [(0, anna.first + 65536, 65536)])
        # A session of hers, in the range of one of the system that is off.
        her(anna, "destroy", "web").ok()
        anna.start_daemon()
        anna.start("mine", root)
        contains(her(anna, "start", "web").fails().err, "are in use by process")
        anna.define("off", root, extra=owner("user='anna'")).fails("userns:///session")


@test
def events_of_ones_own(env):
    anna = env.anna
    with system() as daemon:
        root = anna.root("web")
        heard = pathlib.Path(env.folder, "events")
        with open(heard, "w") as output:
            watcher = subprocess.Popen(["stdbuf", "-oL", "virsh", "-c", URI, "event", "--all", "--loop"], stdout=output,
                                       **anna.account())

        def define_and_undefine(name):
            define(anna, name, root).ok()
            her(anna, "undefine", name).ok()
            return f"'{name}'" in heard.read_text()

        try:
            eventually(lambda: define_and_undefine("web"), "it listens")
            define(env.elsa, "shop", env.elsa.root("shop")).ok()
            her(env.elsa, "start", "shop").ok()
            her(env.elsa, "destroy", "shop").ok()
            daemon.define(anna, anna.xml("own", root)).ok()
            eventually(lambda: define_and_undefine("last"), "what came after that of others")
        finally:
            watcher.terminate()
            watcher.wait()
        names = [matches(line, r"domain '?([\w-]+)").group(1) for line in heard.read_text().splitlines() if "event" in line and "received" not in line]
        equal(set(names), {"web", "last"})


@test
def administrators_and_whom_root_speaks_for(env):
    """A group of the configuration; and an identity that root takes on is that user's, without groups."""
    anna, elsa = env.anna, env.elsa
    with system('access_admin_groups = [ "elsa" ]\nmax_domains_per_owner = 2\n') as daemon:
        for name in ("one", "two"):
            define(anna, name, "/nowhere").ok()
        contains(define(anna, "three", "/nowhere").fails().err, "max_domains_per_owner")
        define(anna, "two", "/nowhere/else").ok()
        equal(her(elsa, "list", "--all", "--name").ok().out.split(), ["one", "two"])
        her(elsa, "undefine", "one").ok()
        her(elsa, "define", elsa.write_xml(elsa.xml("given", "/nowhere", extra=owner("user='anna'")))).ok()
        equal(her(anna, "list", "--all", "--name").ok().out.split(), ["given", "two"])
        code = ("import libvirt, sys\nc = libvirt.open('userns:///system')\n"
                "c.setIdentity({libvirt.VIR_CONNECT_IDENTITY_UNIX_USER_ID: int(sys.argv[1])}, 0)\n"
                "print(' '.join(sorted(d.name() for d in c.listAllDomains())))")
        daemon.define(anna, anna.xml("own", "/nowhere")).ok()
        for uid, names in ((1001, "given two"), (1002, ""), (0, "given own two")):
            said = subprocess.run(["/usr/bin/python3", "-c", code, str(uid)], capture_output=True, text=True)
            equal((said.returncode, said.stdout.strip()), (0, names), said.stderr)
        check(anna.python(code, "0").code != 0, "anna is root by saying so")


if __name__ == "__main__":
    main()
