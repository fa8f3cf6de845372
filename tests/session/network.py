#!/usr/bin/env python3
"""<interface type='user'>: the network of an ordinary user's domains, by passt.

    tests/session/network.py [-k TEST]
"""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from users import comm_of, main, namespace, pids_of, test  # noqa: E402
from harness import check, contains, equal, eventually, matches  # noqa: E402
import host_state  # noqa: E402
from world import (HOST, INIT, LOOPBACKS, OTHER, OTHER6, WORLD, ask, forward, ip, knock, listening, named, pastas, udp, udp_server,  # noqa: E402
                   user_link, world)


def root(user, name):
    path = user.root(name)
    # As container root, whose file it is.
    (path / "sbin/init").write_text(INIT)
    return path


def start(user, name, link, path=None):
    user.start(name, path or root(user, name), devices=link)


def inside(user, name, script):
    return user.exec(name, "/bin/sh", "-c", script)


def fetch(user, name):
    """From the world. Not with an end of its own half at once: this pasta may then repeat the answer."""
    return inside(user, name, f"sleep 0.3 | busybox timeout 8 busybox nc -w 3 {WORLD} 80").out.strip()


def keeper(user, name):
    return next(pid for pid in host_state.children(user.controller(name)) if comm_of(pid) == "virtuserns-net")


def nothing_is_left():
    eventually(lambda: not pastas(), "no pasta is left")
    # Of a controller that was killed its stem and its keeper die by a signal each.
    eventually(lambda: not named("virtuserns-"), "nothing of ours is left")


def status(pid):
    return pathlib.Path(f"/proc/{pid}/status").read_text()


@test
def reaches_the_world_and_is_reached(env):
    anna = env.anna
    with world() as outside:
        anna.start_daemon()
        log = anna.home / ".passt.log"
        link = user_link(forward("tcp", "start='8080' to='80'", "start='9000' end='9002' to='80'", "start='9001' exclude='yes'")
                         + forward("udp", "start='5353' to='53'", address=HOST) + "<mtu size='1400'/><guest dev='wan'/>")
        start(anna, "web", link.replace("'passt'", f"'passt' logFile='{log}'"))
        equal(fetch(anna, "web"), f"world sees {HOST}")
        init = anna.init("web")
        equal(udp(init, WORLD, 53), "world heard hello")
        pathlib.Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 4294967294")  # as systemd has it
        inside(anna, "web", f"busybox ping -c 1 -W 5 {WORLD}").ok()
        equal(inside(anna, "web", "cat /sys/class/net/wan/address /sys/class/net/wan/mtu").ok().out.split(),
              ["52:54:00:00:00:01", "1400"])
        contains(anna.virsh("domifaddr", "web").ok().out, f"{HOST}/24")
        contains(anna.virsh("domiflist", "web").ok().out, "user")
        anna.virsh("domifstat", "web", "52:54:00:00:00:01").fails("has no end on the host")
        for address, port, said in ((HOST, 8080, "hello"), ("127.0.0.1", 8080, "hello"), (HOST, 9000, "hello"),
                                    (HOST, 9001, "ConnectionRefusedError"), (HOST, 80, "ConnectionRefusedError")):
            equal(ask(address, port), said, f"{address}:{port}")
        with udp_server(init):
            equal(udp(outside, HOST, 5353), "hello")
        equal(ask("127.0.0.1", 5353, socket.SOCK_DGRAM), "ConnectionRefusedError", "udp at another address")
        equal(ask(HOST, 8080, socket.SOCK_DGRAM), "ConnectionRefusedError", "udp of a tcp port")
        check(log.exists() and os.stat(log).st_uid == anna.uid, "no log of anna's")
        # It is nobody's but the domain's: neither anna's nor with anything of hers.
        equal(len(pastas()), 2)
        for pid in pastas():
            equal(matches(status(pid), r"^Uid:\s+(\d+)").group(1), str(anna.first))
            equal(matches(status(pid), r"^NoNewPrivs:\s+(\d)").group(1), "1")
            equal(matches(status(pid), r"^Seccomp:\s+(\d)").group(1), "2")
            check(int(matches(status(pid), r"^VmSize:\s+(\d+)").group(1)) < 512 * 1024, "it has more memory than it may")
        # The one that reads the container's packets is not in the host's network.
        networks = {namespace(pid, "net") for pid in pastas()}
        check(namespace(os.getpid(), "net") in networks and len(networks) == 2, f"networks of pasta: {networks}")
        anna.virsh("destroy", "web").ok()
        nothing_is_left()
        log.unlink()


