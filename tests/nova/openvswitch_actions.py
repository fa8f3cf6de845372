"""Ports of Open vSwitch, with both ways that neutron's agent has to keep traffic out: by flows, and by a bridge for each port."""
import json

import neutron
from actions import Action, eventually, marker
from network_actions import gone_at_the_end
from network_stage import HOST, NetworkStage, address_of, check_inside, reaches, tap_of
from openvswitch import vsctl
from stage import Server, check, equal

ACTIONS: list[Action] = []
action = marker(ACTIONS)


def _external_ids(name: str) -> dict:
    kind, pairs = json.loads(vsctl("--format=json", "--columns=external_ids", "find", "Interface", f"name={name}"))["data"][0][0]
    equal(kind, "map", "external ids")
    return dict(pairs)


def _check_port(stage: NetworkStage, server: Server, port: dict, name: str) -> None:
    """`name`: of the switch's port."""
    eventually(lambda: stage.port(port["id"])["status"] == "ACTIVE", f"port {port['id']} is ACTIVE")
    found = stage.port(port["id"])
    equal((found["binding:vif_type"], found["binding:host_id"]), ("ovs", HOST), "binding")
    check(name in vsctl("list-ports", "br-int").split(), f"{name} is a port of br-int")
    ids = _external_ids(name)
    equal((ids["iface-id"], ids["attached-mac"], ids["vm-uuid"]), (port["id"], port["mac_address"], server.id), "external ids")
    equal(vsctl("get", "Interface", name, "error"), "[]", "what is wrong with it")


def _gone(port: dict, name: str) -> bool:
    return not tap_of(port).exists() and name not in vsctl("list-ports", "br-int").split()


def _try_all(stage: NetworkStage, name_of) -> None:
    """`name_of`: of the switch's port, out of neutron's."""
    first, port = stage.boot_on(stage.red)
    second, target = stage.boot_on(stage.red)
    stranger, other = stage.boot_on(stage.blue)
    with gone_at_the_end(first, second, stranger):
        _check_port(stage, first, port, name_of(port))
        check_inside(stage, first, port, stage.red)
        check(reaches(first, address_of(target)), "the one of its network answers")
        first.act_until("reboot", "ACTIVE", {"type": "HARD"})
        eventually(lambda: reaches(first, address_of(target)), "it answers after a reboot")
        first.act_until("os-stop", "SHUTOFF")
        first.act_until("os-start", "ACTIVE")
        eventually(lambda: reaches(first, address_of(target)), "it answers after a stop and a start")
        _check_port(stage, first, port, name_of(port))
        stolen = stage.red.address(222)
        first.run("/bin/ip", "addr", "add", f"{stolen}/24", "dev", "eth0")
        check(not reaches(first, address_of(target), "-I", stolen), "with another address it gets no answer")
        for each in (port, other):
            stage.without_port_security(each)
        eventually(lambda: reaches(first, address_of(target), "-I", stolen), "without port security another address gets through")
        check(not stage.reaches_from_own_address(first, other), "the one of another network does not answer even so")
    for each in (port, target, other):
        eventually(lambda each=each: _gone(each, name_of(each)), f"nothing is left of port {each['id']}")


@action()
def open_vswitch(stage: NetworkStage):
    _try_all(stage, lambda port: tap_of(port).name)


@action(in_short=False)
def open_vswitch_attach_and_detach(stage: NetworkStage):
    server, _ = stage.boot_on(stage.red)
    friend, target = stage.boot_on(stage.blue)
    port = stage.make_port(stage.blue)
    with gone_at_the_end(server, friend):
        stage.attach(server, port)
        _check_port(stage, server, port, tap_of(port).name)
        check_inside(stage, server, port, stage.blue)
        check(reaches(server, address_of(target)), "by it the other network answers")
        stage.detach(server, port)
        eventually(lambda: _gone(port, tap_of(port).name), "nothing is left of the port")
    stage.forget_port(port)


@action(in_short=False)
def open_vswitch_with_hybrid_firewall(stage: NetworkStage):
    """A bridge of each port between the container and the switch, for the rules of iptables."""
    stage.cloud.network.start_agent(stage.cloud.start_program, stage.admin, "neutron-openvswitch-agent", HOST, neutron.OPENVSWITCH_HYBRID)
    _try_all(stage, lambda port: f"qvo{port['id'][:11]}")
