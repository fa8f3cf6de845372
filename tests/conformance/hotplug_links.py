"""Links that come to a running domain and leave it: of each type, with their names and addresses; refused without a trace; and
what the container makes of them."""
import contextlib
import pathlib
import shutil

from harness import check, contains, equal, eventually, main, test
from image_files import USERNS, init_of, sh
from plugging import BRIDGE, attach, definition, detach, devices, links, links_inside, mac, nic, spare_links, start, unchanged
from world import ask, bridge, ip

ADDRESS = "<ip address='10.9.9.2' prefix='24'/><route address='10.7.0.0' prefix='16' gateway='10.9.9.1'/><guest dev='eth7'/>"


def element(env, number, *flags):
    return next((nic for nic in devices(env, *flags).findall("interface") if nic.find("mac").get("address") == mac(number)), None)


def host_link(env, number):
    return element(env, number).find("target").get("dev")


def hosts_ends(env):
    return {name for name in links() if name.startswith("vnet")}


def is_up(link):
    return "UP" in link["flags"]


@test(drivers=USERNS)
def a_link_with_an_address(env):
    with bridge(BRIDGE, "10.9.9.1/24"):
        start(env, nic(1))
        stored = definition(env, "--inactive")
        attach(env, nic(7, ADDRESS)).ok()
        inside = links_inside(env)
        equal(sorted(inside), ["eth0", "eth7", "lo"])
        equal(inside["eth7"]["address"], mac(7))
        check(is_up(inside["eth7"]), f"it is down: {inside['eth7']}")
        equal([(ip["local"], ip["prefixlen"]) for ip in inside["eth7"]["addr_info"] if ip["family"] == "inet"], [("10.9.9.2", 24)])
        contains(ip("route", pid=init_of(env, "web")), "10.7.0.0/16 via 10.9.9.1 dev eth7")
        equal(ask("10.9.9.2", 80), "ConnectionRefusedError", "by the bridge")

        shown = element(env, 7)
        equal(shown.find("alias").get("name"), "net1")
        equal(shown.find("guest").get("dev"), "eth7")
        end = links()[host_link(env, 7)]
        equal((end["master"], is_up(end)), (BRIDGE, True), "the host's end")
        equal([row[:3] + row[4:] for row in env.virsh("domiflist", "web").ok().table() if row[4] == mac(7)],
              [[host_link(env, 7), "bridge", BRIDGE, mac(7)]])
        contains(env.virsh("domifaddr", "web").ok().out, "10.9.9.2/24")
        equal(definition(env, "--inactive"), stored)

        gone = host_link(env, 7)
        detach(env, nic(7)).ok()
        equal(sorted(links_inside(env)), ["eth0", "lo"])
        equal((gone in links(), element(env, 7)), (False, None))
        check(is_up(links_inside(env)["eth0"]), "the other link")
        equal(definition(env, "--inactive"), stored)
        # The one of the start.
        env.virsh("detach-interface", "web", "bridge", "--mac", mac(1), "--live").ok()
        equal((sorted(links_inside(env)), hosts_ends(env)), (["lo"], set()))
        equal(definition(env, "--inactive"), stored)
        detach(env, nic(1)).fails("not found")


@test(drivers=USERNS)
def live_and_stored(env):
    with bridge(BRIDGE, "10.9.9.1/24"):
        start(env)
        attach(env, nic(1), "--config").ok()
        equal((element(env, 1), sorted(links_inside(env))), (None, ["lo"]))
        attach(env, nic(2), "--live", "--config").ok()
        attach(env, nic(3), "--live").ok()
        equal([element(env, number, "--inactive") is not None for number in (1, 2, 3)], [True, True, False])
        equal([element(env, number) is not None for number in (1, 2, 3)], [False, True, True])
        with unchanged(env):
            # To both or to none.
            attach(env, nic(1), "--live", "--config").fails()
            detach(env, nic(3), "--live", "--config").fails("not found")
        detach(env, nic(2), "--live", "--config").ok()
        equal([element(env, number, "--inactive") is not None for number in (1, 2, 3)], [True, False, False])
        env.virsh("destroy", "web").ok()
        eventually(lambda: not hosts_ends(env), "the links go with the domain")
        env.virsh("start", "web").ok()
        equal({link["address"] for name, link in links_inside(env).items() if name != "lo"}, {mac(1)})


