"""Networks of a real neutron, and what is seen of an instance's links in them."""
import contextlib
import dataclasses
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import subprocess
import time

import neutron
import openvswitch
import settings
from actions import eventually
from processes import Program
from rest import Refused
from stage import Mismatch, Server, Stage, check, equal

HOST = "host1"  # all that is seen of links is seen on one
RED_MTU = 1400
RULES = [["iptables-save"], ["ebtables", "-t", "nat", "-L"], ["ebtables", "-L"]]


@dataclasses.dataclass
class Network:
    id: str
    prefix: str  # of its addresses, as "10.20.0"
    mtu: int

    def address(self, number: int) -> str:
        """From 200 on it is no port's: for those who take what is not theirs."""
        return f"{self.prefix}.{number}"


class NetworkStage(Stage):
    """Two networks. Servers are in the red one unless it is said otherwise."""

    def __init__(self, cloud, image_path: str):
        super().__init__(cloud, image_path)
        self.red = self.make_network("red", "10.20.0", RED_MTU, host_routes=[{"destination": "192.0.2.0/24", "nexthop": "10.20.0.2"}])
        self.blue = self.make_network("blue", "10.21.0", 1500, gateway_ip=None)
        self.open = self._make_open_group()

    def make_network(self, name: str, prefix: str, mtu: int, **subnet) -> Network:
        made = self.admin.neutron("POST", "/networks", {"network": {"name": name, "mtu": mtu}})["network"]
        self.admin.neutron("POST", "/subnets", {"subnet": {"network_id": made["id"], "cidr": f"{prefix}.0/24", "ip_version": 4,
                                                           "allocation_pools": [{"start": f"{prefix}.10", "end": f"{prefix}.199"}],
                                                           "enable_dhcp": False, **subnet}})
        return Network(made["id"], prefix, mtu)

    def _make_open_group(self) -> str:
        """A security group that lets everybody's traffic in."""
        group = self.admin.neutron("POST", "/security-groups", {"security_group": {"name": "open"}})["security_group"]["id"]
        self.admin.neutron("POST", "/security-group-rules", {"security_group_rule": {
            "security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "remote_ip_prefix": "0.0.0.0/0"}})
        return group

    def make_port(self, network: Network, **more) -> dict:
        return self.admin.neutron("POST", "/ports", {"port": {"network_id": network.id, "security_groups": [self.open], **more}})["port"]

    def port(self, port: str) -> dict:
        return self.admin.neutron("GET", f"/ports/{port}")["port"]

    def update_port(self, port: str, **more) -> None:
        self.admin.neutron("PUT", f"/ports/{port}", {"port": more})

    def without_port_security(self, port: dict) -> None:
        self.update_port(port["id"], security_groups=[], port_security_enabled=False)

    def reaches_from_own_address(self, server: Server, other: dict) -> bool:
        """As if the other's network was at its link: the server, which is in the red one, gets an address of the blue one."""
        own = self.blue.address(200)
        server.run("/bin/ip", "addr", "add", f"{own}/24", "dev", "eth0")
        return reaches(server, address_of(other), "-I", own)

    def delete_port(self, port: str) -> None:
        self.admin.neutron("DELETE", f"/ports/{port}")

    def forget_port(self, port: dict) -> None:
        """If neutron has it still."""
        with contextlib.suppress(Refused):
            self.delete_port(port["id"])

    def has_port(self, port: str) -> bool:
        try:
            return bool(self.port(port))
        except Refused as refused:
            if refused.code != 404:
                raise
            return False

    def ports_of(self, server: Server) -> list[dict]:
        return self.admin.neutron("GET", f"/ports?device_id={server.id}")["ports"]

    def boot(self, *arguments, **more) -> Server:
        server = super().boot(*arguments, **{"networks": [{"uuid": self.red.id}], **more})
        for port in self.ports_of(server):
            self.lease(server, port)
        return server

    def boot_on(self, network: Network, **port) -> tuple[Server, dict]:
        """With a port made before, whose group lets everything in."""
        made = self.make_port(network, **port)
        return self.boot(networks=[{"port": made["id"]}]), made

    def lease(self, server: Server, port: dict) -> None:
        """Nova's own driver leaves addresses to a DHCP client inside. This does what one would."""
        if self.path == "A":
            link = _await_link(server, port)
            server.run("/bin/sh", "-c", f"ip addr add {address_of(port)}/24 dev {link} 2>/dev/null; ip link set {link} up")

    def attach(self, server: Server, port: dict, **more) -> None:
        self.admin.nova("POST", f"/servers/{server.id}/os-interface", {"interfaceAttachment": {"port_id": port["id"], **more}})

    def detach(self, server: Server, port: dict) -> None:
        self.admin.nova("DELETE", f"/servers/{server.id}/os-interface/{port['id']}")

    # ---- what belongs to a host ----

    @staticmethod
    def services(host) -> list[Program]:
        """One after another they may be away: what runs does not need them."""
        return [host.compute, *(program for program in host.beside if program.name.startswith("adapter")), host.daemon]

    @staticmethod
    def await_services(host, server: Server) -> None:
        """nova-compute answers when it has seen to its instances, and what it has asked is there."""
        host.await_daemon()
        server.act("os-getConsoleOutput", {})

    def metadata(self, server: Server) -> dict:
        """What the metadata service says to an instance, which neutron's agent tells it by these headers."""
        signature = hmac.new(settings.PASSWORD.encode(), server.id.encode(), hashlib.sha256).hexdigest()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", settings.METADATA, timeout=60)) as link:
            link.request("GET", "/openstack/latest/meta_data.json", headers={
                "X-Instance-ID": server.id, "X-Tenant-ID": server.nova.project_id, "X-Instance-ID-Signature": signature,
                "X-Forwarded-For": "127.0.0.1"})
            answer = link.getresponse()
            text = answer.read()
        equal(answer.status, 200, "status of the metadata service")
        return json.loads(text)

    def leftovers_of_networks(self) -> list[str]:
        """Bridges stay as long as their network is there."""
        expected = {"lo", neutron.NOT_A_NETWORK, *openvswitch.LINKS, *(f"brq{network.id[:11]}" for network in (self.red, self.blue))}
        left = [f"link {name}" for name in os.listdir("/sys/class/net") if name not in expected]
        left += [f"port {port['id']}" for port in self.admin.neutron("GET", "/ports")["ports"]]
        for argv in RULES:
            left += [f"{argv[0]}: {line}" for line in _lines(argv) if "tap" in line]
        return left


def address_of(port: dict) -> str:
    return port["fixed_ips"][0]["ip_address"]


# ---- from inside ------------------------------------------------------------------------------------------------------

def link_of(server: Server, port: dict) -> str | None:
    """The name of the link inside that has the address of the port."""
    found = server.run("/bin/sh", "-c", "grep -H . /sys/class/net/*/address")
    names = [line.split("/")[4] for line in found.splitlines() if line.endswith(port["mac_address"])]
    return names[0] if names else None


def _await_link(server: Server, port: dict) -> str:
    return eventually(lambda: link_of(server, port), f"a link with the address {port['mac_address']} is inside")


def check_inside(stage: NetworkStage, server: Server, port: dict, network: Network) -> str:
    """Link, address, size of packets. The link's name."""
    stage.lease(server, port)
    link = _await_link(server, port)
    shown = server.run("/bin/ip", "addr", "show", "dev", link)
    check(f"inet {address_of(port)}/24" in shown, f"{link} inside has {address_of(port)}/24: {shown}")
    check(f"mtu {network.mtu} " in shown and ",UP" in shown, f"{link} inside is up, with packets of {network.mtu} bytes: {shown}")
    return link


def reaches(server: Server, address: str, *options: str) -> bool:
    """One answer is enough."""
    shown = server.run("/bin/sh", "-c", f"ping -c 2 -W 1 {' '.join(options)} {address} 2>&1 || true")
    received = re.search(r"(\d+) packets received", shown)
    check(received, f"ping says how many were received: {shown!r}")
    return int(received.group(1)) > 0


# ---- from the host ----------------------------------------------------------------------------------------------------

def tap_of(port: dict) -> pathlib.Path:
    return pathlib.Path("/sys/class/net", f"tap{port['id'][:11]}")


def bridge_of(port: dict) -> str | None:
    """The bridge that its end on the host is in."""
    master = tap_of(port) / "master"
    return master.resolve().name if master.exists() else None


def check_plugged(stage: NetworkStage, server: Server, port: dict, network: Network) -> None:
    """Neutron's and the host's side."""
    def is_active() -> bool:
        return stage.port(port["id"])["status"] == "ACTIVE"
    eventually(is_active, f"port {port['id']} is ACTIVE")
    found = stage.port(port["id"])
    equal(found["binding:vif_type"], "bridge", "vif type")
    equal(found["binding:host_id"], server.host.name, "the host that it is bound to")
    equal(found["device_id"], server.id, "whose it is")
    equal(bridge_of(port), f"brq{network.id[:11]}", "the bridge")
    equal(int((tap_of(port) / "mtu").read_text()), network.mtu, "packets of the host's end")


def traces(port: dict) -> list[str]:
    """What the host has of a port: its link, and rules that name it."""
    return ([f"link {tap_of(port).name}"] if tap_of(port).exists() else []) + rules_of(port)


def rules_of(port: dict) -> list[str]:
    name, found = tap_of(port).name, []
    for argv in RULES:
        # Chains of a port have a part of its name: iptables' are short.
        found += [f"{argv[0]}: {line}" for line in _lines(argv) if name in line or name[3:13] in line]
    return found


def _lines(argv: list[str]) -> list[str]:
    """The kernel does not list rules that are being changed (EINTR of nf_tables), and ebtables does not ask again."""
    for _ in range(50):
        listed = subprocess.run(argv, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            return listed.stdout.splitlines()
        time.sleep(0.1)
    raise Mismatch(f"{' '.join(argv)}: {listed.stderr.strip()}")