@test
def the_loopback_of_the_host_is_out_of_reach(env):
    """Also for packets that no program sends. Of one pasta alone the same test sees that it is reached."""
    anna = env.anna
    with world(), listening("::", 7777) as reached:
        anna.start_daemon()
        start(anna, "web", user_link())
        ip("addr", "add", f"{OTHER}/32", "dev", "up0")  # of the host, and no loopback: to be reached
        ip("addr", "add", f"{OTHER6}/128", "dev", "up0")
        # WORLD: pasta has a way from the address of the gateway to loopback, if it is not told otherwise.
        knock(anna.init("web"), [*LOOPBACKS, WORLD, HOST, OTHER, OTHER6], 7777)
        eventually(lambda: {OTHER, OTHER6} <= set(reached), "the last of them arrive")
        time.sleep(0.3)
        equal(sorted(reached), [OTHER, OTHER6], "reached from inside")
        reached.clear()
        naive = subprocess.Popen(["unshare", "--map-root-user", "--net", "sleep", "60"], **anna.account())
        one = None
        try:
            eventually(lambda: namespace(naive.pid, "net") != namespace(os.getpid(), "net"), "namespaces")
            one = subprocess.Popen(["pasta", "-f", "-q", "--config-net", "--no-map-gw", "-I", "eth0", "-t", "none", "-u", "none",
                                    "-T", "none", "-U", "none", str(naive.pid)], stderr=subprocess.DEVNULL, **anna.account())
            eventually(lambda: HOST in ip("-br", "addr", pid=naive.pid), "one pasta")
            time.sleep(0.3)  # between its configuration and its loop
            knock(naive.pid, LOOPBACKS, 7777)
            eventually(lambda: {"127.0.0.1", "127.9.9.9", "::1"} <= set(reached), "the test sees what one pasta reaches")
        finally:
            for process in (one, naive):
                if process:
                    process.kill()
                    process.wait()


@test
def two_users_do_not_see_each_other(env):
    anna, elsa = env.users
    with world():
        paths = [root(user, "web") for user in env.users]
        for number, user in enumerate(env.users):
            user.start_daemon()
            start(user, "web", user_link(forward("tcp", f"start='{8080 + number}' to='80'")), paths[number])
        networks = [namespace(user.init("web"), "net") for user in env.users]
        check(len({*networks, namespace(os.getpid(), "net")}) == 3, "networks are shared")
        # Both have the host's address: neither is at it for the other.
        for user in env.users:
            equal(inside(user, "web", f"(echo hello; sleep 0.3) | busybox timeout 8 busybox nc -w 3 {HOST} 80").out.strip(), "hello")
            equal(fetch(user, "web"), f"world sees {HOST}")
        equal([ask(HOST, port) for port in (8080, 8081)], ["hello"] * 2)
        elsa.virsh("destroy", "web").ok()
        equal([ask(HOST, port) for port in (8080, 8081)], ["hello", "ConnectionRefusedError"])
        # A port that somebody has is refused to the next, with its number.
        elsa.virsh("undefine", "web").ok()
        elsa.define("taken", paths[1], devices=user_link(forward("tcp", "start='8080' to='80'"))).ok()
        elsa.virsh("start", "taken").fails("interface 'eth0'", "-t 8080", "another program has it")
        for pid in pastas():
            check(matches(status(pid), r"^Uid:\s+(\d+)").group(1) == str(anna.first), "a pasta of the failed start is left")


