#!/usr/bin/env python3
"""The life of a user's own daemon and domains: started by the client, killed, idle, found again.

    tests/session/lifecycle.py [-k TEST]
"""
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from users import URI, comm_of, main, namespace, pids_of, test  # noqa: E402
from harness import check, contains, daemon_module, equal, eventually, matches  # noqa: E402

DIRECT = f"{URI}?mode=direct"  # of Debian 12 the client starts another daemon for the plain URI


@test
def the_client_starts_the_daemon(env):
    """And the plain URI works from then on; the sockets and all state are the user's own."""
    anna = env.anna
    equal(anna.virsh("list", "--all", "--name", uri=DIRECT).ok().out.strip(), "")
    equal(anna.virsh("uri").ok().out.strip(), URI)
    anna.start("web", anna.root("web"))
    equal(anna.virsh("domstate", "web", "--reason").ok().out.strip(), "running (booted)")
    for path in (anna.run_dir / "libvirt/virtusernsd-sock", anna.home / ".config/libvirt/userns",
                 anna.home / ".local/state/libvirt/userns/leases"):
        equal((os.stat(path).st_uid, os.stat(path).st_mode & 0o077), (anna.uid, 0), str(path))
    info = anna.virsh("dominfo", "web").ok().fields()
    check(int(info["Used memory"].split()[0]) > 0, f"no group counts it, its processes do: {info}")
    anna.exec("web", "sh", "-c", "n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done").ok()
    check(int(matches(anna.virsh("domstats", "web").ok().out, r"cpu.time=(\d+)").group(1)) > 0, "processor time")
    for call, words in (("dominfo", "Messages:"), ("dumpxml", "<idmap>"), ("domstats", "state.state=1")):
        contains(anna.virsh(call, "web").ok().out, words)


@test
def a_domain_runs_on_without_its_daemon(env):
    anna = env.anna
    anna.start_daemon()
    anna.start("web", anna.root("web"))
    controller, init = anna.controller("web"), anna.init("web")
    anna.end_daemons(signal.SIGKILL)
    equal(comm_of(init), "init")
    equal(anna.virsh("domstate", "web", uri=DIRECT).ok().out.strip(), "running")
    equal((anna.controller("web"), anna.init("web")), (controller, init))
    anna.virsh("reboot", "web").ok()
    eventually(lambda: anna.init("web") not in (None, init), "another init")
    anna.virsh("shutdown", "web").ok()
    eventually(lambda: anna.virsh("domstate", "web").ok().out.strip() == "shut off", "it is off")
    equal([pid for pid in pids_of(anna.uid) if comm_of(pid).startswith("virtuserns-")], [], "controllers left")


@test
def ended_while_nobody_watched(env):
    anna = env.anna
    anna.start_daemon()
    anna.start("web", anna.root("web"))
    controller, init = anna.controller("web"), anna.init("web")
    anna.end_daemons(signal.SIGKILL)
    os.kill(init, signal.SIGKILL)
    eventually(lambda: not comm_of(controller), "the controller has ended")
    anna.start_daemon()
    equal(anna.virsh("domstate", "web", "--reason").ok().out.strip(), "shut off (crashed)")
    anna.virsh("start", "web").ok()
    os.kill(anna.controller("web"), signal.SIGKILL)
    eventually(lambda: anna.virsh("domstate", "web").ok().out.strip() == "shut off", "it died with its controller")
    equal(anna.files_of_runs(), [], "files of the run")


@test
def leaves_when_idle_and_nothing_runs(env):
    anna = env.anna
    root = anna.root("web")
    timeout_s = int(2 * daemon_module.TIME_FACTOR)  # longer than it takes from one command to the next
    anna.start_daemon("--timeout", str(timeout_s))
    anna.start("web", root)
    time.sleep(timeout_s + 2)
    check(anna.daemon.poll() is None, "it left a running domain")
    anna.virsh("destroy", "web").ok()
    eventually(lambda: anna.daemon.poll() is not None, "it leaves", timeout_s + 10)
    equal(anna.daemon.returncode, 0)
    anna.daemon = None


@test
def namespaces_belong_to_ids_of_the_user(env):
    """The domain's to its own first id; around it one of the user's, in which nobody else's ids exist."""
    anna = env.anna
    anna.start_daemon()
    anna.start("web", anna.root("web"))
    controller, init = anna.controller("web"), anna.init("web")
    check(len({namespace(pid, "user") for pid in (os.getpid(), controller, init)}) == 3, "user namespaces are shared")
    lines = [tuple(map(int, line.split())) for line in open(f"/proc/{controller}/uid_map")]
    equal(lines, [(0, anna.uid, 1), (anna.first, anna.first, 65536)])
    equal([tuple(map(int, line.split())) for line in open(f"/proc/{init}/uid_map")], [(0, anna.first, 65536)])
    status = pathlib.Path(f"/proc/{controller}/status").read_text()
    equal(int(matches(status, r"^NoNewPrivs:\s+(\d)").group(1)), 1)
    equal(int(matches(status, r"^Seccomp:\s+(\d)").group(1)), 2)


@test
def ids_are_shared_with_nobody(env):
    anna = env.anna
    anna.start_daemon()
    group = ("<metadata><userns:domain xmlns:userns='urn:virtuserns:domain:1.0'><userns:ids group='shop'/></userns:domain>"
             "</metadata>")
    anna.virsh("define", anna.write_xml(anna.xml("web", anna.root("web"), extra=group))).fails("share no ids", "leave 'group' out")


@test
def devices_come_at_a_start_only(env):
    """Nothing of the host is a session's to give: refused by name, with what can be done, and nothing has changed."""
    anna = env.anna
    data = anna.home / "data"
    data.mkdir()
    os.chown(data, anna.uid, anna.uid)
    folder = f"<filesystem type='mount'><source dir='{data}'/><target dir='/data'/></filesystem>"
    ram = "<filesystem type='ram'><source usage='1024'/><target dir='/{}'/></filesystem>"
    anna.start_daemon()
    anna.start("web", anna.root("web"), devices=ram.format("ram"))

    def look():
        return (anna.virsh("dumpxml", "web").ok().out, anna.virsh("dumpxml", "web", "--inactive").ok().out,
                pathlib.Path(f"/proc/{anna.init('web')}/mountinfo").read_text(), anna.files_of_runs())
    before = look()
    for xml in (folder, ram.format("more"), "<interface type='ethernet'/>",
                "<interface type='user'><backend type='passt'/></interface>",
                "<interface type='bridge'><source bridge='br0'/></interface>",
                "<hostdev mode='capabilities' type='misc'><source><char>/dev/null</char></source></hostdev>"):
        for flags in (["--live"], ["--live", "--config"]):
            anna.virsh("attach-device", "web", anna.write_xml(xml), *flags).fails("session", "--config")
    anna.virsh("detach-device", "web", anna.write_xml(ram.format("ram")), "--live").fails("session", "--config")
    anna.virsh("set-user-password", "web", "root", "secret").fails("session", "virt-userns-exec DOMAIN -- passwd")
    equal(look(), before)
    anna.virsh("attach-device", "web", anna.write_xml(folder), "--config").ok()
    anna.virsh("destroy", "web").ok()
    anna.virsh("start", "web").ok()
    contains(pathlib.Path(f"/proc/{anna.init('web')}/mountinfo").read_text(), " /data ")


if __name__ == "__main__":
    main()
