"""Operations on domains, and the bench on which each is done with a fault in it and judged afterwards."""
import argparse
import contextlib
import datetime
import os
import pathlib
import shutil
import sys
import threading
import time
import uuid as uuid_module

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import invariants  # noqa: E402
import harness  # noqa: E402
import plugged  # noqa: E402
from harness import check, matches  # noqa: E402
from invariants import BRIDGE, Leftovers, Neighbour, controllers, disagreements, known, rich_devices, settled, stems  # noqa: E402
from tracer import Plan, Tracer, collect_orphans  # noqa: E402

# The machine is shared: what is ours begins so.
PREFIX = f"fault-{os.getpid()}-"
POINTS_OF_A_SHORT_RUN = 6
MEMORY_KIB, OTHER_MEMORY_KIB = 262144, 131072


class Options:
    stride, only, show, operations = 0, "", "", ""


# ---- the operations --------------------------------------------------------------------------------------------------------

class Case:
    """One domain, made for one kill. The operation is `act`; what must hold then, given whether it was acknowledged,
    is `wrong`."""

    is_defined = True   # before the operation
    is_running = False
    states = None       # acknowledged: one of these; None: any
    of_domain = frozenset({"controller", "stem", "init"})  # roles whose processes are the domain's: it ends with them

    def __init__(self, bench, name):
        self.bench, self.name = bench, name

    def prepare(self, connection):
        if self.is_defined:
            connection.defineXML(self.bench.xml(self.name))
        if self.is_running:
            connection.lookupByName(self.name).create()

    def act(self, connection):
        raise NotImplementedError

    def must_exist(self, is_acknowledged):
        return self.is_defined or is_acknowledged

    def may_exist(self, is_acknowledged):
        return True

    def wrong(self, connection, said, is_acknowledged):
        if not is_acknowledged or self.states is None or self.name not in said:
            return []
        state = said[self.name][0]
        return [] if state in self.states else [f"was acknowledged, but {self.name} is in state {state}"]


class Define(Case):
    is_defined = False

    def act(self, connection):
        connection.defineXML(self.bench.xml(self.name))


class Redefine(Case):
    def act(self, connection):
        connection.defineXML(self.bench.xml(self.name, OTHER_MEMORY_KIB))

    def wrong(self, connection, said, is_acknowledged):
        kib = connection.lookupByName(self.name).maxMemory() if self.name in said else 0
        allowed = (OTHER_MEMORY_KIB,) if is_acknowledged else (OTHER_MEMORY_KIB, MEMORY_KIB)
        return [] if kib in allowed else [f"{self.name} has {kib} KiB, wanted one of {allowed}"]


class Autostart(Case):
    def act(self, connection):
        connection.lookupByName(self.name).setAutostart(1)

    def wrong(self, connection, said, is_acknowledged):
        is_on = self.name in said and connection.lookupByName(self.name).autostart()
        return [f"autostart of {self.name} is lost"] if is_acknowledged and not is_on else []


class Undefine(Case):
    def prepare(self, connection):
        connection.defineXML(self.bench.xml(self.name)).setAutostart(1)

    def act(self, connection):
        connection.lookupByName(self.name).undefine()

    def must_exist(self, is_acknowledged):
        return False

    def may_exist(self, is_acknowledged):
        return not is_acknowledged

    def wrong(self, connection, said, is_acknowledged):
        # Not acknowledged, there again and without its mark: it would have lost something. (Started by the mark, it may be.)
        return []


class Start(Case):
    def prepare(self, connection):
        # With a lease of its own already: to choose one reads the maps of all processes, a thousand calls of one kind.
        # CreateTransient has them.
        super().prepare(connection)
        if self.is_defined:
            connection.lookupByName(self.name).create()
            connection.lookupByName(self.name).destroy()

    def act(self, connection):
        connection.lookupByName(self.name).create()

    @property
    def states(self):
        import libvirt
        return (libvirt.VIR_DOMAIN_RUNNING,)


class CreateTransient(Start):
    is_defined = False

    def act(self, connection):
        connection.createXML(self.bench.xml(self.name))


class CreateInGroup(CreateTransient):
    """The lease is the group's, which has no other domain: it comes and goes with this one. It is called as the domain is."""

    def act(self, connection):
        connection.createXML(self.bench.xml(self.name).replace(
            "</userns:domain>", f"<userns:ids group='{self.name}'/></userns:domain>"))


class Destroy(Case):
    is_running = True

    def act(self, connection):
        connection.lookupByName(self.name).destroy()

    @property
    def states(self):
        import libvirt
        return (libvirt.VIR_DOMAIN_SHUTOFF,)


class Suspend(Destroy):
    def act(self, connection):
        connection.lookupByName(self.name).suspend()

    @property
    def states(self):
        import libvirt
        return (libvirt.VIR_DOMAIN_PAUSED,)


