"""virsh dump: a bundle of what a running domain looks like, and nothing that it does keeps it from being made, or from running on."""
import contextlib
import os
import pathlib
import signal
import subprocess
import tarfile
import time

from harness import MANY_PROCESSES, check, contains, daemon_module, equal, eventually, main, state_of, test

USERNS = ("userns",)


def dump(env, *flags, name="web"):
    """The files of a dump by name."""
    path = pathlib.Path(env.folder, "dump.tar")
    env.virsh("dump", *flags, name, path).ok()
    state = path.stat()
    equal((state.st_uid, state.st_mode & 0o777), (0, 0o600), "whose the dump is")
    with tarfile.open(path) as tar:
        found = {member.name: tar.extractfile(member).read().decode(errors="replace") for member in tar}
    path.unlink()
    return found


def start(env, script="", **how):
    """A domain whose init is the tree's, beside what the script starts."""
    init = "/sbin/other"
    xml = env.domain_xml("web", init=init, **how)
    root = pathlib.Path(xml.split("<source dir='")[1].split("'")[0])
    (root / "sbin/other").write_text(f"#!/bin/sh\nmount -t proc proc /proc\n{script}\nexec /sbin/init\n")
    (root / "sbin/other").chmod(0o755)
    env.virsh("define", env.write_xml(xml)).ok()
    env.virsh("start", "web").ok()
    env.until_it_listens("web")


