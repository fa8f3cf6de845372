"""Definitions and states, driven by virsh: every command changes what the next one shows."""
import glob
import os
import pathlib
import re
import signal
import subprocess
import xml.etree.ElementTree as ET

from harness import OURS, Skip, check, contains, equal, eventually, main, matches, test


@test()
def define_and_undefine(env):
    path = env.write_xml(env.domain_xml("web"))
    contains(env.virsh("define", path).ok().out, "Domain 'web' defined from")
    contains(env.virsh("undefine", "web").ok().out, "Domain 'web' has been undefined")
    env.virsh("domstate", "web").fails("failed to get domain 'web'")


@test()
def redefine_keeps_the_uuid(env):
    env.define("web", uuid="3f0e8a7c-5c57-4b87-9d9c-0f4fd5a1c0de", memory_kib=65536)
    env.define("web", uuid="3f0e8a7c-5c57-4b87-9d9c-0f4fd5a1c0de", memory_kib=131072)
    equal(env.virsh("dominfo", "web").ok().fields()["Max memory"], "131072 KiB")
    equal(len(env.virsh("list", "--all").ok().table()), 1)


@test()
def start_and_destroy(env):
    env.define("web")
    equal(env.state("web")[0], "shut off")
    contains(env.virsh("start", "web").ok().out, "Domain 'web' started")
    equal(env.state("web"), ("running", "booted"))
    contains(env.virsh("destroy", "web").ok().out, "Domain 'web' destroyed")
    equal(env.state("web"), ("shut off", "destroyed"))
    env.virsh("start", "web").ok()
    equal(env.state("web"), ("running", "booted"))


@test()
def suspend_and_resume(env):
    env.start("web")
    contains(env.virsh("suspend", "web").ok().out, "Domain 'web' suspended")
    equal(env.state("web"), ("paused", "user"))
    contains(env.virsh("resume", "web").ok().out, "Domain 'web' resumed")
    equal(env.state("web"), ("running", "unpaused"))


@test()
def destroy_while_paused(env):
    env.start("web")
    env.virsh("suspend", "web").ok()
    env.virsh("destroy", "web").ok()
    equal(env.state("web"), ("shut off", "destroyed"))


@test()
def shutdown(env):
    env.start("web")
    env.until_it_listens("web")
    contains(env.virsh("shutdown", "web").ok().out, "Domain 'web' is being shutdown")
    eventually(lambda: env.state("web")[0] == "shut off", "shut off after shutdown")
    equal(env.state("web"), ("shut off", "shutdown"))


@test(("userns",))
def shutdown_of_an_init_that_does_not_listen_yet(env):
    """As one that a script asks for right after the start; of one that never listens it is an error that says so."""
    xml = env.domain_xml("web")
    env.virsh("define", env.write_xml(xml)).ok()
    script = pathlib.Path(matches(xml, "source dir='([^']+)'").group(1), "sbin/init")
    script.write_text("#!/bin/sh\nsleep 0.5\ntrap 'exit 0' TERM\nwhile :; do sleep 0.1; done\n")
    env.virsh("start", "web").ok()
    env.virsh("shutdown", "web").ok()
    eventually(lambda: env.state("web")[0] == "shut off", "shut off after shutdown")
    script.write_text("#!/bin/sh\nexec sleep 1000\n")
    env.virsh("start", "web").ok()
    contains(env.virsh("shutdown", "web").fails().err, "init handles none of the signals")
    env.virsh("destroy", "web").ok()


@test(OURS)
def shutdown_by_signal(env):
    env.start("web")
    env.until_it_listens("web")
    env.virsh("shutdown", "web", "--mode", "signal").ok()
    eventually(lambda: env.state("web")[0] == "shut off", "shut off after shutdown")


@test()
def reboot(env):
    env.start("web")
    before = env.virsh("domid", "web").ok().out
    contains(env.virsh("reboot", "web").ok().out, "Domain 'web' is being rebooted")
    eventually(lambda: env.state("web")[0] == "running", "running after reboot")
    equal(env.virsh("domid", "web").ok().out, before, "the id survives a reboot")


@test()
def reset(env):
    env.start("web")
    contains(env.virsh("reset", "web").ok().out, "Domain 'web' was reset")
    eventually(lambda: env.state("web")[0] == "running", "running after reset")


@test(OURS)
def start_paused(env):
    if env.driver == "userns":
        from harness import Skip
        raise Skip("libvirt's container drivers do not start paused")
    env.define("web")
    env.virsh("start", "web", "--paused").ok()
    equal(env.state("web"), ("paused", "user"))


