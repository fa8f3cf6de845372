"""What goes wrong says so: exit codes and texts; and a read-only client reads but does not write."""
import os
import pathlib

from harness import ALL_DRIVERS, OURS, check, contains, equal, main, test
import raw_rpc

MISSING = "error: failed to get domain 'nosuch'"


@test()
def missing_domains(env):
    for command in (["start"], ["destroy"], ["shutdown"], ["reboot"], ["suspend"], ["resume"], ["undefine"], ["dominfo"],
                    ["dumpxml"], ["domstate"], ["domid"], ["autostart"], ["setmem", "1024"], ["memtune"], ["schedinfo"],
                    ["vcpuinfo"], ["dommemstat"], ["domrename", "x"], ["desc"], ["console"]):
        outcome = env.virsh(command[0], "nosuch", *command[1:]).fails(MISSING)
        equal(outcome.out.strip(), "", command[0])


@test()
def not_running(env):
    env.define("web")
    for command in ("shutdown", "reboot", "suspend", "resume", "destroy"):
        outcome = env.virsh(command, "web").fails("error: Failed to " if command != "resume" else "error: ")
        if env.is_reference and command in ("shutdown", "suspend", "resume"):
            continue  # its words differ
        contains(outcome.err, "error: Requested operation is not valid: domain is not running")
    for command in (["domifaddr", "web"], ["cpu-stats", "web"], ["dommemstat", "web"]):
        env.virsh(*command).fails("domain is not running")


@test()
def already_running(env):
    env.start("web")
    env.virsh("start", "web").fails("error: Domain is already active")
    if not env.is_reference:
        env.virsh("resume", "web").fails("error: Requested operation is not valid: domain is already running")


@test()
def name_taken_by_another(env):
    env.define("web", uuid="3f0e8a7c-5c57-4b87-9d9c-0f4fd5a1c0de")
    other = env.write_xml(env.domain_xml("web", uuid="3f0e8a7c-5c57-4b87-9d9c-0f4fd5a1c0df"))
    env.virsh("define", other).fails(
        "error: operation failed: domain 'web' already exists with uuid 3f0e8a7c-5c57-4b87-9d9c-0f4fd5a1c0de")
    same_uuid = env.write_xml(env.domain_xml("other", uuid="3f0e8a7c-5c57-4b87-9d9c-0f4fd5a1c0de"))
    env.virsh("define", same_uuid).fails(
        "domain 'web' is already defined with uuid 3f0e8a7c-5c57-4b87-9d9c-0f4fd5a1c0de")
    env.virsh("start", "web").ok()
    again = env.write_xml(env.domain_xml("web", uuid="3f0e8a7c-5c57-4b87-9d9c-0f4fd5a1c0de"))
    env.virsh("create", again).fails("Requested operation is not valid: domain 'web' is already active")


@test()
def bad_xml(env):
    for text, part in (("<domain", "error: "), ("<network/>", "error: "), ("", "error: "),
                       ("<domain type='nosuch'><name>x</name></domain>", "error: "),
                       (env.domain_xml("a/b"), "error: "), (env.domain_xml("ok", memory_kib=0), "error: ")):
        if env.is_reference and text == env.domain_xml("ok", memory_kib=0):
            continue
        env.virsh("define", env.write_xml(text)).fails(part)
    equal(env.virsh("list", "--all").ok().table(), [])


@test(OURS)
def config_of_a_transient_domain(env):
    env.virsh("create", env.write_xml(env.domain_xml("job"))).ok()
    for command in (["setmem", "job", "65536", "--config"], ["memtune", "job", "--config", "--hard-limit", "100000"],
                    ["schedinfo", "job", "--config", "--set", "cpu_shares=100"], ["desc", "job", "--config", "x"]):
        env.virsh(*command).fails("transient domains do not have any persistent config")
    env.virsh("undefine", "job").fails("Cannot undefine transient domain")


@test(OURS)
def unsupported_calls(env):
    env.start("web")
    for command in (["screenshot", "web", "/dev/null"], ["send-key", "web", "KEY_A"], ["inject-nmi", "web"]):
        env.virsh(*command).fails("this function is not supported by the connection driver")


