"""The services' configuration, as texts.

Everything is at a fixed place of the cloud's own mount namespace (the state directory is mounted over /var/lib/nova) and at the usual
ports of its own network namespace, which has nothing but loopback: so schemas, which contain such places, can be kept between runs.
"""
import pathlib

HOME = pathlib.Path("/var/lib/nova")
CONFIG, LOGS, RUN = HOME / "etc", HOME / "log", HOME / "run"
DATABASE_SOCKET = RUN / "mysql.sock"
KEYSTONE, GLANCE, NOVA, METADATA, PLACEMENT, NETWORK, CINDER, BARBICAN, RABBIT, SERIAL_PROXY = \
    5000, 9292, 8774, 8775, 8778, 9696, 8776, 9311, 5672, 6083
RABBIT_DISTRIBUTION, EPMD = 25672, 4369
PASSWORD = "sec"
DATABASES = ["keystone", "glance", "placement", "nova", "nova_api", "nova_cell0"]
BROKER = f"rabbit://guest:guest@127.0.0.1:{RABBIT}/"


def url(port: int, path: str = "") -> str:
    return f"http://127.0.0.1:{port}{path}"


def database_url(name: str) -> str:
    return f"mysql+pymysql://os:{PASSWORD}@localhost/{name}?unix_socket={DATABASE_SOCKET}&charset=utf8"


# One user is every service's.
CREDENTIALS = f"""auth_type = password
auth_url = {url(KEYSTONE, '/v3')}
username = admin
password = {PASSWORD}
project_name = admin
user_domain_id = default
project_domain_id = default
region_name = RegionOne
"""

TOKENS = f"""[keystone_authtoken]
www_authenticate_uri = {url(KEYSTONE, '/v3')}
{CREDENTIALS}
[oslo_concurrency]
lock_path = {HOME}/lock
"""

KEYSTONE_CONF = f"""[DEFAULT]
log_file = {LOGS}/keystone.log
[database]
connection = {database_url('keystone')}
[token]
provider = fernet
[fernet_tokens]
key_repository = {CONFIG}/keystone/fernet
[credential]
key_repository = {CONFIG}/keystone/credential
[catalog]
driver = templated
template_file = {CONFIG}/keystone/catalog.templates
[cache]
enabled = false
[identity]
password_hash_rounds = 4
"""

PLACEMENT_CONF = f"""[DEFAULT]
log_file = {LOGS}/placement.log
[api]
auth_strategy = keystone
[placement_database]
connection = {database_url('placement')}
{TOKENS}"""

# Without workers glance serves in one process. No client of this cloud asks where an image is.
GLANCE_CONF = f"""[DEFAULT]
log_file = {LOGS}/glance.log
bind_host = 127.0.0.1
bind_port = {GLANCE}
workers = 0
enabled_backends = fs:file
enabled_import_methods = []
[database]
connection = {database_url('glance')}
[glance_store]
default_backend = fs
[fs]
filesystem_store_datadir = {HOME}/glance/images
[os_glance_tasks_store]
filesystem_store_datadir = {HOME}/glance/tasks
[os_glance_staging_store]
filesystem_store_datadir = {HOME}/glance/staging
[paste_deploy]
flavor = keystone
config_file = /etc/glance/glance-api-paste.ini
[image_format]
disk_formats = ami,ari,aki,vhd,vhdx,vmdk,raw,qcow2,vdi,iso,ploop,root-tar
{TOKENS}"""

# For nova-api, nova-conductor, nova-scheduler and every nova-compute; host, my_ip and state_path of the last are in compute_conf.
NOVA_CONF = f"""[DEFAULT]
state_path = {HOME}/nova
my_ip = 127.0.0.1
host = control
transport_url = {BROKER}
enabled_apis = osapi_compute
osapi_compute_listen = 127.0.0.1
osapi_compute_listen_port = {NOVA}
rootwrap_config = /etc/nova/rootwrap.conf
allow_resize_to_same_host = true
report_interval = 5
service_down_time = 60
heal_instance_info_cache_interval = 0
running_deleted_instance_poll_interval = 0
vif_plugging_is_fatal = false
vif_plugging_timeout = 0
[api]
auth_strategy = keystone
metadata_cache_expiration = 0
[wsgi]
api_paste_config = /etc/nova/api-paste.ini
{TOKENS}
[service_user]
send_service_user_token = false
[placement]
{CREDENTIALS}
[glance]
api_servers = {url(GLANCE)}
num_retries = 0
[neutron]
{CREDENTIALS}
endpoint_override = {url(NETWORK)}
service_metadata_proxy = true
metadata_proxy_shared_secret = {PASSWORD}
[cinder]
catalog_info = volumev3:cinderv3:publicURL
[oslo_policy]
enforce_scope = false
[conductor]
workers = 1
[scheduler]
workers = 1
discover_hosts_in_cells_interval = -1
[vnc]
enabled = false
[spice]
enabled = false
[serial_console]
serialproxy_host = 127.0.0.1
serialproxy_port = {SERIAL_PROXY}
base_url = ws://127.0.0.1:{SERIAL_PROXY}/
"""

NOVA_DATABASES_CONF = f"""[api_database]
connection = {database_url('nova_api')}
[database]
connection = {database_url('nova')}
"""

RABBIT_CONF = f"""listeners.tcp.1 = 127.0.0.1:{RABBIT}
loopback_users = none
log.console = false
vm_memory_high_watermark.absolute = 256MB
"""


def compute_conf(name: str, ip: str, state: pathlib.Path) -> str:
    """What one nova-compute has of its own. Helpers of privsep are run directly: this one is root, and there is no sudo."""
    helpers = "".join(f"[{context}]\nhelper_command = privsep-helper --config-file {CONFIG}/nova/nova.conf\n"
                      for context in ("nova_sys_admin", "privsep_osbrick", "vif_plug_linux_bridge_privileged",
                                      "vif_plug_ovs_privileged"))
    return f"[DEFAULT]\nhost = {name}\nmy_ip = {ip}\nstate_path = {state}\nlog_file = {LOGS}/nova-compute-{name}.log\n{helpers}"


def catalog() -> str:
    lines = []
    for kind, name, address in [("compute", "nova", url(NOVA, "/v2.1")), ("placement", "placement", url(PLACEMENT)),
                                ("image", "glance", url(GLANCE)), ("network", "neutron", url(NETWORK)),
                                ("identity", "keystone", url(KEYSTONE, "/v3")),
                                ("key-manager", "barbican", url(BARBICAN)),
                                ("volumev3", "cinderv3", url(CINDER, "/v3/$(project_id)s"))]:
        lines += [f"catalog.RegionOne.{kind}.{interface}URL = {address}" for interface in ("public", "internal", "admin")]
        lines.append(f"catalog.RegionOne.{kind}.name = {name}")
    return "".join(f"{line}\n" for line in lines)


def write_all() -> None:
    for folder in ("etc/keystone", "etc/glance", "etc/placement", "etc/nova", "log", "run", "lock", "rabbit",
                   "glance/images", "nova"):
        (HOME / folder).mkdir(parents=True, exist_ok=True)
    for path, text in [("keystone/keystone.conf", KEYSTONE_CONF), ("keystone/catalog.templates", catalog()),
                       ("placement/placement.conf", PLACEMENT_CONF), ("glance/glance-api.conf", GLANCE_CONF),
                       ("nova/nova.conf", NOVA_CONF), ("nova/nova-db.conf", NOVA_DATABASES_CONF),
                       ("rabbitmq.conf", RABBIT_CONF), ("rabbitmq-plugins", "[].\n")]:
        (CONFIG / path).write_text(text)