@test
def addresses_and_routes_of_its_own(env):
    anna = env.anna
    with world():
        anna.start_daemon()
        start(anna, "web", user_link("<source dev='up0'/><ip address='10.0.2.15' prefix='24'/><ip address='10.0.9.1' prefix='24'/>"
                                     "<route address='10.7.0.0' prefix='16' gateway='10.0.2.9'/>"))
        routes = inside(anna, "web", "busybox ip route").ok().out
        contains(routes, "default via 10.0.2.1 dev eth0")
        contains(routes, "10.7.0.0/16 via 10.0.2.9 dev eth0")
        addresses = anna.virsh("domifaddr", "web").ok().out
        contains(addresses, "10.0.2.15/24")
        contains(addresses, "10.0.9.1/24")
        equal(fetch(anna, "web"), f"world sees {HOST}")


@test
def lives_as_long_as_the_domain(env):
    """Reboot, kills of whom there is: what is to run runs, and what is not to leaves nothing."""
    anna = env.anna
    with world():
        anna.start_daemon()
        start(anna, "web", user_link(forward("tcp", "start='8080' to='80'")))
        first = (anna.init("web"), set(pastas()))
        anna.virsh("reboot", "web").ok()
        eventually(lambda: anna.init("web") not in (None, first[0]) and len(pastas()) == 2, "it boots again")
        eventually(lambda: ask(HOST, 8080) == "hello", "its port answers after the reboot")
        equal(fetch(anna, "web"), f"world sees {HOST}")
        check(not first[1] & set(pastas()), "pasta of the last boot is there")
        # The daemon is of no consequence.
        anna.end_daemons(signal.SIGKILL)
        equal(ask(HOST, 8080), "hello")
        anna.start_daemon()
        for pid in sorted(pastas()):
            os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid: pid not in pastas() and len(pastas()) == 2, "another pasta")
            eventually(lambda: ask(HOST, 8080) == "hello", "its port answers again")
        contains((anna.home / ".cache/libvirt/userns/log/web.log").read_text(), "interface 'eth0': pasta was killed by signal 9")
        os.kill(keeper(anna, "web"), signal.SIGKILL)
        eventually(lambda: not pastas(), "pasta ends with its keeper")
        equal(anna.virsh("domstate", "web").ok().out.strip(), "running")
        anna.virsh("destroy", "web").ok()
        nothing_is_left()
        anna.virsh("start", "web").ok()
        equal(len(pastas()), 2)
        os.kill(anna.controller("web"), signal.SIGKILL)
        eventually(lambda: anna.virsh("domstate", "web").ok().out.strip() == "shut off", "it died with its controller")
        nothing_is_left()


@test
def without_pasta_or_a_way_out(env):
    anna = env.anna
    anna.start_daemon()
    path = root(anna, "web")
    with world():
        anna.define("web", path, devices=user_link("<source dev='nowhere0'/>")).ok()
        anna.virsh("start", "web").fails("interface 'eth0'", "pasta says: Invalid interface name nowhere0")
        anna.virsh("undefine", "web").ok()
        anna.define("web", path, devices=user_link()).ok()
        ip("route", "del", "default")
        ip("-6", "route", "del", "default")
        anna.virsh("start", "web").fails("no default route with an address", "<source dev=''/>")
        ip("route", "add", "default", "via", WORLD)
        nothing = pathlib.Path("/home/.nothing")
        nothing.touch(mode=0o644)
        # Not there, as far as exec looks: ENOENT for a program whose interpreter is missing.
        nothing.write_text("#!/nowhere\n")
        nothing.chmod(0o755)
        subprocess.run(["mount", "--bind", str(nothing), os.path.realpath(shutil.which("pasta"))], check=True)
        try:
            anna.virsh("start", "web").fails("pasta is not installed", "install package passt")
        finally:
            subprocess.run(["umount", os.path.realpath(shutil.which("pasta"))], check=True)
            nothing.unlink()
        equal([pid for pid in pids_of(anna.uid) if comm_of(pid).startswith("virtuserns-")], [], "left of the failed starts")
        anna.virsh("start", "web").ok()
        equal(fetch(anna, "web"), f"world sees {HOST}")
        anna.virsh("attach-device", "web", anna.write_xml(user_link(mac="52:54:00:00:00:02")), "--live").fails("while the domain runs")


if __name__ == "__main__":
    main()