@test(drivers=USERNS)
def names_and_numbers_in_use(env):
    with bridge(BRIDGE, "10.9.9.1/24"):
        start(env, nic(1), nic(2, "<guest dev='eth2'/>"))
        attach(env, nic(3)).ok()
        attach(env, nic(4)).ok()
        equal({name: link["address"] for name, link in links_inside(env).items() if name != "lo"},
              {"eth0": mac(1), "eth1": mac(3), "eth2": mac(2), "eth3": mac(4)})
        detach(env, nic(1)).ok()
        equal({name: link["address"] for name, link in links_inside(env).items() if name != "lo"},
              {"eth1": mac(3), "eth2": mac(2), "eth3": mac(4)})
        attach(env, nic(5, "<target dev='plugv5'/>")).ok()
        equal(links_inside(env)["eth0"]["address"], mac(5), "the lowest free name")
        aliases = [nic.find("alias").get("name") for nic in devices(env).findall("interface")]
        equal(len(set(aliases)), 4, f"aliases {aliases}")
        with unchanged(env):
            attach(env, nic(3)).fails(mac(3))
            attach(env, nic(3, "<guest dev='eth9'/>")).fails(mac(3))
            attach(env, nic(6, "<guest dev='eth2'/>")).fails("eth2")
            attach(env, nic(6, "<target dev='plugv5'/>")).fails("plugv5")
            attach(env, nic(6, source="<source bridge='nowhere0'/>")).fails("nowhere0")
            attach(env, nic(6, ADDRESS.replace("gateway='10.9.9.1'", "gateway='10.66.0.1'"))).fails("eth7")
            detach(env, nic(6)).fails("not found")
        # One of the container's own.
        sh(env, "web", "ip link add eth8 type bridge")
        with unchanged(env):
            attach(env, nic(6, "<guest dev='eth8'/>")).fails("eth8")
        attach(env, nic(6, "<guest dev='eth9'/>")).ok()
        equal(links_inside(env)["eth9"]["address"], mac(6))


@contextlib.contextmanager
def network(name):
    """As libvirt's network driver writes it down."""
    path = pathlib.Path(f"/run/libvirt/network/{name}.xml")
    path.parent.mkdir()
    path.write_text(f"<network><name>{name}</name><bridge name='{BRIDGE}'/></network>")
    try:
        yield
    finally:
        shutil.rmtree(path.parent)


@test(drivers=USERNS)
def each_type(env):
    with network("plugged"), spare_links("plugd0"), bridge(BRIDGE, "10.9.9.1/24"):
        start(env)
        kinds = {1: nic(1, "<target dev='plugv0'/>", "ethernet", ""), 2: nic(2, "", "network", "<source network='plugged'/>"),
                 3: nic(3, "<guest dev='mac0'/>", "direct", "<source dev='plugd0' mode='bridge'/>")}
        for number, xml in kinds.items():
            attach(env, xml).ok()
            contains({link["address"] for link in links_inside(env).values() if is_up(link)}, mac(number))
        check("master" not in links()["plugv0"], "a link that was asked for without a bridge has one")
        equal(links()[host_link(env, 2)]["master"], BRIDGE)
        equal(links_inside(env)["mac0"]["linkinfo"]["info_kind"], "macvlan")
        equal(sorted(row[1] for row in env.virsh("domiflist", "web").ok().table()), ["direct", "ethernet", "network"])
        for xml in kinds.values():
            detach(env, xml).ok()
        equal((sorted(links_inside(env)), hosts_ends(env), "plugv0" in links()), (["lo"], set(), False))
        words = ("web", "bridge", BRIDGE, "--mac", mac(4), "--target", "plugv4", "--live")
        env.virsh("attach-interface", *words).ok()
        equal(links()["plugv4"]["master"], BRIDGE)
        env.virsh("detach-interface", "web", "bridge", "--mac", mac(4), "--live").ok()
        equal((sorted(links_inside(env)), "plugv4" in links()), (["lo"], False))
        attach(env, nic(6, "<guest dev='eth6'/><mtu size='1400'/><link state='down'/>")).ok()
        inside = links_inside(env)["eth6"]
        equal((inside["mtu"], is_up(inside)), (1400, False))
        with unchanged(env):
            attach(env, nic(5, "<backend type='passt'/>", "user", "")).fails("--config")


def of_the_host(name):
    return f"<hostdev mode='capabilities' type='net'><source><interface>{name}</interface></source></hostdev>"


@test(drivers=USERNS)
def a_link_of_the_host(env):
    """Only at a start: on its way back the container could give another for it."""
    with spare_links("plugd0", "plugd1"):
        start(env, of_the_host("plugd0"))
        with unchanged(env):
            attach(env, of_the_host("plugd1")).fails("--config")
            detach(env, of_the_host("plugd0")).fails("--config")


@test(drivers=USERNS)
def whatever_the_container_does_with_it(env):
    with bridge(BRIDGE, "10.9.9.1/24"):
        start(env, nic(1))
        for script in ("ip link set eth7 down && ip link set eth7 name mine", "ip link set eth7 down",
                       "ip link set eth7 down && ip link set eth7 name mine && ip link add eth7 type bridge", "ip link del eth7"):
            attach(env, nic(7, ADDRESS)).ok()
            end = host_link(env, 7)
            sh(env, "web", script)
            detach(env, nic(7)).ok()
            equal((end in links(), element(env, 7)), (False, None), script)
            check("mine" not in links_inside(env), f"it is inside still: {script}")
            equal("eth7" in links_inside(env), "bridge" in script, f"what is the container's own: {script}")
            if "bridge" in script:
                sh(env, "web", "ip link del eth7")
        equal(sorted(links_inside(env)), ["eth0", "lo"])


if __name__ == "__main__":
    main()
