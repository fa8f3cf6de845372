"""Devices of a running domain over its life: paused, booted again, found by the next daemon, ended; who may, and when."""
import contextlib
import os
import pathlib
import signal

from harness import check, contains, equal, eventually, host_state, libvirt_error, main, test
from image_files import USERNS, controller, directory, init_of
from plugging import BRIDGE, attach, definition, detach, devices, links, links_inside, mounts, nic, spare_links, start, unchanged
from world import ask, bridge

RAM = "<filesystem type='ram'><source usage='1024'/><target dir='/plugged/ram'/></filesystem>"
NODE = "<hostdev mode='capabilities' type='misc'><source><char>/dev/loop-control</char></source></hostdev>"
LINK = nic(9, "<guest dev='plugm0'/>", "direct", "<source dev='plugd0' mode='bridge'/>")
ADDRESS = "<ip address='10.9.9.2' prefix='24'/><guest dev='eth7'/>"


def run_files(uuid):
    return sorted(path.name.removeprefix(uuid) for path in pathlib.Path("/run/libvirt/userns").glob(f"{uuid}*"))


@contextlib.contextmanager
def something_of_everything(env):
    """XML by where each is found in the container."""
    here = pathlib.Path(env.folder, "everything")
    here.mkdir(exist_ok=True)
    (here / "file").write_text("here\n")
    with spare_links("plugd0"), bridge(BRIDGE, "10.9.9.1/24"):
        yield {"eth7": nic(7, ADDRESS), "plugm0": LINK, "/plugged/data": directory(here, "/plugged/data", "<readonly/>"),
               "/plugged/ram": RAM, **({"/dev/loop-control": NODE} if os.path.exists("/dev/loop-control") else {})}
        env.virsh("destroy", "web")


def what_is_there(env):
    """In the container, of all that was attached."""
    inside = links_inside(env)
    equal({name for name in inside if "UP" not in inside[name]["flags"]}, set(), "links that are down")
    return {name for name in inside if name not in ("lo", "eth0")} | {
        place for place in mounts(env) if place.startswith("/plugged") or place == "/dev/loop-control"}


def what_is_shown(env, names):
    text = definition(env)
    return {name for name in names if f"'{name}'" in text or f">{name}<" in text}


def is_usable(env):
    root = f"/proc/{init_of(env, 'web')}/root"
    equal(pathlib.Path(root, "plugged/data/file").read_text(), "here\n")
    equal(ask("10.9.9.2", 80), "ConnectionRefusedError", "by the bridge")
    contains(mounts(env)["/plugged/data"][5], "ro")


def boots_again(pid, act):
    """A controller's domain, by what is done. Its own doing too: nobody has to be there for it."""
    before = host_state.init_of(pid)

    def is_another():
        with contextlib.suppress(LookupError, OSError):
            return host_state.init_of(pid) != before and host_state._command(host_state.init_of(pid)).startswith("/bin/sh")
        return False
    act()
    eventually(is_another, "it boots again")


@test(drivers=USERNS)
def after_a_reboot(env):
    """What was attached is there again, what was detached is not; whoever asked for the boot, and whether there is a daemon."""
    with something_of_everything(env) as parts:
        del parts["plugm0"]  # below
        start(env, nic(1))
        pid = controller(env, "web")
        for xml in parts.values():
            attach(env, xml).ok()
        detach(env, nic(1)).ok()
        pathlib.Path(f"/proc/{init_of(env, 'web')}/root/plugged/ram/x").write_text("")
        ways = {"reboot": lambda: env.virsh("reboot", "web").ok(), "reset": lambda: env.virsh("reset", "web").ok(),
                "by itself": lambda: os.kill(init_of(env, "web"), signal.SIGHUP), "without a daemon": lambda: alone(env, pid)}
        for how, act in ways.items():
            env.until_it_listens("web")
            boots_again(pid, act)
            if not env.daemon.is_running():
                env.daemon.start()
                eventually(lambda: env.state("web")[0] == "running", "the next daemon finds it")
            eventually(lambda: what_is_there(env) == set(parts), f"all that was attached, after {how}")
            is_usable(env)
            equal(what_is_shown(env, parts), set(parts), how)
            check("eth0" not in links_inside(env), f"what was detached is back after {how}")
            equal(os.listdir(f"/proc/{init_of(env, 'web')}/root/plugged/ram"), [], "a ram disk lasts for one boot")
        for name, xml in parts.items():
            detach(env, xml).ok()
            check(name not in what_is_there(env), f"{name} is there still")
        env.until_it_listens("web")
        boots_again(pid, ways["by itself"])
        equal(what_is_there(env), set())


def alone(env, pid):
    init = host_state.init_of(pid)
    env.daemon.kill()
    os.kill(init, signal.SIGHUP)


@test(drivers=USERNS)
def a_macvlan_after_a_reboot(env):
    with spare_links("plugd0"):
        start(env)
        attach(env, LINK).ok()
        env.until_it_listens("web")
        boots_again(controller(env, "web"), lambda: env.virsh("reboot", "web").ok())
        check("plugm0" in links_inside(env), "it is not there again")
        detach(env, LINK).ok()
        check("plugm0" not in links_inside(env), "it is there still")