@test(OURS)
def start_with_descriptors(env):
    import os
    import subprocess
    env.define("web")
    end, other = os.pipe()
    result = subprocess.run(["virsh", "-c", env.uri, "start", "web", "--pass-fds", str(end)], pass_fds=[end],
                            capture_output=True, text=True)
    os.close(end), os.close(other)
    equal(result.returncode, 0, result.stderr)
    equal(env.state("web"), ("running", "booted"))


@test(("test",))
def namespaces_of_a_test_domain(env):
    env.start("web")
    env.virsh("lxc-enter-namespace", "web", "--noseclabel", "--", "/bin/true").fails("Operation not supported")


@test(("userns",))
def enter_namespace_is_refused(env):
    env.start("web")
    env.virsh("lxc-enter-namespace", "web", "--noseclabel", "/bin/busybox", "id").fails(
        "run as root of the host", "virsh console", "allow_enter_namespace = 1")


@test(("userns",))
def configuration_of_domains_is_read_again(env):
    """SIGHUP reaches the driver: no restart for allow_enter_namespace and pids_limit."""
    config = pathlib.Path("/etc/libvirt/virtusernsd.conf")
    before = config.read_text()
    env.start("web")
    enter = lambda: env.virsh("lxc-enter-namespace", "web", "--noseclabel", "/bin/busybox", "id")  # noqa: E731
    enter().fails("allow_enter_namespace = 1")
    try:
        config.write_text(before + "allow_enter_namespace = 1\npids_limit = 321\n")
        env.daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: enter().code == 0, "virsh lxc-enter-namespace is allowed")
        env.virsh("destroy", "web").ok()
        env.virsh("start", "web").ok()
        limits = [file for place in ("", "*/")
                  for file in glob.glob(f"/sys/fs/cgroup/{place}{env.daemon.cgroup}/machine/virtuserns-*/pids.max")]
        equal([pathlib.Path(file).read_text().strip() for file in limits], ["321"])
    finally:
        config.write_text(before)
        env.daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: enter().code != 0, "virsh lxc-enter-namespace is refused again")


@test(("userns",))
def log_of_a_domain(env):
    """/var/log/libvirt/userns/NAME.log: what was started, when it ended and why."""
    env.start("logged")
    env.virsh("destroy", "logged").ok()
    lines = pathlib.Path("/var/log/libvirt/userns/logged.log").read_text().splitlines()
    equal([line.split(" ", 1)[1].split(",")[0] for line in lines], ["started", "ended: destroyed"])
    matches(lines[0], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")


@test(("userns",))
def shm_is_for_everybody_inside(env):
    env.start("web")
    (init,) = re.findall(r"\d+", "".join(pathlib.Path(f).read_text() for f in glob.glob(
        f"/proc/{env.virsh('domid', 'web').ok().out.strip()}/task/*/children")))[:1]
    equal(oct(os.stat(f"/proc/{init}/root/dev/shm").st_mode & 0o7777), "0o1777")


@test(("userns",))
def disk_belongs_to_root_inside(env):
    image = pathlib.Path(env.folder, "disk.img")
    image.write_bytes(bytes(1024 * 1024))
    losetup = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True)
    if losetup.returncode != 0:
        raise Skip(f"losetup: {losetup.stderr.strip()}")
    device = losetup.stdout.strip()
    try:
        env.start("web", devices=f"<disk type='block' device='disk'><source dev='{device}'/><target dev='vdb'/></disk>")
        (init,) = re.findall(r"\d+", "".join(pathlib.Path(f).read_text() for f in glob.glob(
            f"/proc/{env.virsh('domid', 'web').ok().out.strip()}/task/*/children")))[:1]
        seen = os.stat(f"/proc/{init}/root/dev/vdb")
        uid = int(pathlib.Path(f"/proc/{init}/uid_map").read_text().split()[1])
        equal((seen.st_uid, seen.st_rdev, oct(seen.st_mode & 0o777)), (uid, os.stat(device).st_rdev, "0o600"))
        equal([name for name in os.listdir(f"/proc/{init}/root/dev") if name.startswith(".")], [])
    finally:
        env.virsh("destroy", "web")
        subprocess.run(["losetup", "-d", device], check=True)


@test()
def transient(env):
    contains(env.virsh("create", env.write_xml(env.domain_xml("job"))).ok().out, "Domain 'job' created from")
    equal(env.state("job"), ("running", "booted"))
    equal(env.virsh("dominfo", "job").ok().fields()["Persistent"], "no")
    equal(env.virsh("list", "--transient", "--name").ok().out.split(), ["job"])
    env.virsh("destroy", "job").ok()
    env.virsh("dominfo", "job").fails("failed to get domain 'job'")


