#!/usr/bin/python3
"""Ports of a real neutron, on path B and then, with another driver in the same host's nova-compute, on path A."""
import suite
import daemon as daemon_module
import neutron
import openvswitch
import openvswitch_actions
import path_a
import path_b
from network_actions import ACTIONS, INVARIANTS
from network_stage import HOST, NetworkStage
from rest import Session

WAITS = f"""[DEFAULT]
vif_plugging_is_fatal = true
vif_plugging_timeout = {int(60 * daemon_module.TIME_FACTOR)}
"""


def start_path_b_with_openvswitch(cloud):
    openvswitch.start(cloud.start_program)
    path_b.start_host(cloud, HOST, path_b.CONF + WAITS)
    cloud.network.start_agent(cloud.start_program, Session.admin(), "neutron-openvswitch-agent", HOST, neutron.OPENVSWITCH)


def start_path_b(cloud):
    cloud.network.start_agent(cloud.start_program, Session.admin(), "neutron-linuxbridge-agent", HOST, neutron.LINUXBRIDGE)


def start_path_a(cloud):
    """Beside the same daemon."""
    host = cloud.host(HOST)
    for program in (host.compute, *host.beside):
        program.stop()
    host.start_ssh()
    nova = Session.admin()
    last = _last_report(nova)
    cloud.start_compute(HOST, path_a.CONF + WAITS)
    # What is asked before the service has begun, it takes for something that was interrupted.
    host.compute.wait_until(lambda: _last_report(nova) != last, "it has begun", 60)


def _last_report(nova) -> str:
    service, = nova.nova("GET", f"/os-services?binary=nova-compute&host={HOST}")["services"]
    return service["updated_at"]


# What the two drivers share is tried on path B alone.
ACTIONS_OF_A = ("port-binding", "addresses-routes-and-mtu", "anti-spoofing", "attach-interface",
                "detach-interface", "device-tags", "attach-tagged-interface", "delete-with-a-network")
REFUSALS_OF_A = {
    "addresses-routes-and-mtu": ("the gateway", "Nova's driver leaves addresses and routes to a DHCP client inside"),
    "device-tags": ("meta_data.json", "they are on the config drive, which Nova's driver gives to no container; the metadata service has them"),
}

if __name__ == "__main__":
    suite.main(suite.Path("B", start_path_b_with_openvswitch, {}, actions=openvswitch_actions.ACTIONS), suite.Path("B", start_path_b, {}),
               suite.Path("A", start_path_a, REFUSALS_OF_A, ACTIONS_OF_A, in_short=False),
               subject=suite.Subject(ACTIONS, INVARIANTS, NetworkStage, network=neutron.Neutron()))