@test(drivers=USERNS)
def after_the_daemons_death(env):
    with something_of_everything(env) as parts:
        start(env, nic(1))
        for xml in parts.values():
            attach(env, xml).ok()
        detach(env, nic(1)).ok()
        shown = definition(env)
        env.daemon.kill()
        env.daemon.start()
        eventually(lambda: env.state("web")[0] == "running", "the next daemon finds it")
        equal(definition(env), shown)
        equal(what_is_there(env), set(parts))
        is_usable(env)
        with unchanged(env):
            attach(env, parts["eth7"]).fails("52:54:00:00:09:07")
        for name, xml in parts.items():
            detach(env, xml).ok()
            check(name not in what_is_there(env) | what_is_shown(env, [name]), f"{name} is there still")
        for xml in parts.values():
            attach(env, xml).ok()
        equal((what_is_there(env), what_is_shown(env, parts)), (set(parts), set(parts)))


@test(drivers=USERNS)
def while_it_is_paused(env):
    """Nothing of the container has to run."""
    with something_of_everything(env) as parts:
        start(env, nic(1))
        env.virsh("suspend", "web").ok()
        for name, xml in parts.items():
            attach(env, xml).ok()
            check(name in what_is_there(env), f"{name} is not there")
        env.virsh("resume", "web").ok()
        is_usable(env)
        env.virsh("suspend", "web").ok()
        for name, xml in [*parts.items(), ("eth0", nic(1))]:
            detach(env, xml).ok()
            check(name not in what_is_there(env) | set(links_inside(env)), f"{name} is there still")
        equal(env.state("web")[0], "paused")
        env.virsh("resume", "web").ok()
        env.virsh("reboot", "web").ok()


@test(drivers=USERNS)
def as_often_as_one_likes(env):
    """Neither the stem nor the controller keeps anything of what came and went, or did not come."""
    with something_of_everything(env) as parts:
        start(env, nic(1))
        pid = controller(env, "web")
        stem = next(child for child in host_state.children(pid) if "stem" in host_state._command(child))
        attach(env, RAM).ok()
        detach(env, RAM).ok()
        before = [host_state.Service.of(one) for one in (pid, stem, env.daemon.process.pid)]
        mounted, linked = pathlib.Path(f"/proc/{stem}/mountinfo").read_text(), sorted(links())
        for _ in range(3):
            for xml in parts.values():
                attach(env, xml).ok()
                attach(env, xml).fails()
            for target in ("/to/../proc", "/proc"):
                attach(env, directory(env.folder, target)).fails()
            attach(env, nic(8, "<guest dev='eth0'/>")).fails()
            for xml in reversed(parts.values()):
                detach(env, xml).ok()
                detach(env, xml).fails()
        for one in before:
            equal(host_state.service_leaks(one), [])
        equal((pathlib.Path(f"/proc/{stem}/mountinfo").read_text(), sorted(links())), (mounted, linked))


@test(drivers=USERNS)
def nothing_is_left(env):
    """Nor of it at the next start: --live is for what runs."""
    with something_of_everything(env) as parts:
        before = set(links())
        start(env, nic(1))
        uuid = env.uuid("web")
        for suffix in (".plug", ".sock"):
            contains(run_files(uuid), suffix)
            facts = os.lstat(f"/run/libvirt/userns/{uuid}{suffix}")
            equal((facts.st_uid, facts.st_mode & 0o077), (0, 0), suffix)
        for end in (lambda: env.virsh("destroy", "web").ok(), lambda: os.kill(controller(env, "web"), signal.SIGKILL)):
            for xml in parts.values():
                attach(env, xml).ok()
            end()
            eventually(lambda: env.state("web")[0] == "shut off", "it has ended")
            eventually(lambda: set(links()) == before, f"links: {sorted(links())}")
            equal([name for name in run_files(uuid) if name != ".status"], [])
            equal(what_is_shown(env, parts), set())
            env.virsh("start", "web").ok()
            equal(what_is_there(env), set())


@test(drivers=USERNS)
def who_may_and_when(env):
    import libvirt
    with something_of_everything(env) as parts:
        start(env, nic(1))
        with unchanged(env):
            for verb in ("attach-device", "detach-device"):
                env.virsh(verb, "web", env.write_xml(parts["eth7"]), "--live", read_only=True).fails("read only")
        with contextlib.closing(env.open()) as connection:
            domain = connection.lookupByName("web")
            for act, number in ((domain.attachDeviceFlags, 7), (domain.detachDeviceFlags, 1)):
                act(parts["eth7"] if number == 7 else nic(1), libvirt.VIR_DOMAIN_AFFECT_CURRENT)  # of what runs, that one
            equal(what_is_there(env) | set(links_inside(env)), {"eth7", "lo"})
            equal(len(devices(env, "--inactive").findall("interface")), 1)
            with libvirt_error(libvirt.VIR_ERR_DEVICE_MISSING, "52:54:00:00:09:01"):
                domain.detachDeviceFlags(nic(1), libvirt.VIR_DOMAIN_AFFECT_LIVE)
            del domain, act
        env.virsh("destroy", "web").ok()
        before = definition(env)
        for verb in ("attach-device", "detach-device"):
            for flags in (["--live"], ["--live", "--config"]):
                env.virsh(verb, "web", env.write_xml(parts["eth7"]), *flags).fails("domain is not running")
        equal(definition(env), before)


if __name__ == "__main__":
    main()
