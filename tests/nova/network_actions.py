"""What neutron's ports are for an instance, tried as actions.py has it, and looked at from the host's side and from inside."""
import contextlib
import json
import subprocess

import libvirt
from actions import Action, eventually, marker
from invariants import nothing_is_left_of_deleted_servers
from network_stage import (NetworkStage, address_of, bridge_of, check_inside, check_plugged, link_of, reaches, rules_of, tap_of, traces)
from stage import Mismatch, Server, check, equal

ACTIONS: list[Action] = []
action = marker(ACTIONS)


@contextlib.contextmanager
def gone_at_the_end(*servers: Server):
    """With the ports that were made for them, which nova leaves."""
    try:
        yield
    finally:
        for server in servers:
            ports = server.stage.ports_of(server)
            server.delete()
            for port in ports:
                server.stage.forget_port(port)


# ---- what a boot gives ------------------------------------------------------------------------------------------------

@action()
def port_binding(stage: NetworkStage):
    server = stage.active()
    port, = stage.ports_of(server)
    check_plugged(stage, server, port, stage.red)


@action()
def boot_that_waits_for_its_port(stage: NetworkStage):
    server = stage.boot()
    with gone_at_the_end(server):
        port, = stage.ports_of(server)
        equal(port["status"], "ACTIVE", "status of the port as soon as the server is active")


@action("guest.setup.inject.networking")
def addresses_routes_and_mtu(stage: NetworkStage):
    server = stage.active()
    port, = stage.ports_of(server)
    equal(check_inside(stage, server, port, stage.red), "eth0", "the link inside")
    routes = [line.split() for line in server.run("/bin/ip", "route").splitlines()]
    check(any(words[:3] == ["default", "via", "10.20.0.1"] for words in routes), f"the gateway: {routes}")
    check(any(words[:3] == ["192.0.2.0/24", "via", "10.20.0.2"] for words in routes), f"the route of the subnet: {routes}")


@action()
def traffic_between_instances(stage: NetworkStage):
    """Of one network, and not of another."""
    server = stage.active()
    friend, port = stage.boot_on(stage.red)
    stranger, other = stage.boot_on(stage.blue)
    with gone_at_the_end(friend, stranger):
        check(reaches(server, address_of(port)), "the one of its network answers")
        size = stage.red.mtu - 28
        check(reaches(server, address_of(port), "-s", str(size)), f"also to packets of {stage.red.mtu} bytes")
        stage.update_port(port["id"], security_groups=[])
        eventually(lambda: not reaches(server, address_of(port)), "without a group it does not answer any more")
        # Only what its own rules do not hold back shows that networks are apart; anti_spoofing shows that it would get through in one.
        for each in (port, other):
            stage.without_port_security(each)
        eventually(lambda: reaches(server, address_of(port)), "without port security it answers again")
        eventually(lambda: _lets_all_pass(other), "the rules of the one of another network let all pass")
        check(not stage.reaches_from_own_address(friend, other), "the one of another network does not answer")


def _lets_all_pass(port: dict) -> bool:
    rules = rules_of(port)
    return any("when port security is disabled" in rule for rule in rules) and not any(rule.startswith("ebtables") for rule in rules)


def _with_mac(server: Server, mac: str) -> None:
    server.run("/bin/sh", "-c", f"ip link set eth0 down && ip link set eth0 address {mac} && ip link set eth0 up")


@action()
def anti_spoofing(stage: NetworkStage):
    """The same is tried on a port without port security, where it must get through: else this would show nothing."""
    victim, target = stage.boot_on(stage.red)
    server, port = stage.boot_on(stage.red)
    stolen, foreign_mac = stage.red.address(222), "fa:16:3e:00:be:ef"
    with gone_at_the_end(server, victim):
        check(reaches(server, address_of(target)), "as itself it gets an answer")
        server.run("/bin/ip", "addr", "add", f"{stolen}/24", "dev", "eth0")

        def spoofs_address() -> bool:
            return reaches(server, address_of(target), "-I", stolen)

        def spoofs_mac() -> bool:
            _with_mac(server, foreign_mac)
            try:
                return reaches(server, address_of(target))
            finally:
                _with_mac(server, port["mac_address"])
        check(not spoofs_address(), "with another address it gets none")
        check(not spoofs_mac(), "with another MAC address it gets none")
        check(reaches(server, address_of(target)), "as itself again it gets an answer")
        stage.without_port_security(port)
        eventually(spoofs_address, "without port security another address gets through")
        eventually(spoofs_mac, "without port security another MAC address gets through")