@test(OURS)
def unknown_flags(env):
    import libvirt
    from harness import libvirt_error
    env.define("web")
    connection = env.open()
    domain = connection.lookupByName("web")
    with libvirt_error(libvirt.VIR_ERR_INVALID_ARG, "unsupported flags"):
        domain.createWithFlags(1 << 20)
    with libvirt_error(libvirt.VIR_ERR_INVALID_ARG, "unsupported flags"):
        domain.undefineFlags(1 << 20)
    check(not domain.isActive())
    connection.close()


@test(OURS)
def unknown_flags_name_libvirts_function(env):
    import libvirt
    from harness import libvirt_error
    env.define("web")
    connection = env.open()
    domain = connection.lookupByName("web")
    bad = 1 << 20
    for call, function in (
            (lambda: domain.createWithFlags(bad), "virDomainCreateWithFlags"),
            (lambda: connection.createXML(env.domain_xml("other"), bad), "virDomainCreateXML"),
            (lambda: connection.defineXMLFlags(env.domain_xml("other"), bad), "virDomainDefineXMLFlags"),
            (lambda: domain.undefineFlags(bad), "virDomainUndefineFlags"),
            (lambda: domain.shutdownFlags(bad), "virDomainShutdownFlags"),
            (lambda: domain.destroyFlags(bad), "virDomainDestroyFlags"),
            (lambda: domain.setMemoryFlags(1024, bad), "virDomainSetMemoryFlags"),
            (lambda: domain.memoryParameters(bad), "virDomainGetMemoryParameters"),
            (lambda: domain.blkioParameters(bad), "virDomainGetBlkioParameters"),
            (lambda: domain.schedulerParametersFlags(bad), "virDomainGetSchedulerParametersFlags"),
            (lambda: domain.setVcpusFlags(1, bad), "virDomainSetVcpusFlags"),
            (lambda: domain.pinVcpuFlags(0, (True,), bad), "virDomainPinVcpuFlags"),
            (lambda: domain.attachDeviceFlags("<console type='pty'/>", bad), "virDomainAttachDeviceFlags"),
            (lambda: domain.state(bad), "virDomainGetState"),
            (lambda: domain.rename("other", bad), "virDomainRename"),
            (lambda: connection.getAllDomainStats(0, bad), "virConnectGetAllDomainStats"),
            (lambda: connection.getMemoryStats(-1, bad), "virNodeGetMemoryStats")):
        with libvirt_error(libvirt.VIR_ERR_INVALID_ARG, f"unsupported flags (0x100000) in function {function}"):
            call()
    connection.close()


# ---- read-only ----------------------------------------------------------------------------------------------------

@test()
def read_only_reads(env):
    env.start("web")
    equal(env.virsh("list", "--name", read_only=True).ok().out.split(), ["web"])
    equal(env.virsh("domstate", "web", read_only=True).ok().out.strip(), "running")
    contains(env.virsh("dumpxml", "web", read_only=True).ok().out, "<name>web</name>")
    env.virsh("dominfo", "web", read_only=True).ok()
    env.virsh("domstats", read_only=True).ok()
    env.virsh("capabilities", read_only=True).ok()


@test()
def read_only_does_not_write(env):
    env.start("web")
    for command in (["destroy", "web"], ["suspend", "web"], ["undefine", "web"], ["setmem", "web", "1024"],
                    ["autostart", "web"], ["desc", "web", "x"]):
        env.virsh(*command, read_only=True).fails("read only access prevents")
    equal(env.state("web"), ("running", "booted"))


@test(OURS)
def the_daemon_itself_refuses_writes_of_read_only_clients(env):
    """libvirt's library refuses before it sends; one that does not must meet the same wall."""
    env.start("web")
    for path, flag in (("/run/libvirt/virtusernsd-sock-ro", False), ("/run/libvirt/virtusernsd-sock-ro", True),
                       ("/run/libvirt/virtusernsd-sock", True)):
        client = raw_rpc.RawClient(path).open(read_only=flag)
        answer = client.call(23, raw_rpc.string("web"))  # DOMAIN_LOOKUP_BY_NAME
        for procedure, payload in ((12, answer), (34, answer), (35, answer), (201, answer + raw_rpc.u32(0) * 2),
                                   (11, raw_rpc.string(env.domain_xml("evil")))):
            try:
                client.call(procedure, payload)
            except raw_rpc.RemoteError as error:
                equal(error.code, 29, f"procedure {procedure} on {path}: {error.message}")
            else:
                check(False, f"procedure {procedure} was allowed on {path}, read-only {flag}")
        client.close()
    equal(env.state("web"), ("running", "booted"))
    equal(len(env.virsh("list", "--all").ok().table()), 1)


