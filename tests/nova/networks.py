#!/usr/bin/python3
"""Ports of a real neutron, on path B and then, with another driver in the same host's nova-compute, on path A."""
import suite
import daemon as daemon_module
import path_a
import path_b
from network_actions import ACTIONS, INVARIANTS
from network_stage import NetworkStage
from neutron import Neutron
from rest import Session

HOST = "host1"
WAITS = f"""[DEFAULT]
vif_plugging_is_fatal = true
vif_plugging_timeout = {int(60 * daemon_module.TIME_FACTOR)}
"""


def start_path_b(cloud):
    path_b.start_host(cloud, HOST, path_b.CONF + WAITS)
    cloud.network.start_agent(cloud.start_program, HOST, Session.admin())


def start_path_a(cloud):
    host = cloud.host(HOST)
    host.compute.stop()
    for program in host.beside:
        program.stop()
    cloud.start_compute(HOST, path_a.CONF + WAITS)


REFUSALS_OF_A = {}

if __name__ == "__main__":
    suite.main(suite.Path("B", start_path_b, {}), suite.Path("A", start_path_a, REFUSALS_OF_A),
               subject=suite.Subject(ACTIONS, INVARIANTS, NetworkStage, Neutron()))