class Resume(Destroy):
    def prepare(self, connection):
        super().prepare(connection)
        connection.lookupByName(self.name).suspend()

    def act(self, connection):
        connection.lookupByName(self.name).resume()

    @property
    def states(self):
        import libvirt
        return (libvirt.VIR_DOMAIN_RUNNING,)


class SetMemory(Case):
    is_running = True

    def act(self, connection):
        import libvirt
        connection.lookupByName(self.name).setMemoryFlags(
            OTHER_MEMORY_KIB, libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def wrong(self, connection, said, is_acknowledged):
        if self.name not in said:
            return []
        import libvirt
        domain = connection.lookupByName(self.name)
        wrong = []
        if not domain.isActive():
            wrong.append(f"{self.name} does not run any more")
        for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
            text = domain.XMLDesc(flags)
            wanted = [OTHER_MEMORY_KIB] if is_acknowledged else [OTHER_MEMORY_KIB, MEMORY_KIB]
            if not any(f"<currentMemory unit='KiB'>{kib}</currentMemory>" in text for kib in wanted):
                wrong.append(f"the {'stored' if flags else 'live'} memory of {self.name} is none of {wanted} KiB")
        return wrong


class Attach(Case):
    """To the definition."""
    is_running = True
    MAC = "52:54:00:00:00:99"

    def act(self, connection):
        import libvirt
        connection.lookupByName(self.name).attachDeviceFlags(
            f"<interface type='bridge'><mac address='{self.MAC}'/><source bridge='{BRIDGE}'/></interface>",
            libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def wrong(self, connection, said, is_acknowledged):
        if self.name not in said:
            return []
        import libvirt
        domain = connection.lookupByName(self.name)
        wrong = [] if domain.isActive() else [f"{self.name} does not run any more"]
        if self.MAC in domain.XMLDesc(0):
            wrong.append(f"what runs of {self.name} has the device too")
        if is_acknowledged and self.MAC not in domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE):
            wrong.append(f"the device of {self.name} is lost")
        return wrong


class Detach(Attach):
    def prepare(self, connection):
        super().prepare(connection)
        Attach.act(self, connection)

    def act(self, connection):
        import libvirt
        connection.lookupByName(self.name).detachDeviceFlags(
            f"<interface type='bridge'><mac address='{self.MAC}'/><source bridge='{BRIDGE}'/></interface>",
            libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def wrong(self, connection, said, is_acknowledged):
        import libvirt
        wrong = super().wrong(connection, said, False)
        if is_acknowledged and self.name in said and self.MAC in connection.lookupByName(self.name).XMLDesc(
                libvirt.VIR_DOMAIN_XML_INACTIVE):
            wrong.append(f"the device of {self.name} is back")
        return wrong


class AttachLive(Case):
    """One of each kind, to what runs."""
    is_running = True
    of_domain = frozenset({"stem", "init"})  # what the daemon forks opens the sources
    is_wanted = True

    @property
    def folder(self):
        return f"{self.bench.env.folder}/plugged-source"

    def prepare(self, connection):
        pathlib.Path(self.folder).mkdir(exist_ok=True)
        super().prepare(connection)

    def act(self, connection):
        import libvirt
        domain = connection.lookupByName(self.name)
        for device in plugged.devices(self.folder).values():
            domain.attachDeviceFlags(device, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def wrong(self, connection, said, is_acknowledged):
        if self.name not in said:
            return []
        # The daemon that comes next sets it right when it has answered the first already.
        return settled(lambda: plugged.disagreements(connection.lookupByName(self.name), self.folder,
                                                     self.is_wanted if is_acknowledged else None))


class DetachLive(AttachLive):
    is_wanted = False

    def prepare(self, connection):
        super().prepare(connection)
        AttachLive.act(self, connection)

    def act(self, connection):
        import libvirt
        domain = connection.lookupByName(self.name)
        for device in reversed(plugged.devices(self.folder).values()):
            domain.detachDeviceFlags(device, libvirt.VIR_DOMAIN_AFFECT_LIVE)


class SetPassword(Case):
    is_running = True
    OLD = "root:*:19000:0:99999:7:::\n"

    @property
    def etc(self):
        return pathlib.Path(self.bench.root, "etc")

    def prepare(self, connection):
        super().prepare(connection)
        (self.etc / "shadow").write_text(self.OLD)

    def act(self, connection):
        connection.lookupByName(self.name).setUserPassword("root", "secret", 0)

    def wrong(self, connection, said, is_acknowledged):
        if self.name not in said:
            return []
        domain = connection.lookupByName(self.name)
        wrong = [] if domain.isActive() else [f"{self.name} does not run any more"]
        text = (self.etc / "shadow").read_text()
        is_new = text.startswith("root:$6$") and text.endswith(":0:99999:7:::\n") and text.count("\n") == 1
        if not is_new and (is_acknowledged or text != self.OLD):
            wrong.append(f"the passwords of {self.name} are {text!r}")
        # Whatever was left in the middle is in nobody's way.
        self.act(connection)
        left = sorted(path.name for path in self.etc.glob("shadow?*"))
        return wrong + ([f"{left} are left in the container"] if left else [])


OPERATIONS = {"define": Define, "redefine": Redefine, "autostart": Autostart, "undefine": Undefine, "start": Start,
              "create-transient": CreateTransient, "create-in-group": CreateInGroup, "destroy": Destroy,
              "suspend": Suspend, "resume": Resume, "setmem": SetMemory, "attach": Attach, "detach": Detach,
              "attach-live": AttachLive, "detach-live": DetachLive, "set-password": SetPassword}


@contextlib.contextmanager
def orphans_collected():
    """What a killed controller leaves comes to us, as to the first process of a machine, which collects at once: init of a domain
    does not end before all others of its pid namespace are collected, and the daemon waits for that."""
    is_over = threading.Event()

    def collect():
        while not is_over.wait(0.02):
            collect_orphans()
    collector = threading.Thread(target=collect)
    collector.start()
    try:
        yield
    finally:
        is_over.set()
        collector.join()


# ---- one kill --------------------------------------------------------------------------------------------------------------

class Bench:
    """The daemon, the neighbour and the measure of the host. is_served: with a storage daemon for each domain, a process more."""

    def __init__(self, env, is_served=True):
        self.env = env
        self.devices, lacking, self.image = rich_devices(env.folder, is_served)
        for what in lacking:
            print(f"note: this machine lacks {what}", flush=True)
        # And an overlay, of which each domain has what it writes for itself.
        lower = pathlib.Path(env.folder, "lower")
        lower.mkdir(exist_ok=True)
        self.written = f"{env.folder}/written"
        self.devices += f"<filesystem type='mount'><source dir='{self.written}.@NAME@'/><target dir='/laid'/></filesystem>"
        top = ("<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'><userns:overlay target='/laid'>"
               f"<userns:lower dir='{lower}'/></userns:overlay></userns:domain></metadata>")
        self.template = env.domain_xml("@NAME@", memory_kib=MEMORY_KIB, devices=self.devices, uuid="@UUID@", top=top)
        self.root = matches(self.template, r"<source dir='([^']+)'/><target dir='/'/>").group(1)
        for place in ("disk", "laid"):
            pathlib.Path(self.root, place).mkdir()
        for file in ("shadow", ".pwd.lock"):
            pathlib.Path(self.root, "etc", file).touch(mode=0o600)
        self.neighbour = Neighbour(env, PREFIX)
        self.restart()
        self.connection = env.open()
        self.serial = 0
        # The first start makes what stays: groups above all domains.
        warm = self.case(Start)
        warm.prepare(self.connection)
        warm.act(self.connection)
        self.clean(warm)
        self.connection.close()
        self.restart()
        self.leftovers = Leftovers(env)
        self.connection = env.open()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(Exception):
            self.connection.close()
        invariants.remove_rich_devices()

    def xml(self, name, memory_kib=MEMORY_KIB):
        uuid = str(uuid_module.uuid5(uuid_module.NAMESPACE_OID, name))
        if self.written:
            pathlib.Path(f"{self.written}.{name}").mkdir(exist_ok=True)
        if self.image and not os.path.exists(f"{self.image}.{name}"):
            shutil.copy(self.image, f"{self.image}.{name}")
        return self.template.replace("@NAME@", name).replace("@UUID@", uuid).replace(f">{MEMORY_KIB}<", f">{memory_kib}<")

    def case(self, kind):
        self.serial += 1
        return kind(self, f"{PREFIX}{self.serial}")

    def restart(self):
        """Seconds until a client of the new daemon had an answer."""
        if self.env.daemon.is_running():
            self.env.daemon.kill()
        with orphans_collected():
            began = time.monotonic()
            self.env.daemon.start()
            connection = self.env.open()
            connection.listAllDomains()
            took = time.monotonic() - began
        connection.close()
        return took

    def reconnect(self):
        with contextlib.suppress(Exception):
            self.connection.close()
        self.connection = self.env.open()

    def clean(self, case):
        import libvirt
        with contextlib.suppress(libvirt.libvirtError):
            domain = self.connection.lookupByName(case.name)
            if domain.isActive():
                domain.destroy()
            with contextlib.suppress(libvirt.libvirtError):
                if domain.isPersistent():
                    domain.undefine()

    def traced(self, case, plan):
        """Does the operation under the tracer: (report, was acknowledged, error)."""
        import libvirt
        processes = {"daemon": self.env.daemon.process.pid}
        roles = plan.count | plan.kill
        if case.is_running and ({"controller", "stem"} & case.of_domain & roles or "starter" in roles):
            processes["controller"] = controllers(case.name)[case.name][0]
            # One that was born this moment has not yet changed its name.
            processes["stem"] = harness.eventually(lambda: stems(processes["controller"]), "the controller has a stem")[0]
        error = ""
        with Tracer(plan, **processes) as tracer:
            try:
                case.act(self.connection)
            except libvirt.libvirtError as failure:
                error = failure.get_error_message() or "unknown"
        return tracer.report, not error, error

    def count(self, kind, roles):
        case = self.case(kind)
        case.prepare(self.connection)
        report, is_acknowledged, error = self.traced(case, Plan(set(roles)))
        check(is_acknowledged, f"without a kill: {error}")
        self.clean(case)
        return report.calls

    def point(self, kind, plan):
        """One kill: (report, violations)."""
        case = self.case(kind)
        case.prepare(self.connection)
        began = time.monotonic()
        report, is_acknowledged, _ = self.traced(case, plan)
        wrong = []
        if "daemon" in plan.kill:
            took = self.restart()
            if took > invariants.answer_limit_s():
                wrong.append(f"the first answer took {took:.2f} s")
        elif not self.env.daemon.is_running():
            wrong.append(f"the daemon ended: {self.env.daemon.log_text(5)}")
            self.restart()
        elif time.monotonic() - began > 5 * invariants.busy_factor():
            wrong.append(f"the operation took {time.monotonic() - began:.2f} s")
        self.reconnect()
        wrong += settled(lambda: self.look(case, is_acknowledged))
        if not case.of_domain & plan.kill:
            wrong += case.wrong(self.connection, known(self.connection), is_acknowledged)
        wrong += self.afterwards(case)
        return report, wrong

    def look(self, case, is_acknowledged):
        began = time.monotonic()
        said = known(self.connection)
        slow = time.monotonic() - began
        must = [self.neighbour.name] + [case.name] * bool(case.must_exist(is_acknowledged))
        may = [case.name] * bool(case.may_exist(is_acknowledged))
        wrong = disagreements(said, PREFIX, self.env.daemon.cgroup, must, may)
        return wrong + ([f"a list took {slow:.2f} s"] if slow > 2 * invariants.busy_factor() else [])

    def afterwards(self, case):
        """The domain can be ended and removed, and then nothing of it is left."""
        wrong = self.remove_all_but_neighbour()
        self.connection.close()
        wrong += settled(self.leftovers.find)
        self.connection = self.env.open()
        wrong += self.neighbour.noticed()
        if wrong:
            self.repair()
        return wrong

    def remove_all_but_neighbour(self):
        # More than once: a domain with autostart may be on its way up, so that only its definition can be removed.
        for _ in range(5):
            wrong = self.remove_once()
            if wrong is None:
                return []
        return wrong or ["domains do not go away"]

    def remove_once(self):
        """None: there is nothing to remove. (A domain that Python still holds would keep the connection open.)"""
        import libvirt
        name, is_clean = "", True
        try:
            for domain in self.connection.listAllDomains():
                name = domain.name()
                if name == self.neighbour.name:
                    continue
                is_clean = False
                is_persistent = domain.isPersistent()
                if domain.isActive():
                    domain.destroy()
                if is_persistent:
                    domain.undefine()
        except libvirt.libvirtError as error:
            return [f"{name} cannot be removed: {error.get_error_message()}"]
        return None if is_clean else []

    def repair(self):
        """What one kill left must not be counted against the next."""
        self.connection.close()
        self.restart()
        with contextlib.suppress(Exception):
            self.neighbour.start()
        self.leftovers.take()
        self.connection = self.env.open()


def numbers(total):
    if Options.stride:
        return range(1 + 0, total + 1, Options.stride)
    stride = max(1, -(-total // POINTS_OF_A_SHORT_RUN))
    # Others each day, so that a short run sees all of them in time.
    first = datetime.date.today().toordinal() % stride
    return range(1 + first, total + 1, stride)


def none(violations):
    check(not violations, f"{len(violations)} violations, see above")


def parse_options():
    """Takes ours out of the command line; the harness parses the rest."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--stride", type=int, default=0, help="each how-many-th call; 1: all")
    parser.add_argument("--only", default="", metavar="OPERATION:NUMBER")
    parser.add_argument("--operations", default="", metavar="NAME,NAME", help="only these")
    parser.add_argument("--show", default="", metavar="OPERATION")
    _, sys.argv[1:] = parser.parse_known_args(namespace=Options)
    harness.TEST_TIMEOUT_S = 7200 if Options.stride else 300