@contextlib.contextmanager
def a_dump_that_lasts(env, *flags):
    """As of a domain that holds up whoever looks at it. The client that waits for it, and the program."""
    client, dumper = None, None
    try:
        while not dumper:  # one that was over before it was seen is made again
            client = subprocess.Popen(["virsh", "-c", env.uri, "dump", *flags, "web", str(pathlib.Path(env.folder, "dump.tar"))],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C"})
            dumper = env.stop_dumper(client)
        yield client, dumper
    finally:
        client.kill()
        client.communicate()
        if dumper and state_of(dumper) == "T":
            os.kill(dumper, signal.SIGKILL)
        if not env.daemon.is_running():
            env.daemon.start()


def files(found, name):
    return {path: text for path, text in found.items() if path.startswith("processes/") and path.endswith("/" + name)}


@test(drivers=USERNS)
def what_is_in_it(env):
    log = pathlib.Path(env.folder, "console.log")
    start(env, "sleep 98765 </dev/null >/dev/null & echo said this", devices="")
    xml = env.virsh("dumpxml", "web").ok().out
    found = dump(env, "--live")
    equal(env.state("web")[0], "running")
    contains(found["MANIFEST"], "domain web\n")
    contains(found["MANIFEST"], f"uuid {env.uuid('web')}\n")
    contains(found["MANIFEST"], "complete yes\n")
    equal(found["domain.xml"], xml.rstrip("\n") + "\n")
    contains(found["mounts"], " / /proc ")
    sleeper = [path for path, text in files(found, "cmdline").items() if "98765" in text]
    equal(len(sleeper), 1, f"processes that sleep, of {files(found, 'cmdline')}")
    place = os.path.dirname(sleeper[0])
    contains(found[f"{place}/status"], "Name:\tsleep\n")
    contains(found[f"{place}/maps"], "busybox")
    contains(found[f"{place}/limits"], "Max open files")
    contains(found[f"{place}/wchan"] + found[f"{place}/task/{os.path.basename(place)}/wchan"], "sleep")
    contains(found[f"{place}/task/{os.path.basename(place)}/stack"], "nanosleep")
    contains(found[f"{place}/descriptors"], "0 /dev/null\n")
    check(not any("environ" in name or "mem" == os.path.basename(name) for name in found), "it has what is secret")
    check(any(name.startswith("cgroup/") and text.strip() for name, text in found.items()), f"no statistics: {sorted(found)}")
    # Nobody but those of the domain.
    pids = {int(name.split("/")[1]) for name in found if name.startswith("processes/")}
    check(pids and os.getpid() not in pids and env.daemon.process.pid not in pids, f"{pids}")
    check(not log.exists())


@test(drivers=USERNS)
def the_end_of_its_console(env):
    log = pathlib.Path(env.folder, "console.log")
    xml = env.domain_xml("web").replace("<console type='pty'/>", f"<console type='pty'><log file='{log}' append='on'/></console>")
    env.virsh("define", env.write_xml(xml)).ok()
    env.virsh("start", "web").ok()
    eventually(lambda: log.exists() and "Connected to" in log.read_text(), "its greeting")
    contains(dump(env, "--live")["console.log"], "Connected to web")
    with log.open("a") as more:
        more.write("x" * 300000 + "end")
    end = dump(env, "--live")["console.log"]
    equal((len(end), end[-3:]), (256 * 1024, "end"))


@test(drivers=USERNS)
def it_stands_still_unless_live(env):
    start(env)
    dump(env, "--live")
    equal(env.state("web"), ("running", "booted"))
    dump(env)
    equal(env.state("web"), ("running", "unpaused"))
    env.virsh("suspend", "web").ok()
    contains(dump(env)["MANIFEST"], "complete yes")
    contains(dump(env, "--live")["MANIFEST"], "complete yes")
    equal(env.state("web")[0], "paused", "one that was paused")
    env.virsh("resume", "web").ok()


@test(drivers=USERNS)
def a_destroy_does_not_wait_for_it(env):
    start(env, MANY_PROCESSES)
    for flags in ([], ["--live"]):
        with a_dump_that_lasts(env, *flags) as (client, _):
            begin = time.monotonic()
            env.virsh("destroy", "web").ok()
            check(time.monotonic() - begin < 10 * daemon_module.TIME_FACTOR, "the destroy waited for the dump")
            said = client.communicate(timeout=10 * daemon_module.TIME_FACTOR)[1]
            equal(client.returncode, 1)
            contains(said, "dump domain 'web': the domain is being destroyed")
        check(not [name for name in os.listdir(env.folder) if "dump" in name], f"{os.listdir(env.folder)}")
        env.virsh("start", "web").ok()
        env.until_it_listens("web")
    contains(dump(env)["MANIFEST"], "complete yes")


@test(drivers=USERNS)
def a_daemon_that_dies_in_it_leaves_nothing_paused(env):
    start(env, MANY_PROCESSES)
    with a_dump_that_lasts(env) as (_, dumper):
        equal(env.state("web"), ("paused", "dumping"))
        env.daemon.kill()
        eventually(lambda: state_of(dumper) in ("Z", None), "its program ends with the daemon")
    eventually(lambda: env.state("web") == ("running", "unpaused"), "what was paused for a dump runs")
    contains(dump(env)["MANIFEST"], "complete yes")
    equal(env.state("web"), ("running", "unpaused"))
    # A pause of somebody's stays, dump or not.
    env.virsh("suspend", "web").ok()
    with a_dump_that_lasts(env):
        equal(env.state("web"), ("paused", "user"))
        env.daemon.kill()
    time.sleep(1 * daemon_module.TIME_FACTOR)
    equal(env.state("web"), ("paused", "user"))
    env.virsh("resume", "web").ok()
    dump(env, "--live")
    check(not [name for name in os.listdir(env.folder) if "dump" in name], f"{os.listdir(env.folder)}")


@test(drivers=USERNS)
def all_of_its_processes(env):
    start(env, "for i in 1 2 3 4 5; do for j in 1 2 3 4 5 6; do sleep 98765 & done; done")
    found = {}

    def sleepers():  # one that is not exec'd yet is a shell
        found.clear()
        found.update(dump(env, "--live"))
        return sum("98765" in text for text in files(found, "cmdline").values())
    eventually(lambda: sleepers() == 30, "all that sleep are in it")
    count = len(files(found, "status"))
    contains(found["MANIFEST"], f"processes {count} of {count}\n")


@test(drivers=USERNS)
def what_is_refused(env):
    start(env)
    place = pathlib.Path(env.folder, "there")
    fifo, link, folder = place / "fifo", place / "link", place / "folder"
    place.mkdir()
    os.mkfifo(fifo)
    link.symlink_to("/etc/hostname")
    folder.mkdir()
    before = pathlib.Path("/etc/hostname").read_text()
    for target in (fifo, link, folder, "/dev/null"):
        env.virsh("dump", "--live", "web", target).fails("is no regular file")
    equal(pathlib.Path("/etc/hostname").read_text(), before)
    check(os.path.exists("/dev/null") and not os.path.isfile("/dev/null"))
    env.virsh("dump", "--live", "web", place / "no/such/folder").fails("No such file or directory")
    for flag in ("--crash", "--reset", "--memory-only", "--bypass-cache"):
        env.virsh("dump", flag, "web", place / "x").fails("unsupported flags")
    env.virsh("dump", "--live", "web", place / "x", read_only=True).fails("read only access prevents virDomainCoreDump")
    equal(sorted(os.listdir(place)), ["fifo", "folder", "link"])
    env.virsh("destroy", "web").ok()
    env.virsh("dump", "--live", "web", place / "x").fails("domain is not running")
    equal(sorted(os.listdir(place)), ["fifo", "folder", "link"])
    # One that is there is replaced.
    env.virsh("start", "web").ok()
    (place / "old").write_text("old")
    (place / "old.new").write_text("somebody's")
    env.virsh("dump", "--live", "web", place / "old").ok()
    check(tarfile.is_tarfile(place / "old"))
    equal(sorted(os.listdir(place)), ["fifo", "folder", "link", "old", "old.new"])


if __name__ == "__main__":
    main()