def mount(env, target):
    source = pathlib.Path(env.folder, "source")
    source.mkdir(exist_ok=True)
    return f"<filesystem type='mount'><source dir='{source}'/><target dir='{target}'/></filesystem>"


@test(OURS)
def filesystems_that_would_cover_proc_sys_or_dev(env):
    for target in ("/proc", "//proc", "/./proc", "/proc/", "/proc/sys", "/sys/firmware", "/sys", "/dev", "/dev/pts"):
        env.virsh("define", env.write_xml(env.domain_xml("web", devices=mount(env, target)))).fails(
            f"unsupported configuration: filesystem target '{target}' is not supported: ", "use a target outside of them")
    env.virsh("define", env.write_xml(env.domain_xml("web", devices=mount(env, "/proc/../proc")))).fails("'..'")
    equal(env.virsh("list", "--all").ok().table(), [])
    env.define("web", devices="<filesystem type='ram'><source usage='1024'/><target dir='/dev/shm'/></filesystem>")
    env.virsh("start", "web").ok()


@test(("userns",))
def links_that_lead_a_filesystem_to_proc(env):
    for link in ("/proc", "../sys/firmware", "/dev/pts", "/"):
        xml = env.domain_xml("web", devices=mount(env, "/data"))
        root = xml.split("<source dir='")[1].split("'")[0]
        os.symlink(link, os.path.join(root, "data"))
        env.virsh("define", env.write_xml(xml)).ok()
        env.virsh("start", "web").fails("filesystem '/data': the target leads to '/", "use a target outside of them")
        env.virsh("undefine", "web").ok()


@test(("userns",))
def console_logs_that_cannot_be_written(env):
    folder, fifo = pathlib.Path(env.folder, "log-folder"), pathlib.Path(env.folder, "log-fifo")
    folder.mkdir(), os.mkfifo(fifo)
    for path, part in ((folder, "is a directory"), (fifo, "is no regular file"),
                       (pathlib.Path(env.folder, "nosuch/log"), "No such file or directory")):
        xml = env.domain_xml("web").replace("<console type='pty'/>",
                                            f"<console type='pty'><log file='{path}'/></console>")
        env.virsh("define", env.write_xml(xml)).ok()
        env.virsh("start", "web", timeout_s=20).fails("console log", str(path.parent), part)
        equal(env.state("web"), ("shut off", "failed"))
        env.virsh("undefine", "web").ok()


@test(("userns",))
def memory_that_is_too_small_to_start(env):
    env.define("web", memory_kib=16)
    env.virsh("start", "web").fails("was killed", "for want of memory: the limit of 16 KiB is too low", "raise <memory>")


@test(("userns",))
def passwd_that_cannot_be_read(env):
    xml = env.domain_xml("web").replace("</init>", "</init><inituser>web</inituser>")
    root = xml.split("<source dir='")[1].split("'")[0]
    os.mkfifo(os.path.join(root, "etc/passwd"))
    env.virsh("define", env.write_xml(xml)).ok()
    env.virsh("start", "web").fails("inituser 'web' cannot be looked up", "'/etc/passwd': not a regular file", "'+1000'")


@test(("userns",))
def bridges_that_are_missing(env):
    env.define("web", devices="<interface type='bridge'><source bridge='nosuch'/></interface>")
    outcome = env.virsh("start", "web").fails("'eth0'", "the host has no bridge 'nosuch'", "ip link add nosuch type bridge")
    check("%d" not in outcome.err, outcome.err)
    env.define("other")
    env.virsh("attach-interface", "other", "bridge", "nosuch", "--config").ok()
    env.virsh("start", "other").fails("the host has no bridge 'nosuch'")


main()