# ---- links that come and go -------------------------------------------------------------------------------------------

def _await_detached(stage: NetworkStage, server: Server, port: dict) -> None:
    eventually(lambda: not [each for each in stage.ports_of(server) if each["id"] == port["id"]], "neutron has it not as the server's")


def _check_unplugged(stage: NetworkStage, server: Server, port: dict) -> None:
    eventually(lambda: not link_of(server, port), "its link is not inside any more")
    eventually(lambda: not traces(port), f"the host has nothing of it: {traces(port)}")
    _await_detached(stage, server, port)
    with server.domain() as domain:
        for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
            check(port["mac_address"] not in domain.XMLDesc(flags), "the domain has no such interface")


@action("operation.attach-interface")
def attach_interface(stage: NetworkStage):
    server = stage.active()
    friend, target = stage.boot_on(stage.blue)
    port = stage.make_port(stage.blue)
    with gone_at_the_end(friend):
        init = server.init()
        stage.attach(server, port)
        check_plugged(stage, server, port, stage.blue)
        equal(check_inside(stage, server, port, stage.blue), "eth1", "the link inside")
        check(reaches(server, address_of(target)), "by it the other network answers")
        equal(server.init(), init, "init")
        server.act_until("reboot", "ACTIVE", {"type": "HARD"})
        check_inside(stage, server, port, stage.blue)
        check(reaches(server, address_of(target)), "by it the other network answers, after a reboot")
        stage.detach(server, port)
        _check_unplugged(stage, server, port)
    stage.forget_port(port)


@action("operation.detach-interface")
def detach_interface(stage: NetworkStage):
    """One that nova made the port of: it goes with it."""
    server = stage.active()
    made = stage.admin.nova("POST", f"/servers/{server.id}/os-interface", {"interfaceAttachment": {"net_id": stage.blue.id}})
    port = stage.port(made["interfaceAttachment"]["port_id"])
    check_plugged(stage, server, port, stage.blue)
    stage.detach(server, port)
    _check_unplugged(stage, server, port)
    eventually(lambda: not stage.has_port(port["id"]), "the port is deleted")
    first, = stage.ports_of(server)
    check_inside(stage, server, first, stage.red)


@action()
def delete_a_plugged_port(stage: NetworkStage):
    """Neutron tells nova (network-vif-deleted)."""
    server = stage.active()
    port = stage.make_port(stage.blue)
    stage.attach(server, port)
    check_plugged(stage, server, port, stage.blue)
    stage.delete_port(port["id"])
    _check_unplugged(stage, server, port)


@action(in_short=False)
def attach_interface_to_a_stopped_one(stage: NetworkStage):
    server = stage.active()
    server.act_until("os-stop", "SHUTOFF")
    port = stage.make_port(stage.blue)
    stage.attach(server, port)
    server.act_until("os-start", "ACTIVE")
    check_plugged(stage, server, port, stage.blue)
    check_inside(stage, server, port, stage.blue)
    server.act_until("os-stop", "SHUTOFF")
    stage.detach(server, port)
    _await_detached(stage, server, port)
    server.act_until("os-start", "ACTIVE")
    _check_unplugged(stage, server, port)
    stage.delete_port(port["id"])


def _devices(server: Server) -> list[dict]:
    """Of the metadata on the config drive."""
    return json.loads(server.run("/bin/cat", "/config-2/openstack/latest/meta_data.json"))["devices"]


@action("operation.device-tags")
def device_tags(stage: NetworkStage):
    server = stage.boot(networks=[{"uuid": stage.red.id, "tag": "front"}], config_drive=True)
    with gone_at_the_end(server):
        port, = stage.ports_of(server)
        found = [device for device in _devices(server) if device.get("tags") == ["front"]]
        equal([(device["type"], device["mac"]) for device in found], [("nic", port["mac_address"])], "what has the tag")


