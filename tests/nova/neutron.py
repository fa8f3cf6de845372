"""A real neutron in place of network_stub.py: the server with ML2, and one agent after another.

Bridges, links and rules are those of the cloud's network namespace, which all of its hosts are in; so there can be one agent only.
Networks are of the kind `local`: a bridge that has no way out of the machine.
"""
import subprocess

import openvswitch
import settings
from processes import Program
from rest import Session
from settings import CONFIG, HOME, LOGS

FOLDER = CONFIG / "neutron"
AGENT_CONF = FOLDER / "agent.conf"
NOT_A_NETWORK = "uplink"  # the agent is known by the address of some link

# Everything in one process. Nova is told of a port at once, not two seconds later.
SERVER_CONF = f"""[DEFAULT]
transport_url = {settings.BROKER}
state_path = {HOME}/neutron
log_file = {LOGS}/neutron-server.log
bind_host = 127.0.0.1
bind_port = {settings.NETWORK}
api_paste_config = /etc/neutron/api-paste.ini
auth_strategy = keystone
core_plugin = ml2
service_plugins =
api_workers = 0
rpc_workers = 1
rpc_state_report_workers = 0
notify_nova_on_port_status_changes = true
notify_nova_on_port_data_changes = true
send_events_interval = 0
[database]
connection = {settings.database_url('neutron')}
[nova]
{settings.CREDENTIALS}
[oslo_policy]
enforce_scope = false
[experimental]
linuxbridge = true
[ml2]
type_drivers = local
tenant_network_types = local
mechanism_drivers = linuxbridge,openvswitch
extension_drivers = port_security
[securitygroup]
enable_security_group = true
enable_ipset = true
{settings.TOKENS}"""


# What each agent has of its own.
LINUXBRIDGE = """[vxlan]
enable_vxlan = false
[securitygroup]
firewall_driver = iptables
"""
OPENVSWITCH = """[ovs]
datapath_type = netdev
[securitygroup]
firewall_driver = openvswitch
"""
OPENVSWITCH_HYBRID = OPENVSWITCH.replace("firewall_driver = openvswitch", "firewall_driver = iptables_hybrid")


def agent_conf(host: str, own: str) -> str:
    """It is root already: whatever it runs as root it runs by env(1)."""
    return f"""[DEFAULT]
host = {host}
transport_url = {settings.BROKER}
state_path = {HOME}/neutron
log_file = {LOGS}/neutron-agent.log
[agent]
root_helper = env
polling_interval = 1
quitting_rpc_timeout = 1
[privsep]
helper_command = privsep-helper --config-file {AGENT_CONF}
[experimental]
linuxbridge = true
[oslo_concurrency]
lock_path = {HOME}/lock
{own}"""


# Newer kernels do not delete a rule with --among-src for ebtables of Debian 12 (RULE_DELETE: Invalid argument), unless the rule is named
# by its number. The agent is then stuck in repeating it.
EBTABLES = r"""#!/bin/sh
case "$*" in
'-t nat --concurrent -D '*--among-src*)
  chain=$5
  shift 5
  number=$(/usr/sbin/ebtables -t nat -L "$chain" | grep '^-' | sed 's/ *$//' | grep -nxF -- "$*" | cut -d: -f1)
  exec /usr/sbin/ebtables -t nat --concurrent -D "$chain" "$number" ;;
esac
exec /usr/sbin/ebtables "$@"
"""


class Neutron:
    """To be given to Cloud. What it has is used when that comes up."""

    PROGRAMS = ["neutron-server", "neutron-linuxbridge-agent", "neutron-openvswitch-agent", "neutron-db-manage", "ebtables", "iptables",
                "ipset", "conntrack", *openvswitch.PROGRAMS]
    PACKAGES = ["neutron-common"]
    DATABASES = ["neutron"]

    def __init__(self):
        self.agent: Program | None = None

    @staticmethod
    def write_settings() -> None:
        for folder in (FOLDER, HOME / "neutron"):
            folder.mkdir(parents=True, exist_ok=True)
        (FOLDER / "neutron.conf").write_text(SERVER_CONF)

    @staticmethod
    def schema_commands() -> list[list[str]]:
        return [["neutron-db-manage", "--config-file", f"{FOLDER}/neutron.conf", "upgrade", "heads"]]

    @staticmethod
    def start_server(start) -> Program:
        """`start`: of the cloud."""
        return start("network", ["neutron-server", "--config-file", f"{FOLDER}/neutron.conf"])

    def start_agent(self, start, nova: Session, program: str, host: str, own: str) -> None:
        """`own`: see agent_conf. The one that was there before ends, and the server forgets it: until it knows the new one, it binds no
        port to the host."""
        if self.agent:
            self.agent.stop()
            for each in nova.neutron("GET", "/agents")["agents"]:
                nova.neutron("DELETE", f"/agents/{each['id']}")
        else:
            self._prepare_host()
        AGENT_CONF.write_text(agent_conf(host, own))
        self.agent = start("neutron-agent", [program, "--config-file", str(AGENT_CONF)],
                           {"PATH": f"{FOLDER}/bin:/usr/sbin:/usr/bin:/sbin:/bin", **openvswitch.PLACES})
        self.agent.wait_until(lambda: any(each["alive"] for each in nova.neutron("GET", "/agents")["agents"]), "the server knows it", 60)

    @staticmethod
    def _prepare_host() -> None:
        subprocess.run(["ip", "link", "add", NOT_A_NETWORK, "type", "bridge"], check=True)
        (FOLDER / "bin").mkdir()
        (FOLDER / "bin/ebtables").write_text(EBTABLES)
        (FOLDER / "bin/ebtables").chmod(0o755)
