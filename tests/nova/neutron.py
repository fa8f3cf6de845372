"""A real neutron in place of network_stub.py: the server with ML2, and the agent of one host.

Bridges, links and rules are those of the cloud's network namespace, which all of its hosts are in; so there can be one agent only.
Networks are of the kind `local`: a bridge that has no way out of the machine.
"""
import subprocess

import settings
from processes import Program
from rest import Session
from settings import CONFIG, HOME, LOGS

FOLDER = CONFIG / "neutron"
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
mechanism_drivers = linuxbridge
extension_drivers = port_security
[securitygroup]
enable_security_group = true
enable_ipset = true
{settings.TOKENS}"""


def agent_conf(host: str) -> str:
    """It is root already: whatever it runs as root it runs by env(1)."""
    return f"""[DEFAULT]
host = {host}
transport_url = {settings.BROKER}
state_path = {HOME}/neutron
log_file = {LOGS}/neutron-agent-{host}.log
[agent]
root_helper = env
polling_interval = 1
quitting_rpc_timeout = 1
[privsep]
helper_command = privsep-helper --config-file {FOLDER}/agent-{host}.conf
[experimental]
linuxbridge = true
[vxlan]
enable_vxlan = false
[securitygroup]
firewall_driver = iptables
enable_security_group = true
enable_ipset = true
[oslo_concurrency]
lock_path = {HOME}/lock
"""


class Neutron:
    """To be given to Cloud. What it has is used when that comes up."""

    PROGRAMS = ["neutron-server", "neutron-linuxbridge-agent", "neutron-db-manage", "ebtables", "iptables", "ipset", "conntrack"]
    PACKAGES = ["neutron-common"]
    DATABASES = ["neutron"]

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

    @staticmethod
    def start_agent(start, host: str, nova: Session) -> Program:
        """Until the server knows it, it binds no port to the host."""
        subprocess.run(["ip", "link", "add", NOT_A_NETWORK, "type", "bridge"], check=True)
        conf = FOLDER / f"agent-{host}.conf"
        conf.write_text(agent_conf(host))
        agent = start(f"neutron-agent-{host}", ["neutron-linuxbridge-agent", "--config-file", str(conf)])
        agent.wait_until(lambda: any(each["alive"] for each in nova.neutron("GET", "/agents")["agents"]), "the server knows it", 60)
        return agent