@action("operation.attach-tagged-interface")
def attach_tagged_interface(stage: NetworkStage):
    server = stage.active()
    port = stage.make_port(stage.blue)
    stage.attach(server, port, tag="back")
    found = [device for device in stage.metadata(server)["devices"] if device.get("tags") == ["back"]]
    equal([(device["type"], device["mac"]) for device in found], [("nic", port["mac_address"])], "what has the tag")
    stage.detach(server, port)
    _check_unplugged(stage, server, port)
    eventually(lambda: "back" not in json.dumps(stage.metadata(server).get("devices", [])), "the tag is gone")
    stage.delete_port(port["id"])


# ---- what does not take them away -------------------------------------------------------------------------------------

def _still_works(stage: NetworkStage, server: Server, target: dict) -> None:
    port, = stage.ports_of(server)
    check_plugged(stage, server, port, stage.red)
    check_inside(stage, server, port, stage.red)
    check(reaches(server, address_of(target)), "the other one answers")


@action(in_short=False)
def network_over_stop_and_reboot(stage: NetworkStage):
    server = stage.active()
    friend, target = stage.boot_on(stage.red)
    with gone_at_the_end(friend):
        server.act_until("reboot", "ACTIVE", {"type": "HARD"})
        _still_works(stage, server, target)
        server.act_until("reboot", "ACTIVE", {"type": "SOFT"})
        _still_works(stage, server, target)
        server.act_until("os-stop", "SHUTOFF")
        server.act_until("os-start", "ACTIVE")
        _still_works(stage, server, target)


def _reaches_as(pid: int, address: str) -> bool:
    """From the network namespace of a process: nothing of ours is needed for that."""
    argv = ["nsenter", "-t", str(pid), "-n", "busybox", "ping", "-c", "2", "-W", "1", address]
    return subprocess.run(argv, capture_output=True).returncode == 0


@action(in_short=False)
def network_over_restarts_of_services(stage: NetworkStage):
    """Neither does a link move while they are away: it is the same one."""
    server = stage.active()
    friend, target = stage.boot_on(stage.red)
    with gone_at_the_end(friend):
        port, = stage.ports_of(server)
        index, init, host = (tap_of(port) / "ifindex").read_text(), server.init(), server.host
        for program in stage.services(host):
            program.stop()
            try:
                check(_reaches_as(init, address_of(target)), f"the other one answers while {program.name} is away")
            finally:
                program.start()
        stage.await_services(host, server)
        _still_works(stage, server, target)
        equal((tap_of(port) / "ifindex").read_text(), index, "its end on the host")


@action(in_short=False)
def network_over_resize_and_rebuild(stage: NetworkStage):
    server = stage.active()
    friend, target = stage.boot_on(stage.red)
    with gone_at_the_end(friend):
        port, = stage.ports_of(server)
        server.act_until("resize", "VERIFY_RESIZE", {"flavorRef": stage.large})
        _still_works(stage, server, target)
        server.act_until("revertResize", "ACTIVE")
        _still_works(stage, server, target)
        server.act_until("rebuild", "ACTIVE", {"imageRef": stage.image})
        _still_works(stage, server, target)
        equal([each["id"] for each in stage.ports_of(server)], [port["id"]], "its port")


@action()
def delete_with_a_network(stage: NetworkStage):
    server = stage.active()
    port, = stage.ports_of(server)
    bridge = bridge_of(port)
    check(traces(port) and bridge, "the host has something of the port")
    server.delete()
    eventually(lambda: not stage.has_port(port["id"]), "the port is deleted")
    eventually(lambda: not traces(port), f"the host has nothing of it: {traces(port)}")


# ---- always -----------------------------------------------------------------------------------------------------------

def no_link_port_or_rule_is_left_of_deleted_servers(stage: NetworkStage) -> None:
    nothing_is_left_of_deleted_servers(stage)
    if left := stage.eventually_empty(stage.leftovers_of_networks):
        raise Mismatch("; ".join(left[:20]))


INVARIANTS = [("no-link,-port-or-rule-is-left-of-deleted-servers", no_link_port_or_rule_is_left_of_deleted_servers)]