@test()
def undefine_while_running(env):
    env.start("web")
    env.virsh("undefine", "web").ok()
    equal(env.state("web")[0], "running")
    equal(env.virsh("dominfo", "web").ok().fields()["Persistent"], "no")
    env.virsh("destroy", "web").ok()
    equal(env.virsh("list", "--all").ok().table(), [])


@test(OURS)
def define_while_running(env):
    env.start("web", memory_kib=131072)
    path = env.write_xml(env.domain_xml("web", memory_kib=65536, uuid=env.uuid("web")))
    env.virsh("define", path).ok()
    live = ET.fromstring(env.virsh("dumpxml", "web").ok().out)
    config = ET.fromstring(env.virsh("dumpxml", "web", "--inactive").ok().out)
    equal((live.find("memory").text, config.find("memory").text), ("131072", "65536"))
    env.virsh("destroy", "web").ok()
    equal(env.virsh("dominfo", "web").ok().fields()["Max memory"], "65536 KiB")


@test(OURS)
def a_running_transient_domain_can_be_kept(env):
    env.virsh("create", env.write_xml(env.domain_xml("job"))).ok()
    env.virsh("define", env.write_xml(env.domain_xml("job", uuid=env.uuid("job")))).ok()
    equal(env.virsh("dominfo", "job").ok().fields()["Persistent"], "yes")
    env.virsh("destroy", "job").ok()
    equal(env.state("job")[0], "shut off")


@test()
def autostart(env):
    env.define("web")
    contains(env.virsh("autostart", "web").ok().out, "Domain 'web' marked as autostarted")
    equal(env.virsh("dominfo", "web").ok().fields()["Autostart"], "enable")
    equal(env.virsh("list", "--all", "--autostart", "--name").ok().out.split(), ["web"])
    env.virsh("autostart", "web", "--disable").ok()
    equal(env.virsh("dominfo", "web").ok().fields()["Autostart"], "disable")


@test(OURS)
def autostart_needs_a_definition(env):
    env.virsh("create", env.write_xml(env.domain_xml("job"))).ok()
    env.virsh("autostart", "job").fails("Requested operation is not valid: Cannot set autostart for transient domain")


@test()
def rename(env):
    env.define("web", uuid="3f0e8a7c-5c57-4b87-9d9c-0f4fd5a1c0de")
    env.define("taken")
    contains(env.virsh("domrename", "web", "shop").ok().out, "Domain successfully renamed")
    equal(env.uuid("shop"), "3f0e8a7c-5c57-4b87-9d9c-0f4fd5a1c0de")
    equal(ET.fromstring(env.virsh("dumpxml", "shop").ok().out).find("name").text, "shop")
    env.virsh("domstate", "web").fails("failed to get domain 'web'")
    env.virsh("domrename", "shop", "taken").fails("domain with name 'taken' already exists")
    env.virsh("start", "shop").ok()
    env.virsh("domrename", "shop", "again").fails("cannot rename active domain")


@test()
def metadata(env):
    env.start("web")
    env.virsh("metadata", "web", "--uri", "urn:x").fails("metadata not found: Requested metadata element is not present")
    env.virsh("metadata", "web", "--uri", "urn:x", "--key", "x", "--set", "<note level='1'>hi</note>", "--live", "--config").ok()
    shown = ET.fromstring(env.virsh("metadata", "web", "--uri", "urn:x").ok().out)
    equal((shown.tag, shown.text, shown.get("level")), ("note", "hi", "1"))
    stored = ET.fromstring(env.virsh("dumpxml", "web", "--inactive").ok().out).find("metadata/{urn:x}note")
    equal(stored.text, "hi")
    env.virsh("metadata", "web", "--uri", "urn:x", "--remove", "--live", "--config").ok()
    env.virsh("metadata", "web", "--uri", "urn:x").fails("metadata not found")


@test()
def title_and_description(env):
    env.define("web")
    env.virsh("desc", "web", "first", "line").ok()
    equal(env.virsh("desc", "web").ok().out.strip(), "first line")
    env.virsh("desc", "web", "--title", "Shop").ok()
    equal(env.virsh("desc", "web", "--title").ok().out.strip(), "Shop")
    check(re.search(r"web\s+shut off\s+Shop", env.virsh("list", "--all", "--title").ok().out))
    root = ET.fromstring(env.virsh("dumpxml", "web").ok().out)
    equal((root.find("title").text, root.find("description").text), ("Shop", "first line"))
    env.virsh("desc", "web", "--title", "").ok()
    equal(ET.fromstring(env.virsh("dumpxml", "web").ok().out).find("title"), None)


main()
